"""A step of long short-term memory: a cell that keeps what it has unless a gate says otherwise.

Hochreiter and Schmidhuber 1997; with the forget gate, Gers et al. 2000. One product of x and h gives four
vectors,

    i = sigmoid(...)    input gate: how much of the new is written
    f = sigmoid(...)    forget gate: how much of the old stays
    g = tanh(...)       the new
    o = sigmoid(...)    output gate: how much is shown

    c' = f c + i g,         h' = o tanh(c')

(There is no weight inside that last tanh: the output gate acts on the cell as it is.) Straight from c' back
to c there is only the factor f: with f = 1 the gradient passes any number of steps unchanged. The gates are stacked in
torch's order, i f g o.
"""

from __future__ import annotations

import numpy as np

from opsin.scratch.linear import linear, linear_backward
from opsin.scratch.sigmoid import sigmoid


def lstm_step(
    x: np.ndarray,
    h: np.ndarray,
    c: np.ndarray,
    w_ih: np.ndarray,
    w_hh: np.ndarray,
    b_ih: np.ndarray,
    b_hh: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x (B, I), h and c (B, H), w_ih (4H, I), w_hh (4H, H), b_ih and b_hh (4H,) -> h', c' (B, H), gates (B, 4H)."""
    i, f, g, o = np.split(linear(x, w_ih, b_ih) + linear(h, w_hh, b_hh), 4, axis=1)  # each (B, H)
    i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
    c_next = f * c + i * g
    return o * np.tanh(c_next), c_next, np.concatenate([i, f, g, o], axis=1)


def lstm_step_backward(
    dh_next: np.ndarray,
    dc_next: np.ndarray,
    gates: np.ndarray,
    c_next: np.ndarray,
    x: np.ndarray,
    h: np.ndarray,
    c: np.ndarray,
    w_ih: np.ndarray,
    w_hh: np.ndarray,
) -> tuple[np.ndarray, ...]:
    """dh', dc' (B, H) -> dx, dh, dc, dw_ih, dw_hh, db_ih, db_hh. dh' comes from outside and from the next step."""
    i, f, g, o = np.split(gates, 4, axis=1)
    shown = np.tanh(c_next)
    dc_next = dc_next + dh_next * o * (1 - shown**2)  # the cell is used twice: kept, and shown
    da = np.concatenate(  # each through its gate and then through its own sigmoid or tanh
        [
            dc_next * g * i * (1 - i),
            dc_next * c * f * (1 - f),
            dc_next * i * (1 - g**2),
            dh_next * shown * o * (1 - o),
        ],
        axis=1,
    )  # (B, 4H)
    dx, dw_ih, db_ih = linear_backward(da, x, w_ih)
    dh, dw_hh, db_hh = linear_backward(da, h, w_hh)
    return dx, dh, dc_next * f, dw_ih, dw_hh, db_ih, db_hh


if __name__ == "__main__":
    zero = np.zeros((4, 1))
    h, c = np.zeros((1, 1)), np.ones((1, 1))
    print("a cell that holds 1 and gets no input, for three biases of its forget gate:")
    for bias in (0.0, 2.0, 5.0):
        b = np.array([0.0, bias, 0.0, 0.0])
        h, c, dc = np.zeros((1, 1)), np.ones((1, 1)), np.ones((1, 1))
        for _ in range(20):
            before = c
            h, c, gates = lstm_step(np.zeros((1, 1)), h, c, zero, zero, b, np.zeros(4))
            dc = lstm_step_backward(np.zeros((1, 1)), dc, gates, c, np.zeros((1, 1)), h, before, zero, zero)[2]
        print(f"  bias {bias}: after 20 steps c = {c[0, 0]:.4f}, and dc/dc_0 = {dc[0, 0]:.4f}")
