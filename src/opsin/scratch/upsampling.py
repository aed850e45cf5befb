"""Bilinear upsampling by a whole factor, twice: as a product with two matrices, and as a transposed convolution.

Pixel i of the result has its centre at i + 1/2, which is (i + 1/2) / f of the source. It lies between two of its
centres and takes their mean, by nearness; beyond the outermost ones it takes those. Along a side that is a matrix R of
(f n, n), two numbers a row which sum to 1, and of an image

    y = R x C^T        backward        dx = R^T dy C

Seen from the source, every pixel is spread over its neighbourhood by one and the same kernel, which falls to both ends
in steps of 1 / f: a transposed convolution of stride f with a kernel of 2 f - f % 2. That is how FCN upsamples (Long et
al. 2014, arXiv:1411.4038, section 3.3), and from there its kernel may learn. At the border a stamp has no neighbour, so
the source is framed with itself before, and what the frame made is cut off behind.
"""

from __future__ import annotations

import numpy as np

from opsin.scratch.transposed_convolution import transpose_convolve


def shares(size: int, factor: int) -> np.ndarray:
    """How much each of `size` pixels has in each of size * factor: (size * factor, size)."""
    place = (np.arange(size * factor) + 0.5) / factor - 0.5  # in the source, counted from the centre of its pixel 0
    left = np.floor(place).astype(int)
    matrix = np.zeros((size * factor, size))
    for row, (at, first) in enumerate(zip(place, left, strict=True)):
        matrix[row, first.clip(0, size - 1)] += 1 - (at - first)
        matrix[row, (first + 1).clip(0, size - 1)] += at - first
    return matrix


def upsample(x: np.ndarray, factor: int) -> np.ndarray:
    """x (B, C, H, W) -> y (B, C, f H, f W)."""
    return shares(x.shape[2], factor) @ x @ shares(x.shape[3], factor).T


def upsample_backward(dy: np.ndarray, factor: int) -> np.ndarray:
    """dy (B, C, f H, f W) -> dx (B, C, H, W): each pixel gets back its share of all that it had a share in."""
    return shares(dy.shape[2] // factor, factor).T @ dy @ shares(dy.shape[3] // factor, factor)


def bilinear_kernel(factor: int) -> np.ndarray:
    """(k, k), k = 2 f - f % 2: what one pixel is spread to."""
    size = 2 * factor - factor % 2
    side = 1 - np.abs(np.arange(size) - (size - 1) / 2) / factor
    return np.outer(side, side)


def upsample_by_convolution(x: np.ndarray, factor: int) -> np.ndarray:
    """The same by stamps of the kernel. Every channel is an image of its own."""
    batch, channels, height, width = x.shape
    framed = np.pad(x.reshape(-1, 1, height, width), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    y = transpose_convolve(framed, bilinear_kernel(factor)[None, None], np.zeros(1), stride=factor)
    cut = factor + factor // 2  # the frame's own cell, and the half of one where a stamp stands alone
    y = y[:, :, cut : cut + height * factor, cut : cut + width * factor]
    return y.reshape(batch, channels, height * factor, width * factor)


if __name__ == "__main__":
    print("of two pixels four, by their shares:", shares(2, 2), sep="\n")
    x = np.array([[0.0, 8.0], [16.0, 24.0]])[None, None]
    print("an image of 2x2:", x[0, 0], sep="\n")
    print("upsampled by 2:", upsample(x, 2)[0, 0], sep="\n")
    print("the kernel of 2, times 16:", bilinear_kernel(2) * 16, sep="\n")
    print("stamped, it makes the same:", np.allclose(upsample_by_convolution(x, 2), upsample(x, 2)))
    print("what comes back to each of 2x2 from ones:", upsample_backward(np.ones((1, 1, 4, 4)), 2)[0, 0], sep="\n")
