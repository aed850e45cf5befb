"""A detector's part of the report: curves, classes, what the errors cost, and the images where they were made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from torch import Tensor

from opsin.data.drawing import Mark, cut_out, draw_marks, shorten, to_pil, to_tensor
from opsin.detect import drawing
from opsin.detect.average_precision import Objects
from opsin.detect.detector import Assignment
from opsin.detect.error_budget import KINDS, Mistake
from opsin.detect.metrics import CONFIDENCES, Evaluation, Outcome
from opsin.engine import charts
from opsin.engine.report import Figure, Gallery, GalleryItem, Section, Table, Text
from opsin.errors import InputError
from opsin.structures import Instances

_MOST_NAMED = 5  # curves with a name and a colour; of more classes only the weakest are named
_MANY = 20  # rows of a table of classes that can be looked through
_KIND = {
    "class": "right place, wrong class",
    "localisation": "right class, IoU of 0.1 to 0.5",
    "both": "wrong class, and IoU of 0.1 to 0.5",
    "duplicate": "an object that a surer prediction had found",
    "background": "no object there, IoU below 0.1",
    "missed": "an object that nothing found or came near",
}
_MEANING = {
    "map": "average precision, averaged over the classes and over IoU thresholds of 0.50, 0.55, ... 0.95: COCO's AP",
    "map_50": "average precision where an IoU of 0.5 counts as found: COCO's AP50",
    "map_75": "the same at an IoU of 0.75, for boxes that fit well",
    "map_small": "map of objects below 32x32 pixels",
    "map_medium": "map of objects from 32x32 to 96x96 pixels",
    "map_large": "map of objects above 96x96 pixels",
    "mask_map": "map where an IoU is that of masks, not of boxes",
    "mask_map_50": "the same where an IoU of 0.5 counts as found",
    "mask_map_75": "the same at an IoU of 0.75",
    "mar_1": "recall with one prediction of a class in an image, averaged over the same IoU thresholds",
    "mar_10": "recall with ten",
    "mar_100": "recall with a hundred: what a better ranking could reach",
    "voc_map": "average precision at an IoU of 0.5 by Pascal VOC's rules since 2010: the area below the curve",
    "voc_map_11": "the same by VOC's rules until 2009: the mean of 11 points of the curve",
    "precision": "share of predictions above the score threshold that are right, averaged over the classes",
    "recall": "share of objects found by them, averaged over the classes",
    "hmean": "harmonic mean of the two below",
    "hmean_precision": "share of found lines that are right by ICDAR's protocol: one to one, an IoU of quads above 0.5",
    "hmean_recall": "share of lines found by them",
    "matched_iou": "mean IoU of the lines with what found them",
    "deteval_hmean": "the same by DetEval, where lines may be found in parts, and several by one box",
    "f1": "harmonic mean of precision and recall, averaged over the classes",
}


class Examples(Protocol):
    """Where the images of an evaluated split come from, by their place in it."""

    def read(self, index: int) -> Tensor: ...

    def name(self, index: int) -> str: ...


def sections(evaluation: Evaluation, examples: Examples, *, limit: int = 12) -> list[Section]:
    """Curves, classes, the error budget with its worst crops, and the worst images. limit: images to show."""
    found: list[Section] = []
    if evaluation.objects:
        found += [precision_recall(evaluation), f1_curves(evaluation)]
    found += [class_table(evaluation), budget_chart(evaluation), budget_table(evaluation)]
    found += crops(evaluation, examples)
    found.append(worst_images(evaluation, examples, limit))
    rows = [[name, _MEANING[name]] for name in evaluation.metrics if name in _MEANING]
    found.append(Table("How to read the numbers", ["metric", "meaning"], rows))
    return found


def precision_recall(evaluation: Evaluation) -> Figure:
    """Precision against recall of every class at an IoU of 0.5, the best at that recall or a higher one."""

    def curve(label: int) -> tuple[list[float], list[float]]:
        recall, precision = evaluation.rankings[label].curve()
        best = np.maximum.accumulate(precision[::-1])[::-1] if len(precision) else precision
        return [0.0, *recall.tolist()], [float(best[0]) if len(best) else 0.0, *best.tolist()]

    image = _class_curves(evaluation, curve, "recall", "precision", stepped=True)
    return Figure("Precision and recall", image, "At an IoU of 0.5. The area below a curve is the class's AP.")


def f1_curves(evaluation: Evaluation) -> Figure:
    """F1 of every class against the least score that counts as a prediction, and the threshold that was taken."""

    def curve(label: int) -> tuple[list[float], list[float]]:
        return CONFIDENCES.tolist(), evaluation.f1[label].tolist()

    image = _class_curves(evaluation, curve, "score threshold", "F1", mark=evaluation.threshold)
    caption = f"At an IoU of 0.5. Precision, recall and F1 are those at {evaluation.threshold:.3g} (dashed line)."
    return Figure("F1 and the score threshold", image, caption)


def class_table(evaluation: Evaluation) -> Table:
    """Average precision, precision, recall and F1 of every class; in order of AP where there are many."""
    rows = evaluation.per_class
    shares = ("map", "map_50", "precision", "recall", "f1")
    notes = [f"Predictions are those with a score of at least {evaluation.threshold:.3g}."]
    if len(rows) > _MANY:
        rows = sorted(rows, key=lambda row: 2.0 if row["map"] is None else row["map"])
        notes.append("The weakest classes come first.")
    if any(not row["objects"] for row in rows):
        notes.append("A class without an object shows a dash and is left out of the averages.")
    cells = [[row["class"], row["objects"], row["found"], *(row[name] for name in shares)] for row in rows]
    columns = ["class", "objects", "predictions", *(name.replace("_", " ") for name in shares)]
    return Table("Classes", columns, cells, " ".join(notes), tuple(columns[3:]))


def budget_chart(evaluation: Evaluation) -> Figure:
    """What each kind of error costs in AP at an IoU of 0.5."""
    costs = [100 * evaluation.budget.costs[kind] for kind in KINDS]

    def paint(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        axes.barh(KINDS, costs, color=charts.BLUE, height=0.62)
        for place, cost in enumerate(costs):
            axes.text(max(cost, 0), place, f" {cost:.1f}", va="center_baseline", color=charts.INK)
        axes.invert_yaxis()
        axes.grid(False)
        axes.set_xlim(min(0.0, *costs), max(1.0, *costs) * 1.15)
        axes.set_xlabel("points of AP that fixing these errors would add")

    caption = "The longest bar says what to work on. TIDE, Bolya et al. 2020; the costs do not add up to 100."
    return Figure("Cost of the errors", charts.svg(paint), caption)


def budget_table(evaluation: Evaluation) -> Table:
    """How many errors of each kind there are, whatever their score, and what they are."""
    budget = evaluation.budget
    rows = [[kind, _KIND[kind], budget.counts[kind], budget.costs[kind]] for kind in KINDS]
    note = "Of all predictions, however unsure: average precision ranks them all."
    return Table("Errors", ["kind", "what it is", "errors", "cost in AP"], rows, note, ("cost in AP",))


def crops(evaluation: Evaluation, examples: Examples, limit: int = 4) -> list[Section]:
    """The surest errors of every kind, cut out of their images; of missed objects the largest."""
    found: list[Section] = []
    for kind in KINDS:
        items = []
        for mistake in evaluation.budget.mistakes[kind]:
            if len(items) == limit:
                break
            image = _read(examples, mistake.image)
            if image is not None:
                items.append(_crop(evaluation, examples, mistake, image))
        if items:
            note = f"{_KIND[kind][0].upper()}{_KIND[kind][1:]}. Yellow and dashed is the truth, orange the prediction."
            found.append(Gallery(f"Worst errors: {kind}", items, note, large=True))
    return found


def worst_images(evaluation: Evaluation, examples: Examples, limit: int = 12) -> Section:
    """The images with the most errors at the score threshold, with truth and predictions drawn."""
    outcomes = evaluation.outcomes()
    order = sorted(range(len(outcomes)), key=lambda i: -len(outcomes[i].wrong) - len(outcomes[i].missed))
    wrong = [i for i in order if outcomes[i].wrong or outcomes[i].missed]
    if not wrong:
        return Text("Worst images", f"None: all {evaluation.objects:,} objects were found, and nothing else.")
    items = []
    for place in wrong[:limit]:
        image = _read(examples, place)
        if image is None:  # moved or lost since it was evaluated
            continue
        drawn = _compared(evaluation, outcomes[place], place, image)
        counts = f"{len(outcomes[place].wrong)} wrong, {len(outcomes[place].missed)} missed"
        caption = f"{counts}, {len(outcomes[place].right)} right\n{shorten(Path(examples.name(place)).name, 40)}"
        items.append(GalleryItem(drawn, caption, wrong=True))
    note = (
        f"{len(wrong):,} of {len(outcomes):,} images have an error at a score of {evaluation.threshold:.3g}. Green is "
        "right, orange wrong, yellow and dashed missed, grey does not count. Look for errors of the truth among them."
    )
    return Gallery("Worst images", items, note, large=True)


def assignments(
    images: Sequence[Tensor], found: Sequence[Assignment], truth: Sequence[Instances], classes: Sequence[str]
) -> Gallery:
    """Inputs of the network with the anchors or cells that are matched to their objects. images: uint8 (C, H, W)."""
    items = []
    for image, assignment, objects in zip(images, found, truth, strict=True):
        positive, ignored = int((assignment.matched >= 0).sum()), int((assignment.matched == -2).sum())
        drawn = to_tensor(drawing.draw_assignment(image, assignment, objects, classes))
        count = len(objects) if objects.labels is None else int((objects.labels >= 0).sum())
        served = len(set(assignment.matched[assignment.matched >= 0].tolist()))
        caption = (
            f"{positive} anchors or cells for {served} of {count} objects\n"
            f"{ignored:,} ignored, {len(assignment.matched) - positive - ignored:,} background"
        )
        items.append(GalleryItem(drawn, caption, wrong=served < count))
    note = (
        "Training images as the loss sees them. Green: the anchors or cells that are matched to an object; orange: "
        "those the loss ignores; grey: background. An object without a match cannot be learned."
    )
    return Gallery("Which anchors or cells are matched to which object", items, note, large=True)


def to_instances(objects: Objects) -> Instances:
    """The objects of an image as tensors again."""
    labels, scores = torch.from_numpy(objects.labels).long(), torch.from_numpy(objects.scores).float()
    return Instances(torch.from_numpy(objects.boxes).float(), labels, scores)


def _class_curves(
    evaluation: Evaluation,
    curve: Callable[[int], tuple[list[float], list[float]]],
    x_label: str,
    y_label: str,
    *,
    stepped: bool = False,
    mark: float | None = None,
) -> bytes:
    known = [k for k, row in enumerate(evaluation.per_class) if row["objects"]]
    known.sort(key=lambda k: evaluation.per_class[k]["map_50"])
    named, unnamed = known[:_MOST_NAMED], known[_MOST_NAMED:]

    def paint(canvas: Canvas) -> None:
        axes: Axes = canvas.add_subplot()
        style = "steps-post" if stepped else "default"
        for label in unnamed:
            axes.plot(*curve(label), color=charts.MUTED, alpha=0.4, linewidth=1, drawstyle=style)
        for color, label in zip(charts.LINES, named, strict=False):
            name = shorten(evaluation.classes[label], 20)
            axes.plot(*curve(label), color=color, label=name, drawstyle=style)
        if mark is not None:
            axes.axvline(mark, color=charts.MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=x_label, ylabel=y_label)
        canvas.legend(loc="outside upper left", ncols=3, handlelength=1.2, columnspacing=1.4)

    return charts.svg(paint)


def _read(examples: Examples, place: int) -> Tensor | None:
    try:
        return examples.read(place)
    except InputError:  # moved or lost since it was evaluated
        return None


def _compared(evaluation: Evaluation, outcome: Outcome, place: int, image: Tensor) -> Tensor:
    truth, found = to_instances(evaluation.truth[place]), to_instances(evaluation.found[place])
    drawn = drawing.compare(image, truth, found, evaluation.classes, outcome.right, outcome.wrong, outcome.missed)
    return to_tensor(drawn)


def _crop(evaluation: Evaluation, examples: Examples, mistake: Mistake, image: Tensor) -> GalleryItem:
    truth, found, classes = evaluation.truth[mistake.image], evaluation.found[mistake.image], evaluation.classes
    marks = []
    told, aimed = "nothing", ""
    if mistake.place is not None:
        name = classes[int(found.labels[mistake.place])]
        told = f"{name} {100 * mistake.score:.0f} %"
        marks.append(Mark(found.boxes[mistake.place].tolist(), told, drawing.WRONG))
    if mistake.truth is not None:
        name = classes[int(truth.labels[mistake.truth])]
        aimed = f" for {name}" + (f", IoU {mistake.iou:.2f}" if mistake.place is not None else "")
        marks.append(Mark(truth.boxes[mistake.truth].tolist(), name, drawing.MISSED, dashed=True))
    cut, (left, top) = cut_out(image, [mark.box for mark in marks])
    moved = [
        Mark([v - (left, top)[i % 2] for i, v in enumerate(mark.box)], mark.text, mark.color, mark.dashed)
        for mark in marks
    ]
    drawn = to_tensor(draw_marks(to_pil(cut), moved)[0])
    return GalleryItem(drawn, f"{told}{aimed}\n{shorten(Path(examples.name(mistake.image)).name, 40)}", wrong=True)
