"""Tables of tracks with a row for each box, and a header that names the columns, in any order.

    frame, id, x1, y1, x2, y2, score, class, sequence

Frames are counted from 0. In the place of x2 and y2 there may be a width and a height. Known are the names that other
tools write as well, as `tracker_id` and `frame_index` of supervision's. Score, class, sequence and id may be lacking: a
table without ids is of detections.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from opsin.data.formats.values import read_flag, read_key, read_number, read_whole, shown
from opsin.errors import InputError
from opsin.track.places import decode
from opsin.track.rows import Box, Rows
from opsin.track.tracks import NO_CLASS, Tracks

FIRST = 0  # frame
_NAMES: Mapping[str, tuple[str, ...]] = {
    "frame": ("frame", "frame_id", "frame_index", "frame_number", "frame_no"),
    "id": ("id", "track_id", "tracker_id", "track", "object_id", "identity", "instance_id"),
    "x1": ("x1", "x_min", "xmin", "left", "x", "bb_left", "xtl", "bbox_left"),
    "y1": ("y1", "y_min", "ymin", "top", "y", "bb_top", "ytl", "bbox_top"),
    "x2": ("x2", "x_max", "xmax", "right", "xbr"),
    "y2": ("y2", "y_max", "ymax", "bottom", "ybr"),
    "width": ("width", "w", "bb_width", "bbox_width"),
    "height": ("height", "h", "bb_height", "bbox_height"),
    "score": ("score", "confidence", "conf"),
    "class": ("class", "class_name", "label", "category", "type", "class_id"),
    "sequence": ("sequence", "sequence_name", "video", "seq"),
    "ignored": ("ignored", "ignore"),
}
_NEEDED = ("frame", "x1", "y1")


def is_header(line: str) -> bool:
    """Whether a line names the columns of a table of tracks."""
    names = [name.strip().strip('"').lower() for name in line.split(",")]
    return all(any(name in _NAMES[key] for name in names) for key in _NEEDED)


def read_csv(content: bytes, where: str, name: str, *, first: int | None = None) -> dict[str, Tracks]:
    """The sequences of a table, by their names. name: of the sequence, where no column says it.

    first: the number of the first frame, 0 if None. Raises InputError with the line of what is wrong.
    """
    reader = csv.reader(io.StringIO(decode(content, where)))
    columns = _columns(next(reader, []), where)
    found: dict[str, Rows] = {}
    classes: dict[str, int] = {}
    try:
        for values in reader:
            if values:
                sequence = _value(values, columns, "sequence") or name
                _add(values, columns, found.setdefault(sequence, Rows(where, classes)), reader.line_num)
    except (ValueError, IndexError, csv.Error) as error:
        said = "it has too few columns" if isinstance(error, IndexError) else str(error)
        raise InputError(f"{where}, line {reader.line_num}: {said}") from None
    start = FIRST if first is None else first
    rows = found or {name: Rows(where, classes)}
    return {key: own.build(key, first=start, open_ended=True) for key, own in rows.items()}


def _columns(header: Sequence[str], where: str) -> dict[str, int]:
    names = [one.strip().lower() for one in header]
    found: dict[str, int] = {}
    for key, known in _NAMES.items():
        place = next((names.index(one) for one in known if one in names), None)
        if place is not None:
            found[key] = place
    lacking = [key for key in _NEEDED if key not in found]
    for side, other in (("x2", "width"), ("y2", "height")):
        lacking += [] if side in found or other in found else [f"{side} or {other}"]
    if lacking:
        raise InputError(f"{where}, line 1: no column {' and none '.join(lacking)}; it has {', '.join(names[:12])}")
    return found


def _value(values: Sequence[str], columns: Mapping[str, int], key: str) -> str:
    return values[columns[key]].strip() if key in columns else ""


def _add(values: Sequence[str], columns: Mapping[str, int], rows: Rows, line: int) -> None:
    left, top = (read_number(_value(values, columns, key)) for key in ("x1", "y1"))
    ends = []
    for side, other, start in (("x2", "width", left), ("y2", "height", top)):
        ends.append(read_number(_value(values, columns, side)) if side in columns else
                    start + read_number(_value(values, columns, other)))  # fmt: skip
    box: Box = left, top, ends[0], ends[1]
    given, score = _value(values, columns, "id"), _value(values, columns, "score")
    key = read_key(given) if given else None
    frame = read_whole(_value(values, columns, "frame"))
    if not -(2**53) < frame < 2**53:
        raise ValueError(f"the frame is {shown(frame)}")
    rows.add(
        line,
        frame,
        None if key in (-1, "-1") else key,
        box,
        _value(values, columns, "class") or "object",
        score=read_number(score) if score else 1.0,
        ignored=read_flag(_value(values, columns, "ignored")),
    )


def write_csv(sequences: Mapping[str, Tracks]) -> str:
    """The text of a table of several sequences; regions of no class are not kept."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["sequence", "frame", "id", "x1", "y1", "x2", "y2", "score", "class", "ignored"])
    for name, tracks in sequences.items():
        for row in range(len(tracks)):
            label: Any = tracks.labels[row]
            if label == NO_CLASS:
                continue
            corners = [f"{value:.10g}" for value in tracks.boxes[row].tolist()]
            where = [name, int(tracks.frames[row]), int(tracks.ids[row])]
            end = [f"{tracks.scores[row]:.10g}", tracks.classes[label], int(tracks.ignored[row])]
            writer.writerow([*where, *corners, *end])
    return out.getvalue()
