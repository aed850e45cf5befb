"""`opsin tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from opsin.cli.arguments import AsJson, DataSource, Device, Epochs, Model, Trainable, Weights, examples
from opsin.cli.early_checks import check_data, check_recipe, check_weights
from opsin.cli.printing import print_json
from opsin.engine.devices_by_name import devices_of
from opsin.errors import InputError

EXAMPLES = examples(
    "tune lenet5_digits --set optim.lr=log:1e-4..1e-1 --set optim.name=choice:sgd,adamw --trials 20",
    "tune resnet18 --data photos/ --epochs 10 --set optim.lr=log:1e-5..1e-2",
    "tune --resume tune/lenet5_digits --trials 40",
)


def tune(
    what: Trainable = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUES",
            help="A key of the recipe and what to search: log:1e-4..1e-1, float:0..0.5, int:16..128, "
            "logint:1..1000, choice:sgd,adamw. A single value is set in all trials. Repeatable.",
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Trainings in all; 20 if not given.", show_default=False)
    ] = None,
    model: Model = None,
    weights: Weights = None,
    data: DataSource = None,
    epochs: Epochs = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Decides which values are drawn.")] = 0,
    no_prune: Annotated[
        bool, typer.Option("--no-prune", help="Train each trial to its end, also one that falls behind the median.")
    ] = False,
    ray: Annotated[bool, typer.Option("--ray", help="Run trials as tasks of Ray, several at once.")] = False,
    parallel: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="With --ray: how many at once; as many as the cluster can run if not given."
        ),
    ] = None,
    device: Device = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FOLDER", help="The folder to make; tune/NAME if not given."),
    ] = None,
    resume: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Go on with this search.")] = None,
    as_json: AsJson = False,
) -> None:
    """Search for the settings with the best validation metric, over many trainings. Needs Optuna.

    The test split decides nothing: the best model alone is evaluated on it, at the end.
    """
    if what is None and resume is None and model is None:
        raise InputError("say what to tune: a recipe (opsin tune lenet5_digits --set optim.lr=log:1e-4..1e-1)")
    check_recipe(what)
    check_data(data)
    check_weights(weights)
    space, overrides = read_settings(settings or [])
    flags = {"model.name": model, "model.weights": weights, "data.source": data, "train.epochs": epochs}
    overrides = {**{key: value for key, value in flags.items() if value is not None}, **overrides}
    if device is not None:
        overrides |= devices_of(device)
    from opsin.engine.starting import recipe_of

    recipe = None if resume is not None and what is None else recipe_of(what, overrides)
    from opsin.engine.tune import tune as run_search

    done = run_search(
        recipe,
        space,
        overrides,
        trials=trials,
        seed=seed,
        prune=not no_prune,
        ray=ray,
        parallel=parallel,
        out=out,
        resume=resume,
    )
    if as_json:
        print_json(done.to_dict())


def read_settings(settings: list[str]) -> tuple[dict[str, str], dict[str, Any]]:
    """What is searched, key -> text, and what has one value in all trials."""
    from opsin.engine.recipe import parse_setting
    from opsin.engine.search_space import is_range

    space: dict[str, str] = {}
    overrides: dict[str, Any] = {}
    for setting in settings:
        key, _, text = setting.partition("=")
        if key.strip() and is_range(text):
            space[key.strip()] = text.strip()
        else:
            name, value = parse_setting(setting)
            overrides[name] = value
    return space, overrides
