"""A run that is trained already, adapted to a target by its images alone, without the data that it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from opsin import errors
from opsin.adapt.domains import TARGET, join
from opsin.adapt.opening import divide_target, labels_in, open_target
from opsin.adapt.test_time import adapt_statistics, minimise_entropy
from opsin.data import Split
from opsin.data.loading import create_loader
from opsin.engine.checkpoint import save_model
from opsin.engine.evaluate import evaluate_split
from opsin.engine.evaluator import create_evaluator
from opsin.engine.predict import Predictor, load
from opsin.engine.recipe import Recipe, load_recipe
from opsin.engine.report import Table, write_report
from opsin.engine.run import RunFolder
from opsin.errors import InputError, printable, unknown

RUN_METHODS: Mapping[str, Callable[..., None]] = {"adabn": adapt_statistics, "tent": minimise_entropy}
_BATCH = 64


@dataclass
class AdaptedRun:
    """A run folder with the adapted model. metrics: of the target's labelled test images, before and after, if any."""

    path: Path
    report: Path
    metrics: dict[str, float] = field(default_factory=dict)


def adapt_run(
    run: str | Path | Predictor,
    target: str,
    method: str = "tent",
    out: str | Path | None = None,
    *,
    lr: float = 0.001,
    epochs: int = 1,
    batch_size: int = _BATCH,
    device: str | None = None,
    say: Callable[[str], None] = errors.say,
) -> AdaptedRun:
    """Adapt a trained classifier to the images of a target, and write it as a run of its own.

    method: "adabn" or "tent", see `opsin.adapt.test_time`. The target's labels, if it has any, make an oracle figure
    before and after, and nothing else. Raises InputError for a network without batch norm, for a target that is smaller
    than a batch, and for a method that is no such one.
    """
    if method not in RUN_METHODS:
        raise unknown("method of adapting a run", method, RUN_METHODS)
    predictor = load(run, device) if not isinstance(run, Predictor) else run
    classes = predictor.classes
    if not classes or predictor.preprocessing is None:
        raise InputError(f"{run} is no classifier of images; give a run of classify or adapt")
    opening = load_recipe({"task": "adapt", "model": {"name": "lenet5"}, "data": {"source": target}})
    split, oracle = _target(opening, target, classes, say)
    if len(split) < batch_size:
        raise InputError(
            f"{target} has {len(split)} images to adapt to, fewer than a batch of {batch_size}; give more, or set "
            f"--batch-size {max(2, len(split))} or lower"
        )
    before = _evaluate(predictor, oracle)
    model: nn.Module = predictor.model
    options = {"lr": lr, "epochs": epochs} if method == "tent" else {}
    RUN_METHODS[method](model, _batches(predictor, split, batch_size), **options)
    after = _evaluate(predictor, oracle)
    folder = RunFolder.create(out, f"{method}_{Path(target).stem}")
    facts = predictor.facts
    if "aux_heads" in facts.options:  # which are left out by now
        facts.options = {**facts.options, "aux_heads": False}
    folder.write_recipe(predictor.recipe.to_yaml())
    save_model(folder.model, model, facts, {f"target_{key}": value for key, value in after.items()})
    report = _report(folder, method, target, len(split), before, after, say)
    return AdaptedRun(folder.path, report, after)


def _target(recipe: Recipe, target: str, classes: list[str], say: Callable[[str], None]) -> tuple[Split, Split | None]:
    """The images to adapt to, without labels; and apart from them the labelled ones of its test split."""
    opened = open_target(recipe, target, say)
    splits = divide_target(recipe, opened)
    labels = labels_in(opened, splits, classes)
    oracle = None
    if labels is not None and "test" in splits and bool((labels["test"] >= 0).any()):
        known = (labels["test"] >= 0).nonzero()[0]
        oracle = join([(splits["test"].subset(known), labels["test"][known], TARGET)], classes)
    return splits["train"], oracle


def _batches(predictor: Predictor, split: Split, batch_size: int) -> Callable[[], Iterable[Tensor]]:
    """The network's inputs, shuffled, for as often as they are asked for."""

    def run() -> Iterator[Tensor]:
        loader = create_loader(split, predictor.preprocessing, batch_size=batch_size, training=True)
        for batch in loader:
            yield predictor.inputs(batch)[0]

    return run


def _evaluate(predictor: Predictor, oracle: Split | None) -> dict[str, float]:
    if oracle is None:
        return {}
    result = evaluate_split(create_evaluator(predictor), oracle)
    return {key: value for key, value in result.metrics.items() if key in ("accuracy", "f1")}


def _report(
    folder: RunFolder,
    method: str,
    target: str,
    count: int,
    before: Mapping[str, float],
    after: Mapping[str, float],
    say: Callable[[str], None],
) -> Path:
    rows: list[list[Any]] = [[key, before[key], after[key]] for key in after]
    if after:
        gain = 100 * (after["accuracy"] - before["accuracy"])
        verdict = f"gains {gain:.2f} points" if gain >= 0 else f"WORSE by {-gain:.2f} points: it did harm here"
        say(
            printable(
                f"oracle, by labels of {target} that nothing was adapted by: before {100 * before['accuracy']:.2f} %, "
                f"{method} {100 * after['accuracy']:.2f} %: {verdict}"
            )
        )
    note = "By labels of the target that nothing was adapted by. Not a result of use."
    sections = [Table("Oracle (for comparison only)", ["metric", "before", method], rows, note)] if rows else []
    headline = {"images": f"{count:,}"}
    path = write_report(folder.report, f"{method} on {Path(target).name}", headline, sections)
    say(f"report: {path}")
    return path
