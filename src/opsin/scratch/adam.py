"""Adam: momentum for the direction, RMSProp for the size; and two of its repairs.

    m = b1 m + (1 - b1) g,          v = b2 v + (1 - b2) g^2
    m^ = m / (1 - b1^t),            v^ = v / (1 - b2^t)             both began at 0 and are too small at first
    w -= lr m^ / (sqrt(v^) + eps)                                   Kingma and Ba 2015, arXiv:1412.6980

AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101): weight decay as an L2 term in g would be divided by
sqrt(v^) like the rest, least where gradients are large. So it is taken out of the gradient: w -= lr decay w.

RAdam (Liu et al. 2020, arXiv:1908.03265): in the first steps v^ is an average of few numbers and may be far
off. With p = 2 / (1 - b2) - 1 the numbers that it will average in the end, and

    p_t = p - 2 t b2^t / (1 - b2^t)                                 those by step t

it makes steps of plain momentum while p_t <= 5, and then shrinks Adam's by how uncertain v^ still is:

    r_t = sqrt((p_t - 4)(p_t - 2) p / ((p - 4)(p - 2) p_t))
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def moments(gradient: np.ndarray, state: dict[str, Any], b1: float, b2: float) -> tuple[np.ndarray, np.ndarray, int]:
    """m and v after one more gradient, and t, how many there were."""
    state["m"] = b1 * state.get("m", 0.0) + (1 - b1) * gradient
    state["v"] = b2 * state.get("v", 0.0) + (1 - b2) * gradient**2
    state["t"] = state.get("t", 0) + 1
    return state["m"], state["v"], state["t"]


def adam(
    weight: np.ndarray,
    gradient: np.ndarray,
    state: dict[str, Any],
    lr: float = 1e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> np.ndarray:
    """The first step is lr in the direction of the sign, whatever the size of the gradient."""
    m, v, t = moments(gradient, state, b1, b2)
    return weight - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)


def adamw(
    weight: np.ndarray,
    gradient: np.ndarray,
    state: dict[str, Any],
    lr: float = 1e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    decay: float = 0.01,
) -> np.ndarray:
    """Adam, and beside it every weight shrinks by the same share."""
    return adam(weight - lr * decay * weight, gradient, state, lr, b1, b2, eps)


def radam(
    weight: np.ndarray,
    gradient: np.ndarray,
    state: dict[str, Any],
    lr: float = 1e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> np.ndarray:
    """Adam with its own warm-up. As in torch, eps is added to sqrt(v) before v is corrected for its start."""
    m, v, t = moments(gradient, state, b1, b2)
    m = m / (1 - b1**t)
    p = 2 / (1 - b2) - 1
    p_t = p - 2 * t * b2**t / (1 - b2**t)
    if p_t <= 5:
        return weight - lr * m
    rectify = math.sqrt((p_t - 4) * (p_t - 2) * p / ((p - 4) * (p - 2) * p_t))
    return weight - lr * rectify * m * math.sqrt(1 - b2**t) / (np.sqrt(v) + eps)


if __name__ == "__main__":
    slope = np.array([1.0, 25.0])  # L = (x^2 + 25 y^2) / 2
    for rule in (adam, adamw, radam):
        weight, state = np.array([1.0, 1.0]), {}
        for step in range(1, 51):
            weight = rule(weight, slope * weight, state, lr=0.01)
            if step in (1, 10, 50):
                print(f"{rule.__name__:5} after {step:2} steps from (1, 1): ({weight[0]:.5f}, {weight[1]:.5f})")
