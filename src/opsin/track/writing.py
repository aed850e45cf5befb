"""Tracks written in the formats that are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from opsin.engine.answers import safe_name
from opsin.errors import unknown
from opsin.files import atomic
from opsin.track.coco_video import write_coco
from opsin.track.csv_tracks import write_csv
from opsin.track.cvat_video import write_cvat
from opsin.track.cvml import write_cvml
from opsin.track.detrac import write_detrac
from opsin.track.idl import write_idl
from opsin.track.kitti_tracking import write_kitti
from opsin.track.mot_challenge import CLASSES, write_mot, write_seqinfo
from opsin.track.moving_scenes import MovingScene
from opsin.track.tracks import NO_CLASS, Tracks

_EACH: Mapping[str, tuple[str, Callable[[Tracks], str]]] = {  # ending, text of one sequence
    "kitti": ("label_02/{name}.txt", write_kitti),
    "detrac": ("{name}.xml", write_detrac),
    "cvml": ("{name}.xml", write_cvml),
    "cvat": ("{name}.xml", write_cvat),
    "idl": ("{name}.idl", write_idl),
}
_ALL: Mapping[str, tuple[str, Callable[[Mapping[str, Tracks]], str]]] = {  # file, text of all sequences
    "coco": ("tracks.coco.json", write_coco),
    "csv": ("tracks.csv", write_csv),
}
WRITERS = ("mot", *_EACH, *_ALL)
_REGIONS = ("kitti", "detrac")  # which keep regions that are not evaluated
_CLASSLESS = ("cvml", "idl")


def write_sequences(folder: Path, sequences: Mapping[str, Tracks], form: str) -> list[str]:
    """Write sequences into a folder in one of `WRITERS`. Returns what was not kept, in words.

    MOTChallenge's is a folder for each sequence, with gt/gt.txt and seqinfo.ini, or det/det.txt of detections. Raises
    InputError for another format, and JobError where the folder cannot be written.
    """
    if form not in WRITERS:
        raise unknown("format of tracks", form, WRITERS)
    if form in _ALL:
        name, write_all = _ALL[form]
        _write(folder / name, write_all(sequences))
    for name, tracks in sequences.items():
        safe = safe_name(name)
        if form == "mot":
            _write_mot(folder / safe, tracks)
        elif form in _EACH:
            pattern, write = _EACH[form]
            _write(folder / pattern.format(name=safe), write(tracks))
    if form == "kitti":
        _write(folder / "evaluate_tracking.seqmap.training", _lengths(sequences))
    return _lost(list(sequences.values()), form)


def write_detections(folder: Path, detections: Tracks) -> None:
    """Write det/det.txt of a sequence into its folder."""
    _write(folder / "det" / "det.txt", write_mot(detections))


def write_images(folder: Path, scene: MovingScene) -> None:
    """Write the frames of a built-in sequence as 000001.png and so on. Raises JobError where that cannot be."""
    folder.mkdir(parents=True, exist_ok=True)
    for frame in range(scene.num_frames):
        image = Image.fromarray(scene.frame(frame).permute(1, 2, 0).numpy())
        with atomic(folder / f"{frame + 1:06d}.png", flush=False) as temporary:
            image.save(temporary, format="PNG")


def _write_mot(folder: Path, tracks: Tracks) -> None:
    numbered = {name: label for label, name in enumerate(CLASSES)}
    truth = tracks.has_ids
    if truth and all(name in numbered for name in tracks.classes) and tracks.classes != ("pedestrian",):
        labels = np.array([*(numbered[name] for name in tracks.classes), NO_CLASS])[tracks.labels]
        tracks = replace(tracks, labels=labels, classes=CLASSES)
    _write(folder / ("gt/gt.txt" if truth else "det/det.txt"), write_mot(tracks))
    _write(folder / "seqinfo.ini", write_seqinfo(tracks))


def _lengths(sequences: Mapping[str, Tracks]) -> str:
    return "".join(f"{safe_name(name)} empty 000000 {one.num_frames:06d}\n" for name, one in sequences.items())


def _lost(sequences: list[Tracks], form: str) -> list[str]:
    """What a format does not keep of some tracks."""
    notes = []
    regions = sum(int((one.labels == NO_CLASS).sum()) for one in sequences)
    if regions and form not in _REGIONS:
        notes.append(f"{regions:,} boxes of regions that are not evaluated are left out")
    several = form in _CLASSLESS or (form == "mot" and any(set(one.classes) - {*CLASSES} for one in sequences))
    if several and any(len(one.classes) > 1 for one in sequences):
        notes.append("the classes are left out")
    return notes


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic(file, flush=False) as temporary:
        temporary.write_text(text, encoding="utf-8")
