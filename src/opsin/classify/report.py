"""A classifier's part of the report: confusions, calibration, classes and mistakes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Protocol

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from torch import Tensor

from opsin.classify.metrics import Bin, Evaluation, expected_calibration_error
from opsin.data.drawing import shorten
from opsin.engine import charts
from opsin.engine.confusions import MOST_IN_MATRIX, confusion_matrix, top_confusions
from opsin.engine.report import Figure, Gallery, GalleryItem, Section, Table, Text
from opsin.errors import InputError

_MANY = 20  # rows of a table of classes that can be looked through
_MEANING = {
    "accuracy": "share of examples whose most probable class is the true one",
    "top5_accuracy": "share of examples whose true class is among the five most probable",
    "precision": "how often an answer is right, for each class, averaged over the classes",
    "recall": "how much of a class is found, for each class, averaged over the classes",
    "f1": "harmonic mean of precision and recall, for each class, averaged over the classes",
    "map": "average precision: how well scores rank a class's examples before others, averaged over the classes",
    "f1_micro": "harmonic mean of precision and recall over all decisions, so that frequent classes count more",
    "subset_accuracy": "share of examples whose every class is decided correctly",
    "hamming_accuracy": "share of all yes-or-no decisions that are correct",
    "nll": "negative log-likelihood of the truth in nats: 0 is certainty of the truth, {guess:.2f} is guessing",
    "ece": "expected calibration error: how far stated probabilities are from how often they come true, on average",
}


class Examples(Protocol):
    """Where the images of an evaluated split come from, by their place in it."""

    def read(self, index: int) -> Tensor: ...

    def name(self, index: int) -> str: ...


def sections(
    evaluation: Evaluation, examples: Examples, classes: list[str], *, temperature: float | None = None, limit: int = 24
) -> list[Section]:
    """Confusions, reliability, the table of classes, the most confident mistakes and what the numbers mean.

    temperature: what the scores were scaled by, if known; limit: mistakes to show.
    """
    found: list[Section] = []
    if evaluation.confusion is not None:
        if len(classes) <= MOST_IN_MATRIX:
            found.append(confusion_matrix(evaluation.confusion, classes))
        if evaluation.mistakes:
            found.append(top_confusions(evaluation.confusion, classes))
    found.append(reliability_diagram(evaluation, temperature))
    found.append(class_table(evaluation))
    found.append(mistakes(evaluation, examples, classes, limit))
    found.append(meanings(evaluation, len(classes)))
    return found


def reliability_diagram(evaluation: Evaluation, temperature: float | None = None) -> Figure:
    """Confidence against accuracy, after temperature scaling and, if it was done, before. Guo et al. 2017, fig. 1."""
    panels = [("", evaluation.reliability)]
    if evaluation.uncalibrated is not None:
        scaled = "after" if temperature is None else f"after, T = {temperature:.3g}"
        panels = [("before scaling", evaluation.uncalibrated.reliability), (scaled, evaluation.reliability)]

    def draw(canvas: Canvas) -> None:
        grid = canvas.subplots(2, len(panels), squeeze=False, sharex=True, sharey="row", height_ratios=(4, 1))
        for column, (title, bins) in enumerate(panels):
            error = f"ECE {100 * expected_calibration_error(bins):.2f} %"
            _reliability_panel(grid[0, column], bins, f"{title}: {error}" if title else error)
            _histogram(grid[1, column], bins)
        canvas.get_layout_engine().set(wspace=0.07)  # type: ignore[union-attr]
        grid[0, 0].set_ylabel("accuracy")
        grid[1, 0].set_ylabel("share")

    what = "a class is there" if evaluation.multi_label else "the answer is right"
    caption = f"How often {what} (blue) where the network states a probability; orange is the gap to what it states."
    width = 6.0 if len(panels) == 1 else 8.0
    return Figure("Reliability", charts.svg(draw, width, 4.4), caption, wide=len(panels) > 1)


def class_table(evaluation: Evaluation) -> Table:
    """Precision, recall and F1 of every class; in order of F1 where there are too many to look through."""
    rows = evaluation.per_class
    shares = [name for name in ("ap", "precision", "recall", "f1") if name in rows[0]]
    notes = []
    if len(rows) > _MANY:
        rows = sorted(rows, key=lambda row: math.inf if row["f1"] is None else row["f1"])
        notes.append("The weakest classes come first.")
    if any(row["f1"] is None for row in rows):
        notes.append("A class without an example shows a dash and is left out of the averages.")
    cells = [[row["class"], row["examples"], row["predicted"], *(row[name] for name in shares)] for row in rows]
    return Table("Classes", ["class", "examples", "predicted", *shares], cells, " ".join(notes), shares)


def mistakes(evaluation: Evaluation, examples: Examples, classes: list[str], limit: int = 24) -> Section:
    """The wrong answers that the network is surest of: hard examples, or wrong labels."""
    title, count = "Most confident mistakes", len(evaluation.mistakes)
    if not count:
        return Text(title, f"None: all {evaluation.count:,} examples are answered correctly.")
    items = []
    for place in evaluation.mistakes[:limit]:
        try:
            image = examples.read(place)
        except InputError:  # moved or lost since it was evaluated
            continue
        caption = _caption(evaluation, place, classes)
        items.append(GalleryItem(image, f"{caption}\n{shorten(Path(examples.name(place)).name, 40)}", wrong=True))
    shown = f"The {len(items)} surest of {count:,} wrong" if count > len(items) else f"All {count:,} wrong"
    note = f"{shown} answers among {evaluation.count:,}: the answer, then the truth. Look for wrong labels among them."
    return Gallery(title, items, note)


def meanings(evaluation: Evaluation, num_classes: int) -> Table:
    """What each metric of the evaluation says, in plain words."""
    rows = []
    for name in evaluation.metrics:
        if name in _MEANING:
            guess = math.log(2) if evaluation.multi_label else math.log(num_classes)
            rows.append([name.replace("_", " "), _MEANING[name].format(guess=guess)])
    note = ""
    if "accuracy" in evaluation.metrics:
        low, high = wilson_interval(evaluation.metrics["accuracy"], evaluation.count)
        note = (
            f"Measured on {evaluation.count:,} examples: with 95 % confidence the accuracy on others like them lies "
            f"between {100 * low:.1f} and {100 * high:.1f} %."
        )
    return Table("How to read the numbers", ["metric", "meaning"], rows, note)


def wilson_interval(share: float, count: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % confidence interval of a share that was measured on `count` examples. Wilson 1927."""
    middle = share + z * z / (2 * count)
    reach = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)


