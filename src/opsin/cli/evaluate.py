"""`opsin eval`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from opsin.cli.arguments import AsJson, DataSource, Device, Tile, Trained, examples
from opsin.cli.early_checks import check_data, check_run
from opsin.cli.printing import print_json, put

EXAMPLES = examples(
    "eval runs/lenet5_digits",
    "eval resnet50:imagenet1k --data photos/ --json",
    "eval runs/ssd_scenes --data aerial/ --split val --tile auto --save",
    "eval runs/fast_rcnn --truncated-svd 256,64",
)


def evaluate(
    run: Trained,
    data: DataSource = None,
    split: Annotated[
        str | None, typer.Option(metavar="SPLIT", help="train, val or test; test if there is one.")
    ] = None,
    tile: Tile = None,
    save: Annotated[
        bool, typer.Option("--save", help="Keep --tile with the model, which then predicts with it. Not on test data.")
    ] = False,
    device: Device = None,
    as_json: AsJson = False,
    *,
    options: dict[str, Any],
) -> None:
    """Evaluate a trained model on a split of its own data, or on other data of the same classes."""
    check_run(run)
    check_data(data)
    from opsin.engine.evaluate import evaluate_run

    result = evaluate_run(run, data, split, device=device, tile=tile, save=save, **options)
    metrics, addition = result.metrics, result.addition
    if as_json:
        found = metrics if addition is None else addition.to_dict()
        print_json(found if result.tiles is None else {**found, "tile": result.tiles.to_dict()})
        return
    put(result.data)
    width, texts = max(len(name) for name in metrics), result.lines()
    right = max(len(text.partition(" ")[0]) for text in texts.values())
    for name, text in texts.items():
        value, _, unit = text.partition(" ")
        put(f"{name:{width}}  {value:>{right}} {unit}".rstrip())
    if addition is not None:
        put(addition.describe(), several=True)
    if result.tiles is not None:
        put(result.tiles.describe(), several=True)
    if save:
        put(f"saved with {run}: predictions use --tile {tile} unless they say otherwise")
