"""Smooth L1: a parabola around zero, straight lines beyond: an outlier pulls, but no harder than others.

Girshick 2015 (Fast R-CNN), arXiv:1504.08083, equation 3; a scaled Huber loss. For d = x - target,

    L = d^2 / (2 beta)    for |d| < beta,        |d| - beta / 2    beyond
    dL/dd = d / beta,                            sign(d)

L2 would follow one wrong box with a gradient as long as its error; L1 would jump to and fro around zero with a
gradient that is never small. beta is where the one becomes the other: 1 in Fast R-CNN, 1/9 in RPN.
"""

from __future__ import annotations

import numpy as np


def smooth_l1(x: np.ndarray, target: np.ndarray, beta: float = 1.0) -> np.ndarray:
    """x and target of one shape -> the loss of each number. beta > 0."""
    d = np.abs(x - target)
    return np.where(d < beta, d**2 / (2 * beta), d - beta / 2)


def smooth_l1_backward(x: np.ndarray, target: np.ndarray, beta: float = 1.0) -> np.ndarray:
    """dL/dx for the sum of all losses: never longer than 1."""
    return np.clip((x - target) / beta, -1, 1)


if __name__ == "__main__":
    x, zero = np.array([0.01, 0.1, 0.5, 1.0, 2.0, 100.0]), np.zeros(6)
    print("error   ", x)
    print("loss    ", smooth_l1(x, zero))
    print("gradient", smooth_l1_backward(x, zero))
    print("of L2   ", x)
