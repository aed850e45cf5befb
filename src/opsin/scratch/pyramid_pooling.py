"""Spatial pyramid pooling: a map of any size becomes a vector of one size.

He et al. 2014, arXiv:1406.4729. The map is cut into n x n bins for each level n of a pyramid, as 1, 2, 3 and 6, and
each bin gives its maximum: C (1 + 4 + 9 + 36) numbers, whatever the image. A fully connected layer can follow, so that
a network is no longer bound to 224x224. Bin i of n of a map of a pixels reaches

    from floor(i a / n) to ceil((i + 1) a / n)

so that all pixels are in a bin, neighbours may share one, and no bin is empty even where n > a. Backward as max
pooling: to the place that won, added up where it won in several bins.
"""

from __future__ import annotations

import numpy as np


def bins(size: int, count: int) -> list[tuple[int, int]]:
    """Where each bin of a side begins and ends."""
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def pyramid_pool(x: np.ndarray, levels: tuple[int, ...] = (1, 2, 3, 6)) -> tuple[np.ndarray, np.ndarray]:
    """x (B, C, H, W) -> y (B, C * sum of n^2), level by level, and the place of each maximum in H W, for backward."""
    batch, channels, height, width = x.shape
    values, places = [], []
    for n in levels:
        level, where = np.empty((batch, channels, n, n)), np.empty((batch, channels, n, n), np.int64)
        for i, (top, bottom) in enumerate(bins(height, n)):
            for j, (left, right) in enumerate(bins(width, n)):
                window = x[:, :, top:bottom, left:right].reshape(batch, channels, -1)
                best = window.argmax(axis=2)
                level[:, :, i, j] = window.max(axis=2)
                where[:, :, i, j] = (top + best // (right - left)) * width + left + best % (right - left)
        values.append(level.reshape(batch, -1))
        places.append(where.reshape(batch, -1))
    return np.concatenate(values, axis=1), np.concatenate(places, axis=1)


def pyramid_pool_backward(
    dy: np.ndarray, places: np.ndarray, shape: tuple[int, ...], levels: tuple[int, ...] = (1, 2, 3, 6)
) -> np.ndarray:
    """dy (B, C * sum of n^2) -> dx of x's shape."""
    batch, channels, height, width = shape
    dx = np.zeros((batch, channels, height * width))
    first = 0
    for n in levels:
        part = slice(first, first + channels * n * n)
        first = part.stop
        grads, where = (one[:, part].reshape(batch, channels, -1) for one in (dy, places))
        images, maps = np.ogrid[:batch, :channels]
        np.add.at(dx, (images[..., None], maps[..., None], where), grads)
    return dx.reshape(shape)


if __name__ == "__main__":
    for height, width in ((4, 4), (3, 5)):
        x = np.arange(1.0, height * width + 1).reshape(1, 1, height, width)
        y, places = pyramid_pool(x, (1, 2))
        print(f"{height}x{width}, 1 and 2x2 bins:", y[0], "  rows", bins(height, 2), "  columns", bins(width, 2))
        dx = pyramid_pool_backward(np.ones_like(y), places, x.shape, (1, 2))
        print("the last pixel wins twice:", dx[0, 0, -1, -1])
