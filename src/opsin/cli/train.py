"""`opsin train`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from opsin import registry, rooms
from opsin.cli import completion
from opsin.cli.arguments import AsJson, DataSource, Device, Settings, examples
from opsin.cli.early_checks import check_data, check_recipe
from opsin.cli.printing import print_json
from opsin.engine.run import RunFolder
from opsin.errors import InputError, say, unknown

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
            metavar="TASK|RECIPE|MODEL",
            help="A shipped recipe's name, a recipe file, a model's name (`opsin models` lists them), or a task.",
            show_default=False,
            autocompletion=completion.trainable,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", metavar="MODEL", help="A name from `opsin models`.", autocompletion=completion.models
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights", "-w", metavar="NAME", help="Published weights of the model to start from, such as imagenet1k."
        ),
    ] = None,
    data: DataSource = None,
    epochs: Annotated[int | None, typer.Option(metavar="N", help="Passes over the training images.")] = None,
    batch_size: Annotated[int | None, typer.Option(metavar="N", help="Images in a step of one process.")] = None,
    lr: Annotated[float | None, typer.Option(metavar="X", help="The highest learning rate.")] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Decides the first weights, the order and every random choice.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Processes that read images; does not change the result.")
    ] = None,
    device: Device = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FOLDER", help="The run folder to make; runs/NAME if not given."),
    ] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Continue this run where it stopped.")] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave unreadable images out instead of refusing.")
    ] = False,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Train a model on data, or by a recipe. Makes a run folder with the model and a report."""
    if what is None and resume is None and model is None:
        raise InputError(
            "say what to train: a recipe (opsin train lenet5_digits), or a model (opsin train resnet18 --data SOURCE)"
        )
    check_recipe(what)
    check_data(data)
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
    recipe = None if resume is not None and what is None else recipe_of(what, overrides)
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


def recipe_of(what: str | None, overrides: Mapping[str, Any]) -> str | dict[str, Any]:
    """What to train by: a task's name before a recipe's, a recipe's before a model's. A name of two is said.

    what: None where overrides name a model. Raises InputError for a name that is none of them, and for a model
    without data.
    """
    from opsin.engine.recipe import list_recipes

    named = str(overrides.get("model.name", ""))
    if what is None:
        return {} if "task" in overrides or not named else {"task": registry.find_model(named).task}
    tasks, recipes = rooms.list_tasks(), list_recipes()
    if Path(what).suffix in (".yaml", ".yml"):
        return what
    kinds = [kind for kind, names in (("task", tasks), ("recipe", recipes)) if what in names]
    if registry.is_model(what):
        kinds.append("model")
    if not kinds:
        raise _unknown(what, [*tasks, *recipes])
    if len(kinds) > 1:
        say(f"{what} is a {' and a '.join(kinds)}; this trains the {kinds[0]}")
    if kinds[0] != "model":
        return {"task": what} if kinds[0] == "task" else what
    entry = registry.find_model(what)
    if named and registry.find_model(named) is not entry:
        raise InputError(f"{what} and --model {named} are two models; leave one of them out")
    if not {"data", "data.source"} & overrides.keys():
        raise InputError(f"{what} is a model; say what to train it on: opsin train {what} --data SOURCE")
    return {"task": entry.task, "model": {"name": entry.name}}


def _unknown(what: str, tasks_and_recipes: Sequence[str]) -> InputError:
    """The error for what is neither a task, nor a recipe, nor a model."""
    path = Path(what)
    if (path / "recipe.yaml").is_file():
        return InputError(f"{what} is a run; to go on with it: opsin train --resume {what}")
    if path.exists():
        return InputError(f"{what} is no recipe (.yaml); to train on it: opsin train MODEL --data {what}")
    if (elsewhere := registry.elsewhere(what)) is not None:
        return InputError(f"unknown model {what!r}: {elsewhere}")
    error = unknown("task, recipe or model", what, [*tasks_and_recipes, *registry.list_models()])
    return InputError(f"{error} (`opsin models` lists the models; the tasks are {', '.join(rooms.list_tasks())})")


def devices_of(device: str) -> dict[str, Any]:
    """The keys of a recipe that choose a device: `cuda:1`. Raises InputError for one that is not there."""
    form = re.fullmatch(r"(cpu|mps|cuda)(?::(\d+))?", device)
    if form is None or (form[2] and form[1] != "cuda"):
        raise InputError(f"unknown --device {device!r}; take cpu, cuda, cuda:1 (the second) or mps")
    import torch

    kind, number = form[1], form[2]
    if kind == "mps" and not torch.backends.mps.is_available():
        raise InputError("--device mps: torch finds no Apple GPU here; take cpu, or leave --device out")
    there = torch.cuda.device_count() if kind == "cuda" else 1
    if there == 0:
        raise InputError(f"--device {device}: torch finds no CUDA device here; take cpu, or leave --device out")
    if number and int(number) >= there:
        listed = ", ".join(f"cuda:{place}" for place in range(there))
        raise InputError(f"--device {device} is not here; there is {listed}")
    return {"train.accelerator": kind, "train.devices": [int(number)] if number else 1}
