"""Bilinear sampling: the value of an image between its pixels, with a gradient for the place as well.

The centre of pixel i lies at i + 0.5. A point (x, y) between four centres takes their mean, by nearness: with
a the distance to the right of the left ones and b that below the upper ones,

    value = (1 - a)(1 - b) I[r, c]  +  a (1 - b) I[r, c+1]  +  (1 - a) b I[r+1, c]  +  a b I[r+1, c+1]

Outside there is zero. The value depends on the four pixels (each gets its share of dy) and, piece by piece
smoothly, on the place: d value / dx is how much the right ones are brighter than the left. That makes it the
piece that lets a network learn where to look: spatial transformers (Jaderberg et al. 2015, arXiv:1506.02025),
RoI align, deformable convolution.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class Corner(NamedTuple):
    """One of the four pixels around each of N points: where it is, its weight, and how that changes with the point."""

    row: np.ndarray
    col: np.ndarray
    weight: np.ndarray
    weight_by_x: np.ndarray
    weight_by_y: np.ndarray


def corners(points: np.ndarray, height: int, width: int) -> Iterator[Corner]:
    """The four corners of points (N, 2). Those outside the image are moved onto it, with weight 0."""
    x, y = points[:, 0] - 0.5, points[:, 1] - 0.5  # counted from the centre of pixel 0
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    a, b = x - left, y - top  # in [0, 1)
    for down, right in np.ndindex(2, 2):
        row, col = top + down, left + right
        inside = (row >= 0) & (row < height) & (col >= 0) & (col < width)
        along_x, along_y = (a if right else 1 - a), (b if down else 1 - b)
        yield Corner(
            row.clip(0, height - 1),
            col.clip(0, width - 1),
            weight=along_x * along_y * inside,
            weight_by_x=(1 if right else -1) * along_y * inside,
            weight_by_y=along_x * (1 if down else -1) * inside,
        )


def sample(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """image (C, H, W), points (N, 2) as x, y in pixels -> values (C, N)."""
    _, height, width = image.shape
    values = np.zeros((len(image), len(points)), image.dtype)
    for corner in corners(points, height, width):
        values += (image[:, corner.row, corner.col] * corner.weight).astype(image.dtype)
    return values


def sample_backward(dvalues: np.ndarray, image: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """dvalues (C, N) -> dimage (C, H, W), dpoints (N, 2)."""
    _, height, width = image.shape
    dimage, dpoints = np.zeros_like(image), np.zeros_like(points)
    for corner in corners(points, height, width):
        for dchannel, dvalue in zip(dimage, dvalues, strict=True):
            # add.at, not +=: several points may take from the same pixel.
            np.add.at(dchannel, (corner.row, corner.col), dvalue * corner.weight)
        by_weight = (dvalues * image[:, corner.row, corner.col]).sum(axis=0)  # (N,)
        dpoints[:, 0] += by_weight * corner.weight_by_x
        dpoints[:, 1] += by_weight * corner.weight_by_y
    return dimage, dpoints


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """image (C, H, W) -> (C, height, width), larger or a little smaller, its border repeated outside."""
    rows, cols = (np.arange(height) + 0.5) * image.shape[1] / height, (np.arange(width) + 0.5) * image.shape[2] / width
    x, y = np.meshgrid(cols.clip(0.5, image.shape[2] - 0.5), rows.clip(0.5, image.shape[1] - 0.5))
    return sample(image, np.stack([x.ravel(), y.ravel()], axis=1)).reshape(-1, height, width)


if __name__ == "__main__":
    image = np.array([[[0.0, 10.0], [20.0, 30.0]]])
    points = np.array([[0.5, 0.5], [1.0, 0.5], [1.0, 1.0]])
    print("an image of 2x2:", image[0], sep="\n")
    for point, value in zip(points, sample(image, points)[0], strict=True):
        print(f"at {point}: {value}")
    dimage, dpoints = sample_backward(np.array([[0.0, 0.0, 1.0]]), image, points)
    print("in the middle it takes a quarter of each:", dimage[0], sep="\n")
    print("and grows to the right and downwards by", dpoints[2], "a pixel")
    print("resized to 4x4:", resize(image, 4, 4)[0], sep="\n")
