"""A part of the report: errors of every point, the curve of errors, and the images that are furthest off."""

from __future__ import annotations

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
        parts += [error_curve(evaluation), point_table(evaluation), worst_images(found, split)]
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
