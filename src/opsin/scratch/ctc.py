"""Connectionist temporal classification: train on a text without knowing where its letters stand.

Graves et al. 2006, ICML. A network gives at each of T steps a probability for every letter and for a blank. A
path names one of them a step; to read it, drop repetitions and then blanks: "--hh-e-l-ll-oo" is "hello", and
the blank between them keeps the two l apart. The probability of a text is the sum over all paths that read as
it: far too many to list, but with

    z = - h - e - l - l - o -           the text with blanks around each letter, of length S = 2 L + 1

a path only ever stays, moves on by one, or skips a blank between different letters. So sum step by step:

    alpha[t, s] = y[t, z_s] (alpha[t-1, s] + alpha[t-1, s-1] + alpha[t-1, s-2] if it may skip)     all beginnings
    beta[t, s]  = the same from the end, without y[t, z_s]                                         all endings

    p(text) = sum_s alpha[t, s] beta[t, s]     for any t,           loss = -log p(text)

alpha beta / p is the share of the paths that are at s at time t. Added up by letter it is a target q, and

    dL/dlogits = softmax(logits) - q

is cross-entropy's gradient, with the soft target that the network's own alignment makes. In logarithms, since
p may be as small as e^-1000.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from opsin.scratch.softmax import log_softmax

BLANK = 0


def with_blanks(text: Sequence[int]) -> np.ndarray:
    """[a, b] -> [blank, a, blank, b, blank]."""
    z = np.full(2 * len(text) + 1, BLANK)
    z[1::2] = text
    return z


def skips(z: np.ndarray) -> np.ndarray:
    """(S,): whether a path may come to s from s - 2: onto a letter, from another one."""
    allowed = np.zeros(len(z), bool)
    allowed[2:] = (z[2:] != BLANK) & (z[2:] != z[:-2])
    return allowed


def move_on(log_p: np.ndarray, may_skip: np.ndarray) -> np.ndarray:
    """One step of all paths: (S,) -> (S,), log of what stays plus what moves on by one plus what skips."""
    one = np.concatenate([[-np.inf], log_p])[: len(log_p)]
    two = np.concatenate([[-np.inf, -np.inf], log_p])[: len(log_p)]
    return np.logaddexp(np.logaddexp(log_p, one), np.where(may_skip, two, -np.inf))


def forward_backward(log_y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log_y (T, K) -> log alpha and log beta, (T, S)."""
    steps = len(log_y)
    emit = log_y[:, z]  # (T, S): log y of the letter that s stands for
    alpha, beta = np.full_like(emit, -np.inf), np.full_like(emit, -np.inf)
    alpha[0, :2] = emit[0, :2]  # begin with the blank or the first letter
    for t in range(1, steps):
        alpha[t] = emit[t] + move_on(alpha[t - 1], skips(z))
    beta[-1, -2:] = 0  # end with the last letter or the blank
    for t in reversed(range(steps - 1)):  # the same walk through the reversed text
        beta[t] = move_on((emit[t + 1] + beta[t + 1])[::-1], skips(z[::-1]))[::-1]
    return alpha, beta


def ctc_loss(logits: np.ndarray, text: Sequence[int]) -> tuple[float, np.ndarray]:
    """logits (T, K), with class 0 the blank, and a text of 1 ... K - 1 -> -log p(text) and dL/dlogits (T, K)."""
    needed = len(text) + sum(a == b for a, b in zip(text[1:], text, strict=False))
    if len(logits) < max(needed, 1):
        raise ValueError(
            f"{len(logits)} steps cannot hold a text that needs {needed}, with a blank between equal letters"
        )
    if any(not 0 < letter < logits.shape[1] for letter in text):
        raise ValueError(f"letters must be 1 ... {logits.shape[1] - 1} (0 is the blank), got {list(text)}")
    z = with_blanks(text)
    log_y = log_softmax(logits)
    alpha, beta = forward_backward(log_y, z)
    log_p = np.logaddexp.reduce(alpha[0] + beta[0])
    share = np.exp(alpha + beta - log_p)  # (T, S), each row sums to 1
    target = np.zeros_like(logits)
    for s, letter in enumerate(z):
        target[:, letter] += share[:, s]
    return float(-log_p), np.exp(log_y) - target


if __name__ == "__main__":
    logits = np.log(np.array([[0.6, 0.4], [0.6, 0.4]]))  # two steps; blank 0.6, "a" 0.4
    loss, gradient = ctc_loss(logits, [1])
    print("two steps, at each a blank with 0.6 or an a with 0.4")
    print(f"  p(a) is that of the paths aa, -a and a-: 0.16 + 0.24 + 0.24 = {np.exp(-loss):.2f}")
    print(f"  p() is that of the path --:              0.36               = {np.exp(-ctc_loss(logits, [])[0]):.2f}")
    print("of the paths of a, 0.40 / 0.64 have it at the first step: q, and the gradient is p - q:")
    for step, (p, d) in enumerate(zip(np.exp(log_softmax(logits)), gradient, strict=True), 1):
        print(f"  step {step}: p {p.round(4)}   q {(p - d).round(4)}   dL/dlogits {d.round(4)}")
