"""The triplet loss: not how near, only nearer: an anchor's own kind before others, by a margin.

Schroff et al. 2015 (FaceNet), arXiv:1503.03832, equation 3. With squared distances of embeddings of length 1,

    L = max(0, |a - p|^2 - |a - n|^2 + margin)

Where it is positive its gradient is a straight pull, the same from every distance:

    da = 2 (n - p),        dp = 2 (p - a),        dn = 2 (a - n)

Most triplets are soon right and give nothing, and the hardest negatives first can draw all into one point: FaceNet
takes semi-hard ones, further than the positive and within the margin.
"""

from __future__ import annotations

import numpy as np


def triplet_loss(anchor: np.ndarray, positive: np.ndarray, negative: np.ndarray, margin: float = 0.2) -> np.ndarray:
    """Three (N, D) -> the loss of each triplet (N,)."""
    near, far = ((anchor - positive) ** 2).sum(axis=1), ((anchor - negative) ** 2).sum(axis=1)
    return np.maximum(near - far + margin, 0)


def triplet_loss_backward(
    anchor: np.ndarray, positive: np.ndarray, negative: np.ndarray, margin: float = 0.2
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The gradients of the sum of all losses, (N, D) each."""
    active = (triplet_loss(anchor, positive, negative, margin) > 0)[:, None]
    return (
        2 * active * (negative - positive),
        2 * active * (positive - anchor),
        2 * active * (anchor - negative),
    )


def semi_hard(distances: np.ndarray, labels: np.ndarray, anchor: int, positive: int, margin: float = 0.2) -> int | None:
    """The nearest negative that is further than the positive and within the margin; None where there is none.

    distances (N, N): squared. labels (N,).
    """
    near = distances[anchor, positive]
    fits = (labels != labels[anchor]) & (distances[anchor] > near) & (distances[anchor] < near + margin)
    return int(np.where(fits, distances[anchor], np.inf).argmin()) if fits.any() else None


if __name__ == "__main__":
    anchor, positive = np.array([[1.0, 0]]), np.array([[0.8, 0.6]])
    for name, negative in (("hard", [0.96, 0.28]), ("semi-hard", [0.75, -0.6614]), ("easy", [-1.0, 0])):
        other = np.array([negative])
        loss = triplet_loss(anchor, positive, other)[0]
        step = triplet_loss_backward(anchor, positive, other)[2][0].round(2) + 0
        print(f"{name:10} loss {loss:.3f}   dn {step}")
