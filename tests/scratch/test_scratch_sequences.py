"""Recurrent steps, attention and CTC written out, against torch, and CTC also against a list of all paths."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby, product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose
from torch import Tensor, nn

from opsin.scratch.attention import attention, attention_backward
from opsin.scratch.ctc import BLANK, ctc_loss, forward_backward, with_blanks
from opsin.scratch.gru import gru_step, gru_step_backward
from opsin.scratch.lstm import lstm_step, lstm_step_backward
from opsin.scratch.multi_head_attention import multi_head_attention, multi_head_attention_backward
from opsin.scratch.numerical_gradient import numerical_gradient
from opsin.scratch.rnn import rnn, rnn_backward, rnn_step, rnn_step_backward
from opsin.scratch.softmax import log_softmax, softmax

Witness = Callable[..., tuple[np.ndarray, list[np.ndarray]]]
Rng = np.random.Generator

assert_close = partial(assert_allclose, rtol=1e-9, atol=1e-11)
STEPS, BATCH, INPUTS, HIDDEN = 5, 3, 4, 6


def weights_of(cell: nn.Module) -> list[np.ndarray]:
    return [parameter.detach().numpy() for parameter in cell.parameters()]  # w_ih, w_hh, b_ih, b_hh


def gradients_of(cell: nn.Module, *inputs: Tensor) -> Iterator[np.ndarray]:
    for tensor in (*inputs, *cell.parameters()):
        assert tensor.grad is not None
        yield tensor.grad.numpy()


def leaf(array: np.ndarray) -> Tensor:
    return torch.tensor(array, requires_grad=True)


def agree(own: tuple[np.ndarray, ...], theirs: Iterator[np.ndarray]) -> None:
    for mine, other in zip(own, theirs, strict=True):
        assert_close(mine, other)


def test_rnn_step(rng: Rng) -> None:
    cell = nn.RNNCell(INPUTS, HIDDEN).double()
    x, h, dh_next = rng.normal(size=(BATCH, INPUTS)), rng.normal(size=(BATCH, HIDDEN)), rng.normal(size=(BATCH, HIDDEN))
    weights = weights_of(cell)
    h_next = rnn_step(x, h, *weights)
    inputs = leaf(x), leaf(h)
    theirs = cell(*inputs)
    theirs.backward(torch.tensor(dh_next))
    assert_close(h_next, theirs.detach().numpy())
    agree(rnn_step_backward(dh_next, h_next, x, h, *weights[:2]), gradients_of(cell, *inputs))


def test_rnn_through_time(rng: Rng) -> None:
    layer = nn.RNN(INPUTS, HIDDEN).double()
    xs, h = rng.normal(size=(STEPS, BATCH, INPUTS)), rng.normal(size=(BATCH, HIDDEN))
    dstates = rng.normal(size=(STEPS, BATCH, HIDDEN))
    weights = weights_of(layer)
    states = rnn(xs, h, *weights)
    inputs = leaf(xs), leaf(h)
    theirs, _ = layer(inputs[0], inputs[1][None])
    theirs.backward(torch.tensor(dstates))
    assert_close(states[1:], theirs.detach().numpy())
    agree(rnn_backward(dstates, states, xs, *weights[:2]), gradients_of(layer, *inputs))


def test_lstm_step(rng: Rng) -> None:
    cell = nn.LSTMCell(INPUTS, HIDDEN).double()
    x, h, c = (rng.normal(size=(BATCH, width)) for width in (INPUTS, HIDDEN, HIDDEN))
    dh_next, dc_next = rng.normal(size=(BATCH, HIDDEN)), rng.normal(size=(BATCH, HIDDEN))
    weights = weights_of(cell)
    h_next, c_next, gates = lstm_step(x, h, c, *weights)
    inputs = leaf(x), leaf(h), leaf(c)
    their_h, their_c = cell(inputs[0], inputs[1:])
    (their_h * torch.tensor(dh_next) + their_c * torch.tensor(dc_next)).sum().backward()
    assert_close(h_next, their_h.detach().numpy())
    assert_close(c_next, their_c.detach().numpy())
    own = lstm_step_backward(dh_next, dc_next, gates, c_next, x, h, c, *weights[:2])
    agree(own, gradients_of(cell, *inputs))


def test_lstm_through_time(rng: Rng) -> None:
    layer = nn.LSTM(INPUTS, HIDDEN).double()
    xs, dhs = rng.normal(size=(STEPS, BATCH, INPUTS)), rng.normal(size=(STEPS, BATCH, HIDDEN))
    weights = weights_of(layer)
    theirs, _ = layer(inputs := leaf(xs))
    theirs.backward(torch.tensor(dhs))
    hs, cs, gates = [np.zeros((BATCH, HIDDEN))], [np.zeros((BATCH, HIDDEN))], []
    for x in xs:
        for kept, new in zip((hs, cs, gates), lstm_step(x, hs[-1], cs[-1], *weights), strict=True):
            kept.append(new)
    assert_close(np.stack(hs[1:]), theirs.detach().numpy())
    dh, dc, dxs = np.zeros((BATCH, HIDDEN)), np.zeros((BATCH, HIDDEN)), np.zeros_like(xs)
    sums = [np.zeros_like(weight) for weight in weights]
    for t in reversed(range(STEPS)):
        dxs[t], dh, dc, *dweights = lstm_step_backward(
            dhs[t] + dh, dc, gates[t], cs[t + 1], xs[t], hs[t], cs[t], *weights[:2]
        )
        sums = [total + dweight for total, dweight in zip(sums, dweights, strict=True)]
    agree((dxs, *sums), gradients_of(layer, inputs))


def test_gru_step(rng: Rng) -> None:
    cell = nn.GRUCell(INPUTS, HIDDEN).double()
    x, h, dh_next = rng.normal(size=(BATCH, INPUTS)), rng.normal(size=(BATCH, HIDDEN)), rng.normal(size=(BATCH, HIDDEN))
    weights = weights_of(cell)
    h_next, gates = gru_step(x, h, *weights)
    inputs = leaf(x), leaf(h)
    theirs = cell(*inputs)
    theirs.backward(torch.tensor(dh_next))
    assert_close(h_next, theirs.detach().numpy())
    agree(gru_step_backward(dh_next, gates, x, h, *weights[:2]), gradients_of(cell, *inputs))


def test_gru_through_time(rng: Rng) -> None:
    layer = nn.GRU(INPUTS, HIDDEN).double()
    xs, dhs = rng.normal(size=(STEPS, BATCH, INPUTS)), rng.normal(size=(STEPS, BATCH, HIDDEN))
    weights = weights_of(layer)
    theirs, _ = layer(inputs := leaf(xs))
    theirs.backward(torch.tensor(dhs))
    hs, gates = [np.zeros((BATCH, HIDDEN))], []
    for x in xs:
        h, kept = gru_step(x, hs[-1], *weights)
        hs.append(h)
        gates.append(kept)
    assert_close(np.stack(hs[1:]), theirs.detach().numpy())
    dh, dxs, sums = np.zeros((BATCH, HIDDEN)), np.zeros_like(xs), [np.zeros_like(weight) for weight in weights]
    for t in reversed(range(STEPS)):
        dxs[t], dh, *dweights = gru_step_backward(dhs[t] + dh, gates[t], xs[t], hs[t], *weights[:2])
        sums = [total + dweight for total, dweight in zip(sums, dweights, strict=True)]
    agree((dxs, *sums), gradients_of(layer, inputs))


@pytest.mark.parametrize("masked", [False, True])
def test_attention(masked: bool, rng: Rng, by_torch: Witness) -> None:
    q, k, v = rng.normal(size=(2, 5, 4)), rng.normal(size=(2, 7, 4)), rng.normal(size=(2, 7, 3))
    dy = rng.normal(size=(2, 5, 3))
    mask = np.tri(5, 7, 1, dtype=bool) if masked else None
    their_mask = torch.tensor(mask) if masked else None
    y, gradients = by_torch(lambda *a: F.scaled_dot_product_attention(*a, attn_mask=their_mask), dy, q, k, v)
    own, p = attention(q, k, v, mask)
    assert_close(own, y)
    agree(attention_backward(dy, p, q, k, v), iter(gradients))


def test_a_query_that_may_look_nowhere_is_refused() -> None:
    x = np.zeros((2, 3))
    with pytest.raises(ValueError, match="hides every key"):
        attention(x, x, x, np.array([[True, False], [False, False]]))


@pytest.mark.parametrize("masked", [False, True])
def test_multi_head_attention(masked: bool, rng: Rng) -> None:
    module = nn.MultiheadAttention(8, 2, batch_first=True).double()
    with torch.no_grad():
        for parameter in module.parameters():  # torch starts with biases of 0
            parameter.copy_(torch.tensor(rng.normal(size=parameter.shape)))
    query, key, value = rng.normal(size=(3, 5, 8)), rng.normal(size=(3, 6, 8)), rng.normal(size=(3, 6, 8))
    dy = rng.normal(size=(3, 5, 8))
    mask = np.tri(5, 6, dtype=bool) if masked else None
    inputs = leaf(query), leaf(key), leaf(value)
    # This module's mask is True where a query may not look; torch's function, and ours, the other way round.
    theirs, _ = module(*inputs, attn_mask=torch.tensor(~mask) if mask is not None else None)
    theirs.backward(torch.tensor(dy))
    in_weight, in_bias, out_weight, out_bias = (parameter.detach().numpy() for parameter in module.parameters())
    own, memory = multi_head_attention((query, key, value), in_weight, in_bias, out_weight, out_bias, 2, mask)
    assert_close(own, theirs.detach().numpy())
    dinputs, *dweights = multi_head_attention_backward(dy, memory, (query, key, value), in_weight, out_weight)
    agree((*dinputs, *dweights), gradients_of(module, *inputs))


def test_heads_must_fit() -> None:
    x = np.zeros((1, 2, 6))
    with pytest.raises(ValueError, match="a width of 6 cannot be cut into 4 heads"):
        multi_head_attention((x, x, x), np.zeros((18, 6)), np.zeros(18), np.zeros((6, 6)), np.zeros(6), 4)


def read(path: tuple[int, ...]) -> tuple[int, ...]:
    """What a path says: no repetitions, then no blanks."""
    return tuple(letter for letter, _ in groupby(path) if letter != BLANK)


@pytest.mark.parametrize("text", [(), (1,), (1, 1), (1, 2), (2, 1, 2), (1, 1, 2)], ids=str)
def test_ctc_is_the_sum_over_all_paths(text: tuple[int, ...], rng: Rng) -> None:
    logits = rng.normal(size=(5, 3))
    p = softmax(logits)
    paths = product(range(3), repeat=5)
    total = sum(np.prod(p[np.arange(5), path]) for path in paths if read(path) == text)
    assert_close(ctc_loss(logits, text)[0], -np.log(total))


@pytest.mark.parametrize("text", [(1,), (1, 1), (3, 1, 2, 2), (1, 2, 3, 1, 2, 3), (2,) * 6], ids=str)
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_ctc_is_torchs(text: tuple[int, ...], scale: float, rng: Rng) -> None:
    logits = scale * rng.normal(size=(12, 5))
    tensor = leaf(logits)
    theirs = F.ctc_loss(
        tensor.log_softmax(1)[:, None], torch.tensor([text]), torch.tensor([12]), torch.tensor([len(text)]),
        reduction="sum",
    )  # fmt: skip
    theirs.backward()
    loss, gradient = ctc_loss(logits, text)
    assert_close(loss, theirs.item())
    assert tensor.grad is not None
    assert_close(gradient, tensor.grad.numpy())


def test_ctc_gradient_by_differences(rng: Rng) -> None:
    logits = rng.normal(size=(6, 4))
    _, gradient = ctc_loss(logits, [1, 3, 3])
    assert_allclose(gradient, numerical_gradient(lambda z: ctc_loss(z, [1, 3, 3])[0], logits), atol=1e-8)


def test_all_paths_pass_every_step(rng: Rng) -> None:
    alpha, beta = forward_backward(log_softmax(rng.normal(size=(9, 4))), with_blanks([1, 2, 2]))
    totals = np.logaddexp.reduce(alpha + beta, axis=1)
    assert_close(totals, totals[0])


def test_ctc_refuses_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="3 steps cannot hold a text that needs 4"):
        ctc_loss(np.zeros((3, 4)), [1, 1, 2])
    with pytest.raises(ValueError, match=r"letters must be 1 \.\.\. 3"):
        ctc_loss(np.zeros((9, 4)), [1, 4])
    with pytest.raises(ValueError, match="letters must be"):
        ctc_loss(np.zeros((9, 4)), [0])
