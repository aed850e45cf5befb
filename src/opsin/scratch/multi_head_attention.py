"""Multi-head attention: several small attentions side by side, each with its own idea of likeness.

Vaswani et al. 2017, arXiv:1706.03762, section 3.2.2. One attention gives one mean; what should be looked up
by place and by meaning at once needs two. So q, k and v are projected, cut into `heads` pieces of
d = E / heads numbers, attended to piece by piece, put together again and projected once more:

    head_h = attention(q W_q[h], k W_k[h], v W_v[h]),        y = [head_1 ... head_H] W_o

For the cost of one attention of full width (the paper: E = 512, 8 heads, d = 64). Weights are laid out as
torch's: W_q, W_k and W_v stacked in one matrix (3E, E).
"""

from __future__ import annotations

import numpy as np

from opsin.scratch.attention import attention, attention_backward
from opsin.scratch.linear import linear, linear_backward


def split_heads(x: np.ndarray, heads: int) -> np.ndarray:
    """(B, L, E) -> (B, heads, L, E / heads)."""
    batch, length, width = x.shape
    if width % heads:
        raise ValueError(f"a width of {width} cannot be cut into {heads} heads; it must be a multiple")
    return x.reshape(batch, length, heads, width // heads).swapaxes(1, 2)


def join_heads(x: np.ndarray) -> np.ndarray:
    """(B, heads, L, d) -> (B, L, heads d): split_heads backward."""
    batch, heads, length, width = x.shape
    return x.swapaxes(1, 2).reshape(batch, length, heads * width)


def multi_head_attention(
    inputs: tuple[np.ndarray, np.ndarray, np.ndarray],
    in_weight: np.ndarray,
    in_bias: np.ndarray,
    out_weight: np.ndarray,
    out_bias: np.ndarray,
    heads: int,
    mask: np.ndarray | None = None,
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Query (B, L, E), key and value (B, S, E); three times the same x is self-attention -> y (B, L, E) and its memory.

    in_weight (3E, E), in_bias (3E,), out_weight (E, E), out_bias (E,). mask: (L, S), True where a query may look.
    """
    weights, biases = np.split(in_weight, 3), np.split(in_bias, 3)
    q, k, v = (
        split_heads(linear(x, weight, bias), heads) for x, weight, bias in zip(inputs, weights, biases, strict=True)
    )
    y, p = attention(q, k, v, mask)  # (B, heads, L, d), (B, heads, L, S)
    joined = join_heads(y)
    return linear(joined, out_weight, out_bias), (q, k, v, p, joined)


def multi_head_attention_backward(
    dy: np.ndarray,
    memory: tuple[np.ndarray, ...],
    inputs: tuple[np.ndarray, np.ndarray, np.ndarray],
    in_weight: np.ndarray,
    out_weight: np.ndarray,
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """dy (B, L, E) -> [dquery, dkey, dvalue], din_weight, din_bias, dout_weight, dout_bias.

    In self-attention the gradient of x is the sum of the three.
    """
    q, k, v, p, joined = memory
    djoined, dout_weight, dout_bias = linear_backward(dy, joined, out_weight)
    dheads = attention_backward(split_heads(djoined, q.shape[1]), p, q, k, v)
    dinputs, dweights, dbiases = [], [], []
    for dhead, x, weight in zip(dheads, inputs, np.split(in_weight, 3), strict=True):
        dx, dweight, dbias = linear_backward(join_heads(dhead), x, weight)
        dinputs.append(dx)
        dweights.append(dweight)
        dbiases.append(dbias)
    return dinputs, np.concatenate(dweights), np.concatenate(dbiases), dout_weight, dout_bias


if __name__ == "__main__":
    # Four words of four numbers: the first two say what, the last two where. One head for each, nothing is projected.
    x = np.array([[[9.0, 0, 9, 0], [9, 0, 0, 9], [0, 9, 9, 0], [0, 9, 0, 9]]])
    as_they_are = np.tile(np.eye(4), (3, 1)), np.zeros(12), np.eye(4), np.zeros(4)
    _, (_, _, _, p, _) = multi_head_attention((x, x, x), *as_they_are, heads=2)
    print("four words:", x[0], sep="\n")
    print("whom the first head looks at (those of the same kind):", p[0, 0].round(2), sep="\n")
    print("and the second (those in the same place):", p[0, 1].round(2), sep="\n")