def _caption(evaluation: Evaluation, place: int, classes: list[str]) -> str:
    scores, labels = evaluation.scores[place], evaluation.labels[place]
    if not evaluation.multi_label:
        truth, best = int(labels), int(scores.argmax())
        return f"{_answer(classes[best], scores[best])}\nis {_answer(classes[truth], scores[truth])}"
    wrong = ((scores >= 0.5) != (labels > 0.5)) & (labels != -1)
    error = (scores - labels).abs().where(wrong, scores.new_tensor(-1))
    order = error.argsort(descending=True, stable=True)[: min(3, int(wrong.sum()))].tolist()
    verdicts = [f"{_answer(classes[i], scores[i])}: {'is' if labels[i] > 0.5 else 'not'} there" for i in order]
    return "\n".join(verdicts)


def _answer(name: str, score: Tensor) -> str:
    return f"{shorten(name, 32)} ({100 * float(score):.1f} %)"


def _reliability_panel(axes: Axes, bins: list[Bin], title: str) -> None:
    for b in bins:
        if b["accuracy"] is None or b["confidence"] is None:
            continue
        centre, width = (b["low"] + b["high"]) / 2, 0.9 * (b["high"] - b["low"])
        axes.bar(centre, b["accuracy"], width, color=charts.BLUE, alpha=0.85)
        low, high = sorted((b["accuracy"], b["confidence"]))
        gap: dict[str, Any] = {"facecolor": "none", "edgecolor": charts.ORANGE, "hatch": "////", "linewidth": 1}
        axes.bar(centre, high - low, width, bottom=low, **gap)
    axes.plot([0, 1], [0, 1], color=charts.MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_title(title, size=10, loc="left")


def _histogram(axes: Axes, bins: list[Bin]) -> None:
    total = sum(b["count"] for b in bins) or 1
    centres = [(b["low"] + b["high"]) / 2 for b in bins]
    axes.bar(centres, [b["count"] / total for b in bins], 0.9 / len(bins), color=charts.MUTED, alpha=0.6)
    axes.set(ylim=(0, 1), xlabel="confidence")
    axes.set_yticks([0, 1])
