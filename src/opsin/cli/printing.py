"""What the verbs print, and the files they write for people."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opsin.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence


def print_json(value: Any) -> None:
    """A result for machines."""
    print(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))


def terminal_width() -> int | None:
    """Columns that standard output has: COLUMNS, else those of the terminal; None where it is neither."""
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = (), width: int | None = None
) -> None:
    """Aligned columns, each row one line, the headings bold on a terminal.

    width: at most so many columns where that is possible: a row whose first cell is too long for it takes two lines.
    """
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    if width is not None:
        widths[0] = max(len(columns[0]), min(widths[0], width - sum(size + 2 for size in widths[1:])))
    for place, row in enumerate([columns, *rows]):
        cells = [f"{c:>{w}}" if i in right else f"{c:{w}}" for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        if len(row[0]) > widths[0]:
            print(row[0])
            cells[0] = " " * widths[0]
        line = "  ".join(cells).rstrip()
        print(bold(line) if place == 0 else line)


def colours() -> bool:
    """Whether standard output is a terminal that shows them, and nobody has asked for none."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def bold(text: str) -> str:
    """Bold on a terminal."""
    return f"\x1b[1m{text}\x1b[0m" if text and colours() else text


def make_folder(path: Path) -> None:
    """A folder, with those above it. Raises InputError where it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {path}: {error.strerror}") from None


def numbers(option: str, form: str, example: str, given: str) -> tuple[int, ...]:
    """`3x224x224` and `3,224,224` as whole numbers."""
    try:
        return tuple(int(part) for part in given.replace("x", ",").split(","))
    except ValueError:
        raise InputError(f"{option} takes {form}, for example {example}; got {given!r}") from None
