"""Intersection over union: how much two boxes are the same one, from 0 to 1.

    IoU = area(A and B) / area(A or B),        area(A or B) = area(A) + area(B) - area(A and B)

It has no unit: twice as large images give the same numbers. A box is x1, y1, x2, y2 in continuous pixels,
x2 and y2 exclusive, so that its area is (x2 - x1) (y2 - y1) and nothing adds 1. Two boxes meet in the box
from the larger of their beginnings to the smaller of their ends; where a side of it is negative they
do not meet.
"""

from __future__ import annotations

import numpy as np


def area(boxes: np.ndarray) -> np.ndarray:
    """boxes (..., 4) -> (...)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a (N, 4), b (M, 4) -> (N, M), each with each. Two boxes without any area have 0."""
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])  # (N, M, 2)
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = np.maximum(bottom_right - top_left, 0)
    both = sides[..., 0] * sides[..., 1]
    either = area(a)[:, None] + area(b)[None, :] - both
    return np.divide(both, either, out=np.zeros_like(both), where=either > 0)


if __name__ == "__main__":
    a = np.array([[0.0, 0, 10, 10]])
    b = np.array([[0.0, 0, 10, 10], [5, 0, 15, 10], [0, 0, 5, 5], [10, 0, 20, 10]])
    names = ["itself: 100 / 100", "itself moved by half: 50 / 150", "its quarter: 25 / 100", "its neighbour: 0 / 200"]
    for name, value in zip(names, iou(a, b)[0], strict=True):
        print(f"a square of 10 and {name:30} = {value:.4f}")
