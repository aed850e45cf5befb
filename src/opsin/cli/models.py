"""`opsin models`."""

from __future__ import annotations

from typing import Annotated

import typer

from opsin.cli import completion
from opsin.cli.arguments import AsJson, examples
from opsin.cli.printing import print_json, print_table, terminal_width
from opsin.errors import InputError, nearest, say
from opsin.registry import Entry
from opsin.rooms import DEFAULT_TASK
from opsin.schemes import split_scheme

EXAMPLES = examples("models", "models 'resnet*'", "models vgg --json", "models 'timm:*convnext*'")
COUNTED = 20  # networks of other libraries whose parameters are counted for a list; of more it would take long
ALWAYS = ("name", "params", "macs", "input", "year")  # columns that stand in every table, in full
IDEA = 24  # columns of an idea below which it says nothing


def models(
    pattern: Annotated[
        str,
        typer.Argument(
            metavar="PATTERN",
            help="Part of a name, or a shell pattern such as 'resnet*'; case does not matter. With timm: or "
            "torchvision: before it, networks of these libraries.",
            show_default=False,
            autocompletion=completion.models,
        ),
    ] = "*",
    task: Annotated[
        str | None, typer.Option(metavar="TASK", help="Only models for this task.", autocompletion=completion.tasks)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the models, with their published facts. Networks of timm and torchvision can be used too.

    A table as wide as the terminal, or COLUMNS, always has name, parameters, multiply-adds, input and year, rounded
    where the exact numbers do not fit; the other columns are shown as far as they fit. In a file or a pipe, without
    COLUMNS, all columns are in full.
    """
    from opsin import registry

    names = registry.list_models(pattern, task)
    if not names:
        raise _unmatched(pattern, task)
    entries = [registry.find_model(name) for name in names]
    if len(entries) <= COUNTED and split_scheme(pattern) is not None:
        entries = [registry.count(entry) for entry in entries]
    if as_json:
        print_json([entry.to_dict() for entry in entries])
        return
    exact = registry.find_model(pattern.casefold()) if registry.is_model(pattern.casefold()) else None
    entries.sort(key=lambda entry: entry is not exact)
    width = terminal_width()
    columns, rows = table(entries, width)
    print_table(columns, rows, right=[columns.index("params"), columns.index("macs")], width=width)
    if pattern == "*" and task in (None, DEFAULT_TASK):
        say("These are opsin's own. Those of other libraries work too, timm:NAME and torchvision:NAME; "
            "`opsin models 'timm:*'` lists them.")  # fmt: skip


def _unmatched(pattern: str, task: str | None) -> InputError:
    """The error for a pattern that no model matches."""
    from opsin import registry

    registry.check_library(pattern)
    if (place := registry.elsewhere(pattern)) is not None:
        return InputError(f"no model matches {pattern!r}: {place}")
    if task is not None and not registry.list_models(task=task):
        from opsin import rooms

        verbs = "".join(f"; see `opsin {name} --help`" for name in rooms.find_room(task).commands)
        return InputError(f"{task} has no networks of its own{verbs}")
    if task is not None and (others := registry.list_models(pattern)):
        tasks = sorted({registry.find_model(name).task for name in others})
        return InputError(f"no model for {task} matches {pattern!r}; there are some for {', '.join(tasks)}")
    near = nearest(pattern, registry.list_models(task=task))
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return InputError(f"no model matches {pattern!r}; {hint}`opsin models` lists them all")


def table(entries: list[Entry], width: int | None) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of a table that is `width` columns wide, two between columns; with no width, of everything."""
    rows = [entry.summary for entry in entries]
    known = list(rows[0])
    if width is None:
        return known, [list(row.values()) for row in rows]

    def wide(column: str) -> int:
        return max(len(column), *(len(row[column]) for row in rows)) + 2

    if sum(map(wide, ALWAYS)) - 2 > width:
        for row, entry in zip(rows, entries, strict=True):
            facts = entry.facts
            row["params"] = rounded(entry.params) if entry.params is not None else "-"
            row["macs"] = rounded(facts.macs) if facts is not None and facts.macs is not None else "-"
    left = width + 2 - sum(map(wide, ALWAYS))
    shown: set[str] = set(ALWAYS)
    for column in ("weights", "task", "idea", "paper"):
        needed = min(wide(column), IDEA + 2) if column == "idea" else wide(column)
        if needed <= left:
            shown.add(column)
            left -= needed
    if "idea" in shown:
        room = left + min(wide("idea"), IDEA + 2) - 2
        for row in rows:
            row["idea"] = row["idea"] if len(row["idea"]) <= room else f"{row['idea'][: room - 1].rstrip()}…"
    columns = [column for column in known if column in shown]
    return columns, [[row[column] for column in columns] for row in rows]


def rounded(number: int) -> str:
    """Three digits and a unit: 25.6 M, 4.09 G."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= 0.9995 * size:
            value = number / size
            digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
            return f"{value:.{digits}f} {unit}"
    return str(number)
