"""`opsin eval`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from opsin.cli.arguments import AsJson, DataSource, Device, Trained, examples
from opsin.cli.printing import print_json

EXAMPLES = examples(
    "eval runs/lenet5_digits",
    "eval resnet50:imagenet1k --data photos/ --json",
    "eval runs/fast_rcnn --truncated-svd 256,64",
)


def evaluate(
    run: Trained,
    data: DataSource = None,
    split: Annotated[
        str | None, typer.Option(metavar="SPLIT", help="train, val or test; test if there is one.")
    ] = None,
    device: Device = None,
    as_json: AsJson = False,
    *,
    options: dict[str, Any],
) -> None:
    """Evaluate a trained model on a split of its own data, or on other data of the same classes."""
    from opsin.engine.evaluate import evaluate_run

    result = evaluate_run(run, data, split, device=device, **options)
    metrics, addition = result.metrics, result.addition
    if as_json:
        print_json(metrics if addition is None else addition.to_dict())
        return
    width = max(len(name) for name in metrics)
    for name, value in result.lines().items():
        print(f"{name:{width}}  {value}")
    if addition is not None:
        print(addition.describe())
