"""How to know that a backward pass is right: move every input a little, and see what the loss does.

    dL/dx_i  =  (L(x + h e_i) - L(x - h e_i)) / 2h  +  O(h^2)

Slow, two evaluations a number, and blind to what the function is made of: that is what makes it a witness. It
needs float64: with h = 1e-6 the difference of two float32 losses is all rounding. At a kink, as of ReLU at 0,
it finds the mean of the two slopes where a backward pass has to choose one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def numerical_gradient(loss: Callable[[np.ndarray], float], x: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """dL/dx by central differences, of the shape of x, for a loss that is one number."""
    gradient = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        above, below = x.copy(), x.copy()
        above[place] += step
        below[place] -= step
        gradient[place] = (loss(above) - loss(below)) / (2 * step)
    return gradient


if __name__ == "__main__":
    x = np.array([1.0, 2.0, 3.0])
    print("x              ", x)
    print("L(x)            sum of x^3 =", (x**3).sum())
    print("by hand, 3 x^2 ", 3 * x**2)
    print("by differences ", numerical_gradient(lambda x: (x**3).sum(), x).round(6))
