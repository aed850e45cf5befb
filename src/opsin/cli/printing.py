"""What the verbs print, and the files they write for people."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opsin.errors import InputError, JobError, is_printable, printable

if TYPE_CHECKING:
    from collections.abc import Sequence


def put(text: object, *, several: bool = False, error: bool = False) -> None:
    """Print a line, fit to be shown. several: it may be several lines. error: on standard error."""
    print(printable(text, keep="\n\t" if several else "\t"), file=sys.stderr if error else sys.stdout, flush=error)


def print_json(value: Any, indent: int | None = 1) -> None:
    """A result for machines. indent=None: on one line."""
    print(to_json(value, indent), flush=indent is None)


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON that keeps letters; what steers a terminal or is no Unicode is an escape, which reads back as it was."""
    plain = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    try:
        text = json.dumps(value, indent=indent, ensure_ascii=plain, allow_nan=False)
    except ValueError as error:
        raise JobError(f"the result holds a value that is no number, which JSON has none for: {error}") from None
    if is_printable(text.replace("\n", "")):
        return text
    return "".join(one if one == "\n" or is_printable(one) else f"\\u{ord(one):04x}" for one in text)


def show_anything() -> None:
    """Let both streams write letters that their encoding has not, an ASCII terminal's, as escapes, not as errors."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


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
    columns, rows = list(columns), [[printable(cell) for cell in row] for row in rows]
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
