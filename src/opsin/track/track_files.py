"""One file of tracks or detections: which format it is in, by what is in it, and the sequences that it holds."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from opsin.errors import InputError, say
from opsin.track import (
    coco_video,
    csv_tracks,
    cvat_video,
    cvml,
    detrac,
    idl,
    kitti_tracking,
    mot_challenge,
    result_files,
)
from opsin.track.lookalikes import lookalike
from opsin.track.places import stem_of
from opsin.track.tracks import Tracks

EXPECTED = (
    "MOTChallenge txt, KITTI tracking txt, UA-DETRAC xml, PETS2009 CVML xml, CVAT video xml, TUD idl, COCO-video json "
    "or csv"
)
_HEAD = 65_536  # bytes in which a format is seen
_MOT_COLUMNS, _RRC_COLUMNS = (7, 10), 6
_ROOTS = {"sequence": "detrac", "dataset": "cvml", "annotations": "cvat"}  # outermost elements of XML


@dataclass(frozen=True)
class Asked:
    """How files are to be read.

    truth: as ground truth. first: the number of the first frame; None as the format has it. images: what the ids
    of a COCO json mean: of truth, to be filled where its file has them; of results, to be looked up.
    """

    truth: bool = False
    first: int | None = None
    images: coco_video.VideoImages | None = None


Reader = Callable[[bytes, str, Asked, dict[str, Any]], dict[str, Tracks]]


def read_file_of(content: bytes, name: str, where: str, asked: Asked, facts: dict[str, Any]) -> dict[str, Tracks]:
    """The sequences of one file, by their names.

    where: the file, for messages. facts: what is known beside it of its only sequence, fields of `Tracks`. Raises
    InputError for what is in no known format, and for whatever is wrong in it.
    """
    kind = recognize(content, name)
    if kind is None:
        other = lookalike(content[:_HEAD].decode("utf-8-sig", "replace"))
        said = f"{where} is in no known format of tracks" if other is None else f"{where} holds no tracks: {other}"
        raise InputError(f"{said}; expected {EXPECTED}")
    if kind == "empty":
        say(f"{where} is empty: nothing was found in its sequence")
    return READERS[kind](content, where, asked, facts)


def recognize(content: bytes, name: str) -> str | None:
    """The format of a file by what is in it, as a key of `READERS`; "empty" of an empty text, None of none."""
    head = content[:_HEAD].decode("utf-8-sig", "replace").lstrip()
    if not head:
        return "empty" if PurePosixPath(name).suffix.lower() in (".txt", ".csv", ".idl") else None
    line = head.partition("\n")[0].strip()
    if head[0] == "<":
        return _recognize_xml(head, content)
    if head[0] in "{[":
        return _recognize_json(head, content)
    if re.match(r'"[^"]*"\s*[:;.]', line):
        return "idl"
    if csv_tracks.is_header(line):
        return "csv"
    if re.match(r"[-+]?\d+(\.\d*)?\s*,", line):
        columns = len(line.rstrip(",").split(","))
        if _MOT_COLUMNS[0] <= columns <= _MOT_COLUMNS[1]:
            return None if lookalike(head) else "mot"
        return "rrc" if columns == _RRC_COLUMNS else None
    parts = line.split()
    return "kitti" if len(parts) >= 10 and not re.match(r"[-+.\d]", parts[2]) else None


def _recognize_xml(head: str, content: bytes) -> str | None:
    root = re.search(r"<(?![?!])([\w.-]+)", re.sub(r"<!--.*?-->", "", head, flags=re.DOTALL))
    kind = _ROOTS.get(root[1]) if root else None
    return None if kind == "cvat" and b"<track" not in content else kind


def _recognize_json(head: str, content: bytes) -> str | None:
    if head.startswith(result_files.BEGINNING):
        return "opsin"
    if head[0] == "[":
        return "coco" if re.search(r'"(track_id|instance_id)"', head) or head[1:].lstrip()[:1] == "]" else None
    return "coco" if b'"videos"' in content and b'"images"' in content else None


def _text_reader(read: Callable[..., Tracks]) -> Reader:
    """Of a file of one sequence, which has the file's name where no other is known."""

    def read_it(content: bytes, where: str, asked: Asked, facts: dict[str, Any]) -> dict[str, Tracks]:
        known = {"open_ended": "num_frames" not in facts, **facts, "name": str(facts.get("name") or stem_of(where))}
        tracks = read(content, where, truth=asked.truth, first=asked.first, **known)
        return {tracks.name: tracks}

    return read_it


def _xml_reader(read: Callable[..., Tracks]) -> Reader:
    def read_it(content: bytes, where: str, asked: Asked, facts: dict[str, Any]) -> dict[str, Tracks]:
        tracks = read(content, where, first=asked.first, **{"name": stem_of(where), **facts})
        return {tracks.name: tracks}

    return read_it


def _read_rrc(content: bytes, where: str, asked: Asked, facts: dict[str, Any]) -> dict[str, Tracks]:
    name, label = stem_of(where), PurePosixPath(where).parent.name
    known = {one.lower(): one for one in kitti_tracking.CLASSES}
    read = kitti_tracking.read_detections(content, where, known.get(label.lower(), "object"), first=asked.first)
    length = facts.get("num_frames", read.num_frames)
    return {name: replace(read, name=name, num_frames=length, open_ended="num_frames" not in facts)}


def _read_empty(content: bytes, where: str, asked: Asked, facts: dict[str, Any]) -> dict[str, Tracks]:
    name = str(facts.get("name") or stem_of(where))
    return {name: Tracks.build([], [], **{"num_frames": 0, "open_ended": True, **facts, "name": name})}


def _read_idl(content: bytes, where: str, asked: Asked, facts: dict[str, Any]) -> dict[str, Tracks]:
    tracks = idl.read_idl(content, where, **{"name": stem_of(where), **facts})
    return {tracks.name: tracks}


def _read_coco(content: bytes, where: str, asked: Asked, facts: dict[str, Any]) -> dict[str, Tracks]:
    return coco_video.read_coco(content, where, asked.images)


def _read_csv(content: bytes, where: str, asked: Asked, facts: dict[str, Any]) -> dict[str, Tracks]:
    return csv_tracks.read_csv(content, where, str(facts.get("name") or stem_of(where)), first=asked.first)


def _read_results(content: bytes, where: str, asked: Asked, facts: dict[str, Any]) -> dict[str, Tracks]:
    return result_files.read_results(content, where)


READERS: Mapping[str, Reader] = {
    "opsin": _read_results,
    "mot": _text_reader(mot_challenge.read_mot),
    "kitti": _text_reader(kitti_tracking.read_kitti),
    "rrc": _read_rrc,
    "empty": _read_empty,
    "detrac": _xml_reader(detrac.read_detrac),
    "cvml": _xml_reader(cvml.read_cvml),
    "cvat": _xml_reader(cvat_video.read_cvat),
    "idl": _read_idl,
    "coco": _read_coco,
    "csv": _read_csv,
}
