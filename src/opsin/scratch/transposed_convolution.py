"""Transposed convolution: what a convolution does to gradients, as a layer of its own, to make a map larger.

    y[b, o, i s + u - p, j s + v - p] += weight[c, o, u, v] x[b, c, i, j]

Every pixel of x stamps its kernel on y, times its own value; the stamps lie a stride s apart, overlap where the kernel
is larger than that, and are added up. A convolution gathers from where this one scatters: with the same weight, stride
and padding its way back is this layer's way forward, and the other way round. It is no inverse: the sizes return, the
values do not.

The frame of p pixels is cut off, where a convolution would put it on. Sizes: (H - 1) s - 2 p + k. A convolution of
stride s makes the same size of s different ones, so the way back is open: the output padding adds rows below and
columns at the right, fewer than s, which some stamps may reach and others not.

Backward, every product weight * x hands its dy to both factors, each times the other one. So dx is a plain convolution
of dy with the same weight, and dweight is that of this convolution, with x in the place of its gradient.
"""

from __future__ import annotations

import numpy as np

from opsin.scratch.convolution import convolve, convolve_backward


def output_size(size: int, kernel: int, stride: int = 1, padding: int = 0, output_padding: int = 0) -> int:
    """Pixels along one side."""
    if output_padding >= stride:
        raise ValueError(f"an output padding of {output_padding} is not below the stride, {stride}; take a larger map")
    return (size - 1) * stride - 2 * padding + kernel + output_padding


def transpose_convolve(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
) -> np.ndarray:
    """x (B, C, H, W), weight (C, O, kh, kw), bias (O,) -> y (B, O, H', W')."""
    (batch, channels, height, width), (seen, outputs, kh, kw) = x.shape, weight.shape
    if channels != seen:
        raise ValueError(f"weight of shape {weight.shape} does not fit x of shape {x.shape}: channels differ")
    rows = output_size(height, kh, stride, padding, output_padding)
    cols = output_size(width, kw, stride, padding, output_padding)
    y = np.zeros((batch, outputs, rows, cols), x.dtype) + bias[:, None, None]
    for b, c, i, j in np.ndindex(x.shape):
        for o, u, v in np.ndindex(outputs, kh, kw):
            row, col = i * stride + u - padding, j * stride + v - padding
            if 0 <= row < rows and 0 <= col < cols:  # the rest is the frame that is cut off
                y[b, o, row, col] += weight[c, o, u, v] * x[b, c, i, j]
    return y


def transpose_convolve_backward(
    dy: np.ndarray, x: np.ndarray, weight: np.ndarray, stride: int = 1, padding: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dy (B, O, H', W') -> dx (B, C, H, W), dweight (C, O, kh, kw), dbias (O,)."""
    dx = convolve(dy, weight, np.zeros(len(weight)), stride, padding)
    _, dweight, _ = convolve_backward(x, dy, weight, stride, padding)
    return dx, dweight, dy.sum(axis=(0, 2, 3))


if __name__ == "__main__":
    x, bias = np.array([[1.0, 2.0], [3.0, 4.0]])[None, None], np.zeros(1)
    print("stamps of 2x2, two apart, side by side:")
    print(transpose_convolve(x, np.ones((1, 1, 2, 2)), bias, stride=2)[0, 0])
    print("stamps of 3x3, two apart, overlap: more falls on some pixels than on others, a chequerboard:")
    print(transpose_convolve(np.ones((1, 1, 3, 3)), np.ones((1, 1, 3, 3)), bias, stride=2)[0, 0])
    print("a frame of one cut off, and a row and a column added:")
    print(transpose_convolve(x, np.ones((1, 1, 3, 3)), bias, stride=2, padding=1, output_padding=1)[0, 0])
