"""TUD's idl files, Andriluka et al. 2008: a line for each image, with its boxes, for detections above all.

`"folder/name-046.png": (x1, y1, x2, y2):score, ...;` with corners in any order; the last line ends with a full stop.
The score may be lacking. `/n` after it is an identity. An image is a frame, in the order of the file.
"""

from __future__ import annotations

import re
from typing import Any

from opsin.data.formats.values import shown
from opsin.errors import InputError
from opsin.track.places import decode
from opsin.track.rows import Box, Rows
from opsin.track.tracks import NO_CLASS, NOBODY, Tracks

LABEL = "person"
_LINE = re.compile(r'"(?P<name>[^"]*)"\s*(?::(?P<boxes>.*?))?\s*[;.]?\s*$')
_NUMBER = r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*"
_BOX = re.compile(rf"\({','.join([_NUMBER] * 4)}\)(?:\s*:{_NUMBER})?(?:\s*/\s*(-?\d+))?\s*(,|$)")


def read_idl(content: bytes, where: str, **facts: Any) -> Tracks:
    """What a file has. facts: fields of `Tracks`. Raises InputError with the line of what is wrong."""
    rows, frame = Rows(where, {LABEL: 0}), 0
    for number, line in enumerate(decode(content, where).splitlines(), 1):
        if not line.strip():
            continue
        found = _LINE.match(line.strip())
        if found is None:
            raise InputError(f'{where}, line {number}: {shown(line)}; expected "image": (x1, y1, x2, y2):score, ...;')
        _read_boxes((found["boxes"] or "").strip(), rows, number, frame)
        frame += 1
    facts.setdefault("num_frames", frame)
    facts.pop("open_ended", None)
    return rows.build(**facts)


def _read_boxes(text: str, rows: Rows, line: int, frame: int) -> None:
    at = 0
    while at < len(text):
        found = _BOX.match(text, at)
        if found is None:
            raise InputError(f"{rows.where}, line {line}: {shown(text[at:])}; expected (x1, y1, x2, y2):score")
        x1, y1, x2, y2 = (float(found[group]) for group in range(1, 5))
        box: Box = min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)
        key = None if found[6] is None or int(found[6]) < 0 else int(found[6])
        rows.add(line, frame, key, box, LABEL, score=1.0 if found[5] is None else float(found[5]))
        at = found.end() + len(text[found.end() :]) - len(text[found.end() :].lstrip())


def write_idl(tracks: Tracks) -> str:
    """The text of a file, with every frame; classes and regions are not kept."""
    lines = []
    for frame in range(tracks.num_frames):
        boxes = []
        for row in range(*tracks.rows(frame).indices(len(tracks))):
            if tracks.labels[row] != NO_CLASS:
                corners = ", ".join(f"{value:.10g}" for value in tracks.boxes[row].tolist())
                key = "" if tracks.ids[row] == NOBODY else f"/{tracks.ids[row]}"
                boxes.append(f"({corners}):{tracks.scores[row]:.10g}{key}")
        name = f'"{tracks.name}-{frame:06d}.png"'
        lines.append(f"{name}: {', '.join(boxes)};" if boxes else f"{name};")
    return "\n".join(lines)[:-1] + ".\n" if lines else ""
