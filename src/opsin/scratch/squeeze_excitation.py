"""Squeeze and excitation: each channel is turned up or down by what the whole map shows.

Hu et al. 2017, arXiv:1709.01507. A convolution sees a window; here two small layers see the mean of every channel,

    s = mean of x over places        squeeze, (C,)
    e = sigmoid(W2 relu(W1 s))       excitation: C / r numbers between, so that channels must share
    y = e x                          scale

Backward, x is reached twice: through the product, and through the mean in which every pixel has its share.
"""

from __future__ import annotations

import numpy as np

from opsin.scratch.linear import linear, linear_backward
from opsin.scratch.sigmoid import sigmoid, sigmoid_backward


def squeeze_excitation(
    x: np.ndarray, w1: np.ndarray, b1: np.ndarray, w2: np.ndarray, b2: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x (B, C, H, W), w1 (R, C), w2 (C, R) -> y (B, C, H, W), with s (B, C), the hidden h (B, R) and e (B, C)."""
    s = x.mean(axis=(2, 3))
    h = np.maximum(linear(s, w1, b1), 0)
    e = sigmoid(linear(h, w2, b2))
    return x * e[:, :, None, None], s, h, e


def squeeze_excitation_backward(
    dy: np.ndarray,
    x: np.ndarray,
    w1: np.ndarray,
    w2: np.ndarray,
    s: np.ndarray,
    h: np.ndarray,
    e: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """dy (B, C, H, W) -> dx, dw1, db1, dw2, db2."""
    de = (dy * x).sum(axis=(2, 3))
    dh, dw2, db2 = linear_backward(sigmoid_backward(de, e), h, w2)
    ds, dw1, db1 = linear_backward(dh * (h > 0), s, w1)
    places = x.shape[2] * x.shape[3]
    return dy * e[:, :, None, None] + ds[:, :, None, None] / places, dw1, db1, dw2, db2


if __name__ == "__main__":
    x = np.stack([np.full((2, 2), 4.0), np.full((2, 2), -1.0)])[None]  # two channels: one is loud
    w1, w2 = np.array([[1.0, 0.0]]), np.array([[-1.0], [1.0]])  # the first turns itself down, and the second up
    y, s, h, e = squeeze_excitation(x, w1, np.zeros(1), w2, np.zeros(2))
    print("squeezed ", s[0])
    print("between  ", h[0])
    print("excited  ", e[0].round(3))
    print("y        ", y[0, :, 0, 0].round(3), "at every place")
