"""Group normalisation, and what it becomes: each image by itself, so that the size of the batch is no matter.

Wu and He 2018, arXiv:1803.08494. The channels of an image are cut into groups, and each group is given mean 0 and
variance 1 over all its channels and places; each channel then chooses its own scale and shift:

    1 group         layer normalisation of an image (Ba et al. 2016, arXiv:1607.06450)
    C groups        instance normalisation (Ulyanov et al. 2016, arXiv:1607.08022): what style is, taken away

Switchable normalisation (Luo et al. 2018, arXiv:1806.10779) does not choose: its mean and variance are mixtures of
those of the channel alone, of the image and of the batch, and the shares, softmaxes of three numbers each, are learned.
"""

from __future__ import annotations

import numpy as np

from opsin.scratch.softmax import softmax


def group_norm(
    x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, groups: int, eps: float = 1e-5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x (B, C, ...), gamma and beta (C,) -> y and n (B, C, ...), and the variance (B, groups), for backward."""
    if groups < 1 or x.shape[1] % groups:
        raise ValueError(f"{x.shape[1]} channels do not divide into {groups} groups")
    parts = x.reshape(len(x), groups, -1)
    mean, var = parts.mean(axis=2, keepdims=True), parts.var(axis=2, keepdims=True)
    n = ((parts - mean) / np.sqrt(var + eps)).reshape(x.shape)
    return _wide(gamma, x) * n + _wide(beta, x), n, var[..., 0]


def group_norm_backward(
    dy: np.ndarray, n: np.ndarray, var: np.ndarray, gamma: np.ndarray, eps: float = 1e-5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dy (B, C, ...) -> dx (B, C, ...), dgamma (C,), dbeta (C,). As batch norm's, over the numbers of a group."""
    shape = (*var.shape, -1)
    dn, parts = (_wide(gamma, dy) * dy).reshape(len(dy), *shape[1:]), n.reshape(len(dy), *shape[1:])
    common = dn.mean(axis=2, keepdims=True) + parts * (dn * parts).mean(axis=2, keepdims=True)
    dx = ((dn - common) / np.sqrt(var + eps)[..., None]).reshape(dy.shape)
    others = tuple(axis for axis in range(dy.ndim) if axis != 1)
    return dx, (dy * n).sum(axis=others), dy.sum(axis=others)


def switchable_norm(
    x: np.ndarray,
    gamma: np.ndarray,
    beta: np.ndarray,
    mean_logits: np.ndarray,
    var_logits: np.ndarray,
    eps: float = 1e-5,
) -> np.ndarray:
    """x (B, C, H, W), both logits (3,): of the channel alone, the image, the batch -> y (B, C, H, W), in training."""
    mean, var = x.mean(axis=(2, 3), keepdims=True), x.var(axis=(2, 3), keepdims=True)  # (B, C, 1, 1)
    square = var + mean**2  # the mean of x^2, of which wider variances are made
    means, squares = [mean], [square]
    for axis in (1, 0):
        means.append(mean.mean(axis=axis, keepdims=True))
        squares.append(square.mean(axis=axis, keepdims=True))
    mixed_mean = sum(share * one for share, one in zip(softmax(mean_logits), means, strict=True))
    variances = [square - one**2 for square, one in zip(squares, means, strict=True)]
    mixed_var = sum(share * one for share, one in zip(softmax(var_logits), variances, strict=True))
    return _wide(gamma, x) * (x - mixed_mean) / np.sqrt(mixed_var + eps) + _wide(beta, x)


def _wide(vector: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(C,) -> (C, 1, 1, ...), to go with (B, C, ...)."""
    return vector.reshape(-1, *[1] * (x.ndim - 2))


if __name__ == "__main__":
    x = np.array([[[[1.0, 3.0]], [[10.0, 30.0]], [[0.0, 2.0]], [[5.0, 5.0]]]])  # an image of 4 channels, 2 pixels each
    for groups, name in ((1, "layer"), (2, "group"), (4, "instance")):
        y, _, _ = group_norm(x, np.ones(4), np.zeros(4), groups)
        print(f"{name:9} {groups} group(s):", *y[0, :, 0].round(2).tolist())
