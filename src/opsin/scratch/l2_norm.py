"""L2 normalisation: every vector becomes one of length 1; only its direction is left.

    n = x / max(|x|, eps),        y = gamma n

ParseNet (Liu et al. 2015, arXiv:1506.04579) does so with the channels of each pixel, and gives each channel a scale
that is learned and begins at 20, since numbers of length 1 in 512 channels would be too small to learn from; SSD takes
its finest map so. Embeddings of faces are normalised without a scale: then a distance is an angle.

Backward, a move along x changes nothing, and that part of dy is taken out:

    dx = (dn - n (n . dn)) / |x|,        dn = gamma dy
"""

from __future__ import annotations

import numpy as np


def l2_norm(x: np.ndarray, gamma: np.ndarray, eps: float = 1e-12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x (B, C, ...), gamma (C,) -> y and n (B, C, ...), and the lengths (B, 1, ...), for backward."""
    length = np.maximum(np.sqrt((x**2).sum(axis=1, keepdims=True)), eps)
    n = x / length
    return _wide(gamma, x) * n, n, length


def l2_norm_backward(
    dy: np.ndarray, n: np.ndarray, length: np.ndarray, gamma: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """dy (B, C, ...) -> dx (B, C, ...), dgamma (C,); of vectors longer than eps."""
    dn = _wide(gamma, dy) * dy
    dx = (dn - n * (n * dn).sum(axis=1, keepdims=True)) / length
    return dx, (dy * n).sum(axis=tuple(axis for axis in range(dy.ndim) if axis != 1))


def _wide(vector: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(C,) -> (C, 1, 1, ...), to go with (B, C, ...)."""
    return vector.reshape(-1, *[1] * (x.ndim - 2))


if __name__ == "__main__":
    x, gamma = np.array([[3.0, 4.0], [30.0, 40.0]]), np.full(2, 20.0)
    y, n, length = l2_norm(x, gamma)
    print("x:", x.tolist(), "  lengths:", length[:, 0])
    print("y, of length 20 both:", y.tolist())
    dx, _ = l2_norm_backward(x, n, length, gamma)
    print("dx for dy along x: a longer x is the same y:", (dx.round(9) + 0).tolist())
