"""MOTChallenge's text files, arXiv:1504.01942 and 1603.00831: truth, detections, results, seqinfo.ini, seqmaps.

A line is `frame, id, left, top, width, height, confidence, ...`: frames and pixels are counted from 1, so that the box
(left - 1, top - 1, left - 1 + width, top - 1 + height) is ours. Truth of MOT16 and later goes on with the class and the
visible share, nine columns in all, and confidence 0 says that a line is not evaluated; that of 2015, detections and
results go on with three that are -1 or a place in the world. The id of a detection is -1.
"""

from __future__ import annotations

import configparser
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from opsin.data.formats.values import shown
from opsin.errors import InputError
from opsin.track.places import decode
from opsin.track.text_tables import check_rows, from_zero, read_table, whole
from opsin.track.tracks import NOBODY, Tracks

CLASSES = (
    "pedestrian",
    "person_on_vehicle",
    "car",
    "bicycle",
    "motorbike",
    "non_mot_vehicle",
    "static_person",
    "distractor",
    "occluder",
    "occluder_on_ground",
    "occluder_full",
    "reflection",
    "crowd",
)  # numbered from 1 in the files
FIRST = 1  # frame
_TRUTH_COLUMNS = 9


def read_mot(content: bytes, where: str, *, truth: bool = False, first: int | None = None, **facts: Any) -> Tracks:
    """The tracks of a file, or detections where every id is -1.

    truth: it is ground truth, so that confidence 0 means ignored, and nine columns end with class and visibility.
    first: the number of the first frame, 1 if None. facts: what `read_seqinfo` knows of the sequence, and other fields
    of `Tracks`. Raises InputError with the line of what is wrong.
    """
    table, lines = read_table(content, where, ",", 6)
    rows = len(table)
    frames = from_zero(whole(table[:, 0], lines, where, "frame"), FIRST if first is None else first, lines, where)
    ids = whole(table[:, 1], lines, where, "identity")
    if (ids < NOBODY).any():
        row = int(np.flatnonzero(ids < NOBODY)[0])
        raise InputError(f"{where}, line {lines[row]}: the identity is {ids[row]}; expected one from 0, or -1 for none")
    boxes = table[:, 2:6].copy()
    boxes[:, :2] -= 1
    boxes[:, 2:] += boxes[:, :2]
    scores = table[:, 6] if table.shape[1] > 6 else np.ones(rows)
    with_class = truth and table.shape[1] == _TRUTH_COLUMNS
    labels, classes = np.zeros(rows, np.int64), ("pedestrian",) if truth else ("object",)
    if with_class:
        labels, classes = whole(table[:, 7], lines, where, "class") - 1, CLASSES
        if (wrong := (labels < 0) | (labels >= len(CLASSES))).any():
            row = int(np.flatnonzero(wrong)[0])
            raise InputError(f"{where}, line {lines[row]}: class {labels[row] + 1}; MOTChallenge has 1 to 13")
    check_rows(frames, ids, labels, boxes, scores, lines, where)
    facts.setdefault("num_frames", int(frames.max(initial=-1)) + 1)
    if len(frames) and frames.max() >= facts["num_frames"]:
        row = int(np.argmax(frames))
        raise InputError(
            f"{where}, line {lines[row]}: frame {frames[row] + (FIRST if first is None else first)}, and the sequence "
            f"has {facts['num_frames']:,} frames"
        )
    visibility = table[:, 8] if with_class else None
    ignored = scores == 0 if truth else None
    return Tracks.build(
        frames, boxes, ids, None if truth else scores, labels, ignored, classes=classes, visibility=visibility, **facts
    )


def write_mot(tracks: Tracks) -> str:
    """The text of a file of results, or of truth where the classes are MOTChallenge's. Regions are left out."""
    numbers = [CLASSES.index(name) + 1 if name in CLASSES else -1 for name in tracks.classes]
    with_class = tracks.classes == CLASSES
    seen = tracks.visibility if tracks.visibility is not None else np.ones(len(tracks))
    lines = []
    for row in np.flatnonzero(tracks.labels >= 0).tolist():
        left, top, right, bottom = tracks.boxes[row].tolist()
        score = tracks.scores[row].item() if not with_class else float(not tracks.ignored[row])
        end = f"{numbers[tracks.labels[row]]},{seen[row]:g}" if with_class else "-1,-1,-1"
        sides = ",".join(_number(value) for value in (left + 1, top + 1, right - left, bottom - top, score))
        lines.append(f"{tracks.frames[row] + FIRST},{tracks.ids[row]},{sides},{end}\n")
    return "".join(lines)


def _number(value: float) -> str:
    return repr(int(value)) if math.isfinite(value) and value == int(value) else repr(round(value, 6))


def read_seqinfo(content: bytes, where: str) -> dict[str, Any]:
    """What a seqinfo.ini says of a sequence: name, num_frames, fps and size, of those that it has."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(decode(content, where))
    except configparser.Error as error:
        raise InputError(f"{where} is no seqinfo.ini: {' '.join(str(error).split())}") from None
    section: Mapping[str, str] = parser["Sequence"] if parser.has_section("Sequence") else {}
    found: dict[str, Any] = {"name": section["name"].strip()} if section.get("name", "").strip() else {}
    if (length := _positive(section, "seqLength", where)) is not None:
        found["num_frames"] = int(length)
    if (rate := _positive(section, "frameRate", where)) is not None:
        found["fps"] = rate
    sides = [_positive(section, key, where) for key in ("imWidth", "imHeight")]
    if sides[0] is not None and sides[1] is not None:
        found["size"] = int(sides[0]), int(sides[1])
    return found


def _positive(section: Mapping[str, str], key: str, where: str) -> float | None:
    if key not in section:
        return None
    try:
        value = float(section[key])
    except ValueError:
        value = math.nan
    if not 0 < value < 1e9:
        raise InputError(f"{where}: {key} is {shown(section[key])}; expected a number above 0")
    return value


def write_seqinfo(tracks: Tracks) -> str:
    """The text of a seqinfo.ini."""
    lines = [f"name={tracks.name}", f"seqLength={tracks.num_frames}"]
    lines += [] if tracks.fps is None else [f"frameRate={tracks.fps:g}"]
    lines += [] if tracks.size is None else [f"imWidth={tracks.size[0]}", f"imHeight={tracks.size[1]}"]
    return "\n".join(["[Sequence]", *lines, ""])


def read_seqmap(content: bytes, where: str) -> list[str]:
    """The names of the sequences that a seqmap lists, one a line after the word `name`."""
    lines = [line.strip() for line in decode(content, where).splitlines()]
    names = [line for line in lines if line and line.lower() != "name"]
    if not names:
        raise InputError(f"{where} lists no sequence; expected their names, one a line")
    return names
