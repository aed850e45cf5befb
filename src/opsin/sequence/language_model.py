"""Language models: the next token of a text from those before. Mikolov et al. 2010 with cells, Radford et al. 2018.

The idea: a text is its own truth. Whatever predicts the next token well has learned what the text is made of, and
writes by drawing one token after another.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.checks import check_count
from opsin.errors import InputError
from opsin.ops.generation import State, write_greedy, write_samples
from opsin.registry import register
from opsin.sequence.encoder_decoder import BANNED, Outputs, token_losses
from opsin.sequence.tokens import END, PAD, SPECIALS, START
from opsin.sequence.trunk import TrunkKind, create_trunk


class LanguageModel(nn.Module):
    """Tokens (B, L) -> {"logits": (B, L, vocabulary)}: of each token by START and the tokens before it.

    trunk: a kind of cells, or "transformer". The other options are those of `create_trunk`.
    """

    answers_with = "next"

    def __init__(
        self,
        *,
        vocabulary: int = 132,
        trunk: TrunkKind = "lstm",
        hidden: int = 256,
        layers: int = 1,
        embedding: int | None = None,
        heads: int = 4,
        dropout: float = 0.0,
        forget_bias: float | None = None,
        max_positions: int = 5000,
    ) -> None:
        super().__init__()
        self.vocabulary = check_count("vocabulary", vocabulary, least=SPECIALS + 1)
        self.trunk = create_trunk(
            trunk, vocabulary=vocabulary, in_channels=1, hidden=hidden, layers=layers, embedding=embedding, heads=heads,
            dropout=dropout, bidirectional=False, causal=True, forget_bias=forget_bias, max_positions=max_positions,
        )  # fmt: skip
        self.max_positions = self.trunk.max_positions
        self.predict = nn.Linear(self.trunk.out_channels, vocabulary)

    def forward(self, tokens: Tensor) -> Outputs:
        seen = self.trunk.steps.seen(tokens, None)
        # Of the token at the end of a text nothing is asked, so START pushes it out; padding stays behind.
        previous = torch.where(seen, F.pad(tokens[:, :-1], (1, 0), value=START), PAD)
        return {"logits": self.predict(self.trunk(previous, seen))}

    def loss(self, outputs: Outputs, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Cross-entropy of each token, the mean of all. targets: tokens (B, L), as forward was given."""
        terms, counts = self._terms(outputs, targets)
        return {"loss": terms.sum() / counts.sum().clamp(min=1)}

    def loss_of_each(self, outputs: Outputs, targets: Mapping[str, Tensor]) -> Tensor:
        """(B,): the mean of each text, the logarithm of its perplexity."""
        terms, counts = self._terms(outputs, targets)
        return terms.sum(dim=1) / counts.clamp(min=1)

    def _terms(self, outputs: Outputs, targets: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        tokens = targets["tokens"].to(outputs["logits"].device)
        return token_losses(outputs["logits"], tokens), (tokens != PAD).sum(dim=1)

    def initial_state(self, batch: int) -> State:
        """What is kept before START."""
        return self.trunk.initial_state(batch)

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits (B, vocabulary) of the token behind the given ones, (B,), and what is kept then."""
        features, state = self.trunk.step(tokens, state)
        return self.predict(features), state

    @torch.no_grad()
    def generate(
        self, tokens: Tensor, *, max_length: int = 200, temperature: float = 1.0, seed: int = 0, **options: Any
    ) -> list[int]:
        """What follows a text (1, L), which may be empty, up to an END or `max_length` tokens.

        temperature: 0 writes the most probable. options: top_k and top_p, see `opsin.ops.generation.write_samples`.
        Raises InputError for more than one text and options out of range.
        """
        if tokens.ndim != 2 or len(tokens) != 1:
            raise InputError(f"generate goes on with one text, (1, L), got {tuple(tokens.shape)}")
        self.trunk.steps.seen(tokens, None)
        first = [START, *tokens[0].tolist()]
        if self.max_positions is not None:
            max_length = min(max_length, self.max_positions - len(first))
            if max_length < 1:
                raise InputError(f"a text of {len(first)} leaves no place of max_positions={self.max_positions}")
        state = self.initial_state(1)
        for token in first[:-1]:
            _, state = self.trunk.step(tokens.new_tensor([token]), state)
        write = write_greedy if temperature == 0 else partial(write_samples, temperature=temperature, seed=seed)
        given: dict[str, Any] = {"start": first[-1], "end": END, "max_length": max_length, "banned": BANNED}
        return list(write(self.step, state, 1, **given, **options)[0].tokens)

    def example(self, batch: int, size: Any = None) -> Tensor:
        """Eight tokens each, none of them special."""
        return torch.arange(8).remainder(self.vocabulary - SPECIALS).add(SPECIALS).expand(batch, -1)


@register("language_model", task="sequence", network=LanguageModel)
def language_model(**options: Any) -> LanguageModel:
    return LanguageModel(**options)
