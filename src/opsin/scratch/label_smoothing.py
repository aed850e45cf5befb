"""Label smoothing: the truth is not certain, so no logit has to run to infinity.

Szegedy et al. 2015, arXiv:1512.00567, section 7. A share eps of the target is spread over all K classes,

    t' = (1 - eps) t + eps / K

and the loss is the cross-entropy to that. In other words, with u the uniform distribution,

    H(t', p) = (1 - eps) H(t, p) + eps H(u, p)

so a constant times the distance from the uniform is added. The gradient is p - t', which is zero where the right
logit is above the others by ln(K (1 - eps) / eps + 1): a finite gap.
"""

from __future__ import annotations

import numpy as np

from opsin.scratch.cross_entropy import softmax_cross_entropy, softmax_cross_entropy_backward


def smooth(targets: np.ndarray, eps: float) -> np.ndarray:
    """targets (B, K) in rows that sum to 1 -> the same, smoothed. eps in [0, 1]."""
    if not 0 <= eps <= 1:
        raise ValueError(f"eps is {eps}; the share that is spread must be between 0 and 1")
    return (1 - eps) * targets + eps / targets.shape[1]


def smoothed_cross_entropy(logits: np.ndarray, targets: np.ndarray, eps: float) -> float:
    """logits and targets (B, K) -> the mean over the batch."""
    return softmax_cross_entropy(logits, smooth(targets, eps))


def smoothed_cross_entropy_backward(logits: np.ndarray, targets: np.ndarray, eps: float) -> np.ndarray:
    """dL/dlogits (B, K)."""
    return softmax_cross_entropy_backward(logits, smooth(targets, eps))


def best_gap(num_classes: int, eps: float) -> float:
    """By how much the right logit is above the others where the loss is lowest."""
    return float(np.log(num_classes * (1 - eps) / eps + 1))


if __name__ == "__main__":
    targets = np.array([[1.0, 0, 0, 0]])
    print("targets, eps 0.1:", smooth(targets, 0.1)[0])
    gap = best_gap(4, 0.1)
    print(f"the lowest loss is at a gap of {gap:.3f}:")
    for ahead in (0.0, gap, 10.0):
        logits = np.array([[ahead, 0, 0, 0]])
        loss = smoothed_cross_entropy(logits, targets, 0.1)
        gradient = smoothed_cross_entropy_backward(logits, targets, 0.1)[0].round(3) + 0
        print(f"gap {ahead:6.3f}   loss {loss:.4f}   dL/dz {gradient}")
