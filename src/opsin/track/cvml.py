"""CVML, the XML of the CAVIAR project, in which PETS2009 and TUD have their truth: List & Fisher 2004, ICPR.

A box is its centre (xc, yc), width and height. Frames are numbered as in the video: the first that the file lists is
our frame 0, and a frame in which nothing is is listed as well. There are no classes.
"""

from __future__ import annotations

from typing import Any

from opsin.track.rows import Rows, attribute_number, attribute_whole, escaped, first_child, spans, xml_root
from opsin.track.tracks import NO_CLASS, Tracks

LABEL = "person"


def read_cvml(content: bytes, where: str, *, first: int | None = None, **facts: Any) -> Tracks:
    """The tracks of a file. first: the number of our frame 0; that of the first frame in the file if None.

    facts: fields of `Tracks`. Raises InputError with the line of what is wrong.
    """
    root = xml_root(content, where)
    rows, numbers = Rows(where, {LABEL: 0}), []
    for frame in root.all("frame"):
        number = attribute_whole(frame, "number", where)
        numbers.append(number)
        for one in frame.all("object"):
            box = first_child(one, "box")
            centre_x, centre_y, width, height = (
                attribute_number(one if box is None else box, key, where) for key in ("xc", "yc", "w", "h")
            )
            corners = centre_x - width / 2, centre_y - height / 2, centre_x + width / 2, centre_y + height / 2
            rows.add(one.line, number, attribute_whole(one, "id", where), corners, LABEL)
    start, length = spans(numbers)
    if first is not None:
        start, length = first, length + start - first
    facts.setdefault("num_frames", max(length, 0))
    facts["name"] = root.attributes.get("name") or facts.get("name", "")
    return rows.build(first=start, **facts)


def write_cvml(tracks: Tracks) -> str:
    """The text of a file, with every frame; classes, scores and regions are not kept."""
    lines = ['<?xml version="1.0" encoding="utf-8"?>', f'<dataset name="{escaped(tracks.name)}">']
    for frame in range(tracks.num_frames):
        lines += [f'   <frame number="{frame}">', "      <objectlist>"]
        for row in range(*tracks.rows(frame).indices(len(tracks))):
            if tracks.labels[row] == NO_CLASS:
                continue
            x1, y1, x2, y2 = tracks.boxes[row].tolist()
            sides = f'h="{y2 - y1:.10g}" w="{x2 - x1:.10g}" xc="{(x1 + x2) / 2:.10g}" yc="{(y1 + y2) / 2:.10g}"'
            lines += [f'         <object id="{tracks.ids[row]}">', f"            <box {sides}/>", "         </object>"]
        lines += ["      </objectlist>", "   </frame>"]
    return "\n".join([*lines, "</dataset>", ""])
