"""The order of lines, in pages laid out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from opsin.errors import InputError
from opsin.ops.quads import quad_of_box, turn_points
from opsin.read.reading_order import order_lines, page_angle

RECEIPT = [(0, 0, 100, 10), (0, 12, 50, 22), (80, 13, 100, 21), (0, 24, 40, 34), (85, 23, 100, 33), (0, 36, 55, 46)]
RECEIPT_ROWS = [[[0], [1, 2], [3, 4], [5]]]
ARTICLE = [
    (0, 0, 200, 15),  # a heading over both columns
    *((0, 20 + 12 * i, 95 - 5 * (i % 2), 30 + 12 * i) for i in range(4)),
    *((105, 21 + 12 * i, 200 - 5 * (i % 2), 31 + 12 * i) for i in range(4)),
    (0, 90, 200, 100),  # a foot
]
ARTICLE_BLOCKS = [[[0]], [[1], [2], [3], [4]], [[5], [6], [7], [8]], [[9]]]


def shuffled(boxes: list[tuple[int, ...]], blocks: list[list[list[int]]]) -> tuple[list[np.ndarray], list]:
    """The boxes' quads in another order, and the blocks with the places that they then have."""
    order = np.random.default_rng(0).permutation(len(boxes)).tolist()
    place = {old: new for new, old in enumerate(order)}
    return [quad_of_box(boxes[old]) for old in order], [[[place[i] for i in row] for row in b] for b in blocks]


@pytest.mark.parametrize(("boxes", "blocks"), [(RECEIPT, RECEIPT_ROWS), (ARTICLE, ARTICLE_BLOCKS)])
@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("skew", [0.0, 0.06])
def test_blocks_rows_and_lines(boxes: list, blocks: list, turns: int, skew: float) -> None:
    quads, expected = shuffled(boxes, blocks)
    turn = np.array([[np.cos(skew), np.sin(skew)], [-np.sin(skew), np.cos(skew)]])
    moved = [turn_points(quad @ turn, turns, (100, 200)) for quad in quads]
    assert page_angle(moved) % (2 * np.pi) == pytest.approx((skew - turns * np.pi / 2) % (2 * np.pi))
    assert order_lines(moved) == expected


def test_the_order_can_be_chosen() -> None:
    quads = [quad_of_box(box) for box in RECEIPT[1:]]  # but for the line over both
    assert order_lines(quads, "columns") == [[[0], [2], [4]], [[1], [3]]]
    article = [quad_of_box(box) for box in ARTICLE]
    assert order_lines(article, "rows") == [[[0], [1, 5], [2, 6], [3, 7], [4, 8], [9]]]
    with pytest.raises(InputError, match="rows"):
        order_lines(article, "row")


def test_pages_of_few_lines() -> None:
    assert order_lines([]) == []
    assert order_lines([quad_of_box((3, 3, 3, 3))]) == [[[0]]]
    assert order_lines([quad_of_box((0, 0, 9, 5)), quad_of_box((0, 1, 9, 6))]) == [[[0], [1]]]  # one over the other


def test_thousands_of_lines_are_ordered_quickly() -> None:
    quads = [quad_of_box((50 * (i % 4), 12 * (i // 4), 50 * (i % 4) + 40, 12 * (i // 4) + 10)) for i in range(4000)]
    (rows,) = order_lines(quads, "rows")
    assert rows == [[4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3] for i in range(1000)]
