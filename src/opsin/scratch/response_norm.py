"""Local response normalisation: a strong answer quiets its neighbours, across channels or around it in its own.

Krizhevsky et al. 2012 (AlexNet), section 3.3. Over a window W of n numbers around each one,

    s = k + alpha / n * sum_W x^2,        y = x s^-beta

Backward, x stands in its own product and in the windows of its neighbours:

    dx = dy s^-beta - 2 alpha beta / n * x * sum_W' (dy y / s)

with W' the window seen from the other side: the ones whose windows x is in. Found later: deep networks do not
need it (VGG, section 4.1), and batch norm took its place.

The paper's alpha is not divided by n; with torch's and Caffe's, which is done here, it is 5 times the
paper's 1e-4.
"""

from __future__ import annotations

import numpy as np

ACROSS_CHANNELS = (1,)  # AlexNet's: the same pixel in the neighbouring maps
WITHIN_CHANNEL = (2, 3)  # the neighbouring pixels in the same map


def window_sum(x: np.ndarray, size: int, axes: tuple[int, ...], flipped: bool = False) -> np.ndarray:
    """The sum over `size` neighbours along each axis, of the shape of x; zeros outside.

    The window of an even size begins size / 2 before its centre. Flipped, it ends there.
    """
    before, after = size // 2, (size - 1) // 2
    if flipped:
        before, after = after, before
    for axis in axes:
        frame = [(before, after) if a == axis else (0, 0) for a in range(x.ndim)]
        padded = np.moveaxis(np.pad(x, frame), axis, 0)
        length = x.shape[axis]
        x = np.moveaxis(np.sum([padded[shift : shift + length] for shift in range(size)], axis=0), 0, axis)
    return x


def response_norm(
    x: np.ndarray,
    size: int = 5,
    alpha: float = 5e-4,
    beta: float = 0.75,
    k: float = 2.0,
    axes: tuple[int, ...] = ACROSS_CHANNELS,
) -> tuple[np.ndarray, np.ndarray]:
    """x (B, C, H, W) -> y and s, both (B, C, H, W)."""
    s = k + alpha / size ** len(axes) * window_sum(x**2, size, axes)
    return x * s**-beta, s


def response_norm_backward(
    dy: np.ndarray,
    s: np.ndarray,
    x: np.ndarray,
    size: int = 5,
    alpha: float = 5e-4,
    beta: float = 0.75,
    axes: tuple[int, ...] = ACROSS_CHANNELS,
) -> np.ndarray:
    """dy (B, C, H, W) -> dx (B, C, H, W)."""
    through_windows = window_sum(dy * x * s ** (-beta - 1), size, axes, flipped=True)
    return dy * s**-beta - 2 * alpha * beta / size ** len(axes) * x * through_windows


if __name__ == "__main__":
    x = np.array([1.0, 1.0, 10.0, 1.0, 1.0, 1.0, 1.0]).reshape(1, 7, 1, 1)
    y, s = response_norm(x, size=3, alpha=3.0, beta=0.5, k=0.0)
    print("seven channels   ", x.ravel())
    print("sum over three   ", s.ravel(), "  (alpha = n, k = 0: s is the sum of squares)")
    print("x / sqrt(s)      ", y.ravel().round(3), "  the strong one quiets its neighbours")
    dx = response_norm_backward(np.ones_like(x), s, x, size=3, alpha=3.0, beta=0.5)
    print("dx of L = sum y  ", dx.ravel().round(3))
