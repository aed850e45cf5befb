"""`opsin design`."""

from __future__ import annotations

from typing import Annotated

import typer

from opsin.cli.ablate import Cache, Out, Parallel, Resume, settings_of_flags
from opsin.cli.arguments import AsJson, DataSource, Device, Settings, examples
from opsin.cli.printing import print_json
from opsin.errors import InputError

EXAMPLES = examples(
    "design anynetx_a regnetx --limit macs=4M --samples 50 --epochs 10 --parallel 2",
    "design regnetx --block inverted_residual --limit macs=4M --limit params=100k..1M",
    "design --resume design/anynetx_a-regnetx --samples 100",
)


def design(
    spaces: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SPACE...", help="anynetx_a to anynetx_e, each narrower than the one before, and regnetx."
        ),
    ] = None,
    limits: Annotated[
        list[str] | None,
        typer.Option(
            "--limit",
            metavar="COST=NUMBER",
            help="What networks may cost: macs=4M (down to nine tenths of it) or macs=3M..4M; params, activations. "
            "Repeatable.",
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Networks of each space; 50 if not given.")
    ] = None,
    epochs: Annotated[int, typer.Option(metavar="N", min=1, help="Of each training.")] = 10,
    block: Annotated[
        str, typer.Option(metavar="NAME", help="Of all networks: bottleneck, vgg or inverted_residual.")
    ] = "bottleneck",
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="RECIPE", help="By what all are trained; its model is replaced. regnety_200mf_digits if not given."
        ),
    ] = None,
    data: DataSource = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Decides which networks are drawn.")] = 0,
    parallel: Parallel = 1,
    device: Device = None,
    cache: Cache = None,
    out: Out = None,
    resume: Resume = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Draw networks from design spaces, train each briefly, and compare how their errors are distributed.

    The report has the distributions, the quantised line nearest to each network, and the trends of the RegNet paper.
    """
    if not spaces and resume is None:
        raise InputError("say which design spaces: opsin design anynetx_a regnetx --limit macs=4M")
    overrides = settings_of_flags(recipe, data, None, device, settings)
    from opsin.analyze.design import RECIPE
    from opsin.analyze.design import design as run

    done = run(
        spaces or [],
        limits=limits or [],
        samples=samples if samples is not None else (1 if resume is not None else 50),
        epochs=epochs,
        block=block,
        recipe=recipe or RECIPE,
        overrides=overrides,
        seed=seed,
        parallel=parallel,
        out=out,
        resume=resume,
        cache=cache,
    )
    if as_json:
        print_json(done.to_dict())
