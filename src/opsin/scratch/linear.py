"""A fully connected layer: every output is a weighted sum of every input.

    y_o = sum_i weight_oi x_i + bias_o

Backward, each weight multiplied one input on its way to one output, so that

    dL/dx_i = sum_o dy_o weight_oi          what the outputs want, carried back through the same weights
    dL/dweight_oi = dy_o x_i                summed over the batch: the weight is shared by its examples
"""

from __future__ import annotations

import numpy as np


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """x (..., I), weight (O, I), bias (O,) -> y (..., O)."""
    return x @ weight.T + bias


def linear_backward(dy: np.ndarray, x: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dy (..., O) -> dx (..., I), dweight (O, I), dbias (O,)."""
    dx = dy @ weight
    rows_dy = dy.reshape(-1, dy.shape[-1])  # (N, O): what stands before the last axis is all batch
    rows_x = x.reshape(-1, x.shape[-1])  # (N, I)
    return dx, rows_dy.T @ rows_x, rows_dy.sum(axis=0)


if __name__ == "__main__":
    x = np.array([[1.0, 2.0, 3.0]])
    weight = np.array([[1.0, 0.0, -1.0], [2.0, 1.0, 0.0]])
    bias = np.array([10.0, 20.0])
    print("y = x W' + b:", linear(x, weight, bias))
    # L = y_0: only the first output matters.
    dx, dweight, dbias = linear_backward(np.array([[1.0, 0.0]]), x, weight)
    print("dL/dx is the first row of W:", dx)
    print("dL/dW is x in the first row:", *dweight)
    print("dL/db:", dbias)
