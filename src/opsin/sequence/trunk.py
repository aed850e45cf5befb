"""What reads one sequence: tokens or rows of numbers -> features of each step, by cells or by a Transformer's layers.

Both kinds have the same three calls. `forward` takes a whole sequence, `step` the next of it with what is kept of those
before, and `summary` makes one vector of all.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from opsin.checks import check_count
from opsin.errors import InputError, unknown
from opsin.nn.attention import PositionEncoding
from opsin.nn.recurrent import KINDS, Kind, Recurrent
from opsin.nn.transformer import TransformerLayer
from opsin.ops.generation import State
from opsin.sequence.encoder_decoder import check_tokens
from opsin.sequence.tokens import PAD, SPECIALS

TrunkKind: TypeAlias = Literal["rnn", "lstm", "gru", "gru_reset_before", "lstm_affine_output", "transformer"]
TRUNKS = (*KINDS, "transformer")


class Steps(nn.Module):
    """A sequence as it is given, tokens (B, L) or rows of numbers (B, L, in_channels), -> (B, L, out_channels).

    vocabulary: of tokens, the specials among them; None takes numbers. width: of an embedding, and of what numbers are
    mapped to; None leaves numbers as they are.
    """

    def __init__(self, vocabulary: int | None, in_channels: int, width: int | None) -> None:
        super().__init__()
        self.vocabulary, self.in_channels = vocabulary, check_count("in_channels", in_channels)
        self.map: nn.Module
        if vocabulary is not None:
            check_count("vocabulary", vocabulary, least=SPECIALS + 1)
            self.map = nn.Embedding(vocabulary, width or in_channels, padding_idx=PAD)
        else:
            self.map = nn.Identity() if width is None else nn.Linear(in_channels, width)
        self.out_channels = width or in_channels

    def forward(self, x: Tensor) -> Tensor:
        return self.map(x)

    def seen(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """(B, L) bool: which steps count. lengths: (B,), of numbers; tokens say it by their padding.

        Raises InputError for what is no batch of such sequences.
        """
        if self.vocabulary is not None:
            check_tokens("the network", x, self.vocabulary, behind=True)
            return x != PAD
        if x.ndim != 3 or x.shape[2] != self.in_channels or not x.is_floating_point():
            raise InputError(f"the network takes rows (B, L, {self.in_channels}) of numbers, got {tuple(x.shape)}")
        if lengths is None:
            return x.new_ones(x.shape[:2], dtype=torch.bool)
        return torch.arange(x.shape[1], device=x.device) < lengths.to(x.device)[:, None]


class RecurrentTrunk(nn.Module):
    """Cells: see `Recurrent`. bidirectional: not of what writes, which cannot know what follows."""

    max_positions: int | None = None

    def __init__(
        self, kind: Kind, steps: Steps, hidden: int, layers: int, *, dropout: float, bidirectional: bool,
        forget_bias: float | None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.steps, self.dropout = steps, nn.Dropout(dropout)
        self.recurrent = Recurrent(
            kind, steps.out_channels, hidden, layers=layers, bidirectional=bidirectional,
            dropout=dropout if layers > 1 else 0.0, forget_bias=forget_bias,
        )  # fmt: skip
        self.out_channels = self.recurrent.out_channels

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """(B, L, out_channels); zeros behind the end of a sequence."""
        return self.dropout(self.recurrent.run(self.dropout(self.steps(x)), lengths=seen.sum(dim=1))[0])

    def summary(self, x: Tensor, seen: Tensor) -> Tensor:
        """(B, out_channels): the last state, of both directions where there are two."""
        _, state = self.recurrent.run(self.dropout(self.steps(x)), lengths=seen.sum(dim=1))
        ways = self.out_channels // self.recurrent.hidden
        return self.dropout(state[0][:, -ways:].flatten(1))

    def initial_state(self, batch: int) -> State:
        """What is kept before the first token."""
        return self.recurrent.initial_state(batch)

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Features (B, out_channels) of the next tokens (B,), and what is kept then."""
        y, after = self.recurrent.run(self.dropout(self.steps(tokens[:, None])), state)
        return self.dropout(y[:, 0]), after


