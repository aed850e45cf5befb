"""Centre loss: beside a softmax, which only divides classes, a pull of each feature towards its class's centre.

Wen et al. 2016, ECCV. Softmax is content where classes can be told apart, and leaves them as long rays; for faces that
nobody has seen in training they must be narrow, too:

    L = softmax loss + lambda / 2 sum_i |x_i - c_(y_i)|^2,        dx_i = lambda (x_i - c_(y_i))

The centres do not follow that gradient, which would let a class of many images run ahead of the others. They move by
a share alpha towards the mean of their features in the batch, with 1 + count below, so that one image moves it half:

    delta_j = sum over y_i = j of (c_j - x_i) / (1 + count_j),        c_j <- c_j - alpha delta_j
"""

from __future__ import annotations

import numpy as np


def centre_loss(x: np.ndarray, labels: np.ndarray, centres: np.ndarray) -> float:
    """x (B, D), labels (B,), centres (K, D) -> half the sum of squared distances."""
    return float(((x - centres[labels]) ** 2).sum() / 2)


def centre_loss_backward(x: np.ndarray, labels: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """dL/dx (B, D)."""
    return x - centres[labels]


def update_centres(x: np.ndarray, labels: np.ndarray, centres: np.ndarray, alpha: float = 0.5) -> np.ndarray:
    """The centres (K, D) after a batch, by the paper's rule; those of classes that it lacks stay."""
    moved = np.zeros_like(centres)
    np.add.at(moved, labels, centres[labels] - x)
    counts = np.bincount(labels, minlength=len(centres))
    return centres - alpha * moved / (1 + counts)[:, None]


if __name__ == "__main__":
    x, labels = np.array([[2.0, 0], [4.0, 0], [0.0, 9]]), np.array([0, 0, 1])
    centres = np.zeros((3, 2))
    print("loss", centre_loss(x, labels, centres), "  dx:", centre_loss_backward(x, labels, centres).tolist())
    for batch in range(1, 4):
        centres = update_centres(x, labels, centres)
        print(f"centres after {batch} batch(es):", centres.round(3).tolist())
