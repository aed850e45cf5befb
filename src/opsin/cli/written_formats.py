"""The formats that data and predictions are written in, by their names after `--as`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from opsin import rooms
from opsin.errors import InputError, say


def find_writer(room: rooms.Room, name: str) -> Any:
    """The `Format` of a task with this name after `--as`. Raises InputError with those that there are."""
    known = {format_.written: format_ for format_ in map(rooms.load, room.formats) if format_.written}
    if name not in known:
        listed = f"takes {', '.join(known)}" if known else "knows no format to write"
        raise InputError(f"--as {name}: data of the task {room.task} {listed}")
    return known[name]


def write_source(source: Any, room: rooms.Room, name: str, out: Path, link: bool) -> str:
    """Write a source in another format; returns what was written, and what of it was not kept, in lines."""
    writer = find_writer(room, name)
    left = [problem for problem in source.problems if problem.severity == "error"]
    if left:
        say(f"opsin: {len(left)} errors are left out, {left[0].path}: {left[0].reason}")
    notes = writer.write(source, out, link)
    counts = ", ".join(f"{key} {len(split):,}" for key, split in source.splits.items())
    return "\n".join([f"{source.name} as {writer.name} in {out}: {counts}", *notes])
