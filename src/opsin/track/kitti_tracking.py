"""KITTI's tracking files, Geiger et al. 2012: labels and results, the seqmap of lengths, and RRC's detections.

A line is `frame id type truncated occluded alpha left top right bottom height width length x y z rotation [score]`,
parted by blanks; frames and pixels are counted from 0, and a box reaches from left to right as ours does. Lines of
DontCare, of id -1, are regions in which nothing is evaluated. An object that is truncated at all, or of which the
occlusion is "unknown" (3), is marked as ignored. Detections are `frame, left, top, right, bottom, score`, a file for
each class and sequence.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from opsin.errors import InputError
from opsin.track.places import decode
from opsin.track.text_tables import check_rows, from_zero, read_table, whole
from opsin.track.tracks import NO_CLASS, NOBODY, Tracks

CLASSES = ("Car", "Van", "Truck", "Pedestrian", "Person", "Cyclist", "Tram", "Misc")
FIRST = 0  # frame
_REGION = "dontcare"
_COLUMNS = 17  # of a label; a result may have a score as one more
_MAX_OCCLUSION, _MAX_TRUNCATION = 2, 0  # beyond which an object is not evaluated


def read_kitti(content: bytes, where: str, *, truth: bool = False, first: int | None = None, **facts: Any) -> Tracks:
    """The tracks of a file of labels or results.

    truth: it is ground truth, so that objects are ignored which are truncated or occluded beyond what is evaluated.
    first: the number of the first frame, 0 if None. facts: fields of `Tracks`. The columns "truncation" and
    "occlusion" are kept in `others`. Raises InputError with the line of what is wrong.
    """
    names, numbers = [], []
    for line in decode(content, where).splitlines():
        parts = line.split()
        names.append(parts[2] if len(parts) > 2 else "")
        numbers.append(" ".join([*parts[:2], "0" if parts else "", *parts[3:]]))
    table, lines = read_table("\n".join(numbers).encode(), where, None, 10)
    names = [names[line - 1] for line in lines.tolist()]
    classes, labels = _labels(names)
    frames = from_zero(whole(table[:, 0], lines, where, "frame"), FIRST if first is None else first, lines, where)
    ids = np.maximum(whole(table[:, 1], lines, where, "identity"), NOBODY)
    boxes = table[:, 6:10]
    scores = table[:, _COLUMNS] if table.shape[1] > _COLUMNS else np.ones(len(table))
    check_rows(frames, ids, labels, boxes, scores, lines, where)
    hard = (table[:, 3].astype(np.int64) > _MAX_TRUNCATION) | (table[:, 4].astype(np.int64) > _MAX_OCCLUSION)
    region = labels == NO_CLASS
    facts.setdefault("num_frames", int(frames.max(initial=-1)) + 1)
    if len(frames) and frames.max() >= facts["num_frames"]:
        row = int(np.argmax(frames))
        raise InputError(
            f"{where}, line {lines[row]}: frame {frames[row] + (FIRST if first is None else first)}, and the sequence "
            f"has {facts['num_frames']:,} frames"
        )
    return Tracks.build(
        frames, boxes, np.where(region, NOBODY, ids), scores, labels, region | (hard & truth), classes=classes,
        others={"truncation": table[:, 3], "occlusion": table[:, 4]}, **facts
    )  # fmt: skip


def _labels(names: list[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """KITTI's classes and what else there is, and the place of each name among them; -1 of DontCare."""
    known = {name.lower(): name for name in CLASSES}
    for name in names:
        if name.lower() != _REGION:
            known.setdefault(name.lower(), name)
    places = {name: place for place, name in enumerate(known)} | {_REGION: NO_CLASS}
    return tuple(known.values()), np.array([places[name.lower()] for name in names], np.int64)


def write_kitti(tracks: Tracks) -> str:
    """The text of a file: of labels, or of results where there are scores; what only KITTI has is as it was read."""
    scored = not np.all(tracks.scores == 1)
    truncation, occlusion = (tracks.others.get(key, np.full(len(tracks), -1.0)) for key in ("truncation", "occlusion"))
    lines = []
    for row in range(len(tracks)):
        label = int(tracks.labels[row])
        name = "DontCare" if label == NO_CLASS else tracks.classes[label].replace(" ", "_")
        box = " ".join(f"{value:.6f}" for value in tracks.boxes[row].tolist())
        score = f" {tracks.scores[row]:.6f}" if scored else ""
        seen = f"{truncation[row]:g} {occlusion[row]:g}"
        lines.append(
            f"{tracks.frames[row]} {tracks.ids[row]} {name} {seen} -10 {box} -1 -1 -1 -1000 -1000 -1000 -10{score}\n"
        )
    return "".join(lines)


def read_detections(content: bytes, where: str, name: str, *, first: int | None = None, **facts: Any) -> Tracks:
    """RRC's detections of one class and sequence. name: of the class."""
    table, lines = read_table(content, where, ",", 6)
    frames = from_zero(whole(table[:, 0], lines, where, "frame"), FIRST if first is None else first, lines, where)
    ids, boxes, scores = np.full(len(table), NOBODY), table[:, 1:5], table[:, 5]
    check_rows(frames, ids, ids, boxes, scores, lines, where)
    return Tracks.build(frames, boxes, ids, scores, classes=(name,), **facts)


def read_lengths(content: bytes, where: str) -> dict[str, int]:
    """The frames of each sequence that a seqmap lists: `0000 empty 000000 000154` is 0000, of 154 frames."""
    found = {}
    for number, line in enumerate(decode(content, where).splitlines(), 1):
        parts = line.split()
        if not parts:
            continue
        value = float(parts[3]) if len(parts) > 3 and parts[3].isascii() and parts[3].isdigit() else math.nan
        if not 0 < value < 1e9:
            raise InputError(f"{where}, line {number}: expected `0000 empty 000000 000154`, name and number of frames")
        found[parts[0]] = int(value)
    return found
