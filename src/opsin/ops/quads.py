"""Quads, four corners each: their order, the image within one cut out upright, the one around an outline.

Corners are (x, y) in continuous pixels, clockwise as seen, the first where the text begins: left above of a line that
stands upright.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as nnf

from opsin.ops.polygons import signed_area

_FLAT = 1e-3  # of a quad's bounding box: below that share of it, its area is nothing to cut


def clockwise(quad: np.ndarray) -> np.ndarray:
    """Corners (n, 2) in clockwise order as seen, y downwards, the first of them kept."""
    return quad if signed_area(quad) >= 0 else np.concatenate([quad[:1], quad[:0:-1]])


def quad_of_box(box: Sequence[float]) -> np.ndarray:
    """The corners (4, 2) of a box, x1, y1, x2, y2."""
    x1, y1, x2, y2 = (float(value) for value in box)
    return np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], np.float64)


def is_convex(quad: np.ndarray) -> bool:
    """Whether a quad turns the same way at each corner, and has an area: only then a homography takes a box to it."""
    sides = np.roll(quad, -1, axis=0) - quad
    after = np.roll(sides, -1, axis=0)
    turns = sides[:, 0] * after[:, 1] - sides[:, 1] * after[:, 0]
    least = _FLAT * float(np.prod(np.ptp(quad, axis=0)))
    return bool((turns > 0).all() or (turns < 0).all()) and abs(signed_area(quad)) > least


def turn_points(points: np.ndarray, turns: int, size: tuple[int, int]) -> np.ndarray:
    """Points (..., 2) of an image of (height, width) as they lie once it was turned by so many times 90 degrees.

    turns: against the clock, as of `torch.rot90` over (-2, -1); negative the other way.
    """
    found, (height, width) = np.asarray(points, np.float64), size
    for _ in range(turns % 4):
        found = np.stack([found[..., 1], width - found[..., 0]], axis=-1)
        height, width = width, height
    return found


def quad_of(outline: np.ndarray) -> np.ndarray:
    """The quad of an outline (n, 2): itself where it has four corners, else the smallest rectangle around it, (4, 2).

    Two corners are those of an upright box. Of the rectangle's corners the first is the nearest to the outline's first.
    """
    if len(outline) == 2:
        return quad_of_box([*outline.min(axis=0), *outline.max(axis=0)]).astype(outline.dtype)
    if len(outline) == 4:
        return clockwise(outline)
    found = clockwise(smallest_rectangle(outline))
    return np.roll(found, -int(np.argmin(((found - outline[0]) ** 2).sum(axis=1))), axis=0)


def convex_quad(outline: np.ndarray) -> np.ndarray:
    """A quad of an outline (n, 2) that can be cut out, (4, 2), clockwise: that of `quad_of` if it is convex.

    Else, where its corners fold, the smallest rectangle around it, from the upper left corner on.
    """
    outline = np.asarray(outline, np.float64)
    quad = quad_of(outline)
    if is_convex(quad):
        return quad
    found = clockwise(smallest_rectangle(outline))
    return np.roll(found, -int(found.sum(axis=1).argmin()), axis=0)


def smallest_rectangle(points: np.ndarray) -> np.ndarray:
    """The rectangle of least area around points (n, 2): its corners, (4, 2). One side lies along the convex hull's."""
    hull = _hull(np.asarray(points, np.float64))
    sides = np.roll(hull, -1, axis=0) - hull
    angles = np.unique(np.arctan2(sides[:, 1], sides[:, 0]) % (np.pi / 2))
    best, least = hull, np.inf
    for angle in angles if len(angles) else (0.0,):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        turned = hull @ turn
        low, high = turned.min(axis=0), turned.max(axis=0)
        area = float((high - low).prod())
        if area < least - 1e-9:
            corners = np.array([low, (high[0], low[1]), high, (low[0], high[1])])
            best, least = corners @ turn.T, area
    return best


def quad_size(quad: np.ndarray) -> tuple[int, int]:
    """(height, width) in pixels of what a quad (4, 2) holds: the longer of its two sides each, at least 1."""
    along = np.linalg.norm(np.roll(quad, -1, axis=0) - quad, axis=1)
    return max(1, round(float(max(along[1], along[3])))), max(1, round(float(max(along[0], along[2]))))


def cut_quad(image: Tensor, quad: np.ndarray, size: tuple[int, int] | None = None) -> Tensor:
    """The image within a quad (4, 2), brought upright by a perspective: (C, H, W) -> (C, height, width), same dtype.

    size: (height, width) of the result; that of `quad_size` if not given. A quad with upright sides on whole pixels is
    a plain copy. What lies outside of the image repeats its border; a quad that misses it is a row of that.
    """
    height, width = size or quad_size(quad)
    x, y = (int(value) for value in quad[0])
    upright = np.array([(x, y), (x + width, y), (x + width, y + height), (x, y + height)])
    if np.array_equal(quad, upright) and x >= 0 and y >= 0 and (upright[2] <= image.shape[:0:-1]).all():
        return image[:, y : y + height, x : x + width].clone()
    matrix = homography(quad_of_box((0, 0, width, height)), np.asarray(quad, np.float64))
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    places = map_points(matrix, np.stack([columns, rows], axis=-1))
    (left, top), part = _around(image, quad)  # floats of the whole page would take longer than all else
    grid = torch.from_numpy((places - (left, top)) / np.array(part.shape[:0:-1]) * 2 - 1).to(torch.float32)[None]
    cut = nnf.grid_sample(part[None].float(), grid, padding_mode="border", align_corners=False)[0]
    return cut if image.dtype.is_floating_point else cut.round().clamp(0, 255).to(image.dtype)


def map_points(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (..., 2) through a homography (3, 3)."""
    mapped = points @ matrix[:, :2].T + matrix[:, 2]
    return mapped[..., :2] / mapped[..., 2:]


def homography(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The matrix (3, 3) that takes four points (4, 2) to four others, (x, y, 1) @ matrix.T up to scale.

    Where none does, because three lie on a line, it is the nearest by least squares.
    """
    rows, values = [], []
    for (x, y), (u, v) in zip(source.tolist(), target.tolist(), strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    found = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0]
    return np.append(found, 1.0).reshape(3, 3)


def _around(image: Tensor, quad: np.ndarray) -> tuple[tuple[int, int], Tensor]:
    """The part of an image that holds all pixels that matter to a quad, at least one, and its corner (x, y)."""
    bounds = np.array(image.shape[:0:-1])
    low = np.clip(np.floor(quad.min(axis=0)) - 1, 0, bounds - 1).astype(int).tolist()
    high = np.clip(np.ceil(quad.max(axis=0)) + 1, np.array(low) + 1, bounds).astype(int).tolist()
    return (low[0], low[1]), image[:, low[1] : high[1], low[0] : high[0]]


def _hull(points: np.ndarray) -> np.ndarray:
    """The corners of the convex hull of points (n, 2), by Andrew's monotone chain."""
    ordered = np.unique(points, axis=0)
    if len(ordered) < 3:
        return ordered

    def chain(rest: np.ndarray) -> list[np.ndarray]:
        found: list[np.ndarray] = []
        for point in rest:
            while len(found) > 1 and _turn(found[-2], found[-1], point) <= 0:
                found.pop()
            found.append(point)
        return found[:-1]

    return np.array([*chain(ordered), *chain(ordered[::-1])])


def _turn(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
    return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))
