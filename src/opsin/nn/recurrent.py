"""Recurrent layers: what a network reads in order, one step after another, and what it keeps of it.

RNN (Elman 1990), LSTM (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000) and GRU (Cho et al.
2014, arXiv:1406.1078, with the reset inside the product, as cuDNN has it), each in two forms that are equal: a cell,
written out, that takes one step, and torch's fused layer, which takes all of them. The weights of both have the same
shapes, names and order of gates. Their NumPy twins stand in the package's `scratch`, with the gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.checks import check_count, check_probability
from opsin.errors import InputError, unknown

Kind: TypeAlias = Literal["rnn", "lstm", "gru"]
State: TypeAlias = tuple[Tensor, ...]  # what is kept, each (B, hidden): (h,), or of an LSTM (h, c)
Weights: TypeAlias = tuple[Tensor, Tensor, Tensor | None, Tensor | None]  # of input and state, and their biases

KINDS = ("rnn", "lstm", "gru")
_FUSED: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
_GATES = {"rnn": 1, "lstm": 4, "gru": 3}


def rnn_step(x: Tensor, state: State, weights: Weights) -> State:
    """h' = tanh(W x + U h + b). x: (B, C); weights: (hidden, C), (hidden, hidden), and two biases (hidden,)."""
    w_ih, w_hh, b_ih, b_hh = weights
    return (torch.tanh(F.linear(x, w_ih, b_ih) + F.linear(state[0], w_hh, b_hh)),)


def lstm_step(x: Tensor, state: State, weights: Weights) -> State:
    """c' = f c + i g, h' = o tanh(c'). weights: four times as high as in `rnn_step`, in torch's order i, f, g, o."""
    w_ih, w_hh, b_ih, b_hh = weights
    h, c = state
    i, f, g, o = (F.linear(x, w_ih, b_ih) + F.linear(h, w_hh, b_hh)).chunk(4, dim=1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def gru_step(x: Tensor, state: State, weights: Weights) -> State:
    """h' = (1 - z) n + z h, n = tanh(W x + r (U h)). weights: three times as high, in torch's order r, z, n."""
    w_ih, w_hh, b_ih, b_hh = weights
    h = state[0]
    r_x, z_x, n_x = F.linear(x, w_ih, b_ih).chunk(3, dim=1)
    r_h, z_h, n_h = F.linear(h, w_hh, b_hh).chunk(3, dim=1)
    z = (z_x + z_h).sigmoid()
    n = (n_x + (r_x + r_h).sigmoid() * n_h).tanh()
    return ((1 - z) * n + z * h,)


STEPS: dict[str, Callable[[Tensor, State, Weights], State]] = {"rnn": rnn_step, "lstm": lstm_step, "gru": gru_step}


class Cell(nn.Module):
    """One step of an RNN, LSTM or GRU: (B, in_channels) and a state -> the next state, whose first is the output.

    The parameters are those of torch's cells, by their names and with their start: uniform within 1 / sqrt(hidden).
    """

    def __init__(self, kind: Kind, in_channels: int, hidden: int, *, bias: bool = True) -> None:
        super().__init__()
        if kind not in KINDS:
            raise unknown("kind", kind, KINDS)
        check_count("in_channels", in_channels)
        self.kind, self.hidden = kind, check_count("hidden", hidden)
        rows, bound = _GATES[kind] * hidden, hidden**-0.5
        for name, shape in (("weight_ih", (rows, in_channels)), ("weight_hh", (rows, hidden))):
            self.register_parameter(name, nn.Parameter(torch.empty(shape).uniform_(-bound, bound)))
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, nn.Parameter(torch.empty(rows).uniform_(-bound, bound)) if bias else None)

    def initial_state(self, x: Tensor) -> State:
        """Zeros, for a batch like x: (B, anything)."""
        return tuple(x.new_zeros(x.shape[0], self.hidden) for _ in range(_states(self.kind)))

    def forward(self, x: Tensor, state: State | None = None) -> State:
        weights: Any = self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh
        return STEPS[self.kind](x, self.initial_state(x) if state is None else state, weights)


