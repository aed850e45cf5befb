"""Evaluate a trained model on a split, and write down what was found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from opsin import data
from opsin.data import Split
from opsin.engine.evaluator import Evaluated, Evaluator, Result, create_evaluator
from opsin.engine.predict import Predictor, load
from opsin.engine.recipe_data import open_data, split_data
from opsin.engine.run import RunFolder
from opsin.errors import InputError
from opsin.files import atomic
from opsin.progress import follow


@torch.no_grad()
def evaluate_split(
    evaluator: Evaluator, split: Split, *, calibrate: bool = False, batch_size: int | None = None
) -> Evaluated:
    """Run the evaluator's model over a split. calibrate: fit the model's calibration on this split first."""
    predictor = evaluator.predictor
    train = predictor.recipe.train
    if predictor.has_network:
        predictor.model.eval()
    loader = data.create_loader(
        predictor.prepare_split(split),
        predictor.preprocessing,
        batch_size=batch_size or train.batch_size,
        workers=train.workers,
    )
    for batch in follow(loader, "evaluating", "batches"):
        evaluator.update(predictor.outputs(batch), batch)
    if calibrate:
        evaluator.calibrate()
    result = evaluator.result()
    result.shown = {name: evaluator.room.format(name, value) for name, value in result.metrics.items()}
    return Evaluated(split, result)


def evaluate(
    run: str | Path,
    data: str | Path | None = None,
    split: str | None = None,
    *,
    device: str | None = None,
    change: Callable[[Any], nn.Module] | None = None,
    **options: Any,
) -> dict[str, float]:
    """The metrics of a run's model on a split of its own data, or of another source with the same classes.

    run: a run folder, a model.safetensors or published weights by name ("resnet50:imagenet1k"), which need data and
    know ImageNet's folder names; or a task without a network by its name, which needs data too. split: "train", "val"
    or "test"; None takes test, else val, else all there is.
    change: what to evaluate in the place of the model. options: the task's, as `truncated_svd` of Fast R-CNN. A run
    evaluated on its own data, without a change or options, gets evaluation_<split>.json with everything that was found.
    """
    return evaluate_run(run, data, split, device=device, change=change, **options).metrics


def evaluate_run(
    run: str | Path,
    data: str | Path | None = None,
    split: str | None = None,
    *,
    device: str | None = None,
    change: Callable[[Any], nn.Module] | None = None,
    **options: Any,
) -> Result:
    """`evaluate`, with everything that was found."""
    predictor = load(run, device)
    if change is not None:
        predictor.model = change(predictor.model)
    evaluator = create_evaluator(predictor, **options)
    chosen, name, source = _choose_split(predictor, data, split)
    result = evaluate_split(evaluator, chosen).result
    result.data = f"{source}, {name}: {len(chosen):,} {chosen.inputs.noun}s"
    if predictor.classes:
        result.data += f", {len(predictor.classes):,} classes"
    folder = RunFolder(Path(run))
    if folder.path.is_dir() and data is None and change is None and not options:
        with atomic(folder.path / f"evaluation_{name}.json") as temporary:
            temporary.write_text(json.dumps({"split": name, "metrics": result.metrics, **result.details}, indent=1))
    return result


def _choose_split(predictor: Predictor, source_name: str | Path | None, split: str | None) -> tuple[Split, str, str]:
    """The split to evaluate on, its truth in the model's terms, its name and that of its source."""
    recipe = predictor.recipe
    if not (source_name or recipe.data.source):
        what = "published weights come" if predictor.has_network else f"{recipe.task} comes"
        raise InputError(f"{what} without data; say on which to evaluate, with --data")
    source = open_data(recipe, source_name)
    if recipe.data.skip_bad:
        source = source.without(data.verify(source))
    splits = split_data(recipe, source) if source_name is None else source.splits
    name = split or next((n for n in ("test", "val", "all") if n in splits), "train")
    if name not in splits:
        raise InputError(f"{source.name} has no split {name!r}; it has {', '.join(splits)}")
    source = predictor.relabel(recipe, source.with_splits({name: splits[name]}))
    chosen = source.splits[name]
    # What has no network was trained on nothing: where it says no meaning of its own, it takes that of the data.
    if chosen.truth is not None and (predictor.has_network or predictor.facts.meaning):
        chosen = chosen.with_truth(chosen.truth.match(predictor.facts.meaning))
    return chosen, name, source.name
