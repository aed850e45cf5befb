"""The outlines of a mask as COCO's polygons: along the sides of its pixels, so that drawing them gives it back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from scipy.ndimage import find_objects, label

Point = tuple[int, int]  # y, x of a corner between pixels


def trace_outlines(mask: np.ndarray) -> list[list[float]]:
    """Polygons x1 y1 x2 y2 ... that together cover exactly the pixels of a mask, bool (H, W).

    COCO knows no holes: a part with holes is cut in two at the middle row of one, until none has any.
    """
    return [
        [float(value) for y, x in outline for value in (x + left, y + top)]
        for piece, (top, left) in _without_holes(mask)
        for outline in _loops(piece)
    ]


def _without_holes(mask: np.ndarray) -> Iterator[tuple[np.ndarray, Point]]:
    """Masks that add up to a mask, connected by sides and without holes, each with its place in it."""
    todo = [(mask, (0, 0))]
    while todo:
        part, (top, left) = todo.pop()
        numbers, _ = label(part)  # type: ignore[misc]  # by sides
        for number, (rows, columns) in enumerate(find_objects(numbers), 1):
            own, place = numbers[rows, columns] == number, (top + rows.start, left + columns.start)
            middle = _middle_of_a_hole(own)
            if middle is None:
                yield own, place
            else:
                todo += [(own[:middle], place), (own[middle:], (place[0] + middle, place[1]))]


def _middle_of_a_hole(mask: np.ndarray) -> int | None:
    """The middle row of a hole in a mask, of several the most central; None where it has none. A corner opens none."""
    numbers, count = label(np.pad(~mask, 1, constant_values=True))  # type: ignore[misc]
    if count < 2:
        return None
    holes = (rows for number, (rows, _) in enumerate(find_objects(numbers), 1) if number != numbers[0, 0])
    middles = [(rows.start + rows.stop) // 2 - 1 for rows in holes]
    return min(middles, key=lambda middle: abs(2 * middle - len(mask)))  # halves, so that many holes take few cuts


# Of a neighbour that is off: the side between it and a pixel, start and end, from the pixel's left upper corner.
_SIDES: dict[Point, tuple[Point, Point]] = {
    (-1, 0): ((0, 0), (0, 1)),
    (0, 1): ((0, 1), (1, 1)),
    (1, 0): ((1, 1), (1, 0)),
    (0, -1): ((1, 0), (0, 0)),
}


def _loops(mask: np.ndarray) -> Iterator[list[Point]]:
    """The corners of the outlines of a mask without holes, the pixels at the right hand."""
    padded = np.pad(mask, 1)
    ahead: dict[Point, list[Point]] = defaultdict(list)
    for (dy, dx), (start, end) in _SIDES.items():
        off = ~np.roll(padded, (-dy, -dx), (0, 1))
        for y, x in (np.argwhere(padded & off) - 1).tolist():
            ahead[y + start[0], x + start[1]].append((y + end[0], x + end[1]))
    while ahead:
        first = point = next(iter(ahead))
        corners: list[Point] = []
        before: Point | None = None
        while point != first or not corners:
            following = _turn(point, ahead[point], before)
            ahead[point].remove(following)
            if not ahead[point]:
                del ahead[point]
            direction = (following[0] - point[0], following[1] - point[1])
            if direction != before:
                corners.append(point)
            point, before = following, direction
        yield corners


def _turn(point: Point, ahead: list[Point], before: Point | None) -> Point:
    """The next point: where pixels meet at a corner alone, the one to the right, so that each keeps to its own."""
    if len(ahead) == 1 or before is None:
        return ahead[0]
    right = (point[0] + before[1], point[1] - before[0])
    return right if right in ahead else ahead[0]
