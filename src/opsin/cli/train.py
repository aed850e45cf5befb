"""`opsin train`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from opsin import rooms
from opsin.cli.arguments import (
    AsJson,
    DataSource,
    Device,
    Epochs,
    Model,
    Settings,
    Trainable,
    Weights,
    examples,
    number_or_auto,
)
from opsin.cli.early_checks import check_data, check_recipe, check_weights
from opsin.cli.printing import print_json
from opsin.engine.devices_by_name import devices_of
from opsin.engine.run import RunFolder
from opsin.errors import InputError

EXAMPLES = examples(
    "train lenet5_digits",
    *rooms.examples("train"),
    "train resnet20_fashion --set optim.lr=0.05 --set train.ema_decay=0.999",
    "train --resume runs/lenet5_digits",
)


def train(
    what: Trainable = None,
    model: Model = None,
    weights: Weights = None,
    data: DataSource = None,
    epochs: Epochs = None,
    batch_size: Annotated[
        Any,
        typer.Option(
            metavar="N|auto",
            parser=number_or_auto(int),
            help="Images per step and process; auto: what fits into memory, accumulated to the usual batch.",
        ),
    ] = None,
    lr: Annotated[
        Any,
        typer.Option(
            metavar="X|auto",
            parser=number_or_auto(float),
            help="The peak learning rate; auto: what --find-lr suggests.",
        ),
    ] = None,
    find_lr: Annotated[
        bool,
        typer.Option(
            "--find-lr",
            help="Run the learning-rate test, plot it in a report, and stop; with --lr auto, train afterwards.",
        ),
    ] = False,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Random seed of initial weights, order and augmentation.")
    ] = None,
    workers: Annotated[
        Any,
        typer.Option(
            metavar="N|auto",
            parser=number_or_auto(int),
            help="Processes that load images; auto: by the number of cores. Does not change the result.",
        ),
    ] = None,
    device: Device = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FOLDER", help="The run folder to make; runs/NAME if not given."),
    ] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Continue this run where it stopped.")] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out images that cannot be read, instead of stopping.")
    ] = False,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Train a model on data, or by a recipe. Writes a run folder with the model and a report."""
    if what is None and resume is None and model is None:
        raise InputError(
            "say what to train: a recipe (opsin train lenet5_digits), or a model (opsin train resnet18 --data SOURCE)"
        )
    check_recipe(what)
    check_data(data)
    check_weights(weights)
    if resume is not None:
        RunFolder.open(resume)
    from opsin.engine.recipe import parse_setting

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
    if device is not None:
        overrides |= devices_of(device)
    overrides |= dict(parse_setting(setting) for setting in settings or [])
    from opsin.engine.starting import recipe_of

    recipe = None if resume is not None and what is None else recipe_of(what, overrides)
    if find_lr and overrides.get("optim.lr") != "auto":  # which trains with what is found
        find_learning_rate(recipe, overrides, out, resume, as_json=as_json)
        return
    from opsin.engine.train import train as run_training

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


def find_learning_rate(
    recipe: str | dict[str, Any] | None,
    overrides: Mapping[str, Any],
    out: Path | None,
    resume: Path | None,
    *,
    as_json: bool,
) -> None:
    """`opsin train ... --find-lr`."""
    if recipe is None or resume is not None:
        raise InputError(
            "--find-lr makes a run of its own; give a recipe, or a model and data, in the place of --resume"
        )
    from opsin.engine.train import find_lr

    found = find_lr(recipe, overrides, out=out)
    if as_json:
        print_json(
            {"run": str(found.path), "suggestion": found.suggestion, "rates": found.rates, "losses": found.losses}
        )
