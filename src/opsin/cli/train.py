"""`opsin train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from opsin import rooms
from opsin.cli.arguments import AsJson, DataSource, Settings, examples
from opsin.cli.printing import print_json
from opsin.errors import InputError

EXAMPLES = examples(
    "train lenet5_digits",
    *rooms.examples("train"),
    "train resnet20_fashion --set optim.lr=0.05 --set train.ema_decay=0.999",
    "train --resume runs/lenet5_digits",
)


def train(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="TASK|RECIPE",
            help="A task (`opsin models` lists them), a shipped recipe's name, or a recipe file.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="A name from `opsin models`.")] = None,
    weights: Annotated[
        str | None, typer.Option("--weights", "-w", help="Published weights of the model to start from, by name.")
    ] = None,
    data: DataSource = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images in a step of one process.")] = None,
    lr: Annotated[float | None, typer.Option(help="The highest learning rate.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Decides the first weights, the order and every random choice.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that read images; does not change the result.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The run folder to make; runs/NAME if not given.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue this run where it stopped.")] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave unreadable images out instead of refusing.")
    ] = False,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Train a model: by a recipe, or a task with --model and --data. Makes a run folder with the model and a report."""
    if what is None and resume is None and model is None:
        raise InputError("say what to train: a recipe (opsin train lenet5_digits), or a task with --model and --data")
    from opsin.engine.recipe import parse_setting
    from opsin.engine.train import train as run_training

    flags = {
        "model.name": model,
        "model.weights": weights,
        "data.source": data,
        "train.epochs": epochs,
        "train.batch_size": batch_size,
        "optim.lr": lr,
        "train.seed": seed,
        "train.workers": workers,
        "data.skip_bad": skip_bad or None,
    }
    overrides = {key: value for key, value in flags.items() if value is not None}
    overrides |= dict(parse_setting(setting) for setting in settings or [])
    recipe: Any = what
    if what is not None and what in rooms.list_tasks():
        recipe = {"task": what}
    elif what is None and resume is None:
        recipe = {}
    run = run_training(recipe, overrides, out=out, resume=resume)
    if as_json:
        print_json(
            {
                "run": str(run.path),
                "split": run.split,
                "metrics": run.metrics,
                "report": str(run.report),
                "epochs": run.epochs,
            }
        )
