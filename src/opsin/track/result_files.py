"""What tracking writes into its folder, and reads from there again.

    DIR/NAME.txt       the tracks of a sequence, as MOTChallenge has results: what other tools take
    DIR/tracks.json    the same of all sequences with their classes, and how they were made: what `eval` and Python take
    DIR/NAME.mp4       the frames with tracks drawn on them, where there are images
    DIR/report.html    see `opsin.track.report`

Frames in `tracks.json` are counted from 0 and boxes are xyxy, as everywhere in Python; in NAME.txt as MOTChallenge has
them, from 1, with left, top, width and height.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from opsin.engine.answers import safe_name
from opsin.errors import InputError
from opsin.files import atomic, load_json
from opsin.track.mot_challenge import write_mot
from opsin.track.tracks import NO_CLASS, Tracks

FILE = "tracks.json"
FORM = "opsin tracks"  # under "format" of the file, which begins with it
BEGINNING = '{"format": "opsin tracks"'
VERSION = 1
_DIGITS = 4  # of coordinates, in pixels
_MOST_FRAMES = 10_000_000


def tracks_to_dict(tracks: Tracks) -> dict[str, Any]:
    """A sequence for JSON: its facts, and for each track its id, class, frames, boxes and scores."""
    found = []
    boxes, scores = np.round(tracks.boxes, _DIGITS), np.round(tracks.scores, 4)
    order = np.lexsort((tracks.frames, tracks.labels, tracks.ids))
    keys = np.stack([tracks.ids[order], tracks.labels[order]])
    starts = np.flatnonzero(np.r_[len(order) > 0, (keys[:, 1:] != keys[:, :-1]).any(axis=0)])
    for rows in np.split(order, starts[1:]) if len(order) else []:
        label = int(tracks.labels[rows[0]])
        found.append(
            {
                "id": int(tracks.ids[rows[0]]),
                "class": tracks.classes[label] if label != NO_CLASS else None,
                "frames": tracks.frames[rows].tolist(),
                "boxes": boxes[rows].tolist(),
                "scores": scores[rows].tolist(),
            }
        )
    return {
        "name": tracks.name,
        "num_frames": tracks.num_frames,
        "open_ended": tracks.open_ended,
        "fps": tracks.fps,
        "size": None if tracks.size is None else list(tracks.size),
        "classes": list(tracks.classes),
        "uses_future": tracks.batch,
        "tracks": found,
    }


def tracks_of_dict(values: Mapping[str, Any]) -> Tracks:
    """The tracks that `tracks_to_dict` made a dict of. Raises KeyError, TypeError or ValueError for what is none."""
    classes = tuple(str(name) for name in values["classes"])
    each = list(values["tracks"])
    counts = [len(one["frames"]) for one in each]
    if any(len(one["boxes"]) != count or len(one["scores"]) != count for one, count in zip(each, counts, strict=True)):
        raise ValueError("a track has as many frames as boxes and scores")
    labels = [NO_CLASS if one["class"] is None else classes.index(one["class"]) for one in each]
    num_frames = int(values["num_frames"])
    frames = np.array([frame for one in each for frame in one["frames"]], np.int64)
    boxes = np.array([box for one in each for box in one["boxes"]], np.float64).reshape(len(frames), 4)
    scores = np.array([score for one in each for score in one["scores"]], np.float64)
    if not 0 <= num_frames <= _MOST_FRAMES or not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise ValueError("numbers have to be finite, and frames at most ten million")
    size = values["size"]
    return Tracks.build(
        frames,
        boxes,
        np.repeat(np.array([int(one["id"]) for one in each], np.int64), counts),
        scores,
        np.repeat(np.array(labels, np.int64), counts),
        num_frames=num_frames,
        classes=classes,
        fps=None if values["fps"] is None else float(values["fps"]),
        size=None if size is None else (int(size[0]), int(size[1])),
        name=str(values["name"]),
        batch=bool(values["uses_future"]),
        open_ended=bool(values["open_ended"]),
    )


def read_results(content: bytes, where: str) -> dict[str, Tracks]:
    """The sequences of a `tracks.json`, by their names. Raises InputError for a damaged one."""
    try:
        sequences = [tracks_of_dict(one) for one in load_json(content)["sequences"]]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        said = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{where} is damaged: {said}; track again") from None
    return {one.name: one for one in sequences}


def read_facts(folder: Path) -> dict[str, Any]:
    """How the tracks in a folder were made; {} where it has no `tracks.json`. Raises InputError for a damaged one."""
    file = folder / FILE
    if not file.is_file():
        return {}
    try:
        values = load_json(file.read_bytes())
        return {key: value for key, value in values.items() if key != "sequences"}
    except (ValueError, AttributeError) as error:
        raise InputError(f"{file} is damaged: {error}; track again") from None


def text_file(folder: Path, name: str) -> Path:
    """The text file of a sequence."""
    return folder / f"{safe_name(name)}.txt"


def write_results(folder: Path, facts: Mapping[str, Any], sequences: Mapping[str, Tracks]) -> None:
    """Write `tracks.json`, and a text file for each sequence.

    facts: how they were made, plain values. Raises JobError where the folder cannot be written.
    """
    for name, tracks in sequences.items():
        with atomic(text_file(folder, name)) as temporary:
            temporary.write_text(write_mot(tracks), encoding="utf-8")
    each = [tracks_to_dict(tracks) for tracks in sequences.values()]
    with atomic(folder / FILE) as temporary:
        text = json.dumps({"format": FORM, "version": VERSION, **facts, "sequences": each}, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")
