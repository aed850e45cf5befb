"""The contrastive loss: pairs of the same come together, pairs of others are pushed apart to a margin and no further.

Hadsell et al. 2006, CVPR, equation 4. With d the distance of the two embeddings of a pair, and y = 1 where both show
the same (the paper has Y = 0 there: which of the two it is must be said),

    L = d^2 / 2                      y = 1
    L = max(0, margin - d)^2 / 2     y = 0

The springs of its figure: a pair of the same pulls with force d, another pushes with margin - d, and lets go at the
margin. Without the second part one point for everything would be best.
"""

from __future__ import annotations

import numpy as np


def contrastive_loss(a: np.ndarray, b: np.ndarray, same: np.ndarray, margin: float = 1.0) -> np.ndarray:
    """a and b (N, D), same (N,) of zeros and ones -> the loss of each pair (N,)."""
    d = np.sqrt(((a - b) ** 2).sum(axis=1))
    return np.where(same == 1, d**2, np.maximum(margin - d, 0) ** 2) / 2


def contrastive_loss_backward(
    a: np.ndarray, b: np.ndarray, same: np.ndarray, margin: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """da and db (N, D) for the sum of all losses; two others in one place know no direction, and stay."""
    apart = a - b
    d = np.sqrt((apart**2).sum(axis=1, keepdims=True))
    push = -np.maximum(margin - d, 0) * np.divide(apart, d, out=np.zeros_like(apart), where=d > 0)
    da = np.where((same == 1)[:, None], apart, push)
    return da, -da


if __name__ == "__main__":
    a, b = np.zeros((4, 2)), np.array([[0.0, 0], [0.5, 0], [0.9, 0], [2.0, 0]])
    print("distance        ", np.sqrt((b**2).sum(axis=1)))
    for name, same in (("same", np.ones(4)), ("others", np.zeros(4))):
        _, db = contrastive_loss_backward(a, b, same)
        print(f"{name:7} loss    ", contrastive_loss(a, b, same).round(3))
        print(f"{name:7} step of b", (-db[:, 0]).round(3) + 0)
