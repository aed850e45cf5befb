"""Recurrent layers: what a network reads in order, one step after another, and what it keeps of it.

RNN (Elman 1990), LSTM (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000) and GRU (Cho et al.
2014, arXiv:1406.1078), each in two forms that are equal: a cell, written out, that takes one step, and torch's fused
layer, which takes all of them. The weights of both have the same shapes, names and order of gates. Their NumPy twins
stand in the package's `scratch`, with the gradients.

Two kinds have no fused layer. "gru_reset_before" resets the state before the product, W (r h), as Cho et al. print it;
"gru" resets after it, r (W h), as cuDNN and torch do. "lstm_affine_output" is the LSTM of some lecture notes, with an
affine map inside the last tanh, h' = o tanh(V c' + d); the published one has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.checks import check_count, check_probability
from opsin.errors import InputError, unknown

Kind: TypeAlias = Literal["rnn", "lstm", "gru", "gru_reset_before", "lstm_affine_output"]
State: TypeAlias = tuple[Tensor, ...]  # what is kept, each (B, hidden): (h,), or of an LSTM (h, c)
Weights: TypeAlias = tuple[Tensor, Tensor, Tensor | None, Tensor | None]  # of input and state, and their biases
Gates: TypeAlias = dict[str, Tensor]  # by name, each (B, hidden)

KINDS = ("rnn", "lstm", "gru", "gru_reset_before", "lstm_affine_output")
_FUSED: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
_GATES = {"rnn": 1, "lstm": 4, "gru": 3, "gru_reset_before": 3, "lstm_affine_output": 4}
_PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def rnn_gates(x: Tensor, state: State, weights: Weights) -> Gates:
    """{"new": tanh(W x + U h + b)}: without gates, all is written anew."""
    w_ih, w_hh, b_ih, b_hh = weights
    return {"new": torch.tanh(F.linear(x, w_ih, b_ih) + F.linear(state[0], w_hh, b_hh))}


def rnn_step(x: Tensor, state: State, weights: Weights) -> State:
    """h' = tanh(W x + U h + b). x: (B, C); weights: (hidden, C), (hidden, hidden), and two biases (hidden,)."""
    return (rnn_gates(x, state, weights)["new"],)


def lstm_gates(x: Tensor, state: State, weights: Weights) -> Gates:
    """Input, forget and output in (0, 1), and what is new in (-1, 1), of one product with x and one with h."""
    w_ih, w_hh, b_ih, b_hh = weights[:4]
    i, f, g, o = (F.linear(x, w_ih, b_ih) + F.linear(state[0], w_hh, b_hh)).chunk(4, dim=1)
    return {"input": i.sigmoid(), "forget": f.sigmoid(), "new": g.tanh(), "output": o.sigmoid()}


def lstm_step(x: Tensor, state: State, weights: Weights) -> State:
    """c' = f c + i g, h' = o tanh(c'). weights: four times as high as in `rnn_step`, in torch's order i, f, g, o."""
    gates = lstm_gates(x, state, weights)
    c = gates["forget"] * state[1] + gates["input"] * gates["new"]
    return gates["output"] * c.tanh(), c


def lstm_affine_output_step(x: Tensor, state: State, weights: tuple[Any, ...]) -> State:
    """c' = f c + i g, h' = o tanh(V c' + d). weights: those of `lstm_step`, then V (hidden, hidden) and d (hidden,)."""
    gates = lstm_gates(x, state, weights[:4])
    c = gates["forget"] * state[1] + gates["input"] * gates["new"]
    return gates["output"] * F.linear(c, *weights[4:]).tanh(), c


def gru_gates(x: Tensor, state: State, weights: Weights) -> Gates:
    """Reset and update in (0, 1), and what is new in (-1, 1): n = tanh(W x + r (U h))."""
    w_ih, w_hh, b_ih, b_hh = weights
    r_x, z_x, n_x = F.linear(x, w_ih, b_ih).chunk(3, dim=1)
    r_h, z_h, n_h = F.linear(state[0], w_hh, b_hh).chunk(3, dim=1)
    r = (r_x + r_h).sigmoid()
    return {"reset": r, "update": (z_x + z_h).sigmoid(), "new": (n_x + r * n_h).tanh()}


def gru_step(x: Tensor, state: State, weights: Weights) -> State:
    """h' = (1 - z) n + z h, n = tanh(W x + r (U h)). weights: three times as high, in torch's order r, z, n."""
    return _mixed(gru_gates(x, state, weights), state)


