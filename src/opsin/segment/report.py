"""A segmenter's part of the report: classes, what was taken for what, where errors lie, and the worst images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from matplotlib.figure import Figure as Canvas
from PIL import Image
from torch import Tensor

from opsin.data.drawing import IGNORED, add_legend, enlarge, shorten, to_pil, to_tensor
from opsin.engine import charts
from opsin.engine.confusions import MOST_IN_MATRIX, confusion_matrix, top_confusions
from opsin.engine.report import Figure, Gallery, GalleryItem, Section, Table, Text
from opsin.errors import InputError
from opsin.segment.borders import FARTHEST, ErrorsByDistance
from opsin.segment.drawing import colours_of, overlay
from opsin.segment.metrics import Array, Evaluation, is_known

_MANY = 20  # rows of a table of classes that can be looked through
_PANEL = 320  # pixels: the width of each of the four images of an item
_WRONG = (213, 94, 0)
_BOUNDS = (0, 1, 2, 3, 5, 8, 13, 21, 34, FARTHEST)  # pixels from a border, the first of each bar
_MEANING = {
    "miou": "intersection over union of each class, averaged over the classes that are there or were found: the "
    "field's mIoU, of all pixels of the data set together",
    "miou_all_classes": "the same over all classes, where one that is neither there nor found counts as 0",
    "miou_per_image": "the mean over images of the mIoU of each by itself, so that small images and rare classes count "
    "more",
    "dice": "2 |A and B| / (|A| + |B|) of each class, averaged over the classes that are there or were found: F1 of "
    "pixels",
    "pixel_accuracy": "share of pixels whose class is right; where classes overlap, of decisions",
    "mean_accuracy": "share of each class's pixels that were found, averaged over the classes that are there",
    "frequency_weighted_iou": "intersection over union, averaged over the classes by how many pixels they have",
    "border_f1": "how much of each class's border lies within 0.75 % of the image's diagonal of where it should be",
    "hausdorff_95": "pixels within which 95 % of a border lie of the true one, the mean over images and classes",
    "adapted_rand_error": "1 - F1 of whether two pixels belong to one connected region: 0 is perfect",
    "variation_of_information": "bits by which the division into regions differs from the true one: 0 is perfect",
}


class Examples(Protocol):
    """Where the images and masks of an evaluated split come from, by their place in it."""

    kind: Any

    def read(self, index: int) -> Tensor: ...

    def name(self, index: int) -> str: ...


def sections(
    evaluation: Evaluation,
    examples: Examples,
    classes: list[str],
    worst: Sequence[tuple[float, int, Array]] = (),
    errors: ErrorsByDistance | None = None,
    meaning: Mapping[str, Any] | None = None,
) -> list[Section]:
    """Classes, confusions, errors by distance from a border, the worst images and what the numbers mean.

    worst: mIoU, place and map of the images to show. meaning: of the truth, for the colours of its classes.
    """
    found: list[Section] = [class_table(evaluation)]
    if evaluation.confusion is not None and len(classes) > 1:
        square = torch.from_numpy(evaluation.confusion[:, :-1])
        if len(classes) <= MOST_IN_MATRIX:
            found.append(confusion_matrix(square, classes))
        if (square.sum() - square.trace()) > 0:
            found.append(top_confusions(square, classes, noun="pixels"))
    if errors is not None and errors.pixels.any():
        found.append(error_map(errors))
    if worst:
        found.append(worst_images(worst, examples, classes, meaning or {}))
    rows = [[name.replace("_", " "), _MEANING[name]] for name in evaluation.metrics if name in _MEANING]
    found.append(Table("How to read the numbers", ["metric", "meaning"], rows))
    return found


def class_table(evaluation: Evaluation) -> Table:
    """IoU, Dice, precision and recall of every class; in order of IoU where there are many."""
    rows, notes = evaluation.per_class, []
    shares = [name for name in ("iou", "dice", "precision", "recall", "border_f1") if name in rows[0]]
    distances = [name for name in ("hausdorff_95",) if name in rows[0]]
    if len(rows) > _MANY:
        rows = sorted(rows, key=lambda row: 2.0 if row["iou"] is None else row["iou"])
        notes.append("The weakest classes come first.")
    if any(row["iou"] is None for row in rows):
        notes.append("A class that is neither there nor found shows a dash and is left out of the averages.")
    whole = max(1, sum(row["pixels"] for row in rows))
    cells = [
        [row["class"], row["pixels"], f"{100 * row['pixels'] / whole:.2f} %", *(row[n] for n in (*shares, *distances))]
        for row in rows
    ]
    columns = ["class", "pixels", "of all", *map(_shown, (*shares, *distances))]
    return Table("Classes", columns, cells, " ".join(notes), [_shown(name) for name in shares])


def _shown(name: str) -> str:
    return {"iou": "IoU", "dice": "Dice", "border_f1": "border F1"}.get(name, name.replace("_", " "))


def error_map(errors: ErrorsByDistance) -> Figure:
    """The share of wrong pixels by how far they are from where the truth changes its class."""
    bars, total = [], errors.wrong.sum()
    for first, end in zip(_BOUNDS, [*_BOUNDS[1:], FARTHEST + 1], strict=True):
        pixels, wrong = int(errors.pixels[first:end].sum()), int(errors.wrong[first:end].sum())
        name = f"{first}" if end == first + 1 else f"{first}-{end - 1}"
        bars.append((f"{FARTHEST}+" if first == FARTHEST else name, wrong / pixels if pixels else None))

    def paint(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        places = [place for place, (_, share) in enumerate(bars) if share is not None]
        shares = [100 * share for _, share in bars if share is not None]
        axes.bar(places, shares, 0.8, color=charts.ORANGE)
        axes.set_xticks(range(len(bars)), [name for name, _ in bars], size=8)
        axes.set(xlabel="pixels to the nearest border", ylabel="wrong, in %", xlim=(-0.6, len(bars) - 0.4))

    near = errors.wrong[:3].sum() / total if total else 0.0
    caption = (
        f"{100 * near:.0f} % of all wrong pixels lie within 2 pixels of where the truth changes. Errors that fall off "
        "within a few pixels are a matter of resolution; those far inside are of regions taken for another class."
    )
    return Figure("Errors by distance from a border", charts.svg(paint), caption)


def worst_images(
    worst: Sequence[tuple[float, int, Array]], examples: Examples, classes: list[str], meaning: Mapping[str, Any]
) -> Section:
    """The images with the least mIoU: each with its truth, its answer, and its wrong pixels."""
    title, items = "Worst images", []
    if worst[0][0] >= 1:
        return Text(title, "None: every pixel of which the class is known is right.")
    colours = colours_of(meaning, len(classes))
    for miou, place, found in worst:
        try:
            image = examples.read(place)
            truth = (
                examples.kind.read(place, (image.shape[-2], image.shape[-1]))["class_map"].as_subclass(Tensor).numpy()
            )
        except InputError:  # moved or lost since it was evaluated
            continue
        drawn = compare(image, truth, found, classes, colours)
        caption = f"mIoU {100 * miou:.1f} %\n{shorten(Path(examples.name(place)).name, 40)}"
        items.append(GalleryItem(to_tensor(drawn), caption, wrong=True))
    note = (
        "Of each the image, the truth, the answer, and what is wrong, in orange; of grey pixels nothing is known. Look "
        "for errors of the truth among them."
    )
    return Gallery(title, items, note, large=True)


def compare(
    image: Tensor, truth: Array, found: Array, classes: Sequence[str], colours: Sequence[tuple[int, int, int]]
) -> Image.Image:
    """An image, uint8 (C, H, W), its truth, its answer and its errors, two by two, over a legend of its classes."""
    image = image.expand(3, -1, -1) if image.shape[0] == 1 else image
    panels = [image, overlay(image, truth, colours), overlay(image, found, colours), paint_errors(image, truth, found)]
    drawn = [_panel(panel) for panel in panels]
    width, height = drawn[0].size
    whole = Image.new("RGB", (2 * width + 4, 2 * height + 4))
    for number, panel in enumerate(drawn):
        whole.paste(panel, (number % 2 * (width + 4), number // 2 * (height + 4)))
    shown = [k for k in range(len(classes)) if _has(truth, k) or _has(found, k)]
    return add_legend(whole, [(classes[k], colours[k]) for k in shown]) if shown else whole


def paint_errors(image: Tensor, truth: Array, found: Array) -> Tensor:
    """The image in grey, its wrong pixels orange, and those of which nothing is known a flat grey: uint8 (3, H, W)."""
    grey = (image.float().mean(dim=0, keepdim=True) / 2 + 96).to(torch.uint8).expand(3, -1, -1)
    if truth.dtype == bool:
        wrong, unknown = (truth != found).any(axis=0), np.zeros(truth.shape[-2:], bool)
    else:
        unknown = ~is_known(truth)
        wrong = truth != found
    for mask, colour in ((wrong, _WRONG), (unknown, IGNORED)):
        paint = torch.tensor(colour, dtype=torch.uint8)[:, None, None]
        grey = torch.where(torch.from_numpy(mask), paint, grey)
    return grey


def _panel(image: Tensor) -> Image.Image:
    """About as wide as the report has room for: tiny images are enlarged pixel by pixel, large ones shrunk."""
    drawn, _ = enlarge(to_pil(image), _PANEL)
    drawn.thumbnail((_PANEL, _PANEL), Image.Resampling.LANCZOS)
    return drawn


def _has(values: Array, k: int) -> bool:
    return bool((values[k] if values.dtype == bool else values == k).any())
