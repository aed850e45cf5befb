"""A learning rate for every single weight: divide each gradient by how large it usually is.

    AdaGrad     r += g^2                            w -= lr g / (sqrt(r) + eps)           Duchi et al. 2011
    RMSProp     r = rho r + (1 - rho) g^2           w -= lr g / (sqrt(r) + eps)           Hinton's lecture 6e, 2012
    Adadelta    r = rho r + (1 - rho) g^2
                d = sqrt(q + eps) / sqrt(r + eps) g                                       Zeiler 2012, arXiv:1212.5701
                q = rho q + (1 - rho) d^2           w -= lr d

AdaGrad never forgets, so its steps only shrink; RMSProp forgets at the rate rho. Both make steps of a
size that lr sets, whatever the unit of w. Adadelta brings the unit back: q remembers the size of its own steps. Its eps
stands inside both roots; at first q = 0, and sqrt(eps) is what lets it begin at all. In the paper lr = 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def adagrad(
    weight: np.ndarray, gradient: np.ndarray, state: dict[str, Any], lr: float = 0.01, eps: float = 1e-10
) -> np.ndarray:
    """Weights that rarely get a gradient take larger steps when they do."""
    state["r"] = state.get("r", 0.0) + gradient**2
    return weight - lr * gradient / (np.sqrt(state["r"]) + eps)


def rmsprop(
    weight: np.ndarray,
    gradient: np.ndarray,
    state: dict[str, Any],
    lr: float = 0.01,
    rho: float = 0.99,
    eps: float = 1e-8,
) -> np.ndarray:
    """The gradient over its root mean square. Inception v3 takes rho = 0.9 and eps = 1."""
    state["r"] = rho * state.get("r", 0.0) + (1 - rho) * gradient**2
    return weight - lr * gradient / (np.sqrt(state["r"]) + eps)


def adadelta(
    weight: np.ndarray,
    gradient: np.ndarray,
    state: dict[str, Any],
    lr: float = 1.0,
    rho: float = 0.9,
    eps: float = 1e-6,
) -> np.ndarray:
    """The gradient over its root mean square, times that of the steps so far: no rate to choose. CRNN's optimizer."""
    state["r"] = rho * state.get("r", 0.0) + (1 - rho) * gradient**2
    step = np.sqrt(state.get("q", 0.0) + eps) / np.sqrt(state["r"] + eps) * gradient
    state["q"] = rho * state.get("q", 0.0) + (1 - rho) * step**2
    return weight - lr * step


if __name__ == "__main__":
    slope = np.array([1.0, 25.0])  # L = (x^2 + 25 y^2) / 2
    for rule in (adagrad, rmsprop, adadelta):
        weight, state = np.array([1.0, 1.0]), {}
        for _ in range(50):
            weight = rule(weight, slope * weight, state)
        print(f"{rule.__name__:9} after 50 steps from (1, 1): ({weight[0]:.5f}, {weight[1]:.5f})")
    print("the steeper side goes no faster: the scale of the gradient is divided out")
