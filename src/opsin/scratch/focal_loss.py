"""The focal loss: what is easy and right already counts almost nothing, however much of it there is.

Lin et al. 2017, arXiv:1708.02002. Of 100,000 anchors a handful lie on objects; the others are easy, and their small
losses add up to more than the few hard ones. With q = p for a yes and 1 - p for a no, p = sigmoid(z),

    L = -a (1 - q)^gamma log q,        a = alpha for a yes, 1 - alpha for a no

gamma = 0 is the cross-entropy; with gamma = 2 an anchor at q = 0.9 counts a hundredth of it. With s = 1 for a yes and
-1 for a no, so that q = sigmoid(s z),

    dL/dz = s a (1 - q)^gamma (gamma q log q - (1 - q))
"""

from __future__ import annotations

import numpy as np

from opsin.scratch.sigmoid import sigmoid, softplus


def focal_loss(logits: np.ndarray, targets: np.ndarray, alpha: float = 0.25, gamma: float = 2.0) -> np.ndarray:
    """logits and targets of zeros and ones, of any one shape -> the loss of each."""
    sign, weight = 2 * targets - 1, np.where(targets == 1, alpha, 1 - alpha)
    log_q = -softplus(-sign * logits)
    return -weight * (1 - np.exp(log_q)) ** gamma * log_q


def focal_loss_backward(logits: np.ndarray, targets: np.ndarray, alpha: float = 0.25, gamma: float = 2.0) -> np.ndarray:
    """dL/dlogits for the sum of all losses."""
    sign, weight = 2 * targets - 1, np.where(targets == 1, alpha, 1 - alpha)
    q, log_q = sigmoid(sign * logits), -softplus(-sign * logits)
    return sign * weight * (1 - q) ** gamma * (gamma * q * log_q - (1 - q))


if __name__ == "__main__":
    q = np.array([0.1, 0.5, 0.9, 0.99])
    logits, yes = np.log(q / (1 - q)), np.ones(4)
    plain, focal = (focal_loss(logits, yes, alpha=1.0, gamma=gamma) for gamma in (0.0, 2.0))
    print("probability of the truth", q)
    print("cross-entropy           ", plain.round(5))
    print("focal, gamma 2          ", focal.round(5))
    print("share that is left      ", (focal / plain).round(5))
