"""Cross-entropy: minus the logarithm of the probability that was given to the truth.

    one class of K, softmax:    L = -sum_k t_k log p_k     = sum_k t_k (logsumexp(z) - z_k)
    yes or no, sigmoid:         L = -t log p - (1 - t) log(1 - p)     = max(z, 0) - z t + log(1 + e^-|z|)

Merged with its softmax or sigmoid it is safe (no log of a p that was rounded to 0) and its gradient is as
simple as can be:

    dL/dz = p - t

That is why it, and not the squared error, trains classifiers: (p - t)^2 has the gradient 2 (p - t) p (1 - p),
which is almost 0 for an answer that is confident and wrong, just when there is most to learn.
"""

from __future__ import annotations

import numpy as np

from opsin.scratch.sigmoid import sigmoid
from opsin.scratch.softmax import logsumexp, softmax


def one_hot(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """labels (B,) -> (B, K): 1 at the label, 0 elsewhere."""
    if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(
            f"labels reach from {labels.min()} to {labels.max()}; {num_classes} classes are 0 ... {num_classes - 1}"
        )
    return np.eye(num_classes)[labels]


def softmax_cross_entropy(logits: np.ndarray, targets: np.ndarray) -> float:
    """logits (B, K), targets (B, K) in rows that sum to 1, one-hot or soft -> the mean over the batch."""
    return float((targets * (logsumexp(logits) - logits)).sum(axis=1).mean())


def softmax_cross_entropy_backward(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """dL/dlogits (B, K)."""
    return ((softmax(logits) - targets) / len(logits)).astype(logits.dtype)


def sigmoid_cross_entropy(logits: np.ndarray, targets: np.ndarray) -> float:
    """logits and targets in [0, 1], both of any one shape -> the mean over all numbers."""
    terms = np.maximum(logits, 0) - logits * targets + np.log1p(np.exp(-np.abs(logits)))
    return float(terms.mean())


def sigmoid_cross_entropy_backward(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """dL/dlogits, of their shape."""
    return ((sigmoid(logits) - targets) / logits.size).astype(logits.dtype)


if __name__ == "__main__":
    targets = one_hot(np.array([0]), 3)
    for name, logits in (("right", [4.0, 0, 0]), ("unsure", [0.0, 0, 0]), ("wrong", [-1000.0, 0, 0])):
        z = np.array([logits])
        gradient = softmax_cross_entropy_backward(z, targets)[0].round(3)
        print(f"{name:7} logits {z[0]}   loss {softmax_cross_entropy(z, targets):9.4f}   dL/dz {gradient}")
    z, no = np.array([1000.0]), np.array([0.0])
    loss, gradient = sigmoid_cross_entropy(z, no), sigmoid_cross_entropy_backward(z, no)
    print(f"sigmoid: 1000 for a no       loss {loss:9.4f}   dL/dz {gradient}")
