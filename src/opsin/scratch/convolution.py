"""Convolution in plain loops: one small set of weights, laid on every place of the image.

    y[b, o, i, j] = bias[o] + sum_{c, u, v} weight[o, c, u, v] x[b, c, i s + u d - p, j s + v d - p]

with stride s, padding p (zeros outside) and dilation d, the distance between the kernel's taps. Each output
map o looks at all input maps c; with groups only at those of its own group, and with as many groups as maps
it is depthwise. (A mathematician would flip the kernel and call this correlation.)

Parameters: O (C k^2 + 1). Connections: as many for each pixel of the output map. Sharing is the whole point:
a map of 28x28 learns 26 numbers for its 20,384 connections.

Backward, every product weight * x hands its dy to both factors, each times the other one. So the loops are
the same ones, and the part that gives dx is what is called a transposed convolution.
"""

from __future__ import annotations

import numpy as np


def output_size(size: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    """How many places the kernel has along one side. What does not fill a whole stride is left out (torch's floor)."""
    span = dilation * (kernel - 1) + 1  # pixels from the first tap to the last
    if size + 2 * padding < span:
        raise ValueError(f"a kernel that spans {span} pixels does not fit into {size} + 2 * {padding}; pad more")
    return (size + 2 * padding - span) // stride + 1


def pad(x: np.ndarray, padding: int, value: float = 0.0) -> np.ndarray:
    """x (B, C, H, W) with a frame of one value around it: (B, C, H + 2p, W + 2p)."""
    return np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)), constant_values=value)


def unpad(x: np.ndarray, padding: int) -> np.ndarray:
    """x without its frame."""
    return x[:, :, padding : x.shape[2] - padding, padding : x.shape[3] - padding]


def convolve(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> np.ndarray:
    """x (B, C, H, W), weight (O, C / groups, kh, kw), bias (O,) -> y (B, O, H', W')."""
    (batch, channels, height, width), (outputs, seen, kh, kw) = x.shape, weight.shape
    if channels != seen * groups or outputs % groups:
        raise ValueError(f"weight of shape {weight.shape} in {groups} groups does not fit x of shape {x.shape}")
    padded = pad(x, padding)
    rows = output_size(height, kh, stride, padding, dilation)
    cols = output_size(width, kw, stride, padding, dilation)
    y = np.zeros((batch, outputs, rows, cols), x.dtype)
    for b, o, i, j in np.ndindex(y.shape):
        first = o // (outputs // groups) * seen  # the first input map of this output's group
        y[b, o, i, j] = bias[o]
        for c, u, v in np.ndindex(seen, kh, kw):
            pixel = b, first + c, i * stride + u * dilation, j * stride + v * dilation
            y[b, o, i, j] += weight[o, c, u, v] * padded[pixel]
    return y


def convolve_backward(
    dy: np.ndarray,
    x: np.ndarray,
    weight: np.ndarray,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dy (B, O, H', W') -> dx (B, C, H, W), dweight (O, C / groups, kh, kw), dbias (O,)."""
    outputs, seen, kh, kw = weight.shape
    padded = pad(x, padding)
    dpadded, dweight = np.zeros_like(padded), np.zeros_like(weight)
    for b, o, i, j in np.ndindex(dy.shape):
        first = o // (outputs // groups) * seen
        for c, u, v in np.ndindex(seen, kh, kw):
            pixel = b, first + c, i * stride + u * dilation, j * stride + v * dilation
            dweight[o, c, u, v] += dy[b, o, i, j] * padded[pixel]
            dpadded[pixel] += dy[b, o, i, j] * weight[o, c, u, v]
    return unpad(dpadded, padding), dweight, dy.sum(axis=(0, 2, 3))


if __name__ == "__main__":
    image = np.array([[0, 0, 9, 9], [0, 0, 9, 9], [0, 0, 9, 9], [0, 0, 9, 9]], float)
    right_minus_left = np.array([[-1, 0, 1], [-1, 0, 1], [-1, 0, 1]], float)
    x, weight, bias = image[None, None], right_minus_left[None, None], np.zeros(1)
    print("a dark and a bright half:", image, sep="\n")
    print("right minus left, 3x3, finds the edge:", convolve(x, weight, bias)[0, 0], sep="\n")
    print("with padding 1 the frame is an edge too:", convolve(x, weight, bias, padding=1)[0, 0], sep="\n")
    dx, dweight, dbias = convolve_backward(np.ones((1, 1, 2, 2)), x, weight)
    print("dL/dx of L = sum of y: each kernel's print on the image:", dx[0, 0], sep="\n")
