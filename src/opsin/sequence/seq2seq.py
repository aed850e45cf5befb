"""Sequence to Sequence Learning with Neural Networks. Sutskever, Vinyals, Le 2014, arXiv:1409.3215.

The idea: one LSTM reads a sentence into a vector of fixed size, a second one, started with it, writes the translation.
The source is read backwards, so that its first words stand next to the translation's first.

Effective Approaches to Attention-based Neural Machine Translation. Luong, Pham, Manning 2015, arXiv:1508.04025: at each
step the decoder's state h looks at all states of the encoder, and what is scored is tanh(W [context; h]); the vector is
part of the next input ("input feeding", section 3.3). Their scores are h s ("dot"), h W s ("general"), and
v tanh(W h + U s), here "additive", which they call concat. Attention as Bahdanau et al. have it is `rnnsearch`.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from opsin.checks import check_count, check_probability
from opsin.errors import unknown
from opsin.nn.attention import AdditiveAttention, attention_weights
from opsin.nn.recurrent import Kind, Recurrent, count_states
from opsin.ops.generation import State
from opsin.registry import NO_IMAGES, Published, register
from opsin.sequence.encoder_decoder import EncoderDecoder, Outputs, check_tokens, shift
from opsin.sequence.tokens import PAD

Score: TypeAlias = Literal["dot", "general", "additive"]
SCORES = ("dot", "general", "additive")


class GlobalAttention(nn.Module):
    """tanh(W [context; h]), where the context is the mean of the memory by how well each of it fits h.

    h: (B, Q, features), memory: (B, S, features). score: see this file's first lines.
    """

    def __init__(self, features: int, score: Score) -> None:
        super().__init__()
        if score not in SCORES:
            raise unknown("attention", score, SCORES)
        self.score = score
        self.of_memory = nn.Linear(features, features, bias=False) if score == "general" else nn.Identity()
        self.additive = AdditiveAttention(features, features, features) if score == "additive" else None
        self.combine = nn.Linear(2 * features, features, bias=False)

    def project(self, memory: Tensor) -> Tensor:
        """Keys (B, S, features): what is the same at every step."""
        return self.of_memory(memory) if self.additive is None else self.additive.project(memory)

    def forward(self, h: Tensor, keys: Tensor, memory: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors (B, Q, features), and the weights (B, Q, S). seen: (B, S) bool."""
        if self.additive is None:
            weights = attention_weights(h, keys, seen[:, None], scaled=False)
            context = weights @ memory
        else:
            context, weights = self.additive.attend(h, keys, memory, seen[:, None])
        return torch.tanh(self.combine(torch.cat([context, h], dim=2))), weights


