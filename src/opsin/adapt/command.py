"""`opsin adapt`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from opsin.errors import InputError

Sources = Annotated[
    list[str] | None,
    typer.Option(
        "--source", metavar="SOURCE", help="A labelled domain: a folder of class folders, or any data. Repeatable."
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        "--target", metavar="SOURCE", help="The domain to adapt to. Labels are not needed, and not looked at."
    ),
]
Trained = Annotated[
    str | None,
    typer.Option(
        "--run", metavar="RUN", help="Adapt this run to --target, without its training data: --method adabn or tent."
    ),
]
Bridges = Annotated[
    list[str] | None,
    typer.Option("--bridge", metavar="SOURCE", help="A domain between source and target, in order. Repeatable."),
]
Name = Annotated[str, typer.Option("--method", metavar="NAME", help="A method that --list shows.")]
ListMethods = Annotated[bool, typer.Option("--list", help="Show all methods and their options, and do nothing else.")]
Model = Annotated[str | None, typer.Option("--model", "-m", metavar="MODEL", help="A name from `opsin models`.")]
Weights = Annotated[
    str | None, typer.Option("--weights", "-w", metavar="NAME", help="Weights to start from, such as imagenet1k.")
]
Selection = Annotated[
    str | None,
    typer.Option("--selection", metavar="NAME", help="Which epoch is kept: last, source, entropy, dev or snd."),
]
Epochs = Annotated[int | None, typer.Option(metavar="N", help="Passes over the sources' images, of each training.")]
BatchSize = Annotated[int | None, typer.Option("--batch-size", metavar="N", help="Images per step, half of each side.")]
Rate = Annotated[float | None, typer.Option("--lr", metavar="X", help="The peak learning rate.")]
Seed = Annotated[int | None, typer.Option("--seed", metavar="N", help="Random seed.")]
Workers = Annotated[int | None, typer.Option("--workers", metavar="N", help="Processes that load images.")]
Device = Annotated[str | None, typer.Option("--device", metavar="DEVICE", help="cpu, cuda, cuda:1, mps.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="FOLDER", help="The run folder to make.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any key of the recipe. Repeatable.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]


def adapt(
    source: Sources = None,
    target: Target = None,
    run: Trained = None,
    bridge: Bridges = None,
    method: Name = "dann",
    list_methods: ListMethods = False,
    model: Model = None,
    weights: Weights = None,
    selection: Selection = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    lr: Rate = None,
    seed: Seed = None,
    workers: Workers = None,
    device: Device = None,
    out: Out = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Train a classifier on labelled domains for images of another domain, which need no labels. Makes a run."""
    if list_methods:
        _list(as_json)
        return
    if run is not None:
        if source or model or bridge or target is None:
            raise InputError("--run adapts what is trained: give it --target, and no --source, --bridge or --model")
        _adapt_run(run, target, method, out, lr, epochs, batch_size, device, as_json)
        return
    if not source:
        raise InputError("say what to learn from: opsin adapt --source LABELLED --target UNLABELLED --model resnet18")
    if model is None:
        raise InputError("say which network is to be adapted, with --model, such as --model resnet18")
    flags = {
        "model.weights": weights,
        "train.epochs": epochs,
        "train.batch_size": batch_size,
        "optim.lr": lr,
        "train.seed": seed,
        "train.workers": workers,
        "adapt.selection": selection,
    }
    section = {"method": method, "sources": source[1:], "target": target, "bridges": bridge or []}
    recipe = {"task": "adapt", "model": {"name": model}, "data": {"source": source[0]}, "adapt": section}
    _train(recipe, flags, device, settings or [], out, as_json)


def _train(
    recipe: dict[str, Any],
    flags: dict[str, Any],
    device: str | None,
    settings: list[str],
    out: Path | None,
    as_json: bool,
) -> None:
    """The training that the flags describe."""
    from opsin.engine.devices_by_name import devices_of
    from opsin.engine.recipe import parse_setting
    from opsin.engine.train import train

    overrides = {key: value for key, value in flags.items() if value is not None}
    overrides |= {} if device is None else devices_of(device)
    overrides |= dict(parse_setting(setting) for setting in settings)
    run = train(recipe, overrides, out=out)
    if as_json:
        found = {"run": str(run.path), "split": run.split, "metrics": run.metrics, "report": str(run.report)}
        print(json.dumps(found, indent=2))


def _adapt_run(
    run: str,
    target: str,
    method: str,
    out: Path | None,
    lr: float | None,
    epochs: int | None,
    batch_size: int | None,
    device: str | None,
    as_json: bool,
) -> None:
    """A run that is trained already, by the target's images alone."""
    from opsin.adapt.adapting_run import adapt_run

    given = {"lr": lr, "epochs": epochs, "batch_size": batch_size}
    done = adapt_run(run, target, method, out, device=device, **{k: v for k, v in given.items() if v is not None})
    if as_json:
        print(json.dumps({"run": str(done.path), "oracle": done.metrics, "report": str(done.report)}, indent=2))


def _list(as_json: bool) -> None:
    """The methods, a line each, with their options."""
    from opsin.adapt.methods import METHODS, describe, options_of

    rows = [
        {
            "name": name,
            "family": kind.family,
            "adapts": kind.adapts,
            "what": describe(name),
            "options": options_of(kind),
        }
        for name, kind in METHODS.items()
    ]
    if as_json:
        print(json.dumps(rows, indent=2, default=list))
        return
    from opsin.adapt.adapting_run import RUN_METHODS

    for name, kind in RUN_METHODS.items():
        print(f"{name}  {(kind.__doc__ or '').partition(': ')[2].partition(chr(10))[0]} (parameters, of --run)")
    for row in sorted(
        rows, key=lambda row: ("parameters", "features", "instances", "generalisation").index(row["family"])
    ):
        options = ", ".join(f"{key}={value}" for key, value in row["options"].items())
        print(f"{row['name']}  {row['what']} ({row['family']})" + (f"\n    {options}" if options else ""))
