"""Dropout: in training every number is left out with probability p, so that none may rely on another.

Srivastava et al. 2014, JMLR 15. Inverted, as everybody does it today: what is kept is scaled up at once,

    y = x m,        m = 1 / (1 - p) with probability 1 - p, else 0        E[y] = x

so that use needs no change at all. The original left the numbers as they were in training, and multiplied the weights
by 1 - p in use: the same mean, at the cost of a network that is another one in use. Backward, dx = dy m: the same mask,
since the same connections were cut.
"""

from __future__ import annotations

import numpy as np


def dropout(x: np.ndarray, p: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """x -> y and the mask m, of its shape. Only in training; p in [0, 1)."""
    if not 0 <= p < 1:
        raise ValueError(f"p is {p}; the probability of being left out must be at least 0 and below 1")
    mask = ((rng.random(x.shape) >= p) / (1 - p)).astype(x.dtype)
    return x * mask, mask


def dropout_backward(dy: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """dy -> dx: nothing for what was left out."""
    return dy * mask


def dropout_as_published(x: np.ndarray, p: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """x -> y and a mask of zeros and ones; what reads y has its weights multiplied by 1 - p in use."""
    y, mask = dropout(x, p, rng)
    return y * (1 - p), mask * (1 - p)


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    x = np.arange(1.0, 9.0)
    y, mask = dropout(x, 0.5, rng)
    print("x                  ", x)
    print("y, half left out   ", y)
    print("dx for dy = 1      ", dropout_backward(np.ones(8), mask))
    print("mean of 10,000 such", np.mean([dropout(x, 0.5, rng)[0] for _ in range(10_000)], axis=0).round(1))
