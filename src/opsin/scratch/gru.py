"""A step of the gated recurrent unit: the LSTM's idea with two gates and no separate cell.

Cho et al. 2014, arXiv:1406.1078; this is torch's form, in its order r z n:

    r = sigmoid(W_ir x + b_ir + W_hr h + b_hr)              reset gate: how much of the old the new may see
    z = sigmoid(W_iz x + b_iz + W_hz h + b_hz)              update gate: how much of the old stays
    n = tanh(W_in x + b_in + r (W_hn h + b_hn))             the new
    h' = (1 - z) n + z h

The paper resets h before the product, W_hn (r h); after it, as here, all products of a step can be done at
once. Chung et al. 2014, arXiv:1412.3555, swap z and 1 - z, which only renames the gate.
"""

from __future__ import annotations

import numpy as np

from opsin.scratch.linear import linear, linear_backward
from opsin.scratch.sigmoid import sigmoid


def gru_step(
    x: np.ndarray, h: np.ndarray, w_ih: np.ndarray, w_hh: np.ndarray, b_ih: np.ndarray, b_hh: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """x (B, I), h (B, H), w_ih (3H, I), w_hh (3H, H), b_ih and b_hh (3H,) -> h' (B, H) and r, z, n, old (B, 4H)."""
    x_r, x_z, x_n = np.split(linear(x, w_ih, b_ih), 3, axis=1)  # each (B, H)
    h_r, h_z, old = np.split(linear(h, w_hh, b_hh), 3, axis=1)
    r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
    n = np.tanh(x_n + r * old)
    return (1 - z) * n + z * h, np.concatenate([r, z, n, old], axis=1)


def gru_step_backward(
    dh_next: np.ndarray, gates: np.ndarray, x: np.ndarray, h: np.ndarray, w_ih: np.ndarray, w_hh: np.ndarray
) -> tuple[np.ndarray, ...]:
    """dh' (B, H) -> dx, dh, dw_ih, dw_hh, db_ih, db_hh."""
    r, z, n, old = np.split(gates, 4, axis=1)
    da_n = dh_next * (1 - z) * (1 - n**2)  # through the tanh
    da_z = dh_next * (h - n) * z * (1 - z)  # through the sigmoids
    da_r = da_n * old * r * (1 - r)
    dx, dw_ih, db_ih = linear_backward(np.concatenate([da_r, da_z, da_n], axis=1), x, w_ih)
    dh, dw_hh, db_hh = linear_backward(np.concatenate([da_r, da_z, da_n * r], axis=1), h, w_hh)
    return dx, dh + dh_next * z, dw_ih, dw_hh, db_ih, db_hh


if __name__ == "__main__":
    h = np.ones((1, 1))
    x, zero = np.zeros((1, 1)), np.zeros((3, 1))
    print("a state of 1, no input, weights 0: the update gate alone says what stays")
    for bias in (-5.0, 0.0, 5.0):
        b = np.array([0.0, bias, 0.0])
        h_next, gates = gru_step(x, h, zero, zero, b, np.zeros(3))
        dh = gru_step_backward(np.ones((1, 1)), gates, x, h, zero, zero)[1]
        print(f"  bias {bias:4}: z = {gates[0, 1]:.4f}, h' = {h_next[0, 0]:.4f}, dh'/dh = {dh[0, 0]:.4f}")
