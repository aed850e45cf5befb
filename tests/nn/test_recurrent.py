"""Recurrent layers: the steps that are written out equal torch's fused layers, its cells, and the NumPy twins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from opsin.errors import InputError
from opsin.nn.counting import count_parameters
from opsin.nn.recurrent import KINDS, BidirectionalLSTM, Cell, Recurrent, gates_over_time, unroll
from opsin.scratch.gru import gru_step as scratch_gru
from opsin.scratch.lstm import lstm_step as scratch_lstm
from opsin.scratch.rnn import rnn_step as scratch_rnn

CELLS = {"rnn": nn.RNNCell, "lstm": nn.LSTMCell, "gru": nn.GRUCell}


@pytest.mark.parametrize("kind", CELLS)
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


@pytest.mark.parametrize("kind", CELLS)
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


@pytest.mark.parametrize("kind", CELLS)
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


def test_counts_of_the_textbook() -> None:
    # 256 in and out: g (256 x 512 + 256) with the papers' one bias, 256 g more with torch's two
    two = {kind: count_parameters(Cell(kind, 256, 256)) for kind in CELLS}  # type: ignore[arg-type]
    one = {kind: count_parameters(Cell(kind, 256, 256, shared_bias=True)) for kind in CELLS}  # type: ignore[arg-type]
    assert two == {"rnn": 131_584, "lstm": 526_336, "gru": 394_752}
    assert one == {"rnn": 131_328, "lstm": 525_312, "gru": 393_984}
    assert count_parameters(Cell("gru_reset_before", 256, 256, shared_bias=True)) == 393_984
    assert count_parameters(Cell("lstm_affine_output", 256, 256)) == 526_336 + 256 * 257


def sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def test_reset_before_is_the_papers_formula() -> None:
    torch.manual_seed(0)
    cell = Cell("gru_reset_before", 4, 3).double()
    x, h = torch.randn(2, 4).double(), torch.randn(2, 3).double()
    w, u, b, d = (p.detach().numpy() for p in cell.parameters())
    for row in range(2):
        xs, hs = x[row].numpy(), h[row].numpy()
        r, z = (sigmoid(w[k : k + 3] @ xs + b[k : k + 3] + u[k : k + 3] @ hs + d[k : k + 3]) for k in (0, 3))
        n = np.tanh(w[6:] @ xs + b[6:] + u[6:] @ (r * hs) + d[6:])
        np.testing.assert_allclose(cell(x, (h,))[0][row].detach().numpy(), (1 - z) * n + z * hs, atol=1e-12)


def test_the_affine_map_stands_inside_the_last_tanh() -> None:
    torch.manual_seed(0)
    cell: Any = Cell("lstm_affine_output", 4, 3).double()
    plain = nn.LSTMCell(4, 3).double()
    plain.load_state_dict({name: p for name, p in cell.state_dict().items() if not name.endswith("_out")})
    x, h, c = torch.randn(2, 4).double(), torch.randn(2, 3).double(), torch.randn(2, 3).double()
    ours, theirs = cell(x, (h, c)), plain(x, (h, c))
    torch.testing.assert_close(ours[1], theirs[1])  # the cell is the same
    output = theirs[0] / theirs[1].tanh()
    torch.testing.assert_close(ours[0], output * (theirs[1] @ cell.weight_out.T + cell.bias_out).tanh())
    with torch.no_grad():
        cell.weight_out.copy_(torch.eye(3))
        cell.bias_out.zero_()
    torch.testing.assert_close(cell(x, (h, c)), theirs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("fused", [True, False])
def test_padding_changes_nothing(kind: Any, bidirectional: bool, fused: bool) -> None:
    torch.manual_seed(0)
    layer = Recurrent(kind, 3, 4, layers=2, bidirectional=bidirectional, fused=fused).double()
    x, lengths = torch.randn(4, 5, 3).double(), torch.tensor([5, 2, 0, 3])
    first = tuple(torch.randn_like(part) for part in layer.initial_state(4))
    for state in (None, first):
        y, after = layer.run(x, state, lengths)
        for row, length in enumerate(lengths.tolist()):
            assert not y[row, length:].any()
            own = None if state is None else tuple(part[row : row + 1] for part in state)
            if length == 0:
                expected: Any = torch.zeros(1, 0, y.shape[2]).double(), own or layer.initial_state(1)
            else:
                expected = layer.run(x[row : row + 1, :length], own)
            torch.testing.assert_close(y[row : row + 1, :length], expected[0])
            torch.testing.assert_close(tuple(part[row : row + 1] for part in after), expected[1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_goes_on(kind: Any) -> None:
    layer, x = Recurrent(kind, 3, 4, layers=2).double(), torch.randn(2, 6, 3).double()
    whole, last = layer.run(x)
    first, state = layer.run(x[:, :2])
    second, after = layer.run(x[:, 2:], state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
    torch.testing.assert_close(after, last)


def test_gates_lead_from_state_to_state() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 3)
    lstm = Recurrent("lstm", 3, 4, bidirectional=True)
    forwards, backwards = gates_over_time(lstm, x)
    assert set(forwards) == {"input", "forget", "new", "output", "state", "cell"}
    cell = forwards["forget"][:, 1:] * forwards["cell"][:, :-1] + (forwards["input"] * forwards["new"])[:, 1:]
    torch.testing.assert_close(cell, forwards["cell"][:, 1:])
    cell = backwards["forget"][:, :-1] * backwards["cell"][:, 1:] + (backwards["input"] * backwards["new"])[:, :-1]
    torch.testing.assert_close(cell, backwards["cell"][:, :-1])
    torch.testing.assert_close(torch.cat([forwards["state"], backwards["state"]], dim=2), lstm(x))
    (gru,) = gates_over_time(layer := Recurrent("gru", 3, 4), x, torch.tensor([5, 3]))
    assert set(gru) == {"reset", "update", "new", "state"} and not gru["update"][1, 3:].any()
    torch.testing.assert_close(gru["state"][0], layer(x)[0])


def test_a_forget_gate_starts_open() -> None:
    layer = Recurrent("lstm", 3, 4, layers=2, bidirectional=True, forget_bias=1.0)
    for gates in gates_over_time(layer, torch.zeros(1, 1, 3))[:2]:  # no input and no state: the biases alone
        torch.testing.assert_close(gates["forget"], torch.full((1, 1, 4), 1 / (1 + np.exp(-1.0)), dtype=torch.float32))
    with pytest.raises(InputError, match="gru has no forget gate"):
        Recurrent("gru", 3, 4, forget_bias=1.0)
