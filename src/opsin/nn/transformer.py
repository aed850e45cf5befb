"""The layers of a Transformer: attention and a small network for each place, each around a sum and a norm.

Attention Is All You Need. Vaswani et al. 2017, arXiv:1706.03762, section 3. The idea: every place of a sequence looks
at every other in one step, so that nothing has to be carried along and all places are computed at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.checks import check_count, check_probability
from opsin.errors import InputError, unknown
from opsin.nn.attention import MultiHeadAttention

Activation: TypeAlias = Literal["relu", "gelu"]
KeysValues: TypeAlias = tuple[Tensor, Tensor]  # each (B, heads, K, features / heads)

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}


class FeedForward(nn.Module):
    """W relu(V x + b) + d for each place by itself: (..., features) in and out. Section 3.3."""

    def __init__(self, features: int, hidden: int, *, activation: Activation = "relu", dropout: float = 0.0) -> None:
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise unknown("activation", activation, _ACTIVATIONS)
        self.activation = _ACTIVATIONS[activation]
        self.widen = nn.Linear(features, check_count("hidden", hidden))
        self.narrow = nn.Linear(hidden, features)
        self.dropout = nn.Dropout(check_probability("dropout", dropout))
        for linear in (self.widen, self.narrow):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(self.dropout(self.activation(self.widen(x))))


class Residual(nn.Module):
    """norm(x + dropout(f(x))), as published; with pre_norm x + dropout(f(norm(x))).

    forward(x, f). With the norm inside, gradients at the start do not depend on depth, and no warm-up is needed: Xiong
    et al. 2020, arXiv:2002.04745.
    """

    def __init__(self, features: int, dropout: float, *, pre_norm: bool) -> None:
        super().__init__()
        self.norm, self.dropout, self.pre_norm = nn.LayerNorm(features), nn.Dropout(dropout), pre_norm

    def forward(self, x: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        if self.pre_norm:
            return x + self.dropout(f(self.norm(x)))
        return self.norm(x + self.dropout(f(x)))

    def inner(self, x: Tensor) -> Tensor:
        """What f is given."""
        return self.norm(x) if self.pre_norm else x


class TransformerLayer(nn.Module):
    """One layer: (B, L, features) in and out. An encoder's, or with `crosses` a decoder's, which looks at a memory too.

    heads: of each attention. hidden: of the feed-forward network. dropout: of what each part adds, as published;
    attention_dropout: of the weights of attention, inner_dropout: inside the feed-forward network, which later programs
    added. pre_norm: see `Residual`.
    """

    def __init__(
        self,
        features: int = 512,
        heads: int = 8,
        hidden: int = 2048,
        *,
        crosses: bool = False,
        dropout: float = 0.1,
        attention_dropout: float = 0.0,
        inner_dropout: float = 0.0,
        activation: Activation = "relu",
        pre_norm: bool = False,
    ) -> None:
        super().__init__()
        check_probability("dropout", dropout)
        self.attend = MultiHeadAttention(features, heads, dropout=attention_dropout)
        self.around_attend = Residual(features, dropout, pre_norm=pre_norm)
        self.cross = MultiHeadAttention(features, heads, dropout=attention_dropout) if crosses else None
        self.around_cross = Residual(features, dropout, pre_norm=pre_norm) if crosses else None
        self.feed = FeedForward(features, hidden, activation=activation, dropout=inner_dropout)
        self.around_feed = Residual(features, dropout, pre_norm=pre_norm)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        *,
        causal: bool = False,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
    ) -> Tensor:
        """mask, memory_mask: bool, True where a place may look, (B, 1 or L, L) and (B, 1 or L, S).

        causal: each place looks at those up to its own. memory: (B, S, features). A place that may look nowhere gets
        zeros of attention, never NaN. Raises InputError for a memory without `crosses`, or the other way round.
        """
        x = self.around_attend(x, lambda y: self.attend(y, mask=mask, causal=causal))
        if (self.cross is None) != (memory is None):
            raise InputError("a layer with crosses=True takes a memory, one without takes none")
        crossed = None if self.cross is None or memory is None else self.cross.project(memory)
        return self._finish(x, crossed, memory_mask)

    def step(
        self,
        x: Tensor,
        past: KeysValues,
        mask: Tensor,
        crossed: KeysValues | None = None,
        memory_mask: Tensor | None = None,
    ) -> tuple[Tensor, KeysValues]:
        """`forward` of the next place alone, (B, 1, features), and the keys and values up to and with it.

        past: those of the places before. mask: (B, 1, places) bool, over all of them. crossed: keys and values of the
        memory, of `cross.project`, which are the same at every step.
        """
        y = self.around_attend.inner(x)
        new = self.attend.project(y)
        keys, values = (torch.cat(pair, dim=2) for pair in zip(past, new, strict=True))
        x = self.around_attend(x, lambda inner: self.attend.attend(inner, keys, values, mask))
        return self._finish(x, crossed, memory_mask), (keys, values)

    def cross_weights(
        self, x: Tensor, mask: Tensor | None, memory: Tensor, memory_mask: Tensor | None, *, causal: bool = True
    ) -> Tensor:
        """Where each head of each place looks in the memory, (B, heads, L, S). Raises InputError without `crosses`."""
        if self.cross is None or self.around_cross is None:
            raise InputError("a layer without crosses=True looks at no memory")
        x = self.around_attend(x, lambda y: self.attend(y, mask=mask, causal=causal))
        return self.cross.weights(self.around_cross.inner(x), memory, memory_mask)

    def _finish(self, x: Tensor, crossed: KeysValues | None, memory_mask: Tensor | None) -> Tensor:
        cross = self.cross
        if cross is not None and self.around_cross is not None and crossed is not None:
            keys, values = crossed
            x = self.around_cross(x, lambda y: cross.attend(y, keys, values, memory_mask))
        return self.around_feed(x, self.feed)
