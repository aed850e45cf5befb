"""How many connected parts each class has in a map: counted row by row, so that a map need never be held as a whole."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

_ROWS = 256  # of a map that is there as a whole, counted at a time


class ComponentCounter:
    """Counts the parts of each class in rows that come from the top; pixels touch by a side or by a corner.

    `add` bands of rows (h, W), in order, of class numbers; what is below 0 or no class is of none. What it holds is the
    runs of equal pixels in the last row.
    """

    def __init__(self, num_classes: int) -> None:
        self._closed = np.zeros(num_classes, np.int64)
        self._classes = np.zeros(0, np.int64)  # of the runs in the last row
        self._starts, self._ends = self._classes, self._classes
        self._parts = self._classes  # which part each belongs to
        self._width = 0

    def add(self, rows: np.ndarray) -> None:
        """Count on with the next rows, (h, W)."""
        if not rows.size:
            return
        self._width = rows.shape[1]
        row, starts, ends, classes = _runs(rows, len(self._closed))
        own = len(self._classes)
        row = np.concatenate([np.full(own, -1), row])
        starts, ends = np.concatenate([self._starts, starts]), np.concatenate([self._ends, ends])
        classes = np.concatenate([self._classes, classes])
        if not len(row):
            return
        one, other = _touching(row, starts, ends, classes, self._width)
        _, first = np.unique(self._parts, return_index=True)
        of_part = np.zeros(own, np.int64) if not own else first[np.unique(self._parts, return_inverse=True)[1]]
        one, other = np.concatenate([one, np.arange(own)]), np.concatenate([other, of_part])
        size = len(row)
        joined = coo_matrix((np.ones(len(one), np.int8), (one, other)), shape=(size, size))
        count, parts = connected_components(joined, directed=False)
        last = row == len(rows) - 1
        closed = np.ones(count, bool)
        closed[parts[last]] = False
        of_class = np.zeros(count, np.int64)
        of_class[parts] = classes
        self._closed += np.bincount(of_class[closed], minlength=len(self._closed))
        self._classes, self._starts, self._ends = classes[last], starts[last], ends[last]
        self._parts = parts[last]

    def counts(self) -> np.ndarray:
        """The parts of each class so far, int64 (K,)."""
        _, first = np.unique(self._parts, return_index=True)
        return self._closed + np.bincount(self._classes[first], minlength=len(self._closed))


def count_components(class_map: np.ndarray, num_classes: int) -> np.ndarray:
    """The connected parts of each class, int64 (K,), of a map (H, W) of class numbers, or (K, H, W) bool of each."""
    if class_map.dtype == bool:
        return np.array([count_components(plane.astype(np.int8) - 1, 1)[0] for plane in class_map], np.int64)
    counter = ComponentCounter(num_classes)
    for start in range(0, len(class_map), _ROWS):
        counter.add(class_map[start : start + _ROWS])
    return counter.counts()


def _runs(rows: np.ndarray, num_classes: int) -> tuple[np.ndarray, ...]:
    """Row, first column, column behind the last, and class of each run of equal pixels, in order; of classes alone."""
    changes = np.ones(rows.shape, bool)
    changes[:, 1:] = rows[:, 1:] != rows[:, :-1]
    places = np.flatnonzero(changes)
    row, starts = np.divmod(places, rows.shape[1])
    ends = np.append(starts[1:], 0)
    ends[ends == 0] = rows.shape[1]
    classes = rows.ravel()[places].astype(np.int64)
    known = (classes >= 0) & (classes < num_classes)
    return row[known], starts[known], ends[known], classes[known]


def _touching(
    row: np.ndarray, starts: np.ndarray, ends: np.ndarray, classes: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of runs of one class in neighbouring rows that share a column or meet at a corner."""
    line = width + 1  # an end may be `width`, and is to stay before the next row's first start
    first_keys, last_keys = row * line + starts, row * line + ends
    low = np.searchsorted(last_keys, (row - 1) * line + starts, side="left")
    high = np.searchsorted(first_keys, (row - 1) * line + ends, side="right")
    counts = np.maximum(high - low, 0)
    own = np.repeat(np.arange(len(row)), counts)
    above = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(low, counts)
    fits = (classes[own] == classes[above]) & (row[above] == row[own] - 1)
    return own[fits], above[fits]
