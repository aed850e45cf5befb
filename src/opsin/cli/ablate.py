"""`opsin ablate` and `opsin race`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from opsin.cli.arguments import AsJson, DataSource, Device, Epochs, Settings, Trainable, examples
from opsin.cli.early_checks import check_data, check_recipe
from opsin.cli.printing import print_json
from opsin.cli.train import devices_of
from opsin.errors import InputError

ABLATE_EXAMPLES = examples(
    "ablate resnet20_digits --switch model.residual=false --switch augment=null --seeds 3",
    "ablate ssd_scenes --switch 'loss.name=focal; optim.lr=0.0005' --budget 3m",
    "ablate --resume ablate/resnet20_digits --switch train.ema_decay=null --seeds 5",
)
RACE_EXAMPLES = examples(
    "race lenet5_digits resnet20_digits shufflenet_v2_digits --budget 2m",
    "race ssd_scenes retinanet_scenes --data boxes/ --budget 20m --seeds 2",
)

Seeds = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Trainings of each side, each with another seed; 3 if not given."),
]
Metric = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="What is compared, as val_accuracy; the recipe's monitored metric if not given."),
]
Part = Annotated[
    str, typer.Option("--split", metavar="val|test", help="What is compared on; test for a figure to quote.")
]
Level = Annotated[float, typer.Option(metavar="SHARE", help="Confidence of the intervals.")]
Bits = Annotated[
    int | None,
    typer.Option(metavar="N", help="Evaluate the trained models with weights and maps rounded to so many bits, 8 say."),
]
Parallel = Annotated[
    int, typer.Option(metavar="N", min=1, help="Trainings at once, in processes that share the cores.")
]
Cache = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="Where trainings are kept, for several comparisons; within its own if not given."
    ),
]
Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="FOLDER", help="The folder to make.")]
Resume = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Go on with this comparison.")]


def ablate(
    what: Trainable = None,
    switches: Annotated[
        list[str] | None,
        typer.Option(
            "--switch",
            metavar="KEY=VALUE",
            help="A key of the recipe and its other value: one more side. Several keys of one side have ; between "
            "them. Repeatable.",
        ),
    ] = None,
    seeds: Seeds = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="The longest that a training may take, as 3m; all get as few epochs as fit."),
    ] = None,
    data: DataSource = None,
    epochs: Epochs = None,
    metric: Metric = None,
    split: Part = "val",
    level: Level = 0.95,
    bits: Bits = None,
    parallel: Parallel = 1,
    device: Device = None,
    cache: Cache = None,
    out: Out = None,
    resume: Resume = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Train a recipe with each switch turned, over several seeds, and say what makes a difference.

    All sides have the same seeds, epochs and images. A difference comes with its interval; one within the noise is said
    to be none. Trainings are kept, and are not repeated.
    """
    if what is None and resume is None:
        raise InputError("say what to ablate: a recipe (opsin ablate resnet20_digits --switch model.residual=false)")
    overrides = settings_of_flags(what, data, epochs, device, settings)
    from opsin.engine.ablation import ablate as run
    from opsin.engine.starting import recipe_of

    recipe = None if what is None else recipe_of(what, overrides)
    done = run(
        recipe,
        switches or [],
        overrides,
        seeds=seeds,
        budget=budget,
        metric=metric,
        split=split,
        level=level,
        bits=bits,
        parallel=parallel,
        out=out,
        resume=resume,
        cache=cache,
    )
    if as_json:
        print_json(done.to_dict())


def race(
    recipes: Annotated[
        list[str] | None,
        typer.Argument(metavar="RECIPE...", help="Shipped recipes or recipe files, of one task.", show_default=False),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="TIME", help="Of each training, as 20m; as its recipe says if not given.")
    ] = None,
    seeds: Seeds = None,
    data: DataSource = None,
    metric: Metric = None,
    split: Part = "val",
    level: Level = 0.95,
    bits: Bits = None,
    parallel: Parallel = 1,
    device: Device = None,
    cache: Cache = None,
    out: Out = None,
    resume: Resume = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Train recipes on the same data, each for the same time, and say which is ahead, if any is.

    Their schedules are made to fit into the time, by steps that are timed before.
    """
    if not recipes and resume is None:
        raise InputError("say which recipes to race: opsin race lenet5_digits resnet20_digits --budget 3m")
    overrides = settings_of_flags(None, data, None, device, settings)
    for one in recipes or ():
        check_recipe(one)
    from opsin.engine.ablation import race as run

    done = run(
        recipes or [],
        overrides,
        seeds=seeds,
        budget=budget,
        metric=metric,
        split=split,
        level=level,
        bits=bits,
        parallel=parallel,
        out=out,
        resume=resume,
        cache=cache,
    )
    if as_json:
        print_json(done.to_dict())


def settings_of_flags(
    what: str | None, data: str | None, epochs: int | None, device: str | None, settings: list[str] | None
) -> dict[str, Any]:
    """The keys that flags give, those of --set last."""
    check_recipe(what)
    check_data(data)
    from opsin.engine.recipe import parse_setting

    flags = {"data.source": data, "train.epochs": epochs}
    found = {key: value for key, value in flags.items() if value is not None}
    if device is not None:
        found |= devices_of(device)
    return {**found, **dict(parse_setting(setting) for setting in settings or [])}