class Recurrent(nn.Module):
    """A sequence (B, T, in_channels) -> (B, T, hidden), or twice that where it is read in both directions.

    layers: stacked. bidirectional: a second layer reads from the end, and its outputs stand behind the first's.
    dropout: between stacked layers. fused: torch's layer takes all steps at once; False runs `unroll`, the same result
    step by step, for reading and for runtimes that have no such layer.
    """

    def __init__(
        self,
        kind: Kind,
        in_channels: int,
        hidden: int,
        *,
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        fused: bool = True,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise unknown("kind", kind, KINDS)
        check_count("in_channels", in_channels)
        check_count("hidden", hidden)
        check_count("layers", layers)
        check_probability("dropout", dropout)
        if dropout and layers == 1:
            raise InputError(f"dropout={dropout} is between layers, and there is one; take layers=2")
        self.kind, self.fused = kind, fused
        self.out_channels = hidden * (2 if bidirectional else 1)
        self.network = _FUSED[kind](
            in_channels, hidden, layers, batch_first=True, dropout=dropout, bidirectional=bidirectional
        )

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 3 or x.shape[2] != self.network.input_size:
            raise InputError(f"this recurrent layer takes (B, T, {self.network.input_size}), got {tuple(x.shape)}")
        return self.network(x)[0] if self.fused else unroll(self.network, x)


def unroll(network: nn.RNNBase, x: Tensor) -> Tensor:
    """What torch's RNN, LSTM or GRU makes of a sequence, (B, T, C) -> (B, T, hidden x directions), step by step.

    Raises InputError for a form that the steps here do not have: ReLU, a projection, or (T, B, C).
    """
    if network.mode == "RNN_RELU" or network.proj_size or not network.batch_first:
        raise InputError(f"{network} is not unrolled; take tanh, no proj_size, and batch_first=True")
    kind = network.mode.partition("_")[0].lower()
    for layer in range(network.num_layers):
        if layer and network.dropout:
            x = F.dropout(x, network.dropout, network.training)
        ways = []
        for suffix in ("", "_reverse") if network.bidirectional else ("",):
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            weights: Any = tuple(getattr(network, f"{name}_l{layer}{suffix}", None) for name in names)
            ways.append(_walk(kind, x, weights, network.hidden_size, backwards=bool(suffix)))
        x = torch.cat(ways, dim=2)
    return x


def _walk(kind: str, x: Tensor, weights: Weights, hidden: int, *, backwards: bool) -> Tensor:
    state: State = tuple(x.new_zeros(x.shape[0], hidden) for _ in range(_states(kind)))
    shown = []
    for t in reversed(range(x.shape[1])) if backwards else range(x.shape[1]):
        state = STEPS[kind](x[:, t], state, weights)
        shown.append(state[0])
    return torch.stack(shown[::-1] if backwards else shown, dim=1) if shown else x.new_zeros(x.shape[0], 0, hidden)


def _states(kind: str) -> int:
    return 2 if kind == "lstm" else 1


class BidirectionalLSTM(nn.Module):
    """An LSTM in both directions, and a linear layer that mixes them: (B, T, in_channels) -> (B, T, out_channels).

    out_channels: None leaves the linear layer out, and gives 2 x hidden.
    """

    def __init__(self, in_channels: int, hidden: int, out_channels: int | None, *, fused: bool = True) -> None:
        super().__init__()
        self.recurrent = Recurrent("lstm", in_channels, hidden, bidirectional=True, fused=fused)
        self.mix: nn.Module = nn.Identity() if out_channels is None else nn.Linear(2 * hidden, out_channels)
        self.out_channels = out_channels or 2 * hidden

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(self.recurrent(x))
