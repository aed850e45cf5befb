"""A recurrent network: one layer for every step of a sequence, with its own last answer as an input.

    h' = tanh(W_ih x + b_ih + W_hh h + b_hh)                Elman 1990; torch has two biases, one would do

Unrolled in time it is a deep network whose layers share their weights. So backward walks from the last step
to the first, hands dh down from each to the one before, and adds up what every step has to say about the
weights: backpropagation through time. On the way dh is multiplied by W_hh at every step: it fades or grows
like a power of it. That is what LSTM and GRU were invented against.
"""

from __future__ import annotations

import numpy as np

from opsin.scratch.linear import linear, linear_backward


def rnn_step(
    x: np.ndarray, h: np.ndarray, w_ih: np.ndarray, w_hh: np.ndarray, b_ih: np.ndarray, b_hh: np.ndarray
) -> np.ndarray:
    """x (B, I), h (B, H), w_ih (H, I), w_hh (H, H), b_ih and b_hh (H,) -> h' (B, H)."""
    return np.tanh(linear(x, w_ih, b_ih) + linear(h, w_hh, b_hh))


def rnn_step_backward(
    dh_next: np.ndarray, h_next: np.ndarray, x: np.ndarray, h: np.ndarray, w_ih: np.ndarray, w_hh: np.ndarray
) -> tuple[np.ndarray, ...]:
    """dh' (B, H) -> dx (B, I), dh (B, H), dw_ih (H, I), dw_hh (H, H), db_ih (H,), db_hh (H,)."""
    da = dh_next * (1 - h_next**2)  # through the tanh
    dx, dw_ih, db_ih = linear_backward(da, x, w_ih)
    dh, dw_hh, db_hh = linear_backward(da, h, w_hh)
    return dx, dh, dw_ih, dw_hh, db_ih, db_hh


def rnn(
    xs: np.ndarray, h: np.ndarray, w_ih: np.ndarray, w_hh: np.ndarray, b_ih: np.ndarray, b_hh: np.ndarray
) -> np.ndarray:
    """xs (T, B, I), h (B, H) -> all states (T + 1, B, H), the first one included."""
    states = [h]
    for x in xs:
        states.append(rnn_step(x, states[-1], w_ih, w_hh, b_ih, b_hh))
    return np.stack(states)


def rnn_backward(
    dstates: np.ndarray, states: np.ndarray, xs: np.ndarray, w_ih: np.ndarray, w_hh: np.ndarray
) -> tuple[np.ndarray, ...]:
    """dstates (T, B, H), of the states behind each x -> dxs, dh of the first state, and the four of the weights."""
    dxs, dh = np.zeros_like(xs), np.zeros_like(states[0])
    sums = [np.zeros_like(w_ih), np.zeros_like(w_hh), np.zeros_like(w_hh[0]), np.zeros_like(w_hh[0])]
    for t in reversed(range(len(xs))):
        # A state is used twice: outside, and by the step after it.
        dxs[t], dh, *dweights = rnn_step_backward(dstates[t] + dh, states[t + 1], xs[t], states[t], w_ih, w_hh)
        sums = [total + dweight for total, dweight in zip(sums, dweights, strict=True)]
    return dxs, dh, *sums


if __name__ == "__main__":
    steps, one, none = 20, np.ones((1, 1)), np.zeros(1)
    xs = np.zeros((steps, 1, 1))
    xs[0] = 0.01  # a small push at the first step, then silence
    print("how much the last state depends on the first input, 20 steps before:")
    for recurrent in (0.5, 1.0, 1.2):
        states = rnn(xs, np.zeros((1, 1)), one, recurrent * one, none, none)
        dstates = np.zeros((steps, 1, 1))
        dstates[-1] = 1  # L is the last state
        dxs = rnn_backward(dstates, states, xs, one, recurrent * one)[0]
        print(f"  W_hh = {recurrent}: dL/dx_0 = {dxs[0, 0, 0]:.6f}")
