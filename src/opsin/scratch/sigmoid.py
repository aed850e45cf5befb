"""Sigmoid and its logarithm, written so that no exponent overflows.

    sigmoid(z) = 1 / (1 + e^-z)

For z = -1000 this asks for e^1000, which no float holds. The same fraction, extended by e^z, is
e^z / (1 + e^z). So use for each sign the form whose exponent is negative: e^-|z| is at most 1. Softplus is where losses
meet it, as

    softplus(z) = log(1 + e^z) = max(z, 0) + log(1 + e^-|z|)       and       log sigmoid(z) = -softplus(-z)

The slope is largest at 0, and only 1/4 there: ten sigmoids in a row shrink a gradient by a million at least.
"""

from __future__ import annotations

import numpy as np


def sigmoid(z: np.ndarray) -> np.ndarray:
    """1 / (1 + e^-z), exact to the last digit or so for any z."""
    small = np.exp(-np.abs(z))  # in [0, 1]
    return np.where(z >= 0, 1, small) / (1 + small)


def sigmoid_backward(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """dy -> dz. The slope is y (1 - y): the output says it all, z is not needed again."""
    return dy * y * (1 - y)


def softplus(z: np.ndarray) -> np.ndarray:
    """log(1 + e^z): a smooth ReLU, whose slope is the sigmoid."""
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


if __name__ == "__main__":
    z = np.array([-1000.0, -2.0, 0.0, 2.0, 1000.0])
    y = sigmoid(z)
    print("z          ", z)
    print("sigmoid    ", y.round(4))
    print("slope      ", sigmoid_backward(np.ones(5), y).round(4))
    print("log sigmoid", (-softplus(-z)).round(4), "   the plain form has log(0) = -inf for -1000")
