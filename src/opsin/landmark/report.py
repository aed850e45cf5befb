"""A part of the report: errors of every point, the curve of errors, and the images that are furthest off."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas

from opsin.data import Split
from opsin.data.drawing import enlarge, shorten, to_pil, to_tensor
from opsin.data.point_drawing import draw_points
from opsin.engine import charts
from opsin.engine.report import Figure, Gallery, GalleryItem, Section, Table, Text
from opsin.errors import InputError
from opsin.landmark.metrics import LIMITS, NORMALIZERS, Evaluation

_SHOWN = 12
_PANEL = 320
_MANY = 30  # points of a table
_FOUND, _TRUE = (213, 94, 0), (86, 230, 120)


def sections(found: Any, split: Split, predictor: Any) -> list[Section]:
    """What every error is divided by, the curve, the points, the worst images. found: of a `LandmarkEvaluator`."""
    evaluation: Evaluation = found.evaluation
    main = evaluation.main
    text = (
        f"Errors are divided by {NORMALIZERS[main]} ({main}); numbers of other normalizers cannot be compared with it."
    )
    parts: list[Section] = [Text("What errors are divided by", text)]
    if len(evaluation.worst):
        parts += [error_curve(evaluation), point_table(evaluation)]
        parts += [expected_errors(found, predictor), worst_images(found, split)]
    return parts


def error_curve(evaluation: Evaluation) -> Figure:
    """The cumulative error distribution: the share of images whose NME is at most so much."""
    errors = np.sort(evaluation.nme[evaluation.main])
    errors = errors[~np.isnan(errors)]

    def paint(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        shares = np.arange(1, len(errors) + 1) / len(errors)
        axes.step([0, *(100 * errors)], [0, *(100 * shares)], where="post", color=charts.BLUE)
        for limit in LIMITS:
            axes.axvline(100 * limit, color=charts.MUTED, linewidth=1, linestyle=(0, (4, 3)))
        right = max(100 * LIMITS[-1] * 1.5, min(100 * float(errors[-1]), 40))
        axes.set(xlabel=f"NME, {evaluation.main.replace('_', ' ')}, in %", ylabel="images, in %", xlim=(0, right))
        axes.set_ylim(0, 100)

    caption = (
        "The cumulative error distribution (CED). Lines at 8 and 10 %: beyond them an image is a failure, and the area "
        "to the left of one, over the limit, is the AUC."
    )
    return Figure("Errors of the images", charts.svg(paint), caption)


def draw_boxes(boxes: Mapping[str, Any]) -> Callable[[Canvas], None]:
    """What draws the mean NME by how far boxes are shifted and how much larger they are. boxes: see `sensitivity`."""

    def paint(canvas: Canvas) -> None:
        left, right = canvas.subplots(1, 2, sharey=True)
        for name, colour in (("shift_x", charts.BLUE), ("shift_y", charts.ORANGE)):
            known = [(100 * float(k), 100 * v) for k, v in boxes[name].items() if v is not None]
            left.plot(*zip(*known, strict=True), color=colour, marker="o", markersize=3.5, label=_SIDES[name])
        known = [(float(k), 100 * v) for k, v in boxes["scale"].items() if v is not None]
        right.plot(*zip(*known, strict=True), color=charts.GREEN, marker="o", markersize=3.5)
        left.set(xlabel="shift, in % of the box's side", ylabel=f"NME, {boxes['normalizer'].replace('_', ' ')}, in %")
        right.set(xlabel="box, times its size")
        left.legend()
        left.set_ylim(bottom=0)

    return paint


_SIDES = {"shift_x": "to the right", "shift_y": "down"}


def expected_errors(found: Any, predictor: Any) -> Section:
    """Whether points with larger expected errors are further off: means of both in ten groups of the expected error."""
    fitted = predictor.model.expected_error if predictor.has_network else None
    if fitted is None:
        return Text("Expected errors", "Not known: the model saw no validation data.")
    expected = np.concatenate([one.spread * fitted.cpu().numpy() * one.scale for one in found.compared])
    errors = np.concatenate([one.errors for one in found.compared])
    known = ~np.isnan(errors)
    order = np.argsort(expected[known], kind="stable")
    groups = np.array_split(order, min(10, len(order)))
    rows = [(expected[known][group].mean(), errors[known][group].mean()) for group in groups if len(group)]

    def paint(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        highest = max(max(row) for row in rows)
        axes.plot([0, highest], [0, highest], color=charts.MUTED, linewidth=1)
        axes.plot(*zip(*rows, strict=True), color=charts.BLUE, marker="o", markersize=4)
        axes.set(xlabel="expected error, in pixels", ylabel="error, in pixels")

    caption = "Points in ten groups by the error that the answers say is to be expected; on the line it is what came."
    return Figure("Expected errors", charts.svg(paint), caption)


def point_table(evaluation: Evaluation) -> Table:
    """Of each point the mean, the median and the 90th percentile of its error; of many those with most."""
    rows, note = [one for one in evaluation.per_point if one["mean"] is not None], ""
    if len(rows) > _MANY:
        rows, note = sorted(rows, key=lambda one: -one["mean"])[:_MANY], f"Of {len(rows)} points those furthest off."
    cells = [
        [one["point"], one["images"], *(f"{100 * one[key]:.2f} %" for key in ("mean", "median", "p90"))] for one in rows
    ]
    return Table("Points", ["point", "images", "mean error", "median", "90th percentile"], cells, note)


def worst_images(found: Any, split: Split) -> Section:
    """The images with the largest NME: true points green, found ones orange, a line between the two."""
    evaluation, items = found.evaluation, []
    for place in evaluation.worst[:_SHOWN]:
        try:
            image = split.read(place)
        except InputError:  # moved or lost since it was evaluated
            continue
        one = found.compared[place]
        drawn, factor = enlarge(to_pil(image).convert("RGB"), _PANEL)
        drawn = draw_points(drawn, one.truth * factor, one.visible, _TRUE)
        drawn = draw_points(drawn, np.where(np.isnan(one.truth), np.nan, one.found) * factor, None, _FOUND)
        drawn.thumbnail((_PANEL, _PANEL))
        caption = (
            f"NME {100 * evaluation.nme[evaluation.main][place]:.1f} %\n{shorten(Path(split.name(place)).name, 40)}"
        )
        items.append(GalleryItem(to_tensor(drawn), caption, wrong=True))
    if not items:
        return Text("Furthest off", "No image could be read again.")
    return Gallery("Furthest off", items, "True points are green, those found orange.", large=True)
