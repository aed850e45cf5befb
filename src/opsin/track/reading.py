"""Tracks and detections of files: which format a path is of, by what is in it, and the sequences that it holds."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from opsin.errors import InputError, say
from opsin.track import kitti_tracking, mot_challenge, result_files
from opsin.track.places import Place, decode, open_place, read_file, stem_of
from opsin.track.tracks import Tracks

SUFFIXES = (".txt", ".csv", ".json", ".xml", ".idl")  # of files with tracks; of equal names the first is read
EXPECTED = (
    "MOTChallenge txt, KITTI tracking txt, UA-DETRAC xml, PETS2009 CVML xml, CVAT video xml, TUD idl, COCO-video json "
    "or csv"
)
_BESIDE = re.compile(r"(licen[cs]e|readme|copying|seqmap|classes|notes)", re.IGNORECASE)  # files of no tracks
_HEAD = 65_536  # characters in which a format is seen
_KITTI_FOLDER, _KITTI_LENGTHS = "label_02", "evaluate_tracking.seqmap"


@dataclass(frozen=True)
class Asked:
    """How files are to be read.

    truth: as ground truth. first: the number of the first frame; None as the format has it. images: sequence and frame
    of images by their ids: of truth, to be filled where its file has them; of results, to be looked up.
    """

    truth: bool = False
    first: int | None = None
    images: dict[int | str, tuple[str, int]] | None = None


def read_sequences(path: str | Path, asked: Asked = Asked()) -> dict[str, Tracks]:
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
    return _read_file(read_file(where), where.name, str(where), asked, _facts_beside(where))


def _read_place(place: Place, asked: Asked) -> dict[str, Tracks]:
    files = place.files
    if result_files.FILE in files:  # beside text files with the same tracks
        return result_files.read_results(place.read(result_files.FILE), place.shown(result_files.FILE))
    folders = sorted({_sequence_folder(name) for name in files} - {None}, key=str)
    if folders:
        found = [_read_mot_folder(place.inside(str(folder)), asked) for folder in folders]
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
    for name in _preferred(files, place):
        stem = stem_of(name)
        facts = {"num_frames": lengths[stem]} if stem in lengths else {}
        read = _read_file(place.read(name), name, place.shown(name), asked, facts)
        found += list(read.items())
    return _joined(found, place)


def recognize_place(place: Place) -> bool:
    """Whether a folder or a zip holds tracks, by the shape of its folders or by the first of its files."""
    files = place.files
    if result_files.FILE in files:
        return True
    if any(_sequence_folder(name) is not None or _above(name, _KITTI_FOLDER) is not None for name in files):
        return True
    first = next(iter(_preferred(files, place)), None)
    return first is not None and recognize(place.read(first), first) not in (None, "empty", "rrc")


def _joined(found: list[tuple[str, Tracks]], place: Place) -> dict[str, Tracks]:
    joined: dict[str, Tracks] = {}
    for name, tracks in found:
        if name in joined:
            raise InputError(f"{place.root} holds two files of the sequence {name}; keep one")
        joined[name] = tracks
    return joined


def _preferred(files: list[str], place: Place) -> list[str]:
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
    name = "gt/gt.txt" if asked.truth else "det/det.txt"
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


Reader = Callable[[bytes, str, Asked, dict[str, Any]], dict[str, Tracks]]


def _read_file(content: bytes, name: str, where: str, asked: Asked, facts: dict[str, Any]) -> dict[str, Tracks]:
    """The sequences of one file. facts: what is known beside it, of its only sequence."""
    kind = recognize(content, name)
    if kind is None:
        raise InputError(f"{where} is in no known format of tracks; expected {EXPECTED}")
    if kind == "empty":
        say(f"{where} is empty: nothing was found in its sequence")
    return READERS[kind](content, where, asked, facts)


def recognize(content: bytes, name: str) -> str | None:
    """The format of a file by its first lines, as a key of `READERS`; "empty" of an empty text, None of none."""
    suffix = PurePosixPath(name).suffix.lower()
    head = content[:_HEAD].decode("utf-8-sig", "replace").lstrip()
    if suffix in (".txt", ".csv") and not head:
        return "empty"
    if suffix == ".json" and head.startswith(result_files.BEGINNING):
        return "opsin"
    line = head.partition("\n")[0].strip()
    if "," in line and re.match(r"[-+.\d\s,eE]*$", line):
        return "mot" if line.rstrip(",").count(",") > 5 else "rrc"
    parts = line.split()
    if len(parts) >= 10 and not re.match(r"[-+.\d]", parts[2]):
        return "kitti"
    return None


def _read_mot(content: bytes, where: str, asked: Asked, facts: dict[str, Any]) -> dict[str, Tracks]:
    return _named(mot_challenge.read_mot, content, where, asked, facts)


def _read_kitti(content: bytes, where: str, asked: Asked, facts: dict[str, Any]) -> dict[str, Tracks]:
    return _named(kitti_tracking.read_kitti, content, where, asked, facts)


def _named(
    read: Callable[..., Tracks], content: bytes, where: str, asked: Asked, facts: dict[str, Any]
) -> dict[str, Tracks]:
    """A file of one sequence, which has the file's name where no other is known."""
    name = str(facts.get("name") or stem_of(where))
    length = {"open_ended": "num_frames" not in facts}
    tracks = read(content, where, truth=asked.truth, first=asked.first, **{**length, **facts, "name": name})
    return {name: tracks}


def _read_rrc(content: bytes, where: str, asked: Asked, facts: dict[str, Any]) -> dict[str, Tracks]:
    name = stem_of(where)
    label = PurePosixPath(where).parent.name
    known = {one.lower(): one for one in kitti_tracking.CLASSES}
    read = kitti_tracking.read_detections(content, where, known.get(label.lower(), "object"), first=asked.first)
    length = facts.get("num_frames", read.num_frames)
    return {name: replace(read, name=name, num_frames=length, open_ended="num_frames" not in facts)}


def _read_empty(content: bytes, where: str, asked: Asked, facts: dict[str, Any]) -> dict[str, Tracks]:
    name = str(facts.get("name") or stem_of(where))
    return {name: Tracks.build([], [], **{"num_frames": 0, "open_ended": True, **facts, "name": name})}


def _read_results(content: bytes, where: str, asked: Asked, facts: dict[str, Any]) -> dict[str, Tracks]:
    return result_files.read_results(content, where)


READERS: Mapping[str, Reader] = {
    "opsin": _read_results,
    "mot": _read_mot,
    "kitti": _read_kitti,
    "rrc": _read_rrc,
    "empty": _read_empty,
}
