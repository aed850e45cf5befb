"""Polygons: their areas, and the areas that two of them share. Corners are (x, y), y downwards."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def signed_area(polygon: np.ndarray) -> float:
    """The area of a polygon (P, 2) without crossings, above 0 where its corners are clockwise as seen."""
    x, y = (polygon - polygon[0]).T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def shared_area(one: np.ndarray, other: np.ndarray) -> float:
    """The area that two polygons (P, 2) and (Q, 2) share, of any shape without crossings.

    The second is a sum of signed triangles from its first corner on, and each triangle, being convex, cuts the first.
    """
    sign = np.sign(signed_area(other)) * np.sign(signed_area(one))
    total = 0.0
    for place in range(1, len(other) - 1):
        triangle = other[[0, place, place + 1]]
        turn = np.sign(signed_area(triangle))
        if turn:
            total += turn * signed_area(_cut(one, triangle[:: int(turn)]))
    return max(0.0, float(sign * total))


def shared_areas(
    polygons: Sequence[np.ndarray], others: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The areas that polygons share with others, (N, M), and their own, (N,) and (M,)."""
    shared = np.zeros((len(polygons), len(others)))
    low, high = (
        [np.array([edge(one, 0) for one in some]).reshape(-1, 2) for some in (polygons, others)]
        for edge in (np.min, np.max)
    )
    near = ((low[0][:, None] < high[1]) & (low[1] < high[0][:, None])).all(axis=2)
    for i, j in np.argwhere(near):
        shared[i, j] = shared_area(polygons[i], others[j])
    areas = [np.array([abs(signed_area(one)) for one in some]) for some in (polygons, others)]
    return shared, areas[0], areas[1]


def _cut(polygon: np.ndarray, triangle: np.ndarray) -> np.ndarray:
    """What of a polygon lies within a clockwise triangle, edge by edge (Sutherland and Hodgman 1974)."""
    for start, end in zip(triangle, np.roll(triangle, -1, axis=0), strict=True):
        side = end - start
        away = side[0] * (polygon[:, 1] - start[1]) - side[1] * (polygon[:, 0] - start[0])
        corners = []
        for place, following in enumerate(np.roll(np.arange(len(polygon)), -1)):
            here, there = away[place], away[following]
            if here >= 0:
                corners.append(polygon[place])
            if (here >= 0) != (there >= 0):
                corners.append(polygon[place] + here / (here - there) * (polygon[following] - polygon[place]))
        if len(corners) < 3:
            return np.zeros((3, 2))
        polygon = np.array(corners)
    return polygon
