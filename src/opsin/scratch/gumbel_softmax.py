"""Gumbel-softmax: to draw a class so that a gradient can go through the draw.

Jang et al. 2016, arXiv:1611.01144; Maddison et al. 2016, arXiv:1611.00712. Add to each logit a number from the Gumbel
distribution, and the largest sum is a draw from the softmax, exactly:

    g = -ln(-ln u),  u uniform on (0, 1),        argmax(z + g) = k with probability softmax(z)_k

An argmax has no gradient; a softmax at temperature tau in its place has, and is nearly one-hot where tau is small:

    y = softmax((z + g) / tau)

Straight through: forward the one-hot of its maximum, backward the gradient of y. Low temperatures are truer and have
gradients that vary more.
"""

from __future__ import annotations

import numpy as np

from opsin.scratch.softmax import softmax, softmax_backward


def gumbel(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Numbers of the standard Gumbel distribution."""
    return -np.log(rng.exponential(size=shape))  # -ln u of a uniform u is exponential


def gumbel_softmax(logits: np.ndarray, noise: np.ndarray, tau: float = 1.0) -> np.ndarray:
    """logits and noise (..., K) -> y (..., K), rows that sum to 1. tau > 0."""
    return softmax((logits + noise) / tau)


def gumbel_softmax_backward(dy: np.ndarray, y: np.ndarray, tau: float = 1.0) -> np.ndarray:
    """dy -> dlogits, (..., K)."""
    return softmax_backward(dy, y) / tau


def straight_through(y: np.ndarray) -> np.ndarray:
    """The one-hot (..., K) that goes forward in y's place; backward, dy goes to y as if nothing had been there."""
    return (y == y.max(axis=-1, keepdims=True)).astype(y.dtype)


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    logits = np.log(np.array([0.1, 0.3, 0.6]))
    drawn = np.argmax(logits + gumbel((50_000, 3), rng), axis=1)
    print("shares of 50,000 draws:", (np.bincount(drawn) / 50_000).round(2), "  softmax: [0.1 0.3 0.6]")
    noise = gumbel((3,), rng)
    for tau in (5.0, 1.0, 0.1):
        print(f"tau {tau}: ", gumbel_softmax(logits, noise, tau).round(3))
