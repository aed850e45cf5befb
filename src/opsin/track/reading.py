"""Tracks and detections of a file, a folder or a zip, as sequences by their names, in whatever layout of folders."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from opsin.errors import InputError
from opsin.track import kitti_tracking, mot_challenge, result_files
from opsin.track.places import Place, decode, open_place, read_file, stem_of
from opsin.track.track_files import EXPECTED, Asked, read_file_of, recognize
from opsin.track.tracks import Tracks

SUFFIXES = (".txt", ".csv", ".json", ".xml", ".idl")  # of files with tracks; of equal names the first is read
_BESIDE = re.compile(r"(licen[cs]e|readme|copying|seqmap|classes|notes)", re.IGNORECASE)  # files of no tracks
_AS_IT_IS = Asked()
_MOT_FILES = {True: "gt/gt.txt", False: "det/det.txt"}  # truth, and what is tracked
_KITTI_FOLDER, _KITTI_LENGTHS = "label_02", "evaluate_tracking.seqmap"


def read_sequences(path: str | Path, asked: Asked = _AS_IT_IS) -> dict[str, Tracks]:
    """The sequences of a file, a folder or a zip, by their names, in ascending order of these.

    Raises InputError for what is in no known format, and for whatever is wrong in a file, with its line.
    """
    where = Path(path).expanduser()
    if not where.exists():
        raise InputError(f"no file or folder at {path}")
    place = open_place(where)
    if place is not None:
        found = _read_place(place, asked)
        if not found:
            raise InputError(f"{path} holds no tracks; expected {EXPECTED}")
        return dict(sorted(found.items()))
    if _is_seqmap(where):
        return _read_listed(where, asked)
    return read_file_of(read_file(where), where.name, str(where), asked, _facts_beside(where))


def _read_place(place: Place, asked: Asked) -> dict[str, Tracks]:
    files = place.files
    if result_files.FILE in files:  # beside text files with the same tracks
        return result_files.read_results(place.read(result_files.FILE), place.shown(result_files.FILE))
    folders = sorted({_sequence_folder(name) for name in files} - {None}, key=str)
    if folders:
        found = [_read_mot_folder(place.inside(str(folder)), asked) for folder in folders]
        if not any(found):
            lacking, there = ("truth", "detections") if asked.truth else ("detections", "truth")
            raise InputError(f"{place.root} has {there} of MOTChallenge and no {lacking}, {_MOT_FILES[asked.truth]}")
        return _joined([one for one in found if one is not None], place)
    kitti = {_above(name, _KITTI_FOLDER) for name in files} - {None}
    if len(kitti) == 1:
        place = place.inside(f"{next(iter(kitti))}/{_KITTI_FOLDER}".lstrip("/"))
        files = place.files
    lengths = _kitti_lengths(place)
    by_class = _class_folders(place)
    if by_class:
        return by_class_sequences(place, by_class, asked)
    found = []
    for name in _preferred(files):
        stem = stem_of(name)
        facts = {"num_frames": lengths[stem]} if stem in lengths else {}
        read = read_file_of(place.read(name), name, place.shown(name), asked, facts)
        found += list(read.items())
    return _joined(found, place)


def recognize_place(place: Place) -> str | None:
    """The format of the tracks that a folder or a zip holds, by its shape or its first file; None of none.

    A key of `opsin.track.track_files.READERS`.
    """
    files = place.files
    if result_files.FILE in files:
        return "opsin"
    if any(_sequence_folder(name) is not None for name in files):
        return "mot"
    if any(_above(name, _KITTI_FOLDER) is not None for name in files):
        return "kitti"
    first = next(iter(_preferred(files)), None)
    kind = None if first is None else recognize(place.read(first), first)
    return None if kind == "empty" else kind


def _joined(found: list[tuple[str, Tracks]], place: Place) -> dict[str, Tracks]:
    joined: dict[str, Tracks] = {}
    for name, tracks in found:
        if name in joined:
            raise InputError(f"{place.root} holds two files of the sequence {name}; keep one")
        joined[name] = tracks
    return joined


def _preferred(files: list[str]) -> list[str]:
    """The files that may hold tracks; of those that differ in their endings alone one."""
    kept: dict[str, str] = {}
    for name in files:
        path = PurePosixPath(name)
        if path.suffix.lower() not in SUFFIXES or _BESIDE.search(name):
            continue
        key = str(path.with_suffix(""))
        rank = SUFFIXES.index(path.suffix.lower())
        other = kept.get(key)
        if other is None or rank < SUFFIXES.index(PurePosixPath(other).suffix.lower()):
            kept[key] = name
    return sorted(kept.values())


def _sequence_folder(name: str) -> str | None:
    """The folder of a MOTChallenge sequence that a file belongs to; None of any other file."""
    path = PurePosixPath(name)
    if (path.parent.name, path.name) in (("gt", "gt.txt"), ("det", "det.txt")):
        return "" if str(path.parent.parent) == "." else str(path.parent.parent)
    return None


def _above(name: str, folder: str) -> str | None:
    """The path of what holds a folder, of a file that lies in that folder; None of another file."""
    parts = PurePosixPath(name).parts[:-1]
    return "/".join(parts[: parts.index(folder)]) if folder in parts else None


def _read_mot_folder(place: Place, asked: Asked) -> tuple[str, Tracks] | None:
    """A sequence in its folder: its truth, or its detections; None where it has not what is asked for."""
    files = set(place.files)
    name = _MOT_FILES[asked.truth]
    if name not in files:
        return None
    facts: dict[str, Any] = {"name": place.name}
    if "seqinfo.ini" in files:
        facts |= mot_challenge.read_seqinfo(place.read("seqinfo.ini"), place.shown("seqinfo.ini"))
    facts["open_ended"] = "num_frames" not in facts
    where = place.shown(name)
    tracks = mot_challenge.read_mot(place.read(name), where, truth=asked.truth, first=asked.first, **facts)
    return place.name, tracks


def _facts_beside(file: Path) -> dict[str, Any]:
    """What is known of the sequence of one file: by the seqinfo.ini of its folder, or by KITTI's seqmap."""
    if file.parent.name in ("gt", "det") and (info := file.parent.parent / "seqinfo.ini").is_file():
        return {"name": file.parent.parent.resolve().name, **mot_challenge.read_seqinfo(read_file(info), str(info))}
    if file.parent.name in ("gt", "det"):
        return {"name": file.parent.parent.resolve().name}
    lengths = _kitti_lengths(Place(file.parent))
    return {"num_frames": lengths[file.stem]} if file.stem in lengths else {}


