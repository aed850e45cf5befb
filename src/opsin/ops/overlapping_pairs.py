"""Pairs of boxes that overlap by more than a threshold, found on a grid instead of among all pairs. NumPy.

IoU > t leaves little room. Along one axis, let u >= v be the sides of two boxes, d the distance of their centres and i
the length they share. The shared height is at most either height, so IoU <= i / (u + v - i), and i <= (u + v) / 2 - d:

    v > t u        and        d < (u + v) / 2 (1 - t) / (1 + t) <= u (1 - t) / (1 + t)

So boxes are sorted into levels by their longer side, each 1 / t times the one below: only the same and the next level
matter. Each level has a grid whose cells are as wide as d can be: only the same and the eight cells around matter. At
t = 0.5 a cell is a third of a box.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from opsin.ops.iou import numpy_iou_by_column

Array: TypeAlias = NDArray[Any]

# 65,536 pairs at a time: their ten or so temporaries of float32 stay in a cache of a megabyte.
_CHUNK = 1 << 16
# Rounding moves an IoU by some 1e-6 of itself; a threshold and cells this much more generous lose no pair.
_SLACK = 1e-3
# Below it the longer sides may differ so much that levels are of no use.
_LOWEST_FOR_LEVELS = 0.05


def stable_order(keys: Array) -> Array:
    """The order that sorts 32-bit integers, equal ones by place.

    Key and place make one number: no two are equal, so a sort need not be stable, and those are ten times as fast.
    """
    return np.sort(keys.astype(np.int64) << 32 | np.arange(len(keys))) & 0xFFFFFFFF


@dataclass(frozen=True)
class Pairs:
    """Pairs that may overlap by more than a threshold, as runs: box queries[r] and each of order[starts[r] : ends[r]].

    queries and order hold indices of boxes, whose `numpy_columns` are `rows`. No pair occurs twice.
    """

    rows: Array
    order: Array
    queries: Array
    starts: Array
    ends: Array

    @property
    def count(self) -> int:
        return int((self.ends - self.starts).sum())

    def above(self, threshold: float) -> tuple[Array, Array]:
        """The pairs whose IoU is above the threshold."""
        bound = _round_down(threshold, self.rows.dtype)
        ordered = self.rows.take(self.order, axis=1)
        lengths = self.ends - self.starts
        until = np.cumsum(lengths)
        found = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
        begin, done = 0, 0
        while begin < len(until):
            end = max(begin + 1, int(np.searchsorted(until, done + _CHUNK)))
            part = slice(begin, end)
            one = np.repeat(self.queries[part], lengths[part])
            # The first place of each run, less the number of pairs before it: adding 0, 1, 2, ... counts within runs.
            other = np.repeat(self.ends[part] - until[part], lengths[part])
            other += np.arange(done, until[end - 1])
            hits = np.flatnonzero(numpy_iou_by_column(self.rows.take(one, axis=1), ordered.take(other, axis=1)) > bound)
            found.append((one[hits], self.order[other[hits]]))
            begin, done = end, int(until[end - 1])
        one, other = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return one, other


class Grid:
    """Boxes with positive sides in the cells of their levels, for one threshold >= 0 of IoU.

    rows: `numpy_columns` of the boxes. A box finds its neighbours on its own level and on the next one, those on the
    level below find it.
    """

    def __init__(self, rows: Array, threshold: float) -> None:
        self._rows = rows
        x1, y1, x2, y2 = rows[:4].astype(np.float64)
        sides = np.stack([x2 - x1, y2 - y1])
        centres = np.stack([x1 + x2, y1 + y2]) / 2
        centres -= centres.min(axis=1, keepdims=True)
        threshold *= 1 - _SLACK
        levels = _levels(sides.max(axis=0), threshold)
        cells, across, offsets, self._size = _cells(sides, centres, levels, threshold)

        def cell(level: Array) -> Array:
            x, y = (centres / cells.take(level, axis=1)).astype(np.int64)
            return offsets[level] + (y + 1) * across[level] + x + 1  # + 1: an empty cell stands on every side

        self._own, self._above = cell(levels), cell(levels + 1)
        self._across, self._across_above = across[levels], across[levels + 1]

    def pairs(self) -> Pairs:
        """Those among all boxes."""
        order, first = self._sorted(np.arange(len(self._own)))
        own, across = self._own[order], self._across[order]
        # On one level, the box that comes first in the order finds the other: behind it in its own cell, in the next
        # cell, or in the row below.
        starts = [np.arange(1, len(order) + 1), first[own + across - 1]]
        ends = [first[own + 2], first[own + across + 2]]
        cells = _rows_of(self._above[order], self._across_above[order])
        starts += [first[cell - 1] for cell in cells]
        ends += [first[cell + 2] for cell in cells]
        return self._runs(order, order, starts, ends)

    def pairs_between(self, some: Array, others: Array) -> Iterator[Pairs]:
        """Those of one of `some` and one of `others`: indices of boxes, none in both."""
        order, first = self._sorted(others)
        cells = _rows_of(self._own[some], self._across[some]) + _rows_of(self._above[some], self._across_above[some])
        yield self._runs(some, order, [first[cell - 1] for cell in cells], [first[cell + 2] for cell in cells])
        order, first = self._sorted(some)
        cells = _rows_of(self._above[others], self._across_above[others])
        yield self._runs(others, order, [first[cell - 1] for cell in cells], [first[cell + 2] for cell in cells])

    def _sorted(self, boxes: Array) -> tuple[Array, Array]:
        """Boxes in the order of their cells, and the place in it where each cell begins."""
        own = self._own[boxes]
        first = np.zeros(self._size + 1, np.int64)
        np.cumsum(np.bincount(own, minlength=self._size), out=first[1:])
        return boxes[stable_order(own)], first

    def _runs(self, queries: Array, order: Array, starts: list[Array], ends: list[Array]) -> Pairs:
        start, end = np.concatenate(starts), np.concatenate(ends)
        runs = np.flatnonzero(end > start)
        return Pairs(self._rows, order, queries[runs % len(queries)], start[runs], end[runs])


def _rows_of(cells: Array, across: Array) -> list[Array]:
    """The cells above, themselves, and the cells below."""
    return [cells - across, cells, cells + across]


def _levels(longer: Array, threshold: float) -> Array:
    """The level of each box by its longer side, from 1 on."""
    if threshold < _LOWEST_FOR_LEVELS:
        return np.ones(len(longer), np.int64)
    height = np.log2(longer) / np.log2(max(1 / threshold, 1.5))
    return (height - height.min()).astype(np.int64) + 1


def _cells(sides: Array, centres: Array, levels: Array, threshold: float) -> tuple[Array, Array, Array, int]:
    """Of each level: the sides of a cell (2, L), the cells in a row and the first cell's number; and the last one's."""
    count = int(levels.max()) + 2
    longest = np.zeros((2, count))
    for axis in (0, 1):
        np.maximum.at(longest[axis], levels, sides[axis])
    # A level is searched by its own boxes and by those of the one below.
    longest[:, 1:] = np.maximum(longest[:, 1:], longest[:, :-1])
    longest[longest == 0] = 1
    cells = longest * (1 - threshold) / (1 + threshold) * (1 + _SLACK)
    extent = centres.max(axis=1, keepdims=True)
    # Some four cells for a box, no more: a grid that is mostly empty costs more than it saves.
    wanted = 4 * np.bincount(levels, minlength=count) + 16
    cells = np.maximum(cells, extent / wanted)
    cells *= np.sqrt(np.maximum(1, (extent / cells + 1).prod(axis=0) / wanted))
    across, down = (extent / cells).astype(np.int64) + 3
    ends = np.cumsum(across * down)
    return cells, across, ends - across * down, int(ends[-1])


def _round_down(threshold: float, dtype: Any) -> Any:
    """The largest number of a type that is not above the threshold: comparing with it is comparing in float64."""
    rounded = dtype.type(threshold)
    return rounded if float(rounded) <= threshold else np.nextafter(rounded, dtype.type(-1))
