"""Attention Is All You Need. Vaswani et al. 2017, arXiv:1706.03762.

The idea: no recurrence. Every token looks at every other in one step of attention; where it stands it knows from sines
and cosines added to it; and all tokens of a text are learned from at once, each from those before.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.checks import check_count
from opsin.errors import InputError
from opsin.nn.attention import PositionEncoding
from opsin.nn.transformer import Activation, TransformerLayer
from opsin.ops.generation import State
from opsin.registry import NO_IMAGES, Published, register
from opsin.sequence.encoder_decoder import EncoderDecoder, Outputs, shift
from opsin.sequence.tokens import PAD


class Transformer(EncoderDecoder):
    """As published: norms behind the sums, none at the end, one embedding for source, target and scores.

    features: of each token. heads, hidden: see `TransformerLayer`. layers: of the encoder; decoder_layers: as many if
    None. dropout: of what each part adds, and of embeddings with their positions; attention_dropout, inner_dropout: see
    `TransformerLayer`. pre_norm: norms before each part, and one more at the end of encoder and decoder. shared: False
    gives source, target and scores a table each. max_positions: of the longest text with its start. smoothing: of
    labels.

    Outputs are memory (B, S, features) and seen (B, S). Padding may stand anywhere: it is not seen, and places are
    counted without it. The state of a step is which tokens so far were no padding, (B, t), then keys and values of each
    layer, (B, heads, t, features / heads).
    """

    shared_vocabulary = True

    def __init__(
        self,
        *,
        source_vocabulary: int = 37_000,
        target_vocabulary: int = 37_000,
        features: int = 512,
        heads: int = 8,
        hidden: int = 2048,
        layers: int = 6,
        decoder_layers: int | None = None,
        dropout: float = 0.1,
        attention_dropout: float = 0.0,
        inner_dropout: float = 0.0,
        activation: Activation = "relu",
        pre_norm: bool = False,
        shared: bool = True,
        max_positions: int = 5000,
        smoothing: float = 0.1,
    ) -> None:
        super().__init__(source_vocabulary, target_vocabulary, smoothing)
        if shared and source_vocabulary != target_vocabulary:
            raise InputError(
                f"one table cannot embed source_vocabulary={source_vocabulary} and "
                f"target_vocabulary={target_vocabulary}; make them one vocabulary, or set shared=False"
            )
        check_count("layers", layers)
        self.max_positions = check_count("max_positions", max_positions, least=2)
        layer = partial(
            TransformerLayer, features, heads, hidden, dropout=dropout, attention_dropout=attention_dropout,
            inner_dropout=inner_dropout, activation=activation, pre_norm=pre_norm,
        )  # fmt: skip
        self.embed_source = _embedding(source_vocabulary, features)
        self.embed_target = None if shared else _embedding(target_vocabulary, features)
        self.predict = None if shared else nn.Linear(features, target_vocabulary, bias=False)
        self.place = PositionEncoding(features, max_positions, dropout)
        self.encoder = nn.ModuleList(layer() for _ in range(layers))
        count = layers if decoder_layers is None else check_count("decoder_layers", decoder_layers)
        self.decoder = nn.ModuleList(layer(crosses=True) for _ in range(count))
        self.encoder_norm = nn.LayerNorm(features) if pre_norm else nn.Identity()
        self.decoder_norm = nn.LayerNorm(features) if pre_norm else nn.Identity()

    def forward(self, source: Tensor) -> Outputs:
        self.check_source(source)
        seen = source != PAD
        mask = _mask(seen)
        x = self._embed(self.embed_source, source, None if mask is None else seen)
        for layer in self.encoder:
            x = layer(x, mask)
        return {"memory": self.encoder_norm(x), "seen": seen}

    def teach(self, outputs: Outputs, previous: Tensor) -> Tensor:
        x, mask = self._begin(previous)
        memory, memory_mask = outputs["memory"], _mask(outputs["seen"])
        for layer in self.decoder:
            x = layer(x, mask, causal=mask is None, memory=memory, memory_mask=memory_mask)
        return self._score(x)

    def start(self, outputs: Outputs) -> tuple[Outputs, State]:
        memory, seen = outputs["memory"], outputs["seen"]
        fixed, state = {"seen": seen}, [seen[:, :0]]
        for k, layer in enumerate(self.decoder):
            cross: Any = layer.cross
            keys, values = cross.project(memory)
            fixed |= {f"keys{k}": keys, f"values{k}": values}
            state += [keys[:, :, :0], values[:, :, :0]]
        return fixed, tuple(state)

    def step(self, tokens: Tensor, state: State, fixed: Outputs) -> tuple[Tensor, State]:
        seen = torch.cat([state[0], (tokens != PAD)[:, None]], dim=1)
        if not torch.compiler.is_compiling() and seen.shape[1] > len(self.place.encoding):
            raise InputError(f"a text of {seen.shape[1]} is longer than max_positions={self.max_positions}")
        x = self._embed(self.embed_target or self.embed_source, tokens[:, None], seen)
        after, mask, memory_mask = [seen], seen[:, None], fixed["seen"][:, None]
        for k, layer in enumerate(self.decoder):
            past = state[2 * k + 1], state[2 * k + 2]
            crossed = fixed[f"keys{k}"], fixed[f"values{k}"]
            x, kept = layer.step(x, past, mask, crossed, memory_mask)  # type: ignore[operator]
            after += kept
        return self._score(x)[:, 0], tuple(after)

    def attention(self, outputs: Outputs, tokens: Tensor) -> Tensor | None:
        """The mean of the last layer's heads."""
        return self.cross_attention(outputs, tokens)[-1].mean(dim=1)

    def cross_attention(self, outputs: Outputs, tokens: Tensor) -> list[Tensor]:
        """Where each head of each layer of the decoder looks in the source, (B, heads, L + 1, S) a layer."""
        x, mask = self._begin(shift(tokens)[0])
        memory, memory_mask, found = outputs["memory"], _mask(outputs["seen"]), list[Tensor]()
        for one in self.decoder:
            layer: Any = one
            found.append(layer.cross_weights(x, mask, memory, memory_mask, causal=mask is None))
            x = layer(x, mask, causal=mask is None, memory=memory, memory_mask=memory_mask)
        return found

    def _begin(self, previous: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the decoder's first layer is given, and whom of those before a token may see; all if None."""
        seen = previous != PAD
        mask = _mask(seen)
        if mask is not None:
            mask = mask & mask.new_ones(previous.shape[1], previous.shape[1]).tril()
        embed = self.embed_target or self.embed_source
        return self._embed(embed, previous, None if mask is None else seen), mask

    def _embed(self, table: nn.Embedding, tokens: Tensor, seen: Tensor | None) -> Tensor:
        """Embeddings times sqrt(features), with the places of the last of all `seen` (B, t); 0, 1, ... if None."""
        x = table(tokens) * table.embedding_dim**0.5
        if seen is None:
            return self.place(x)
        return self.place(x, (seen.cumsum(dim=1) - 1).clamp(min=0)[:, -tokens.shape[1] :])

    def _score(self, x: Tensor) -> Tensor:
        x = self.decoder_norm(x)
        return F.linear(x, self.embed_source.weight) if self.predict is None else self.predict(x)


def _embedding(vocabulary: int, features: int) -> nn.Embedding:
    table = nn.Embedding(vocabulary, features, padding_idx=PAD)
    nn.init.normal_(table.weight, std=features**-0.5)  # times sqrt(features) they have the variance of the positions
    return table


def _mask(seen: Tensor) -> Tensor | None:
    """(B, 1, L) of what is seen (B, L); None, which is faster, where that is all, on the processor."""
    if not torch.compiler.is_compiling() and seen.device.type == "cpu" and bool(seen.all()):
        return None
    return seen[:, None]


# Published networks


@register(
    "transformer",
    task="sequence",
    network=Transformer,
    published=Published(
        "arXiv:1706.03762",
        2017,
        NO_IMAGES,
        63_082_496,
        metrics={"WMT14 EN-DE BLEU": 27.3, "WMT14 EN-FR BLEU": 38.1},
        idea="every token looks at every other in one step: attention alone, and no recurrence",
        source="derived: base, 37,000 tokens, one embedding; the paper prints 65 M",
    ),
)
def transformer(**options: Any) -> Transformer:
    return Transformer(**options)


@register(
    "transformer_big",
    task="sequence",
    network=Transformer,
    published=Published(
        "arXiv:1706.03762",
        2017,
        NO_IMAGES,
        214_245_376,
        metrics={"WMT14 EN-DE BLEU": 28.4, "WMT14 EN-FR BLEU": 41.8},
        idea="twice as wide",
        source="derived: big, 37,000 tokens, one embedding; the paper prints 213 M",
    ),
)
def transformer_big(
    *, features: int = 1024, heads: int = 16, hidden: int = 4096, dropout: float = 0.3, **options: Any
) -> Transformer:
    return Transformer(features=features, heads=heads, hidden=hidden, dropout=dropout, **options)
