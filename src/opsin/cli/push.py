"""`opsin push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from opsin.cli.arguments import AsJson, examples
from opsin.cli.early_checks import check_run
from opsin.cli.printing import print_json

EXAMPLES = examples(
    "push runs/lenet5_digits",
    "push runs/lenet5_digits --out shared/ --license apache-2.0",
    "push runs/lenet5_digits --to ada/lenet5_digits --license mit",
)


def push(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder, or a model.safetensors.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FOLDER", help="The folder to write; hub in the run if not given."),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="OWNER/NAME",
            help="Upload it to this repository of the Hugging Face hub, which is made where there is none, with your "
            "own login (`hf auth login`).",
            show_default=False,
        ),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(
            "--license",
            metavar="ID",
            help="The licence that others may use it under: apache-2.0, mit, cc-by-4.0, other.",
        ),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a folder to share a model by: weights, recipe, and a model card with its scores. --to uploads it."""
    check_run(run)
    from opsin.engine.push import push as write
    from opsin.engine.push import use_lines

    pushed = write(run, out, to=to, licence=licence, private=private)
    if as_json:
        print_json(pushed.to_dict())
    else:
        print("\n".join(use_lines(pushed, to, run)))