def _kitti_lengths(place: Place) -> dict[str, int]:
    """The frames of each sequence by the seqmap in a folder, or in one above it; {} where there is none."""
    if place.root.is_dir():
        folder = place.root / place.within
        around = [folder, folder.parent, folder.parent.parent]
        maps = [file for one in around for file in sorted(one.glob(f"{_KITTI_LENGTHS}*"))]
        return kitti_tracking.read_lengths(read_file(maps[0]), str(maps[0])) if maps else {}
    whole = Place(place.root)
    maps = [name for name in whole.files if PurePosixPath(name).name.startswith(_KITTI_LENGTHS)]
    return kitti_tracking.read_lengths(whole.read(maps[0]), whole.shown(maps[0])) if maps else {}


def _class_folders(place: Place) -> dict[str, list[str]]:
    """Detections in a folder for each class, as Car/0000.txt: the files of each class; {} where it is not so."""
    found: dict[str, list[str]] = {}
    names = {one.lower(): one for one in kitti_tracking.CLASSES}
    for name in place.files:
        path = PurePosixPath(name)
        if path.suffix == ".txt" and path.parent.name.lower() in names:
            found.setdefault(names[path.parent.name.lower()], []).append(name)
    return found


def by_class_sequences(place: Place, files: Mapping[str, list[str]], asked: Asked) -> dict[str, Tracks]:
    """Detections whose classes are folders, as one sequence each."""
    parts: dict[str, list[Tracks]] = {}
    lengths = _kitti_lengths(place)
    for label, names in files.items():
        for name in names:
            where, stem = place.shown(name), stem_of(name)
            read = kitti_tracking.read_detections(place.read(name), where, label, first=asked.first)
            parts.setdefault(stem, []).append(read)
    return {stem: _merged(found, tuple(files), stem, lengths.get(stem)) for stem, found in sorted(parts.items())}


def _merged(parts: list[Tracks], classes: tuple[str, ...], name: str, length: int | None) -> Tracks:
    """Tracks of a class each as one."""
    columns = {
        key: np.concatenate([getattr(one, key) for one in parts]) for key in ("frames", "boxes", "ids", "scores")
    }
    labels = np.concatenate([np.full(len(one), classes.index(one.classes[0])) for one in parts])
    facts: dict[str, Any] = {} if length is None else {"num_frames": length}
    return Tracks.build(**columns, labels=labels, classes=classes, name=name, open_ended=length is None, **facts)


def _is_seqmap(path: Path) -> bool:
    if path.suffix.lower() != ".txt" or path.stat().st_size > 1 << 20:
        return False
    lines = decode(read_file(path), str(path)).split()
    return bool(lines) and (lines[0] == "name" or path.parent.name == "seqmaps") and "," not in lines[-1]


def _read_listed(path: Path, asked: Asked) -> dict[str, Tracks]:
    """The sequences that a seqmap lists: in the folder of its own name beside the seqmaps, or beside it."""
    names = mot_challenge.read_seqmap(read_file(path), str(path))
    around = [path.parent.parent / path.stem, path.parent, path.parent.parent]
    found: dict[str, Tracks] = {}
    for name in names:
        folder = next((one / name for one in around if (one / name).is_dir()), None)
        if folder is None or (read := _read_mot_folder(Place(folder), asked)) is None:
            raise InputError(f"{path} lists {name}, which has no {'truth' if asked.truth else 'detections'} beside it")
        found[name] = read[1]
    return found
