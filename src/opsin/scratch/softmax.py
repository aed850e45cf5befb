"""Softmax: any numbers become shares of one, and nothing overflows.

    softmax(z)_k = e^z_k / sum_j e^z_j

Adding a constant to all z changes nothing: it cancels. So subtract the largest: the largest exponent is then
e^0 = 1, the sum is at least 1, and what underflows to 0 did not matter. The logarithm is best taken before
dividing:

    log softmax(z)_k = z_k - logsumexp(z),      logsumexp(z) = max + log sum_j e^(z_j - max)

Each share depends on all z, so its slope is a matrix, dp_k/dz_j = p_k ([k = j] - p_j), which is never built:

    dz = p (dp - sum_j dp_j p_j)
"""

from __future__ import annotations

import numpy as np


def logsumexp(z: np.ndarray, axis: int = -1) -> np.ndarray:
    """log of the sum of e^z along an axis, which stays as 1: a smooth maximum."""
    largest = z.max(axis=axis, keepdims=True)
    return largest + np.log(np.exp(z - largest).sum(axis=axis, keepdims=True))


def softmax(z: np.ndarray, axis: int = -1) -> np.ndarray:
    """Shares of one along an axis. A number that is -inf gets none; at least one has to be more."""
    powers = np.exp(z - z.max(axis=axis, keepdims=True))  # the largest is 1
    return powers / powers.sum(axis=axis, keepdims=True)


def softmax_backward(dp: np.ndarray, p: np.ndarray, axis: int = -1) -> np.ndarray:
    """dp -> dz, for the shares p = softmax(z): a share can only grow at the cost of the others."""
    return p * (dp - (dp * p).sum(axis=axis, keepdims=True))


def log_softmax(z: np.ndarray, axis: int = -1) -> np.ndarray:
    """The logarithm of softmax, finite for any finite z."""
    return z - logsumexp(z, axis)


if __name__ == "__main__":
    z = np.array([1.0, 2.0, 3.0])
    p = softmax(z)
    print("z              ", z)
    print("softmax        ", p.round(4))
    print("of z + 1000    ", softmax(z + 1000).round(4), "   the plain form has inf / inf")
    print("log softmax of 0 and 1000:", log_softmax(np.array([0.0, 1000.0])))
    print("dz for dp = 1 0 0:", softmax_backward(np.array([1.0, 0, 0]), p).round(4), "  sums to 0")