def gru_reset_before_gates(x: Tensor, state: State, weights: Weights) -> Gates:
    """Reset and update in (0, 1), and what is new in (-1, 1): n = tanh(W x + U (r h)), Cho et al. 2014, eq. 8."""
    w_ih, w_hh, b_ih, b_hh = weights
    hidden = w_hh.shape[1]
    h, of_x = state[0], F.linear(x, w_ih, b_ih)
    gates = of_x[:, : 2 * hidden] + F.linear(h, w_hh[: 2 * hidden], None if b_hh is None else b_hh[: 2 * hidden])
    r, z = gates.sigmoid().chunk(2, dim=1)
    n_h = F.linear(r * h, w_hh[2 * hidden :], None if b_hh is None else b_hh[2 * hidden :])
    return {"reset": r, "update": z, "new": (of_x[:, 2 * hidden :] + n_h).tanh()}


def gru_reset_before_step(x: Tensor, state: State, weights: Weights) -> State:
    """h' = (1 - z) n + z h, n = tanh(W x + U (r h)). weights: as in `gru_step`."""
    return _mixed(gru_reset_before_gates(x, state, weights), state)


def _mixed(gates: Gates, state: State) -> State:
    z = gates["update"]
    return ((1 - z) * gates["new"] + z * state[0],)


STEPS: dict[str, Callable[[Tensor, State, Any], State]] = {
    "rnn": rnn_step,
    "lstm": lstm_step,
    "gru": gru_step,
    "gru_reset_before": gru_reset_before_step,
    "lstm_affine_output": lstm_affine_output_step,
}
_GATES_OF: dict[str, Callable[[Tensor, State, Any], Gates]] = {
    "rnn": rnn_gates,
    "lstm": lstm_gates,
    "gru": gru_gates,
    "gru_reset_before": gru_reset_before_gates,
    "lstm_affine_output": lstm_gates,
}


