"""What was taken for what, in the report: a confusion matrix as a chart, and its largest errors as a table."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle
from torch import Tensor

from opsin.data.drawing import shorten
from opsin.engine import charts
from opsin.engine.report import Figure, Table

MOST_IN_MATRIX = 40  # classes; beyond, the cells of a confusion matrix are too small to see
_MOST_WITH_COUNTS = 20
_MOST_COUNTED = 99_999  # in a cell; larger numbers are shares of their row


def confusion_matrix(confusion: Tensor, classes: list[str]) -> Figure:
    """Rows are the truth, columns the answer; blue is right, orange wrong, stronger with the share of the row.

    confusion: (K, K) of counts; where one has more than five digits, cells show percents of their row.
    """
    counts, k = confusion.tolist(), len(classes)
    names = [shorten(name, 18) for name in classes]
    label_room = 0.075 * max(map(len, names))
    side = min(8.5, max(4.2, 0.45 * k))
    in_percent = max(map(max, counts)) > _MOST_COUNTED

    def draw(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        for row, numbers in enumerate(counts):
            for column, count in enumerate(numbers):
                if count:
                    share = count / sum(numbers)
                    _cell(axes, row, column, _percent(share) if in_percent else str(count), share, k)
        axes.set(xlim=(0, k), ylim=(k, 0), aspect="equal", xlabel="predicted", ylabel="true")
        size = 10 if k <= _MOST_WITH_COUNTS else 7
        upright = k * label_room * 0.6 > 0.9 * side
        places = [i + 0.5 for i in range(k)]
        turned: dict[str, Any] = {"rotation": 60, "ha": "right", "rotation_mode": "anchor"} if upright else {}
        axes.set_xticks(places, names, size=size, **turned)
        axes.set_yticks(places, names, size=size)
        axes.tick_params(colors=charts.INK)
        axes.grid(False)
        for spine in axes.spines.values():
            spine.set_visible(True)

    image = charts.svg(draw, side + label_room + 0.7, side + label_room * 0.6 + 0.7)
    caption = "Each row is a true class, each column what it was taken for."
    if in_percent:
        caption += " In percent of the row; 0 is below one half."
    return Figure("Confusion matrix", image, caption, wide=k > 12)


def top_confusions(confusion: Tensor, classes: list[str], limit: int = 12, noun: str = "examples") -> Table:
    """The pairs of classes that are mixed up most often. noun: what is counted."""
    wrong = confusion.clone().fill_diagonal_(0)
    order = wrong.flatten().argsort(descending=True, stable=True)[:limit].tolist()
    rows = []
    for place in order:
        truth, taken = divmod(place, len(classes))
        count = int(wrong[truth, taken])
        if count:
            rows.append([classes[truth], classes[taken], count, count / int(confusion[truth].sum())])
    pairs = int((wrong > 0).sum())
    note = f"The {len(rows)} most frequent of {pairs} pairs." if pairs > len(rows) else ""
    return Table(
        "Most frequent confusions", ["true", "taken for", noun, "of that class"], rows, note, ("of that class",)
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"


def _cell(axes: Axes, row: int, column: int, text: str, share: float, k: int) -> None:
    right = row == column
    strength = share if right else 0.15 + 0.85 * math.sqrt(share)  # a root: one in a hundred must be seen
    colour = charts.BLUE if right else charts.ORANGE
    axes.add_patch(Rectangle((column, row), 1, 1, facecolor=colour, alpha=0.92 * strength, linewidth=0))
    if k <= _MOST_WITH_COUNTS:
        size = min(10.0, 34 / max(3, len(text)))
        ink = charts.PAPER if strength > 0.6 else charts.INK
        axes.text(column + 0.5, row + 0.5, text, color=ink, size=size, ha="center", va="center_baseline")
