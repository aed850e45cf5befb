"""Gradient descent, and momentum: the update rules with one learning rate for all weights.

    SGD          w -= lr g
    momentum     v = mu v + g,    w -= lr v                        Polyak 1964
    Nesterov     v = mu v + g,    w -= lr (g + mu v)               Nesterov 1983; Sutskever et al. 2013

Momentum sums up what the gradients agree on, up to 1 / (1 - mu) times, and what they disagree on cancels:
along a valley it gathers speed, across it it stops swinging. Nesterov takes the step that momentum is about
to take into account before it corrects. (The classic form is v = mu v - lr g, w += v; with a constant lr it
is the same.)

A rule here is a function: the weight, its gradient and its memory go in, the new weight comes out. The memory
is a dict that begins empty, one for each weight.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def sgd(weight: np.ndarray, gradient: np.ndarray, state: dict[str, Any], lr: float = 0.01) -> np.ndarray:
    """A step downhill. Stochastic, because the gradient is that of a batch and not of all images."""
    return weight - lr * gradient


def momentum(
    weight: np.ndarray, gradient: np.ndarray, state: dict[str, Any], lr: float = 0.01, mu: float = 0.9
) -> np.ndarray:
    """A heavy ball that rolls downhill."""
    state["velocity"] = mu * state.get("velocity", 0.0) + gradient
    return weight - lr * state["velocity"]


def nesterov(
    weight: np.ndarray, gradient: np.ndarray, state: dict[str, Any], lr: float = 0.01, mu: float = 0.9
) -> np.ndarray:
    """A ball that looks ahead. The weights kept are the ones ahead, where the next gradient is wanted."""
    state["velocity"] = mu * state.get("velocity", 0.0) + gradient
    return weight - lr * (gradient + mu * state["velocity"])


if __name__ == "__main__":
    slope = np.array([1.0, 25.0])  # L = (x^2 + 25 y^2) / 2: a valley, 25 times as steep across as along
    for rule in (sgd, momentum, nesterov):
        weight, state = np.array([10.0, 1.0]), {}
        for _ in range(50):
            weight = rule(weight, slope * weight, state, lr=0.02)
        print(f"{rule.__name__:9} after 50 steps from (10, 1): ({weight[0]:8.5f}, {weight[1]:8.5f})")
