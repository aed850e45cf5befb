"""Which detection goes to which track: rules that turn a matrix of affinities into pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]


class Pairs(NamedTuple):
    """What was matched: rows and columns of a matrix, each (P,), in ascending order of rows."""

    rows: Integers
    columns: Integers


def hungarian(affinity: Floats, least: float) -> Pairs:
    """The pairs of the highest total of (affinity - least); pairs of at most `least` are never made.

    Exact (Kuhn 1955; solved by scipy's form of Jonker and Volgenant 1987). affinity: (N, M), NaN nowhere.
    """
    rows, columns = np.nonzero(affinity > least)
    if _distinct(rows) and _distinct(columns):
        return Pairs(rows, columns)  # no two of them compete: all are made
    rows, columns = linear_sum_assignment(np.maximum(affinity - least, 0.0), maximize=True)
    made = affinity[rows, columns] > least
    return Pairs(rows[made], columns[made])


def hungarian_then_gate(affinity: Floats, least: float, gated: Floats | None = None) -> Pairs:
    """The pairs of the highest total affinity, and of those the ones of at least `least`: SORT's rule.

    gated: (N, M), what the gate looks at in the place of the affinity.

    Bewley et al. 2016, section 3.3: the assignment is solved first, and what overlaps too little is rejected after it.
    A pair below the gate may thus take a partner away. Where the pairs above the gate do not compete they are taken.
    """
    gated = affinity if gated is None else gated
    rows, columns = np.nonzero(gated > least)
    if len(rows) and _distinct(rows) and _distinct(columns):
        return Pairs(rows, columns)
    rows, columns = linear_sum_assignment(affinity, maximize=True)
    made = gated[rows, columns] >= least
    return Pairs(rows[made], columns[made])


def greedy(affinity: Floats, least: float) -> Pairs:
    """The best pair of at least `least`, then the best of the rest, and so on; of equals the first row, then column."""
    rows, columns = np.nonzero(affinity >= least)
    order = np.argsort(-affinity[rows, columns], kind="stable")
    taken_rows, taken_columns = set[int](), set[int]()
    made: list[tuple[int, int]] = []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row not in taken_rows and column not in taken_columns:
            taken_rows.add(row)
            taken_columns.add(column)
            made.append((row, column))
    made.sort()
    return Pairs(np.array([row for row, _ in made], np.intp), np.array([column for _, column in made], np.intp))


def in_turn(affinity: Floats, least: float) -> Pairs:
    """Each row, in order, takes the best column that is left, if that has at least `least`."""
    free = np.ones(affinity.shape[1], np.bool_)
    rows, columns = [], []
    for row in range(affinity.shape[0] if affinity.shape[1] else 0):
        best = int(np.argmax(np.where(free, affinity[row], -np.inf)))
        if free[best] and affinity[row, best] >= least:
            free[best] = False
            rows.append(row)
            columns.append(best)
    return Pairs(np.array(rows, np.intp), np.array(columns, np.intp))


def cascade(affinity: Floats, least: float, ranks: NDArray[np.int64], rule: Callable[[Floats, float], Pairs]) -> Pairs:
    """The rows of the lowest rank choose first, then those of the next among what is left.

    DeepSORT's matching cascade (Wojke et al. 2017, section 2.4, listing 1), with the frames since a track was last seen
    as ranks (N,): a long occluded track, whose prediction is vague, does not take a detection from one just seen.
    """
    free = np.ones(affinity.shape[1], np.bool_)
    rows, columns = [np.empty(0, np.intp)], [np.empty(0, np.intp)]
    for rank in np.unique(ranks):
        of_rank, left = np.flatnonzero(ranks == rank), np.flatnonzero(free)
        if not len(left):
            break
        pairs = rule(affinity[np.ix_(of_rank, left)], least)
        rows.append(of_rank[pairs.rows])
        columns.append(left[pairs.columns])
        free[columns[-1]] = False
    return joined(Pairs(np.concatenate(rows), np.concatenate(columns)))


def joined(*parts: Pairs) -> Pairs:
    """All pairs of several rounds, in ascending order of rows."""
    rows, columns = np.concatenate([one.rows for one in parts]), np.concatenate([one.columns for one in parts])
    order = np.argsort(rows)
    return Pairs(rows[order], columns[order])


def compete(affinity: Floats, least: float) -> bool:
    """Whether a row or a column has two pairs above `least`, or none has any: then the other pairs have a say."""
    rows, columns = np.nonzero(affinity > least)
    return not (len(rows) and _distinct(rows) and _distinct(columns))


def _distinct(numbers: Integers) -> bool:
    """Whether no number occurs twice."""
    return len(set(numbers.tolist())) == len(numbers)