class TransformerTrunk(nn.Module):
    """Layers of a Transformer with their norms inside and one at the end. causal: each step sees those before alone."""

    def __init__(
        self, steps: Steps, layers: int, heads: int, *, dropout: float, causal: bool, max_positions: int
    ) -> None:
        super().__init__()
        features = steps.out_channels
        self.steps, self.causal, self.max_positions = steps, causal, max_positions
        self.place = PositionEncoding(features, max_positions, dropout)
        self.layers = nn.ModuleList(
            TransformerLayer(features, heads, 4 * features, dropout=dropout, pre_norm=True) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(features)
        self.heads, self.out_channels = heads, features
        if steps.vocabulary is not None:
            table: Any = steps.map
            nn.init.normal_(table.weight, std=features**-0.5)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """(B, L, out_channels); what is behind the end of a sequence is not looked at."""
        x = self.place(self._steps(x))
        whole = not torch.compiler.is_compiling() and seen.device.type == "cpu" and bool(seen.all())
        for layer in self.layers:
            x = layer(x, None if whole else seen[:, None], causal=self.causal)
        return self.norm(x)

    def summary(self, x: Tensor, seen: Tensor) -> Tensor:
        """(B, out_channels): the mean of all steps that count; zeros of none."""
        weights = seen.to(self.norm.weight.dtype)[..., None]
        return (self.forward(x, seen) * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)

    def initial_state(self, batch: int) -> State:
        """What is kept before the first token: no keys and values."""
        none = self.norm.weight.new_zeros(batch, self.heads, 0, self.out_channels // self.heads)
        return (none.new_zeros(batch, 0, dtype=torch.bool), *[none] * (2 * len(self.layers)))

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Features (B, out_channels) of the next tokens (B,), and what is kept then."""
        seen = torch.cat([state[0], (tokens != PAD)[:, None]], dim=1)
        if seen.shape[1] > self.max_positions:
            raise InputError(f"a text of {seen.shape[1]} is longer than max_positions={self.max_positions}")
        x = self.place(self._steps(tokens[:, None]), (seen.sum(dim=1, keepdim=True) - 1).clamp(min=0))
        after = [seen]
        for k, layer in enumerate(self.layers):
            x, kept = layer.step(x, (state[2 * k + 1], state[2 * k + 2]), seen[:, None])  # type: ignore[operator]
            after += kept
        return self.norm(x)[:, 0], tuple(after)

    def _steps(self, x: Tensor) -> Tensor:
        scale = self.out_channels**0.5 if self.steps.vocabulary is not None else 1.0
        return self.steps(x) * scale


Trunk: TypeAlias = RecurrentTrunk | TransformerTrunk


def create_trunk(
    kind: TrunkKind,
    *,
    vocabulary: int | None,
    in_channels: int,
    hidden: int,
    layers: int,
    embedding: int | None,
    heads: int,
    dropout: float,
    bidirectional: bool,
    causal: bool,
    forget_bias: float | None,
    max_positions: int,
) -> Trunk:
    """What reads a sequence, by its kind.

    hidden: of cells, or the features of a Transformer. embedding: of tokens, for cells; hidden if None. heads,
    max_positions: of a Transformer; bidirectional, forget_bias: of cells. Raises InputError for an unknown kind.
    """
    if kind not in TRUNKS:
        raise unknown("trunk", kind, TRUNKS)
    check_count("hidden", hidden)
    check_count("layers", layers)
    check_count("max_positions", max_positions, least=2)
    if kind == "transformer":
        steps = Steps(vocabulary, in_channels, hidden)
        return TransformerTrunk(steps, layers, heads, dropout=dropout, causal=causal, max_positions=max_positions)
    width = None if vocabulary is None else (hidden if embedding is None else check_count("embedding", embedding))
    steps = Steps(vocabulary, in_channels, width)
    return RecurrentTrunk(
        kind, steps, hidden, layers, dropout=dropout, bidirectional=bidirectional and not causal,
        forget_bias=forget_bias,
    )  # fmt: skip
