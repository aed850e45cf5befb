"""The order in which a person reads the lines of a page: blocks, in these rows, in these from left to right.

Only where lines lie is looked at. What is beside one another in a receipt, an item and its price, is one row; what is
beside one another in two columns of an article is not. Text that runs from right to left is not foreseen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from opsin.errors import unknown

ORDERS = ("auto", "rows", "columns")
_SHARED = 0.5  # of the lower line's height, from which on two lines are in one row
_WIDE = 0.6  # of a region's width: a wider line may be a heading over several columns
_FEWEST = 3  # lines of a column
_FILLED = 0.6  # of a column's width, which its median line has at least: prices beside items do not fill theirs
_NARROWEST = 0.25  # of a region's width, that a column has at least


def order_lines(quads: Sequence[np.ndarray], order: str = "auto") -> list[list[list[int]]]:
    """Blocks of rows of the places of lines in `quads`, in the order of reading.

    quads: (4, 2) each, clockwise from where the text begins, so that the direction of the page is theirs: one that
    lies on its side, or is askew, is read as it would be upright. order: "rows" takes the page as one block, "columns"
    splits it at every gap from top to bottom, "auto" where both sides are columns of running text. Raises InputError
    for another.
    """
    if order not in ORDERS:
        raise unknown("order", order, ORDERS)
    if not len(quads):
        return []
    boxes = upright_boxes(quads)
    places = list(range(len(quads)))
    blocks = [places] if order == "rows" else _blocks(boxes, places, strict=order == "auto")
    return [_rows(boxes, block) for block in blocks]


def page_angle(quads: Sequence[np.ndarray]) -> float:
    """The direction of the page's lines in radians, clockwise from rightward as one sees it: the longer weigh more."""
    if not len(quads):
        return 0.0
    sides = np.array([(quad[1] - quad[0]) + (quad[2] - quad[3]) for quad in quads])
    weights = np.linalg.norm(sides, axis=1)
    mean = float(np.arctan2(*sides.sum(axis=0)[::-1]))
    off = (np.arctan2(sides[:, 1], sides[:, 0]) - mean + np.pi) % (2 * np.pi) - np.pi
    ordered = np.argsort(off, kind="stable")
    half = np.searchsorted(np.cumsum(weights[ordered]), weights.sum() / 2)
    return mean + float(off[ordered][min(half, len(off) - 1)])


def upright_boxes(quads: Sequence[np.ndarray]) -> np.ndarray:
    """Boxes (N, 4) around the quads of a page that was turned until its lines run rightward."""
    angle = page_angle(quads)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turned = np.stack([np.asarray(quad, np.float64) @ turn for quad in quads])
    return np.concatenate([turned.min(axis=1), turned.max(axis=1)], axis=1)


def _rows(boxes: np.ndarray, places: Sequence[int]) -> list[list[int]]:
    """Lines grouped by what they share from top to bottom with those of a row, from the uppermost on."""
    rows: list[list[int]] = []
    for place in sorted(places, key=lambda i: (boxes[i, 1] + boxes[i, 3], boxes[i, 0])):
        for row in rows[-3:]:  # an earlier one lies above
            if _in_row(boxes, row, place):
                row.append(place)
                break
        else:
            rows.append([place])
    return [sorted(row, key=lambda i: (boxes[i, 0], boxes[i, 1])) for row in rows]


def _in_row(boxes: np.ndarray, row: Sequence[int], place: int) -> bool:
    """Whether a line shares enough with the row's line that is nearest to it, and none of the row is over it."""
    own, others = boxes[place], boxes[list(row)]
    shared = np.minimum(own[3], others[:, 3]) - np.maximum(own[1], others[:, 1])
    lower = np.minimum(own[3] - own[1], others[:, 3] - others[:, 1])
    across = np.minimum(own[2], others[:, 2]) - np.maximum(own[0], others[:, 0])
    narrower = np.minimum(own[2] - own[0], others[:, 2] - others[:, 0])
    gaps = -across
    return bool(shared[gaps.argmin()] > _SHARED * lower[gaps.argmin()] and not (across > 0.5 * narrower).any())


def _blocks(boxes: np.ndarray, places: Sequence[int], *, strict: bool) -> list[list[int]]:
    """The places in blocks: what spans the columns by itself, between these the columns, left before right."""
    gap = _find_gap(boxes, places, strict=strict)
    if gap is None:
        return [list(places)]
    bands: list[tuple[bool, list[int]]] = []  # whether it spans the gap, and its lines
    for place in sorted(places, key=lambda i: (boxes[i, 1] + boxes[i, 3], boxes[i, 0])):
        spans = bool(boxes[place, 0] < gap < boxes[place, 2])
        if not bands or bands[-1][0] != spans:
            bands.append((spans, []))
        bands[-1][1].append(place)
    found: list[list[int]] = []
    for spans, band in bands:
        if spans:
            found.append(band)
            continue
        sides = [[i for i in band if (boxes[i, 0] >= gap) == right] for right in (False, True)]
        for side in sides:
            found += _blocks(boxes, side, strict=strict) if side else []
    return found


def _find_gap(boxes: np.ndarray, places: Sequence[int], *, strict: bool) -> float | None:
    """The middle of the widest gap that no line but wide ones crosses, and on both sides of which are columns."""
    own = boxes[list(places)]
    left, right = own[:, 0].min(), own[:, 2].max()
    narrow = own[(own[:, 2] - own[:, 0]) <= _WIDE * (right - left)]
    if len(narrow) < 2 * (_FEWEST if strict else 1):
        return None
    least = 0.5 * float(np.median(own[:, 3] - own[:, 1]))
    ordered = narrow[narrow[:, 0].argsort()]
    reached = np.maximum.accumulate(ordered[:, 2])[:-1]
    gaps = ordered[1:, 0] - reached
    for place in np.argsort(-gaps, kind="stable"):
        if gaps[place] <= least:
            break
        middle = float(reached[place] + gaps[place] / 2)
        sides = narrow[narrow[:, 0] < middle], narrow[narrow[:, 0] >= middle]
        if not strict or all(_is_column(side, right - left) for side in sides):
            return middle
    return None


def _is_column(lines: np.ndarray, width: float) -> bool:
    """Whether lines are running text: several, one under the other, most of which fill the width of all."""
    own = float(lines[:, 2].max() - lines[:, 0].min())
    filled = float(np.median(lines[:, 2] - lines[:, 0]))
    rows = len(_rows(lines, range(len(lines))))
    return rows >= _FEWEST and own >= _NARROWEST * width and filled >= _FILLED * own
