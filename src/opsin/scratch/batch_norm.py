"""Batch normalisation: give every channel mean 0 and variance 1 over the batch, then let it choose its own.

Ioffe and Szegedy 2015, arXiv:1502.03167. Over the N numbers of a channel, those of all images and places,

    mean = sum x / N,    var = sum (x - mean)^2 / N,    n = (x - mean) / sqrt(var + eps),    y = gamma n + beta

An image alone has no batch, so training keeps running averages and use takes those: then the layer is a
fixed line, which can be folded into the convolution before it. A bias before it would be subtracted with the
mean: leave it out.

Backward, x also moves the mean and the variance of its channel. All paths together give

    dx = gamma / sqrt(var + eps) (dy - mean(dy) - n mean(dy n))

which says: whatever in dy would only shift or scale the channel is taken out, as it cannot have any effect.
"""

from __future__ import annotations

import numpy as np


def batch_norm(
    x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, eps: float = 1e-5
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x (B, C, ...), gamma and beta (C,) -> y (B, C, ...), with n, mean and var, for backward and running averages."""
    others = _all_but_channels(x)
    mean, var = x.mean(axis=others), x.var(axis=others)
    n = (x - _wide(mean, x)) / np.sqrt(_wide(var, x) + eps)
    return _wide(gamma, x) * n + _wide(beta, x), n, mean, var


def batch_norm_backward(
    dy: np.ndarray, n: np.ndarray, var: np.ndarray, gamma: np.ndarray, eps: float = 1e-5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dy (B, C, ...) -> dx (B, C, ...), dgamma (C,), dbeta (C,)."""
    others = _all_but_channels(dy)
    mean_dy, mean_dy_n = dy.mean(axis=others), (dy * n).mean(axis=others)
    dx = _wide(gamma / np.sqrt(var + eps), dy) * (dy - _wide(mean_dy, dy) - n * _wide(mean_dy_n, dy))
    return dx, (dy * n).sum(axis=others), dy.sum(axis=others)


def update_running(
    running_mean: np.ndarray, running_var: np.ndarray, mean: np.ndarray, var: np.ndarray, count: int, share: float = 0.1
) -> tuple[np.ndarray, np.ndarray]:
    """The running averages (C,), moved by a share towards the batch's; count is N, the numbers of a channel.

    The batch was normalised with its own variance, divided by N. The average is to estimate that of all images, so
    it takes the unbiased one, divided by N - 1, which needs more than one number in a channel.
    """
    if count < 2:
        raise ValueError(f"a variance needs at least 2 numbers in each channel, got {count}; take a larger batch")
    unbiased = var * count / (count - 1)
    return running_mean + share * (mean - running_mean), running_var + share * (unbiased - running_var)


def batch_norm_inference(
    x: np.ndarray,
    gamma: np.ndarray,
    beta: np.ndarray,
    running_mean: np.ndarray,
    running_var: np.ndarray,
    eps: float = 1e-5,
) -> np.ndarray:
    """x (B, C, ...) -> y (B, C, ...) with fixed statistics: one scale and one shift for each channel."""
    scale = gamma / np.sqrt(running_var + eps)
    return _wide(scale, x) * x + _wide(beta - running_mean * scale, x)


def _all_but_channels(x: np.ndarray) -> tuple[int, ...]:
    return tuple(axis for axis in range(x.ndim) if axis != 1)


def _wide(vector: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(C,) -> (C, 1, 1, ...), to go with (B, C, ...)."""
    return vector.reshape(-1, *[1] * (x.ndim - 2))


if __name__ == "__main__":
    x = np.array([[1.0, 100.0], [2.0, 200.0], [3.0, 300.0]])  # 3 examples, 2 channels of very different scale
    gamma, beta = np.ones(2), np.zeros(2)
    y, n, mean, var = batch_norm(x, gamma, beta)
    print("x:", x, sep="\n")
    print("mean", mean, "  variance", var.round(3))
    print("y, both channels alike:", y.round(4), sep="\n")
    dx, dgamma, dbeta = batch_norm_backward(np.ones((3, 2)), n, var, gamma)
    print("dx for dy = 1 everywhere: a shift has no effect:", dx.round(4) + 0, sep="\n")
    print("running averages from 0 and 1:", *update_running(np.zeros(2), np.ones(2), mean, var, count=3))
