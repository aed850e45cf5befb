"""CVAT's XML "for video 1.1": a track is an element, with its box in each frame.

Frames are counted from 0, a box is its corners. A box with outside="1" says that the object is not seen from that frame
on. Between two frames that are listed an object moves in a straight line, which matters where a file has key frames
alone: CVAT itself writes them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from opsin.data.formats.xml_tree import Element
from opsin.errors import InputError
from opsin.track.rows import Box, Rows, attribute_number, attribute_whole, escaped, xml_root
from opsin.track.tracks import NO_CLASS, Tracks

FIRST = 0  # frame
_OCCLUDED = 0.5  # the visibility that stands for occluded="1"


def read_cvat(content: bytes, where: str, *, first: int | None = None, **facts: Any) -> Tracks:
    """The tracks of a file; what is occluded has a visibility of one half. facts: fields of `Tracks`.

    first: the number of the first frame, 0 if None. Raises InputError with the line of what is wrong.
    """
    root = xml_root(content, where)
    rows = Rows(where)
    for track in root.children:
        if track.tag == "track":
            _read_track(track, rows, where)
        elif track.tag == "image":
            raise InputError(f"{where} is of CVAT for images, which has no tracks; export it as CVAT for video 1.1")
    facts |= _facts(root, where)
    return rows.build(first=FIRST if first is None else first, **facts)


def _facts(root: Element, where: str) -> dict[str, Any]:
    """What the file's <meta> says of the sequence."""
    task = next(iter([*root.all("task"), *root.all("job")]), None)
    if task is None:
        return {}
    found: dict[str, Any] = {}
    if task.said("name"):
        found["name"] = task.said("name").rpartition("/")[2]
    if task.said("size").isascii() and task.said("size").isdigit():
        found["num_frames"] = int(task.said("size"))
    size = next(root.all("original_size"), None)
    sides = ["", ""] if size is None else [size.said("width"), size.said("height")]
    if all(side.isascii() and side.isdigit() for side in sides):
        found["size"] = int(sides[0]), int(sides[1])
    return found


def _read_track(track: Element, rows: Rows, where: str) -> None:
    key, label = attribute_whole(track, "id", where), track.attributes.get("label", "object")
    before: tuple[int, Box, bool] | None = None
    boxes = [one for one in track.children if one.tag == "box"]
    for box in sorted(boxes, key=lambda one: attribute_whole(one, "frame", where)):
        frame = attribute_whole(box, "frame", where)
        x1, y1, x2, y2 = (attribute_number(box, name, where) for name in ("xtl", "ytl", "xbr", "ybr"))
        outside, corners = box.attributes.get("outside") == "1", (x1, y1, x2, y2)
        if before is not None and not before[2]:
            _fill(before[0], frame, before[1], corners, rows, box.line, key, label)
        before = frame, corners, outside
        if not outside:
            seen = _OCCLUDED if box.attributes.get("occluded") == "1" else 1.0
            rows.add(box.line, frame, key, corners, label, visibility=seen)


def _fill(first: int, last: int, begin: Box, end: Box, rows: Rows, line: int, key: int, label: str) -> None:
    """The boxes of the frames between two."""
    for frame in range(first + 1, min(last, first + 1_000_000)):
        share = (frame - first) / (last - first)
        a, b, c, d = (one + share * (other - one) for one, other in zip(begin, end, strict=True))
        rows.add(line, frame, key, (a, b, c, d), label)


def write_cvat(tracks: Tracks) -> str:
    """The text of a file with every box; scores and regions are not kept."""
    lines = ['<?xml version="1.0" encoding="utf-8"?>', "<annotations>", "  <version>1.1</version>"]
    size = "" if tracks.size is None else _sizes(tracks.size)
    about = f"<name>{escaped(tracks.name)}</name><size>{tracks.num_frames}</size><mode>interpolation</mode>"
    lines.append(f"  <meta><task>{about}{size}</task></meta>")
    rows = np.flatnonzero(tracks.labels != NO_CLASS)
    keys: Mapping[tuple[int, int], list[int]] = {}
    for row in rows.tolist():
        keys.setdefault((int(tracks.ids[row]), int(tracks.labels[row])), []).append(row)
    for (number, label), own in sorted(keys.items()):
        lines.append(f'  <track id="{number}" label="{escaped(tracks.classes[label])}" source="manual">')
        for place, row in enumerate(own):
            frame = int(tracks.frames[row])
            lines.append(_box(tracks, row, frame, outside=False))
            following = int(tracks.frames[own[place + 1]]) if place + 1 < len(own) else tracks.num_frames
            if frame + 1 < following:
                lines.append(_box(tracks, row, frame + 1, outside=True))
        lines.append("  </track>")
    return "\n".join([*lines, "</annotations>", ""])


def _sizes(size: tuple[int, int]) -> str:
    return f"<original_size><width>{size[0]}</width><height>{size[1]}</height></original_size>"


def _box(tracks: Tracks, row: int, frame: int, *, outside: bool) -> str:
    occluded = int(tracks.visibility is not None and tracks.visibility[row] <= _OCCLUDED)
    names = zip(("xtl", "ytl", "xbr", "ybr"), tracks.boxes[row].tolist(), strict=True)
    corners = " ".join(f'{name}="{value:.10g}"' for name, value in names)
    return (
        f'    <box frame="{frame}" keyframe="1" outside="{int(outside)}" occluded="{occluded}" {corners} z_order="0"/>'
    )
