"""`opsin explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from opsin.cli import completion
from opsin.cli.arguments import AsJson, examples
from opsin.cli.early_checks import check_explained, check_files
from opsin.cli.printing import numbers, print_json
from opsin.errors import InputError, say

EXAMPLES = examples(
    "explain resnet50",
    "explain runs/lenet5_digits --html lenet5.html --images seven.png",
    "explain resnet50 mobilenet_v2 shufflenet_v2_x1_0 --measure",
    "explain lenet5_digits --json",
)


def explain(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL|RUN|RECIPE...",
            help="A model, a run, published weights (resnet50:imagenet1k) or a recipe; several are compared.",
            show_default=False,
            autocompletion=completion.models_and_recipes,
        ),
    ],
    size: Annotated[
        str | None, typer.Option("--input", metavar="C,H,W", help="Channels, height and width of one image.")
    ] = None,
    batch: Annotated[int, typer.Option(metavar="N", min=1, help="Batch size that memory is estimated for.")] = 32,
    optimizer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Optimizer that training memory is for: sgd, plain_sgd or adamw; the recipe's if it has one.",
        ),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Run it too: latency of one image, and peak memory at --batch.")
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write it as one HTML page, with plots and images.", show_default=False),
    ] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option(
            "--images",
            metavar="FILE",
            help="For a run's page: images to look at. Repeatable.",
            show_default=False,
        ),
    ] = None,
    pictures: Annotated[list[Path] | None, typer.Option("--pictures", hidden=True)] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option("--layer", metavar="LAYER", help="For a run's page: layers to show. Repeatable."),
    ] = None,
    units: Annotated[
        list[int] | None,
        typer.Option("--unit", metavar="N", help="For a run's page: units (channels) to visualise. Repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Explain a network: layers, parameters, FLOPs, receptive fields, memory and advice. Several are compared."""
    if pictures:
        say("--pictures is called --images now; the old name goes with the next release")
        images = [*(images or []), *pictures]
    seen = {"--images": images, "--layer": layers, "--unit": units}
    if html is None and (given := next((flag for flag, value in seen.items() if value), None)):
        raise InputError(f"{given} belongs to a page; add --html FILE")
    for one in what:
        check_explained(one)
    check_files(images)
    from opsin.analyze.explain import explain as find_out

    asked = None if size is None else numbers("--input", "C,H,W", "3,224,224", size)
    found = [find_out(one, input_size=asked, batch=batch, optimizer=optimizer, measure=measure) for one in what]
    if html is not None:
        from opsin.analyze.page import write_page

        write_page(html, found, images=images or (), layers=layers, units=units)
    if len(found) == 1:
        if as_json:
            print_json(found[0].to_dict())
        else:
            from opsin.analyze.terminal import show

            show(found[0])
        return
    from opsin.analyze.compare import compare
    from opsin.analyze.terminal import show_comparison

    compared = compare(found)
    if as_json:
        print_json(compared)
    else:
        show_comparison(compared)
