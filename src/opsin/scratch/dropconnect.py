"""DropConnect: not numbers but weights are left out, another choice for every example.

Wan et al. 2013, ICML. In training, with a mask M of zeros and ones for each example, each 1 with probability 1 - p,

    u = (M * W) x + bias,        y = r(u)

so that an output misses other inputs than its neighbour does; dropout, which takes an input from all of them, is the
case of whole columns. In use the paper does not scale the weights: u is a sum of many independent numbers, so nearly
normal, and what follows is averaged over draws from

    u ~ N(mean, var),        mean = (1 - p) W x + bias,        var = p (1 - p) W^2 x^2

The plain mean inside r is another number, as r bends: that is what its figures compare.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def dropconnect(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, p: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """x (B, I), weight (O, I), bias (O,) -> u (B, O) and the masks (B, O, I), for backward. p in [0, 1)."""
    if not 0 <= p < 1:
        raise ValueError(f"p is {p}; the probability of being left out must be at least 0 and below 1")
    masks = (rng.random((len(x), *weight.shape)) >= p).astype(x.dtype)
    return np.einsum("boi,oi,bi->bo", masks, weight, x) + bias, masks


def dropconnect_backward(
    du: np.ndarray, x: np.ndarray, weight: np.ndarray, masks: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """du (B, O) -> dx (B, I), dweight (O, I), dbias (O,): over the connections that were there."""
    dx = np.einsum("bo,boi,oi->bi", du, masks, weight)
    return dx, np.einsum("bo,boi,bi->oi", du, masks, x), du.sum(axis=0)


def moments(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, p: float) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the variance of u over all masks, (B, O) each: exact, before anything is called normal."""
    return (1 - p) * x @ weight.T + bias, p * (1 - p) * x**2 @ (weight**2).T


def gaussian_inference(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    p: float,
    activation: Callable[[np.ndarray], np.ndarray],
    samples: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """The paper's algorithm 2: the mean of r(u) over `samples` draws of a normal u, (B, O)."""
    mean, var = moments(x, weight, bias, p)
    draws = mean + np.sqrt(var) * rng.standard_normal((samples, *mean.shape))
    return activation(draws).mean(axis=0)


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    x, weight, bias = np.ones((1, 4)), np.array([[1.0, -1.0, 2.0, -2.0]]), np.zeros(1)

    def relu(u: np.ndarray) -> np.ndarray:
        return np.maximum(u, 0)

    drawn = np.mean([relu(dropconnect(x, weight, bias, 0.5, rng)[0]) for _ in range(20_000)])
    mean, var = moments(x, weight, bias, 0.5)
    print("u without masks        ", (x @ weight.T + bias)[0, 0])
    print("mean and variance of u ", mean[0, 0], var[0, 0])
    print("mean of relu(u), drawn ", round(float(drawn), 2))
    print("by the normal          ", gaussian_inference(x, weight, bias, 0.5, relu, 20_000, rng)[0, 0].round(2))
    print("relu of the mean       ", relu(mean)[0, 0])
