"""Convolution as one matrix product: copy what every place of the kernel sees into a column, then multiply.

    x (B, C, H, W)  --im2col-->  columns (B, C kh kw, H' W')
    y = weight (O, C kh kw) @ columns + bias

Each pixel is copied up to kh kw times. That memory buys the one operation that hardware does best: a large
matrix product runs hundreds of times as fast as the loops in `convolution`, and gives the same numbers.

Backward is that of the product, and then `col2im`: where im2col copied one pixel to many places, what comes
back from these places is added up.
"""

from __future__ import annotations

import time

import numpy as np

from opsin.scratch.convolution import convolve, output_size, pad, unpad


def im2col(x: np.ndarray, kernel: tuple[int, int], stride: int = 1, padding: int = 0, dilation: int = 1) -> np.ndarray:
    """x (B, C, H, W) -> columns (B, C kh kw, H' W'), one for each place of the kernel. The same as torch's unfold."""
    (batch, channels, height, width), (kh, kw) = x.shape, kernel
    rows = output_size(height, kh, stride, padding, dilation)
    cols = output_size(width, kw, stride, padding, dilation)
    padded = pad(x, padding)
    columns = np.empty((batch, channels, kh, kw, rows, cols), x.dtype)
    for u, v in np.ndindex(kh, kw):  # all pixels that tap (u, v) meets, at once
        top, left = u * dilation, v * dilation
        columns[:, :, u, v] = padded[:, :, top : top + rows * stride : stride, left : left + cols * stride : stride]
    return columns.reshape(batch, channels * kh * kw, rows * cols)


def col2im(
    columns: np.ndarray,
    shape: tuple[int, ...],
    kernel: tuple[int, int],
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> np.ndarray:
    """columns (B, C kh kw, H' W') -> x of a shape (B, C, H, W): im2col backward. The same as torch's fold."""
    (batch, channels, height, width), (kh, kw) = shape, kernel
    rows = output_size(height, kh, stride, padding, dilation)
    cols = output_size(width, kw, stride, padding, dilation)
    columns = columns.reshape(batch, channels, kh, kw, rows, cols)
    padded = np.zeros((batch, channels, height + 2 * padding, width + 2 * padding), columns.dtype)
    for u, v in np.ndindex(kh, kw):
        top, left = u * dilation, v * dilation
        padded[:, :, top : top + rows * stride : stride, left : left + cols * stride : stride] += columns[:, :, u, v]
    return unpad(padded, padding)


def convolve_im2col(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int = 1, padding: int = 0, dilation: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """x (B, C, H, W), weight (O, C, kh, kw), bias (O,) -> y (B, O, H', W') and the columns, for backward."""
    outputs, channels, kh, kw = weight.shape
    if x.shape[1] != channels:
        raise ValueError(f"weight of shape {weight.shape} does not fit x of shape {x.shape}: channels differ")
    rows = output_size(x.shape[2], kh, stride, padding, dilation)
    columns = im2col(x, (kh, kw), stride, padding, dilation)  # (B, C kh kw, H' W')
    y = weight.reshape(outputs, -1) @ columns + bias[:, None]  # (B, O, H' W')
    return y.reshape(len(x), outputs, rows, -1), columns


def convolve_im2col_backward(
    dy: np.ndarray,
    columns: np.ndarray,
    x: np.ndarray,
    weight: np.ndarray,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dy (B, O, H', W') -> dx (B, C, H, W), dweight (O, C, kh, kw), dbias (O,)."""
    outputs, _, kh, kw = weight.shape
    dy = dy.reshape(len(x), outputs, -1)  # (B, O, H' W')
    dweight = (dy @ columns.transpose(0, 2, 1)).sum(axis=0).reshape(weight.shape)
    dcolumns = weight.reshape(outputs, -1).T @ dy  # (B, C kh kw, H' W')
    dx = col2im(dcolumns, x.shape, (kh, kw), stride, padding, dilation)
    return dx, dweight, dy.sum(axis=(0, 2))


if __name__ == "__main__":
    x = np.arange(9.0).reshape(1, 1, 3, 3)
    print("x:", x[0, 0], sep="\n")
    print("its columns for a 2x2 kernel, one for each of the four places:", im2col(x, (2, 2))[0], sep="\n")
    copies = col2im(np.ones((1, 4, 4)), x.shape, (2, 2))
    print("col2im of ones counts how often each pixel was copied:", copies[0, 0], sep="\n")
    rng = np.random.default_rng(0)
    x, weight, bias = rng.normal(size=(1, 3, 32, 32)), rng.normal(size=(8, 3, 5, 5)), np.zeros(8)
    start = time.perf_counter()
    slow = convolve(x, weight, bias)
    middle = time.perf_counter()
    fast, _ = convolve_im2col(x, weight, bias)
    end = time.perf_counter()
    difference = np.abs(slow - fast).max()
    print(f"loops {middle - start:.2f} s, im2col {end - middle:.4f} s, largest difference {difference:.0e}")
