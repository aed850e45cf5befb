"""What the verbs print, and the files they write for people."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opsin.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence


def print_json(value: Any) -> None:
    """A result for machines."""
    print(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """A table that fits the terminal, each row one line; plain aligned text where nobody watches."""
    if not sys.stdout.isatty():
        widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
        for row in [columns, *rows]:
            cells = [
                f"{c:>{w}}" if i in right else f"{c:{w}}" for i, (c, w) in enumerate(zip(row, widths, strict=True))
            ]
            print("  ".join(cells).rstrip())
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    shown = [i for i, name in enumerate(columns) if console.width >= 120 or name not in ("task", "paper")]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place in shown:
        width = None if place == len(columns) - 1 else min(30, max(len(row[place]) for row in [columns, *rows]))
        justify = "right" if place in right else "left"
        table.add_column(columns[place], justify=justify, no_wrap=True, min_width=width, max_width=width)
    for row in rows:
        table.add_row(*(row[place] for place in shown))
    console.print(table)


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
