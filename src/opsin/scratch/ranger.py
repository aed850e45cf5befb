"""Ranger: three ideas in a row, each a function that makes a new update rule of another.

Gradient centralisation (Yong et al. 2020, arXiv:2004.01461): take from the gradient of a matrix or kernel its
mean over everything that one output sees, g_o -= mean(g_o). The sum of each output's weights then stays.

Lookahead (Zhang et al. 2019, arXiv:1907.08610): fast weights take k steps of any rule; then slow weights move
a part of the way towards them, and the fast ones start again from there.

    slow += alpha (fast - slow),    fast = slow             every k steps

Ranger (Wright 2019 and 2020) is Lookahead around RAdam, with centralised gradients;
k = 6, alpha = 0.5, b1 = 0.95, eps = 1e-5.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from opsin.scratch.adam import radam

Rule = Callable[[np.ndarray, np.ndarray, dict[str, Any], float], np.ndarray]  # weight, gradient, state, lr -> weight


def centralise(gradient: np.ndarray) -> np.ndarray:
    """(O, ...) with mean 0 for every output; a vector, as of a bias, stays as it is."""
    if gradient.ndim < 2:
        return gradient
    return gradient - gradient.mean(axis=tuple(range(1, gradient.ndim)), keepdims=True)


def centralised(rule: Rule) -> Rule:
    """The rule, fed with centralised gradients."""

    def step(weight: np.ndarray, gradient: np.ndarray, state: dict[str, Any], lr: float) -> np.ndarray:
        return rule(weight, centralise(gradient), state, lr)

    return step


def lookahead(rule: Rule, k: int = 5, alpha: float = 0.5) -> Rule:
    """The rule with slow weights behind it."""

    def step(weight: np.ndarray, gradient: np.ndarray, state: dict[str, Any], lr: float) -> np.ndarray:
        slow = state.setdefault("slow", weight)
        state["steps"] = state.get("steps", 0) + 1
        fast = rule(weight, gradient, state.setdefault("fast", {}), lr)
        if state["steps"] % k:
            return fast
        state["slow"] = slow + alpha * (fast - slow)
        return state["slow"]

    return step


ranger = lookahead(centralised(partial(radam, b1=0.95, eps=1e-5)), k=6)


if __name__ == "__main__":
    print("a gradient (2, 3) and its centralised form:", centralise(np.array([[1.0, 2, 6], [0, 0, 3]])), sep="\n")
    target, weight, state = np.array([[1.0, -1.0]]), np.zeros((1, 2)), {}
    for step in range(1, 13):
        weight = ranger(weight, weight - target, state, 0.05)
        back = "   half-way back to the slow weights" if step % 6 == 0 else ""
        print(f"step {step:2}: {weight[0].round(4)}{back}")
