"""The volume integral: what a ray through fog sees.

A ray is cut into pieces. In piece i, of length d_i, the fog has the density sigma_i and the colour c_i. A density
sigma lets exp(-sigma d) of the light through a length d. So a piece stops the share

    alpha_i = 1 - exp(-sigma_i d_i)

of the light that comes through it, and of its own colour the share T_i, what all pieces before it let through, is seen:

    T_i = exp(-(sigma_1 d_1 + ... + sigma_(i-1) d_(i-1)))        C = sum_i T_i alpha_i c_i

The sums of -sigma d are added up before any exponential is taken: products of numbers near 0 would underflow.
Backwards: a denser piece shows more of its own colour, and hides what is behind it,

    dC / dc_i = w_i,  w_i = T_i alpha_i        dC / dsigma_i = d_i (T_(i+1) c_i - sum_(j > i) w_j c_j)
"""

from __future__ import annotations

import numpy as np


def volume_integral(sigma: np.ndarray, colour: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What rays see, (R, C), and the weight of each piece, (R, N). sigma, length: (R, N); colour: (R, N, C)."""
    depth = np.cumsum(sigma * length, axis=1)  # the optical depth behind each piece
    before = np.concatenate([np.zeros_like(depth[:, :1]), depth[:, :-1]], axis=1)
    weight = np.exp(-before) * -np.expm1(-sigma * length)
    return (weight[..., None] * colour).sum(axis=1), weight


def volume_integral_backward(
    dseen: np.ndarray, sigma: np.ndarray, colour: np.ndarray, length: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """dC (R, C) -> dsigma (R, N) and dcolour (R, N, C)."""
    _, weight = volume_integral(sigma, colour, length)
    through = np.exp(-np.cumsum(sigma * length, axis=1))  # T of the next piece
    shine = (colour * dseen[:, None]).sum(axis=2)  # of each colour, what it does to the loss
    behind = (weight * shine)[:, ::-1].cumsum(axis=1)[:, ::-1] - weight * shine  # of all pieces further away
    return length * (through * shine - behind), weight[..., None] * dseen[:, None]


if __name__ == "__main__":
    sigma, length = np.array([[0.0, 2.0, 50.0]]), np.ones((1, 3))
    colour = np.array([[[1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])  # nothing, a red fog, a blue wall
    seen, weight = volume_integral(sigma, colour, length)
    print("weights of nothing, a red fog and a blue wall:", weight.round(4)[0])
    print("what is seen:", seen.round(4)[0])
    print("the fog lets through e^-2:", np.exp(-2).round(4))
    dsigma, _ = volume_integral_backward(np.array([[1.0, 0.0, 0.0]]), sigma, colour, length)
    print("more red by a denser first, second, third piece:", dsigma.round(4)[0])
