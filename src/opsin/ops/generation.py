"""Texts written token by token: the most probable next one, a beam of the best so far, or drawn at random.

Whatever writes is given as a step, (tokens (N,), state) -> (logits (N, V), state): the last token of each of N texts,
and what is kept of those before, to the scores of the next. A state is a tuple of tensors, each (N, ...); what is the
same at every step, as an encoder's memory, stays in the step. The searches write the same texts whether or not others
are in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from opsin.checks import check_count, check_number, check_share
from opsin.errors import InputError

State: TypeAlias = tuple[Tensor, ...]
Step: TypeAlias = Callable[[Tensor, State], tuple[Tensor, State]]


@dataclass(frozen=True)
class Written:
    """One text. tokens: without start and end. scores: log-probabilities of the tokens, and last of the end.

    ended: whether it was ended, or cut off at the longest length; then there is no score of an end.
    """

    tokens: Sequence[int]
    scores: Sequence[float]
    ended: bool

    @property
    def score(self) -> float:
        """The logarithm of the probability of the whole."""
        return float(sum(self.scores))


def length_penalty(length: int, alpha: float) -> float:
    """((5 + length) / 6) ** alpha, by which the score of a text is divided. Wu et al. 2016, arXiv:1609.08144, eq. 14.

    length: in tokens, the end among them. Without it, alpha = 0, a search favours short texts: each token costs.
    """
    return ((5 + length) / 6) ** alpha


def write_greedy(
    step: Step, state: State, batch: int, *, start: int, end: int, max_length: int, banned: Sequence[int] = ()
) -> list[Written]:
    """The most probable next token at each step, until the end or `max_length` tokens.

    batch: how many texts. banned: tokens that are never written, as padding and the start.
    """
    return _write_one_by_one(step, state, batch, start, end, max_length, banned, lambda scores: scores.argmax(dim=1))


def write_samples(
    step: Step,
    state: State,
    batch: int,
    *,
    start: int,
    end: int,
    max_length: int,
    banned: Sequence[int] = (),
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
) -> list[Written]:
    """Each next token drawn by its probability.

    temperature: below 1 sharpens, towards the most probable one. top_k: of the k most probable alone, Fan et al. 2018,
    arXiv:1805.04833. top_p: of the fewest that hold that share of the probability, Holtzman et al. 2020,
    arXiv:1904.09751. The scores are the model's, before any of these. Equal for equal seeds and batches.
    Raises InputError for options out of range.
    """
    check_number("temperature", temperature, above=True, hint="1 draws as the model says")
    if top_k is not None:
        check_count("top_k", top_k)
    if top_p is not None:
        check_share("top_p", top_p)
    generator = torch.Generator().manual_seed(seed)

    def choose(scores: Tensor) -> Tensor:
        # on the processor: the same seed draws the same text on every device
        ordered, places = (scores.detach().cpu().double() / temperature).sort(dim=1, descending=True, stable=True)
        chances = ordered.softmax(dim=1)
        if top_k is not None:
            chances[:, top_k:] = 0
        if top_p is not None:
            before = chances.cumsum(dim=1) - chances
            chances[before >= top_p * chances.sum(dim=1, keepdim=True)] = 0
        drawn = torch.multinomial(chances, 1, generator=generator)
        return places.gather(1, drawn)[:, 0].to(scores.device)

    return _write_one_by_one(step, state, batch, start, end, max_length, banned, choose)


def _write_one_by_one(
    step: Step,
    state: State,
    batch: int,
    start: int,
    end: int,
    max_length: int,
    banned: Sequence[int],
    choose: Callable[[Tensor], Tensor],
) -> list[Written]:
    check_count("max_length", max_length)
    if batch == 0:
        return []
    tokens = torch.full((batch,), start, device=_device(state))
    ended = torch.zeros(batch, dtype=torch.bool, device=tokens.device)
    written, scores = list[Tensor](), list[Tensor]()
    for _ in range(max_length + 1):
        log_probs, state = _next(step, tokens, state, banned)
        tokens = choose(log_probs)
        tokens = torch.where(ended, end, tokens)  # what is behind an end is not looked at
        written.append(tokens)
        scores.append(log_probs.gather(1, tokens[:, None])[:, 0])
        ended = ended | (tokens == end)
        if bool(ended.all()):
            break
    rows, values = torch.stack(written, dim=1).tolist(), torch.stack(scores, dim=1).tolist()
    return [_cut(row, value, end, max_length) for row, value in zip(rows, values, strict=True)]


def _cut(row: list[int], scores: list[float], end: int, max_length: int) -> Written:
    """Up to the first end; without one, max_length tokens."""
    if end in row:
        length = row.index(end)
        return Written(row[:length], scores[: length + 1], True)
    return Written(row[:max_length], scores[:max_length], False)


def write_beam(
    step: Step,
    state: State,
    batch: int,
    *,
    start: int,
    end: int,
    max_length: int,
    width: int = 4,
    alpha: float = 0.6,
    banned: Sequence[int] = (),
) -> list[list[Written]]:
    """The best texts that a search finds which keeps `width` unfinished ones at each step, of each the best first.

    Sutskever et al. 2014, arXiv:1409.3215, section 3.2: a text that ends leaves the beam, which grows narrower by one;
    width = 1 is greedy. Texts are ranked by their log-probability over `length_penalty`; those that reach `max_length`
    are cut off, and count as they are. The search of a text stops when no unfinished one can become better than
    the best finished. state: of the batch, each (batch, ...); the step is called for batch x width texts.
    Raises InputError for options out of range.
    """
    check_count("max_length", max_length)
    check_count("width", width)
    check_number("alpha", alpha)
    if batch == 0:
        return []
    search = _Beam(batch, width, start, end, max_length, alpha, _device(state))
    state = tuple(part.repeat_interleave(width, dim=0) for part in state)
    while search.length <= max_length:
        log_probs, state = _next(step, search.last, state, banned)
        if not search.advance(log_probs):
            break
        state = tuple(part[search.come_from] for part in state)
    return search.results()


class _Beam:
    """The unfinished texts of a search, (batch, width), and the finished ones."""

    def __init__(
        self, batch: int, width: int, start: int, end: int, max_length: int, alpha: float, device: torch.device
    ) -> None:
        self.width, self.end, self.max_length, self.alpha = width, end, max_length, alpha
        self.last = torch.full((batch * width,), start, device=device)
        self.total = torch.full((batch, width), -torch.inf, device=device, dtype=torch.float64)
        self.total[:, 0] = 0  # one text to begin with, not `width` equal ones
        self.tokens = torch.zeros(batch, width, 0, dtype=torch.int64, device=device)
        self.scores = torch.zeros(batch, width, 0, dtype=torch.float64, device=device)
        self.first = torch.arange(batch, device=device)[:, None] * width
        self.come_from = self.last
        self.finished: list[list[Written]] = [[] for _ in range(batch)]

    @property
    def length(self) -> int:
        """Tokens written so far."""
        return self.tokens.shape[2]

    def advance(self, log_probs: Tensor) -> bool:
        """Take in the scores of the next tokens; False when nothing is left to search."""
        batch, width = self.total.shape
        scores = log_probs.double().view(batch, width, -1)
        if self.length == self.max_length:
            self._finish(scores)
            return False
        ranked = (self.total[:, :, None] + scores).flatten(1)
        self.total, best = ranked.topk(min(width, ranked.shape[1]), dim=1)
        beams, tokens = best // scores.shape[2], best % scores.shape[2]
        self.come_from = (self.first + beams).flatten()
        own = scores.flatten(1).gather(1, best)
        self.tokens = torch.cat([_rows(self.tokens, beams), tokens[..., None]], dim=2)
        self.scores = torch.cat([_rows(self.scores, beams), own[..., None]], dim=2)
        self.last = tokens.flatten()
        self._take_out(tokens == self.end)
        return bool((self.total > -torch.inf).any())

    def _take_out(self, ended: Tensor) -> None:
        for row, beam in (ended & (self.total > -torch.inf)).nonzero().tolist():
            tokens, scores = self.tokens[row, beam].tolist(), self.scores[row, beam].tolist()
            self.finished[row].append(Written(tokens[:-1], scores, True))
        self.total = self.total.masked_fill(ended, -torch.inf)
        # A longer text has at most this score: a probability of 1 for all that follows, and the largest penalty.
        best = [max((self._rank(one) for one in found), default=-torch.inf) for found in self.finished]
        bound = self.total / length_penalty(self.max_length + 1, self.alpha)
        settled = bound <= torch.tensor(best, dtype=torch.float64, device=bound.device)[:, None]
        self.total = self.total.masked_fill(settled, -torch.inf)

    def _finish(self, scores: Tensor) -> None:
        """Texts of the longest length end where that is the most probable, as in a greedy search, or are cut off."""
        ends = (scores.argmax(dim=2) == self.end).tolist()
        for row, beam in (self.total > -torch.inf).nonzero().tolist():
            tokens, own = self.tokens[row, beam].tolist(), self.scores[row, beam].tolist()
            last = [float(scores[row, beam, self.end])] if ends[row][beam] else []
            self.finished[row].append(Written(tokens, own + last, ends[row][beam]))

    def _rank(self, one: Written) -> float:
        return one.score / length_penalty(len(one.scores), self.alpha)

    def results(self) -> list[list[Written]]:
        """At most `width` of each, the best first."""
        return [sorted(found, key=self._rank, reverse=True)[: self.width] for found in self.finished]


def _next(step: Step, tokens: Tensor, state: State, banned: Sequence[int]) -> tuple[Tensor, State]:
    """Log-probabilities (N, V) of the next token, of banned ones -inf."""
    logits, state = step(tokens, state)
    if bool(logits.isnan().any()):
        raise InputError("the scores of the next token contain nan; did the model diverge?")
    log_probs = logits.float().log_softmax(dim=1) if logits.dtype != torch.float64 else logits.log_softmax(dim=1)
    if banned:
        log_probs[:, list(banned)] = -torch.inf
    return log_probs, state


def _rows(values: Tensor, beams: Tensor) -> Tensor:
    return values.gather(1, beams[..., None].expand(-1, -1, values.shape[2]))


def _device(state: State) -> torch.device:
    return state[0].device if state else torch.device("cpu")
