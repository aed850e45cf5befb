"""MixUp: train on weighted sums of two images, and expect the same weighted sum of their labels.

Zhang et al. 2018, arXiv:1710.09412. With a share s drawn from Beta(alpha, alpha) and the batch in another
order,

    x = s x_a + (1 - s) x_b

There are two forms in use, by what else is mixed:

    the losses    L = s CE(z, t_a) + (1 - s) CE(z, t_b)         the authors' code; labels stay whole numbers
    the labels    L = CE(z, s t_a + (1 - s) t_b)                the paper's equation; works with any soft target

Cross-entropy is linear in its target, so for it they are the same, value and gradient; for a loss that is
not, as focal loss or the squared error, they differ.
"""

from __future__ import annotations

import numpy as np

from opsin.scratch.cross_entropy import one_hot, softmax_cross_entropy


def draw_share(alpha: float, rng: np.random.Generator) -> float:
    """s in [0, 1] from Beta(alpha, alpha): near 0 or 1 for a small alpha, uniform for 1. The paper: 0.1 to 0.4."""
    return float(rng.beta(alpha, alpha))


def mix(a: np.ndarray, order: np.ndarray, share: float) -> np.ndarray:
    """Images (B, C, H, W) or targets (B, K), each with the one that `order` (B,) puts in its place."""
    return share * a + (1 - share) * a[order]


def mixed_losses(logits: np.ndarray, labels: np.ndarray, order: np.ndarray, share: float) -> float:
    """The first form, of logits (B, K) for mixed images and the labels (B,) of the unmixed ones."""
    num_classes = logits.shape[1]
    own = softmax_cross_entropy(logits, one_hot(labels, num_classes))
    other = softmax_cross_entropy(logits, one_hot(labels[order], num_classes))
    return share * own + (1 - share) * other


def mixed_labels(logits: np.ndarray, labels: np.ndarray, order: np.ndarray, share: float) -> float:
    """The second form, of the same."""
    targets = mix(one_hot(labels, logits.shape[1]), order, share)
    return softmax_cross_entropy(logits, targets)


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    images, labels = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]]), np.array([0, 1, 2])
    order, share = np.array([1, 2, 0]), 0.75
    logits = rng.normal(size=(3, 3))
    print("three images of three pixels, each mixed with the next:", mix(images, order, share), sep="\n")
    print("losses mixed", mixed_losses(logits, labels, order, share))
    print("labels mixed", mixed_labels(logits, labels, order, share))
    print("shares drawn with alpha 0.2:", *(f"{draw_share(0.2, rng):.3f}" for _ in range(6)))