class Seq2Seq(EncoderDecoder):
    """A recurrent encoder, and a recurrent decoder that starts with the encoder's last state.

    cell: kind of both. layers, hidden, embedding: of both. reverse: read the source backwards. attention: "dot",
    "general" or "additive"; None is without, the state alone carries the source. input_feeding: of attention, its
    vector is part of the decoder's next input; it makes training a step at a time. dropout: of embeddings, between
    layers and before the scores. forget_bias: see `Recurrent`. smoothing: of labels.

    Outputs are memory (B, S, hidden) in the order of the source, seen (B, S), and state0 (and state1 of an LSTM), each
    (B, layers, hidden). The state of a step is that of the cells, then the vector that is fed.
    """

    def __init__(
        self,
        *,
        source_vocabulary: int = 160_000,
        target_vocabulary: int = 80_000,
        cell: Kind = "lstm",
        layers: int = 4,
        hidden: int = 1000,
        embedding: int = 1000,
        reverse: bool = True,
        attention: Score | None = None,
        input_feeding: bool = False,
        dropout: float = 0.0,
        forget_bias: float | None = None,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__(source_vocabulary, target_vocabulary, smoothing)
        check_count("embedding", embedding)
        check_probability("dropout", dropout)
        self.reverse, self.feeds = reverse, input_feeding and attention is not None
        self.embed_source = nn.Embedding(source_vocabulary, embedding, padding_idx=PAD)
        self.embed_target = nn.Embedding(target_vocabulary, embedding, padding_idx=PAD)
        recurrent = partial(
            Recurrent, cell, layers=layers, dropout=dropout if layers > 1 else 0.0, forget_bias=forget_bias
        )
        self.encoder = recurrent(embedding, hidden)
        self.decoder = recurrent(embedding + (hidden if self.feeds else 0), hidden)
        self.dropout = nn.Dropout(dropout)
        self.attend = None if attention is None else GlobalAttention(hidden, attention)
        self.predict = nn.Linear(hidden, target_vocabulary)

    def forward(self, source: Tensor) -> Outputs:
        check_tokens(type(self).__name__, source, self.source_vocabulary, behind=True)
        seen = source != PAD
        lengths = seen.sum(dim=1)
        x = self.dropout(self.embed_source(_turned(source[..., None], lengths)[..., 0] if self.reverse else source))
        memory, state = self.encoder.run(x, lengths=lengths)
        memory = _turned(memory, lengths) if self.reverse else memory
        return {"memory": memory, "seen": seen} | {f"state{k}": part for k, part in enumerate(state)}

    def start(self, outputs: Outputs) -> tuple[Outputs, State]:
        state = tuple(outputs[f"state{k}"] for k in range(count_states(self.decoder.kind)))
        if self.attend is None:
            return {}, state
        fixed = {name: outputs[name] for name in ("memory", "seen")}
        fixed["keys"] = self.attend.project(outputs["memory"])
        return fixed, (*state, torch.zeros_like(state[0][:, 0])) if self.feeds else state

    def step(self, tokens: Tensor, state: State, fixed: Outputs) -> tuple[Tensor, State]:
        vector, state, _ = self._advance(tokens[:, None], state, fixed)
        return self.predict(self.dropout(vector))[:, 0], state

    def _advance(self, tokens: Tensor, state: State, fixed: Outputs) -> tuple[Tensor, State, Tensor | None]:
        """What is scored of tokens (B, L), (B, L, hidden); the state behind them; where it looked, (B, L, S)."""
        x = self.dropout(self.embed_target(tokens))
        if self.feeds:  # L is 1
            *kept, fed = state
            y, after = self.decoder.run(torch.cat([x, fed[:, None]], dim=2), tuple(kept))
        else:
            y, after = self.decoder.run(x, state)
        if self.attend is None:
            return y, after, None
        vector, weights = self.attend(y, fixed["keys"], fixed["memory"], fixed["seen"])
        return vector, (*after, vector[:, 0]) if self.feeds else after, weights

    def _read(self, outputs: Outputs, previous: Tensor) -> tuple[Tensor, Tensor | None]:
        fixed, state = self.start(outputs)
        if not self.feeds:
            vectors, _, weights = self._advance(previous, state, fixed)
            return vectors, weights
        found, looks = list[Tensor](), list[Any]()
        for t in range(previous.shape[1]):
            vector, state, weights = self._advance(previous[:, t : t + 1], state, fixed)
            found.append(vector)
            looks.append(weights)
        return torch.cat(found, dim=1), torch.cat(looks, dim=1)

    def teach(self, outputs: Outputs, previous: Tensor) -> Tensor:
        return self.predict(self.dropout(self._read(outputs, previous)[0]))

    def attention(self, outputs: Outputs, tokens: Tensor) -> Tensor | None:
        return self._read(outputs, shift(tokens)[0])[1]


def _turned(x: Tensor, lengths: Tensor) -> Tensor:
    """(B, L, C) with the first `lengths` of each row in the opposite order; what is behind them stays."""
    places = torch.arange(x.shape[1], device=x.device)
    turned = torch.where(places < lengths[:, None], lengths[:, None] - 1 - places, places)
    return x.gather(1, turned[..., None].expand(x.shape))


# Published networks


@register(
    "seq2seq",
    task="sequence",
    network=Seq2Seq,
    published=Published(
        "arXiv:1409.3215",
        2014,
        NO_IMAGES,
        384_144_000,
        metrics={"WMT14 EN-FR BLEU": 30.59},
        idea="one LSTM reads a sentence backwards into a vector, a second one writes the translation from it",
        source="derived: 384 M in the paper, with the biases of cells and scores",
    ),
)
def seq2seq(**options: Any) -> Seq2Seq:
    return Seq2Seq(**options)


@register(
    "luong",
    task="sequence",
    network=Seq2Seq,
    published=Published(
        "arXiv:1508.04025",
        2015,
        NO_IMAGES,
        220_114_000,
        metrics={"WMT14 EN-DE BLEU": 18.1},
        idea="the decoder's state looks at all states of the encoder by a dot product",
        source="derived: table 1, global attention with input feeding and dropout",
    ),
)
def luong(
    *,
    source_vocabulary: int = 50_000,
    target_vocabulary: int = 50_000,
    attention: Score | None = "dot",
    input_feeding: bool = True,
    dropout: float = 0.2,
    **options: Any,
) -> Seq2Seq:
    return Seq2Seq(
        source_vocabulary=source_vocabulary,
        target_vocabulary=target_vocabulary,
        attention=attention,
        input_feeding=input_feeding,
        dropout=dropout,
        **options,
    )
