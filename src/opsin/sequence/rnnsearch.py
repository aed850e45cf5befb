"""Neural Machine Translation by Jointly Learning to Align and Translate. Bahdanau, Cho, Bengio 2015, arXiv:1409.0473.

The idea: a sentence need not fit into one vector. The encoder keeps an annotation of every word, read in both
directions, and the decoder, before each word it writes, looks for those that matter: attention. What the paper draws
as an alignment are these weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from opsin.checks import check_count, check_probability
from opsin.nn.attention import AdditiveAttention
from opsin.nn.recurrent import Cell, Kind, Recurrent
from opsin.ops.generation import State
from opsin.registry import NO_IMAGES, Published, register
from opsin.sequence.encoder_decoder import EncoderDecoder, Outputs, check_tokens, shift
from opsin.sequence.tokens import PAD


class RNNsearch(EncoderDecoder):
    """Appendix A of the paper: gated units that reset before the product, additive attention, maxout before the scores.

    cell: kind of the units. hidden: of each. embedding: of words. maxout: units before the scores, each the larger of
    two numbers. dropout: of embeddings and before the scores; the paper has none. smoothing: of labels.

    The state before a word, s, looks at the annotations h: e = v tanh(W s + U h); the context c is their mean by
    softmax(e); then the scores are of maxout(U s + V y + C c), y the word before, and the next state is a cell's step
    with [y; c]. As appendix A.2.2 prints it, scores are of the state before the step.

    Outputs are memory (B, S, 2 x hidden), seen (B, S) and state0 (B, hidden). The paper leaves biases out of its
    equations for readability; here cells, the first state, the maxout and the scores have one each.
    """

    def __init__(
        self,
        *,
        source_vocabulary: int = 30_000,
        target_vocabulary: int = 30_000,
        cell: Kind = "gru_reset_before",
        hidden: int = 1000,
        embedding: int = 620,
        maxout: int = 500,
        dropout: float = 0.0,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__(source_vocabulary, target_vocabulary, smoothing)
        check_count("hidden", hidden)
        check_count("embedding", embedding)
        check_count("maxout", maxout)
        self.embed_source = nn.Embedding(source_vocabulary, embedding, padding_idx=PAD)
        self.embed_target = nn.Embedding(target_vocabulary, embedding, padding_idx=PAD)
        self.dropout = nn.Dropout(check_probability("dropout", dropout))
        self.encoder = Recurrent(cell, embedding, hidden, bidirectional=True)
        self.first_state = nn.Linear(hidden, hidden)
        self.attend = AdditiveAttention(hidden, 2 * hidden, hidden)
        self.decoder = Cell(cell, embedding + 2 * hidden, hidden, shared_bias=True)
        self.combine = nn.Linear(hidden + embedding + 2 * hidden, 2 * maxout)
        self.predict = nn.Linear(maxout, target_vocabulary)

    def forward(self, source: Tensor) -> Outputs:
        check_tokens(type(self).__name__, source, self.source_vocabulary, behind=True)
        seen = source != PAD
        memory, state = self.encoder.run(self.dropout(self.embed_source(source)), lengths=seen.sum(dim=1))
        backwards = state[0][:, 1]  # what was read from the end to the first word
        return {"memory": memory, "seen": seen, "state0": torch.tanh(self.first_state(backwards))}

    def start(self, outputs: Outputs) -> tuple[Outputs, State]:
        fixed = {name: outputs[name] for name in ("memory", "seen")}
        fixed["keys"] = self.attend.project(outputs["memory"])
        first = outputs["state0"]
        return fixed, (first, *self.decoder.initial_state(first)[1:])

    def step(self, tokens: Tensor, state: State, fixed: Outputs) -> tuple[Tensor, State]:
        vector, state, _ = self._advance(tokens, state, fixed)
        return self.predict(self.dropout(vector)), state

    def _advance(self, tokens: Tensor, state: State, fixed: Outputs) -> tuple[Tensor, State, Tensor]:
        """The maxout (B, maxout), the next state, and where it looked, (B, S)."""
        y = self.dropout(self.embed_target(tokens))
        context, weights = self.attend.attend(state[0][:, None], fixed["keys"], fixed["memory"], fixed["seen"][:, None])
        context = context[:, 0]
        vector = self.combine(torch.cat([state[0], y, context], dim=1)).unflatten(1, (-1, 2)).amax(dim=2)
        return vector, self.decoder(torch.cat([y, context], dim=1), state), weights[:, 0]

    def _read(self, outputs: Outputs, previous: Tensor) -> tuple[Tensor, Tensor]:
        fixed, state = self.start(outputs)
        vectors, looks = list[Tensor](), list[Tensor]()
        for tokens in previous.unbind(dim=1):
            vector, state, look = self._advance(tokens, state, fixed)
            vectors.append(vector)
            looks.append(look)
        return torch.stack(vectors, dim=1), torch.stack(looks, dim=1)

    def teach(self, outputs: Outputs, previous: Tensor) -> Tensor:
        return self.predict(self.dropout(self._read(outputs, previous)[0]))

    def attention(self, outputs: Outputs, tokens: Tensor) -> Tensor | None:
        return self._read(outputs, shift(tokens)[0])[1]


@register(
    "rnnsearch",
    task="sequence",
    network=RNNsearch,
    published=Published(
        "arXiv:1409.0473",
        2015,
        NO_IMAGES,
        80_442_000,
        metrics={"WMT14 EN-FR BLEU": 26.75},
        idea="before each word the decoder looks for the source words that matter: attention",
        source="derived: appendix A, with the biases that it leaves out",
    ),
)
def rnnsearch(**options: Any) -> RNNsearch:
    return RNNsearch(**options)