class Cell(nn.Module):
    """One step of a kind of recurrent layer: (B, in_channels) and a state -> the next state, whose first is the output.

    The parameters are those of torch's cells, by their names and with their start: uniform within 1 / sqrt(hidden).
    shared_bias: one for input and state, as papers print it; torch has two, of which the sum alone counts, but for the
    one inside the reset of "gru".
    """

    def __init__(
        self, kind: Kind, in_channels: int, hidden: int, *, bias: bool = True, shared_bias: bool = False
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise unknown("kind", kind, KINDS)
        self.in_channels = check_count("in_channels", in_channels)
        self.kind, self.hidden = kind, check_count("hidden", hidden)
        rows = _GATES[kind] * hidden
        self._add("weight_ih", rows, in_channels)
        self._add("weight_hh", rows, hidden)
        self._add("bias_ih", *([rows] if bias else []))
        self._add("bias_hh", *([rows] if bias and not shared_bias else []))
        if kind == "lstm_affine_output":
            self._add("weight_out", hidden, hidden)
            self._add("bias_out", *([hidden] if bias else []))

    def _add(self, name: str, *shape: int) -> None:
        bound = self.hidden**-0.5
        made = nn.Parameter(torch.empty(shape).uniform_(-bound, bound)) if shape else None
        self.register_parameter(name, made)

    @property
    def weights(self) -> Any:
        """What the step of its kind takes."""
        names = _PARAMETERS if self.kind != "lstm_affine_output" else (*_PARAMETERS, "weight_out", "bias_out")
        return tuple(getattr(self, name) for name in names)

    def initial_state(self, x: Tensor) -> State:
        """Zeros, for a batch like x: (B, anything)."""
        return tuple(x.new_zeros(x.shape[0], self.hidden) for _ in range(count_states(self.kind)))

    def forward(self, x: Tensor, state: State | None = None) -> State:
        return STEPS[self.kind](x, self.initial_state(x) if state is None else state, self.weights)


class CellStack(nn.Module):
    """Cells in layers and directions, for the kinds that have no fused layer, with one bias. Walked by `unroll`.

    cells: in torch's order, of each layer the one that reads forwards, and then the one that reads backwards.
    """

    def __init__(
        self, kind: Kind, in_channels: int, hidden: int, layers: int, *, dropout: float, bidirectional: bool
    ) -> None:
        super().__init__()
        self.kind, self.input_size, self.hidden_size, self.num_layers = kind, in_channels, hidden, layers
        self.dropout, self.bidirectional = dropout, bidirectional
        ways = 2 if bidirectional else 1
        widths = [in_channels if layer == 0 else ways * hidden for layer in range(layers)]
        self.cells = nn.ModuleList(Cell(kind, width, hidden, shared_bias=True) for width in widths for _ in range(ways))


class Recurrent(nn.Module):
    """A sequence (B, T, in_channels) -> (B, T, hidden), or twice that where it is read in both directions.

    layers: stacked. bidirectional: a second layer reads from the end, and its outputs stand behind the first's.
    dropout: between stacked layers. fused: torch's layer takes all steps at once; False runs `unroll`, the same result
    step by step, for reading and for runtimes that have no such layer. forget_bias: where the forget gates of an LSTM
    start, 1 by Jozefowicz et al. 2015 (proceedings.mlr.press/v37/jozefowicz15.html); None leaves torch's start.
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
        forget_bias: float | None = None,
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
        if forget_bias is not None and not kind.startswith("lstm"):
            raise InputError(f"forget_bias={forget_bias} is of an LSTM; {kind} has no forget gate, leave it out")
        self.kind, self.hidden, self.fused = kind, hidden, fused
        self.out_channels = hidden * (2 if bidirectional else 1)
        self.network: nn.RNNBase | CellStack
        if kind in _FUSED:
            self.network = _FUSED[kind](
                in_channels, hidden, layers, batch_first=True, dropout=dropout, bidirectional=bidirectional
            )
        else:
            self.network = CellStack(kind, in_channels, hidden, layers, dropout=dropout, bidirectional=bidirectional)
        if forget_bias is not None:
            self._start_forgetting(forget_bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)[0]

    def run(self, x: Tensor, state: State | None = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """The outputs, and the state behind the last step: (h,) or (h, c), each (B, layers x directions, hidden).

        state: to begin with, of the same form; zeros if None. lengths: (B,) int64, how many steps of each sequence
        count; what is behind them changes nothing, and its outputs are zeros.
        """
        if x.ndim != 3 or x.shape[2] != self.network.input_size:
            raise InputError(f"this recurrent layer takes (B, T, {self.network.input_size}), got {tuple(x.shape)}")
        tracing = torch.compiler.is_compiling()
        if lengths is not None and not tracing and (x.is_meta or bool((lengths == x.shape[1]).all())):
            lengths = None  # torch's layer is faster where nothing is padded; on "meta" all steps are counted
        one_by_one = lengths is not None or x.shape[1] == 1
        if isinstance(self.network, CellStack) or not self.fused or (tracing and one_by_one):
            return unroll_with_state(self.network, x, state, lengths)
        return _run_fused(self.network, x, state, lengths)

    def initial_state(self, batch: int) -> State:
        """Zeros for `run`, for a batch of that many."""
        like = next(self.network.parameters())
        rows = self.network.num_layers * (2 if self.network.bidirectional else 1)
        return tuple(like.new_zeros(batch, rows, self.hidden) for _ in range(count_states(self.kind)))

    def _start_forgetting(self, value: float) -> None:
        forget = slice(self.hidden, 2 * self.hidden)
        with torch.no_grad():
            for name, parameter in self.network.named_parameters():
                if "bias_ih" in name:
                    parameter[forget] = value
                elif "bias_hh" in name:
                    parameter[forget] = 0


def _run_fused(network: nn.RNNBase, x: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
    given: Any = None
    if state is not None:
        rows = tuple(part.transpose(0, 1).contiguous() for part in state)
        given = rows if network.mode == "LSTM" else rows[0]
    if lengths is None:
        y, after = network(x, given)
    else:
        # a sequence of no steps cannot be packed: it is read for one, and what came of it is taken back below
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths.clamp(min=1).cpu(), True, enforce_sorted=False)
        y, after = network(packed, given)
        y = nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])[0]
    after = tuple(part.transpose(0, 1) for part in (after if isinstance(after, tuple) else (after,)))
    if lengths is None or bool((lengths > 0).all()):
        return y, after
    none = (lengths == 0)[:, None, None]
    before = tuple(torch.zeros_like(part) for part in after) if state is None else state
    return y.masked_fill(none, 0), tuple(torch.where(none, *pair) for pair in zip(before, after, strict=True))


def unroll(network: nn.RNNBase | CellStack, x: Tensor) -> Tensor:
    """What torch's RNN, LSTM or GRU makes of a sequence, (B, T, C) -> (B, T, hidden x directions), step by step.

    Raises InputError for a form that the steps here do not have: ReLU, a projection, or (T, B, C).
    """
    return unroll_with_state(network, x)[0]


def unroll_with_state(
    network: nn.RNNBase | CellStack, x: Tensor, state: State | None = None, lengths: Tensor | None = None
) -> tuple[Tensor, State]:
    """`unroll`, with states and lengths as in `Recurrent.run`."""
    kind, after = _kind_of(network), list[State]()
    for layer in range(network.num_layers):
        if layer and network.dropout:
            x = F.dropout(x, network.dropout, network.training)
        ways = []
        for place, weights in _weights_of(network, layer):
            first = None if state is None else tuple(part[:, place] for part in state)
            y, last = _walk(kind, x, weights, first, lengths, backwards=place - layer * _ways(network) == 1)
            ways.append(y)
            after.append(last)
        x = torch.cat(ways, dim=2)
    return x, tuple(torch.stack(parts, dim=1) for parts in zip(*after, strict=True))


def gates_over_time(network: Recurrent, x: Tensor, lengths: Tensor | None = None) -> list[Gates]:
    """What every gate of every layer and direction did: of each a dict of (B, T, hidden), with the state it led to.

    In torch's order: of each layer the one that reads forwards, then the one that reads backwards. Names are "new",
    "state" and, by kind, "input", "forget", "output" and "cell", or "reset" and "update". A reader of what a network
    keeps: an LSTM whose forget gate stays near 1 carries its cell on. Zeros behind the lengths (B,).
    """
    found, inner = list[Gates](), network.network
    for layer in range(inner.num_layers):
        ways = []
        for place, weights in _weights_of(inner, layer):
            seen = list[Gates]()
            backwards = place - layer * _ways(inner) == 1
            y, _ = _walk(network.kind, x, weights, None, lengths, backwards=backwards, seen=seen)
            found.append({name: torch.stack([one[name] for one in seen], dim=1) for name in (seen[0] if seen else ())})
            ways.append(y)
        x = torch.cat(ways, dim=2)
    return found


def count_states(kind: str) -> int:
    """How many tensors a state of that kind is: two of an LSTM, h and c, else one."""
    return 2 if kind.startswith("lstm") else 1


def _walk(
    kind: str, x: Tensor, weights: Any, state: State | None, lengths: Tensor | None, *, backwards: bool,
    seen: list[Gates] | None = None,
) -> tuple[Tensor, State]:  # fmt: skip
    hidden = weights[1].shape[1]
    state = tuple(x.new_zeros(x.shape[0], hidden) for _ in range(count_states(kind))) if state is None else state
    shown = list[Tensor]()
    for t in reversed(range(x.shape[1])) if backwards else range(x.shape[1]):
        after = STEPS[kind](x[:, t], state, weights)
        reading = None if lengths is None else (t < lengths)[:, None]
        if seen is not None:
            gates = _GATES_OF[kind](x[:, t], state, weights) | dict(zip(("state", "cell"), after, strict=False))
            seen.append(gates if reading is None else {name: gate * reading for name, gate in gates.items()})
        if reading is None:
            state = after
            shown.append(state[0])
        else:
            state = tuple(torch.where(reading, new, old) for new, old in zip(after, state, strict=True))
            shown.append(state[0] * reading)
    if backwards and seen is not None:
        seen.reverse()
    y = torch.stack(shown[::-1] if backwards else shown, dim=1) if shown else x.new_zeros(x.shape[0], 0, hidden)
    return y, state


def _kind_of(network: nn.RNNBase | CellStack) -> str:
    if isinstance(network, CellStack):
        return network.kind
    if network.mode == "RNN_RELU" or network.proj_size or not network.batch_first:
        raise InputError(f"{network} is not unrolled; take tanh, no proj_size, and batch_first=True")
    return network.mode.partition("_")[0].lower()


def _ways(network: nn.RNNBase | CellStack) -> int:
    return 2 if network.bidirectional else 1


def _weights_of(network: nn.RNNBase | CellStack, layer: int) -> Sequence[tuple[int, Any]]:
    """The weights of a layer's directions, with their places among all of them."""
    found = []
    for way in range(_ways(network)):
        place = layer * _ways(network) + way
        if isinstance(network, CellStack):
            cell: Any = network.cells[place]
            found.append((place, cell.weights))
        else:
            suffix = "_reverse" if way else ""
            names = (f"{name}_l{layer}{suffix}" for name in _PARAMETERS)
            found.append((place, tuple(getattr(network, name, None) for name in names)))
    return found


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
