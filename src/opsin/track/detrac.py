"""UA-DETRAC's XML, Wen et al. 2015, arXiv:1511.04136: a file for each sequence.

Frames are counted from 1 and boxes are left, top, width and height, in pixels as the file has them. The class is the
`vehicle_type`. Ignored regions hold for every frame. A frame without a target may be lacking.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from opsin.data.formats.xml_tree import Element
from opsin.track.rows import Box, Rows, attribute_number, attribute_whole, escaped, first_child, sided, xml_root
from opsin.track.tracks import NO_CLASS, Tracks

FIRST = 1  # frame
_UNKNOWN = "vehicle"  # the class of a target that says none


def read_detrac(content: bytes, where: str, *, first: int | None = None, **facts: Any) -> Tracks:
    """The tracks of a file; regions are rows of every frame. first: the number of the first frame, 1 if None.

    facts: fields of `Tracks`. Raises InputError with the line of what is wrong.
    """
    root = xml_root(content, where)
    start = FIRST if first is None else first
    rows, last = Rows(where), start - 1
    for frame in root.all("frame"):
        number = attribute_whole(frame, "num", where)
        last = max(last, number)
        for target in frame.all("target"):
            kind = first_child(target, "attribute")
            label = _UNKNOWN if kind is None else kind.attributes.get("vehicle_type") or _UNKNOWN
            key = attribute_whole(target, "id", where)
            rows.add(target.line, number, key, _box(target, where), label)
    length = int(facts.setdefault("num_frames", last - start + 1))
    regions = [box for one in root.children if one.tag == "ignored_region" for box in one.all("box")]
    for number in range(start, start + length) if regions else ():
        for region in regions:
            rows.add(region.line, number, None, _sides(region, where), None, ignored=True)
    facts["name"] = root.attributes.get("name") or facts.get("name", "")
    return rows.build(first=start, **facts)


def _box(target: Element, where: str) -> Box:
    box = first_child(target, "box")
    return _sides(target if box is None else box, where)


def _sides(box: Element, where: str) -> Box:
    left, top, width, height = (attribute_number(box, key, where) for key in ("left", "top", "width", "height"))
    return sided(left, top, width, height)


def write_detrac(tracks: Tracks) -> str:
    """The text of a file. Regions are those of the first frame that has any; scores and visibility are not kept."""
    lines = ['<?xml version="1.0" encoding="utf-8"?>', f'<sequence name="{escaped(tracks.name)}">']
    regions = np.flatnonzero(tracks.ignored & (tracks.labels == NO_CLASS))
    regions = regions[tracks.frames[regions] == tracks.frames[regions[0]]] if len(regions) else regions
    inside = [f"      {_element(tracks, row)}" for row in regions.tolist()]
    lines += ["   <ignored_region>", *inside, "   </ignored_region>"]
    for frame in range(tracks.num_frames):
        rows = [row for row in range(*tracks.rows(frame).indices(len(tracks))) if tracks.labels[row] != NO_CLASS]
        if not rows:
            continue
        lines += [f'   <frame density="{len(rows)}" num="{frame + FIRST}">', "      <target_list>"]
        for row in rows:
            name = escaped(tracks.classes[tracks.labels[row]])
            lines += [f'         <target id="{tracks.ids[row]}">', f"            {_element(tracks, row)}"]
            lines += [f'            <attribute vehicle_type="{name}"/>', "         </target>"]
        lines += ["      </target_list>", "   </frame>"]
    return "\n".join([*lines, "</sequence>", ""])


def _element(tracks: Tracks, row: int) -> str:
    left, top, right, bottom = tracks.boxes[row].tolist()
    return f'<box left="{left:.10g}" top="{top:.10g}" width="{right - left:.10g}" height="{bottom - top:.10g}"/>'
