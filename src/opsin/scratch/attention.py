"""Scaled dot-product attention: every query looks at all keys, and takes a mean of the values by how well they match.

Vaswani et al. 2017, arXiv:1706.03762, section 3.2.1:

    p = softmax(q k' / sqrt(d)),        y = p v

It is a dictionary that is soft: instead of the one value whose key is equal, all values by likeness. The dot
product of two vectors of d independent numbers has variance d; divided by sqrt(d) it has 1, and the softmax
does not begin saturated, where its gradient is 0.
"""

from __future__ import annotations

import math

import numpy as np

from opsin.scratch.softmax import softmax, softmax_backward


def attention(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """q (..., L, d), k (..., S, d), v (..., S, e) -> y (..., L, e) and the weights p (..., L, S).

    mask: (L, S), True where a query may look; one that may look nowhere has no answer. For a text that is written from
    left to right, np.tri(L, dtype=bool).
    """
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])  # (..., L, S)
    if mask is not None:
        if not mask.any(axis=-1).all():
            raise ValueError("the mask hides every key from a query; let each look at one at least")
        scores = np.where(mask, scores, -np.inf)
    p = softmax(scores)
    return p @ v, p


def attention_backward(
    dy: np.ndarray, p: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dy (..., L, e) -> dq (..., L, d), dk (..., S, d), dv (..., S, e). What was masked has p = 0, and stays out."""
    dv = p.swapaxes(-1, -2) @ dy
    dp = dy @ v.swapaxes(-1, -2)
    dscores = softmax_backward(dp, p) / math.sqrt(q.shape[-1])  # (..., L, S)
    return dscores @ k, dscores.swapaxes(-1, -2) @ q, dv


if __name__ == "__main__":
    k = np.array([[8.0, 0.0], [0.0, 8.0], [4.0, 4.0]])  # three keys
    v = np.array([[100.0], [200.0], [300.0]])  # and their values
    q = np.array([[1.0, 0.0], [1.0, 1.0]])
    y, p = attention(q, k, v)
    for query, weights, answer in zip(q, p, y, strict=True):
        print(f"query {query}   weights {weights.round(3)}   answer {answer.round(1)}")
    y, p = attention(k, k, v, mask=np.tri(3, dtype=bool))
    print("with a mask each looks back only; the weights:", p.round(3), sep="\n")
    dq, dk, dv = attention_backward(np.ones((3, 1)), p, k, k, v)
    print("dv for dy = 1, how much each value was used:", dv.ravel().round(3))
