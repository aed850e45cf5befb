"""What every network of pairs is: a sequence -> an encoder's memory of it -> another sequence, written token by token.

Tokens are int64, (B, L), filled up with `PAD`. `teach` gives all scores of a text that is known at once, `step` those
of the next token from a state; both are the same function, and `decode` writes by the second.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.checks import check_count, check_probability
from opsin.errors import InputError, unknown
from opsin.losses.terms import full_precision
from opsin.ops.generation import State, Written, write_beam, write_greedy, write_samples
from opsin.sequence.tokens import END, PAD, SPECIALS, START

Outputs: TypeAlias = dict[str, Tensor]
Way: TypeAlias = Literal["greedy", "beam", "sample"]

WAYS = ("greedy", "beam", "sample")
BANNED = (PAD, START)  # never written


class EncoderDecoder(nn.Module, ABC):
    """A network of tokens (B, S) -> outputs, of which `decode` writes other tokens.

    source_vocabulary, target_vocabulary: how many tokens there are, the four of `opsin.sequence.tokens` among them.
    smoothing: share of the target that the loss spreads over all tokens, Szegedy et al. 2015, arXiv:1512.00567.

    `forward` is pure and never sees a target: the decoder runs in `loss`, with the text itself as what was written
    before, and step by step in `decode`.
    """

    answers_with = "text"
    max_positions: int | None = None  # of the longest text with its start, where there is one
    source_vocabulary: int
    target_vocabulary: int

    def __init__(self, source_vocabulary: int, target_vocabulary: int, smoothing: float) -> None:
        super().__init__()
        self.source_vocabulary = check_count("source_vocabulary", source_vocabulary, least=SPECIALS + 1)
        self.target_vocabulary = check_count("target_vocabulary", target_vocabulary, least=SPECIALS + 1)
        self.smoothing = check_probability("smoothing", smoothing)

    @abstractmethod
    def forward(self, source: Tensor) -> Outputs:
        """source: (B, S) tokens -> tensors by name, the batch first: "memory" (B, S, C), "seen" (B, S) bool, more."""

    @abstractmethod
    def teach(self, outputs: Outputs, previous: Tensor) -> Tensor:
        """Logits (B, L, target_vocabulary) of the token behind each of the given ones, (B, L), the first a START."""

    @abstractmethod
    def start(self, outputs: Outputs) -> tuple[Outputs, State]:
        """What `step` takes of a batch of outputs: what stays the same, by name, and the state before the text."""

    @abstractmethod
    def step(self, tokens: Tensor, state: State, fixed: Outputs) -> tuple[Tensor, State]:
        """Logits (B, target_vocabulary) of the token behind the given ones, (B,), and the state that then holds."""

    def attention(self, outputs: Outputs, tokens: Tensor) -> Tensor | None:
        """How much the decoder looks at each token of the source for each of a text and its end, (B, L + 1, S).

        tokens: (B, L) as written. Rows sum to 1; None of a network that has no attention.
        """
        return None

    def check_source(self, source: Tensor) -> None:
        """Raise InputError for what are no tokens of the source; nothing is checked while a program is traced."""
        check_tokens(type(self).__name__, source, self.source_vocabulary)

    def loss(self, outputs: Outputs, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Cross-entropy of each next token and of the end, the mean of all of the batch, with `smoothing`.

        targets: tokens (B, L) int64 without start and end, filled up with `PAD`.
        """
        terms, counts = self._terms(outputs, targets, self.smoothing)
        return {"loss": terms.sum() / counts.sum().clamp(min=1)}

    def loss_of_each(self, outputs: Outputs, targets: Mapping[str, Tensor]) -> Tensor:
        """(B,): the mean over the tokens and the end of each, without smoothing: the logarithm of its perplexity."""
        terms, counts = self._terms(outputs, targets, 0.0)
        return terms.sum(dim=1) / counts.clamp(min=1)

    def _terms(self, outputs: Outputs, targets: Mapping[str, Tensor], smoothing: float) -> tuple[Tensor, Tensor]:
        tokens = targets["tokens"].to(outputs["memory"].device)
        check_tokens("the target", tokens, self.target_vocabulary)
        previous, wanted = shift(tokens)
        terms = token_losses(self.teach(outputs, previous), wanted, smoothing)
        return terms, (wanted != PAD).sum(dim=1)

    @torch.no_grad()
    def decode(
        self,
        outputs: Outputs,
        way: Way = "greedy",
        *,
        max_length: int | None = None,
        beam_width: int = 4,
        length_penalty: float = 0.6,
        **options: Any,
    ) -> list[Written]:
        """The text of each: greedy, the best that a beam search finds, or drawn at random, see `opsin.ops.generation`.

        max_length: in tokens; None is twice the source's and ten. options: temperature, top_k, top_p and seed of
        way="sample". Raises InputError for an unknown way and options out of range.
        """
        if way not in WAYS:
            raise unknown("way to decode", way, WAYS)
        batch, longest = outputs["seen"].shape
        given: dict[str, Any] = {"start": START, "end": END, "banned": BANNED}
        given["max_length"] = 2 * longest + 10 if max_length is None else max_length
        if self.max_positions is not None:
            given["max_length"] = min(given["max_length"], self.max_positions - 1)
        fixed, state = self.start(outputs)
        if way == "greedy":
            return write_greedy(partial(self.step, fixed=fixed), state, batch, **given)
        if way == "sample":
            return write_samples(partial(self.step, fixed=fixed), state, batch, **given, **options)
        repeated = {name: value.repeat_interleave(beam_width, dim=0) for name, value in fixed.items()}
        step: Callable[..., Any] = partial(self.step, fixed=repeated)
        found = write_beam(step, state, batch, width=beam_width, alpha=length_penalty, **given)
        return [best for best, *_ in found]

    def example(self, batch: int, size: Any = None) -> Tensor:
        """Eight tokens each, none of them special."""
        return torch.arange(8).remainder(self.source_vocabulary - SPECIALS).add(SPECIALS).expand(batch, -1)

    def example_loss(self, outputs: Outputs) -> Tensor:
        """The loss of writing one token and the end."""
        tokens = torch.full((len(outputs["seen"]), 1), SPECIALS, device=outputs["seen"].device)
        return self.loss(outputs, {"tokens": tokens})["loss"]


