"""`opsin models`."""

from __future__ import annotations

from typing import Annotated

import typer

from opsin.cli.arguments import AsJson, examples
from opsin.cli.printing import print_json, print_table
from opsin.errors import InputError

EXAMPLES = examples("models", "models 'resnet*'", "models vgg --json")


def models(
    pattern: Annotated[str, typer.Argument(help="Part of a name, or a shell pattern.")] = "*",
    task: Annotated[str | None, typer.Option(help="Only models for this task.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the models there are, with their published facts."""
    from opsin import registry

    names = registry.list_models(pattern, task)
    if not names:
        raise InputError(f"no model matches {pattern!r}; `opsin models` lists them all")
    entries = [registry.find_model(name) for name in names]
    if as_json:
        print_json([entry.to_dict() for entry in entries])
        return
    rows = [tuple(entry.summary.values()) for entry in entries]
    print_table(tuple(entries[0].summary), rows, right=(2, 3))
