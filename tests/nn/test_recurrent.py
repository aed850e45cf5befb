"""Recurrent layers: the steps that are written out equal torch's fused layers, its cells, and the NumPy twins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from opsin.errors import InputError
from opsin.nn.recurrent import KINDS, BidirectionalLSTM, Cell, Recurrent, unroll
from opsin.scratch.gru import gru_step as scratch_gru
from opsin.scratch.lstm import lstm_step as scratch_lstm
from opsin.scratch.rnn import rnn_step as scratch_rnn

CELLS = {"rnn": nn.RNNCell, "lstm": nn.LSTMCell, "gru": nn.GRUCell}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("layers", "bidirectional"), [(1, False), (2, True)])
def test_steps_equal_the_fused_layer_with_its_gradients(kind: str, layers: int, bidirectional: bool) -> None:
    torch.manual_seed(0)
    layer = Recurrent(kind, 5, 7, layers=layers, bidirectional=bidirectional).double()  # type: ignore[arg-type]
    x = torch.randn(3, 6, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 6, layer.out_channels, dtype=torch.float64)
    results = []
    for fused in (True, False):
        layer.fused = fused
        outputs: torch.Tensor = layer(x)
        results.append((outputs, *torch.autograd.grad((outputs * weight).sum(), [x, *layer.parameters()])))
    for fused, slow in zip(*results, strict=True):
        torch.testing.assert_close(fused, slow, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [True, False])
def test_a_cell_equals_torchs(kind: str, bias: bool) -> None:
    torch.manual_seed(0)
    theirs = CELLS[kind](5, 7, bias=bias)
    ours = Cell(kind, 5, 7, bias=bias)  # type: ignore[arg-type]
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(3, 5)
    state = tuple(torch.randn(3, 7) for _ in ours.initial_state(x))
    expected = theirs(x, state if kind == "lstm" else state[0])
    for one, other in zip(ours(x, state), expected if kind == "lstm" else (expected,), strict=True):
        torch.testing.assert_close(one, other)
    expected = theirs(x)
    torch.testing.assert_close(ours(x)[0], expected[0] if kind == "lstm" else expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_equals_the_numpy_twin(kind: str) -> None:
    torch.manual_seed(0)
    cell = Cell(kind, 4, 3).double()  # type: ignore[arg-type]
    x, h, c = torch.randn(2, 4).double(), torch.randn(2, 3).double(), torch.randn(2, 3).double()
    state = (h, c) if kind == "lstm" else (h,)
    with torch.no_grad():
        ours = cell(x, state)[0].numpy()
        arrays = [p.detach().numpy() for p in cell.parameters()]
    given = [one.numpy() for one in state]
    twins: dict[str, Any] = {"rnn": scratch_rnn, "lstm": scratch_lstm, "gru": scratch_gru}
    found = twins[kind](x.numpy(), *given, *arrays)
    np.testing.assert_allclose(ours, found if isinstance(found, np.ndarray) else found[0], atol=1e-12)


def test_no_steps_and_wrong_calls() -> None:
    layer = Recurrent("gru", 5, 7, fused=False)
    assert layer(torch.zeros(2, 0, 5)).shape == (2, 0, 7)
    assert unroll(nn.LSTM(5, 7, batch_first=True), torch.zeros(0, 3, 5)).shape == (0, 3, 7)
    with pytest.raises(InputError, match=r"takes \(B, T, 5\), got \(2, 4, 6\)"):
        layer(torch.zeros(2, 4, 6))
    with pytest.raises(InputError, match=r"unknown kind 'lstn'.*lstm"):
        Recurrent("lstn", 5, 7)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="unknown kind"):
        Cell("mlp", 5, 7)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="layers=2"):
        Recurrent("rnn", 5, 7, dropout=0.5)


def test_dropout_between_layers_is_drawn_in_training_alone() -> None:
    layer = Recurrent("lstm", 5, 64, layers=2, dropout=0.5, fused=False)
    x = torch.randn(2, 3, 5)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    torch.testing.assert_close(layer(x), layer.network(x)[0])


def test_both_directions_see_the_whole() -> None:
    torch.manual_seed(0)
    block = BidirectionalLSTM(5, 4, 3)
    x = torch.randn(1, 6, 5)
    changed = x.clone()
    changed[:, -1] += 1
    assert block(x).shape == (1, 6, 3)
    assert (block(x) - block(changed))[:, 0].abs().max() > 1e-6
    assert BidirectionalLSTM(5, 4, None)(x).shape == (1, 6, 8)


@pytest.mark.parametrize(
    "network",
    [
        nn.RNN(5, 7, nonlinearity="relu", batch_first=True),
        nn.LSTM(5, 7, proj_size=3, batch_first=True),
        nn.GRU(5, 7),
    ],
)
def test_what_the_steps_do_not_have_is_not_unrolled(network: nn.RNNBase) -> None:
    with pytest.raises(InputError, match="is not unrolled"):
        unroll(network, torch.zeros(2, 3, 5))