def shift(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """What a decoder is given and what it is to say next, each (B, L + 1), of a text (B, L) that is filled up behind.

    Given is START and the text; wanted are the text, END behind its last token, and PAD.
    """
    lengths = (tokens != PAD).sum(dim=1, keepdim=True)
    wanted = F.pad(tokens, (0, 1), value=PAD).scatter(1, lengths, END)
    return F.pad(tokens, (1, 0), value=START), wanted


def token_losses(logits: Tensor, wanted: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of each token (B, L) for logits (B, L, V), in nats; 0 where PAD is wanted."""
    rows = full_precision(logits).flatten(0, 1)
    terms = F.cross_entropy(rows, wanted.flatten(), ignore_index=PAD, reduction="none", label_smoothing=smoothing)
    return terms.view(wanted.shape)


def check_tokens(name: str, tokens: Tensor, vocabulary: int, *, behind: bool = False) -> None:
    """Raise InputError for what is no batch of tokens, and on the processor for a number that no token has.

    behind: padding may stand behind a text alone, as recurrent networks take it. Not checked while a program is traced.
    """
    if torch.compiler.is_compiling():
        return
    if tokens.ndim != 2 or tokens.dtype != torch.int64:
        raise InputError(f"{name} takes tokens (B, L) of int64, got {tokens.dtype} {tuple(tokens.shape)}")
    if tokens.device.type != "cpu" or tokens.numel() == 0:
        return
    least, most = (int(value) for value in torch.aminmax(tokens))
    if least < 0 or most >= vocabulary:
        raise InputError(f"{name} takes tokens from 0 to {vocabulary - 1}, got {least if least < 0 else most}")
    if behind and bool(((tokens[:, 1:] != PAD) & (tokens[:, :-1] == PAD)).any()):
        raise InputError(f"{name} takes padding ({PAD}) behind a text, not before it or inside")
