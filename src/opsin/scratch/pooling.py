"""Pooling: a small window becomes one number, its largest or its mean.

    max:    y[i, j] = max_{u, v} x[i s + u, j s + v]             is the feature anywhere near?
    mean:   y[i, j] = mean_{u, v} x[i s + u, j s + v]            how much of it is there?

Nothing is learned, but the gradient has to find its way back. The maximum depended on one pixel alone:
forward remembers its place, and all of dy goes there. The mean depended on all k^2 alike: each gets dy / k^2.
Windows may overlap (stride < size, AlexNet); a pixel in several windows collects from each. A window as large
as the map is global pooling.
"""

from __future__ import annotations

import numpy as np

from opsin.scratch.convolution import output_size, pad, unpad


def windows(padded: np.ndarray, size: int, stride: int) -> np.ndarray:
    """The pixels of every window, (B, C, H, W) -> (size^2, B, C, H', W'): the first axis walks through the window."""
    rows, cols = output_size(padded.shape[2], size, stride), output_size(padded.shape[3], size, stride)
    taps = [
        padded[:, :, u : u + rows * stride : stride, v : v + cols * stride : stride]
        for u, v in np.ndindex(size, size)
    ]  # fmt: skip
    return np.stack(taps)


def windows_backward(dtaps: np.ndarray, shape: tuple[int, ...], size: int, stride: int) -> np.ndarray:
    """What came back for each pixel of each window, (size^2, B, C, H', W') -> (B, C, H, W), added up."""
    rows, cols = dtaps.shape[3:]
    dpadded = np.zeros(shape, dtaps.dtype)
    for dtap, (u, v) in zip(dtaps, np.ndindex(size, size), strict=True):
        dpadded[:, :, u : u + rows * stride : stride, v : v + cols * stride : stride] += dtap
    return dpadded


def max_pool(x: np.ndarray, size: int, stride: int, padding: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """x (B, C, H, W) -> y (B, C, H', W') and the place of each maximum in its window, 0 ... size^2 - 1.

    The frame is -inf and never wins; of equal pixels the first one does.
    """
    taps = windows(pad(x, padding, -np.inf), size, stride)  # (size^2, B, C, H', W')
    return taps.max(axis=0), taps.argmax(axis=0)


def max_pool_backward(
    dy: np.ndarray, place: np.ndarray, x: np.ndarray, size: int, stride: int, padding: int = 0
) -> np.ndarray:
    """dy (B, C, H', W') -> dx (B, C, H, W): to the remembered places, zero elsewhere."""
    tap = np.arange(size * size).reshape(-1, 1, 1, 1, 1)
    dtaps = dy * (place == tap)  # (size^2, B, C, H', W')
    return unpad(windows_backward(dtaps, pad(x, padding).shape, size, stride), padding)


def mean_pool(x: np.ndarray, size: int, stride: int, padding: int = 0) -> np.ndarray:
    """x (B, C, H, W) -> y (B, C, H', W'). The zeros of the frame are counted, as torch does."""
    return windows(pad(x, padding), size, stride).mean(axis=0)


def mean_pool_backward(dy: np.ndarray, x: np.ndarray, size: int, stride: int, padding: int = 0) -> np.ndarray:
    """dy (B, C, H', W') -> dx (B, C, H, W): spread evenly."""
    dtaps = np.broadcast_to(dy / size**2, (size * size, *dy.shape))
    return unpad(windows_backward(dtaps, pad(x, padding).shape, size, stride), padding)


if __name__ == "__main__":
    x = np.array([[1, 2, 0, 0], [3, 4, 0, 8], [5, 0, 1, 1], [0, 0, 1, 1]], float)[None, None]
    y, place = max_pool(x, 2, 2)
    dy = np.array([[1, 2], [3, 4]], float)[None, None]
    print("x:", x[0, 0], sep="\n")
    print("the largest of each 2x2:", y[0, 0], sep="\n")
    print("dy = 1 2 / 3 4 goes to where they stood:", max_pool_backward(dy, place, x, 2, 2)[0, 0], sep="\n")
    print("the mean of each 2x2:", mean_pool(x, 2, 2)[0, 0], sep="\n")
    print("and dy spread over them:", mean_pool_backward(dy, x, 2, 2)[0, 0], sep="\n")
