"""The Wing loss: for points that are nearly right, a gradient that grows as the error shrinks.

Feng et al. 2018, arXiv:1711.06753. With L2 a point that is off by 10 pixels pulls ten times as hard as one that is off
by 1, so that large errors set the step; with L1 all pull alike, and the many small errors are drowned by the few large
ones. For d = |x - target| in pixels,

    L = w ln(1 + d / eps)    for d < w,        d - C    beyond,        C = w - w ln(1 + w / eps)
    dL/dd = w / (eps + d),                     1

In the middle the gradient times the step that is needed, d w / (eps + d), is nearly the same for all d: small errors
count as much as large ones. w = 10, eps = 2.
"""

from __future__ import annotations

import numpy as np


def wing_loss(x: np.ndarray, target: np.ndarray, w: float = 10.0, eps: float = 2.0) -> np.ndarray:
    """x and target of one shape, in pixels -> the loss of each number."""
    d = np.abs(x - target)
    return np.where(d < w, w * np.log1p(d / eps), d - (w - w * np.log1p(w / eps)))


def wing_loss_backward(x: np.ndarray, target: np.ndarray, w: float = 10.0, eps: float = 2.0) -> np.ndarray:
    """dL/dx for the sum of all losses; 0 where there is no error."""
    d = np.abs(x - target)
    return np.sign(x - target) * np.where(d < w, w / (eps + d), 1.0)


if __name__ == "__main__":
    x, zero = np.array([0.1, 1.0, 5.0, 9.999, 20.0]), np.zeros(5)
    slope = wing_loss_backward(x, zero)
    print("error          ", x)
    print("loss           ", wing_loss(x, zero).round(3))
    print("gradient       ", slope.round(3))
    print("gradient * step", (slope * x).round(3), "  of L2:", (x * x).round(2))
