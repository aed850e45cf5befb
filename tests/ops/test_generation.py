"""Texts written token by token: against all texts that there are, a plain loop, and counts of draws."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from opsin.errors import InputError
from opsin.ops.generation import Written, length_penalty, write_beam, write_greedy, write_samples

START, END, SIZE = 0, 1, 5
LETTERS = (2, 3, 4)


def table(seed: int, batch: int) -> Tensor:
    """Scores of the next token by example and the last two tokens: (batch, V, V, V)."""
    return 2 * torch.randn(batch, SIZE, SIZE, SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make_step(scores: Tensor):
    """The state is the example and the token before the last."""

    def step(tokens: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        example, before = state
        return scores[example, before, tokens], (example, tokens)

    return step


def first_state(batch: int) -> tuple[Tensor, ...]:
    return torch.arange(batch), torch.zeros(batch, dtype=torch.int64)


def log_prob(scores: Tensor, text: tuple[int, ...]) -> list[float]:
    """Of each token of a text, by the chain rule."""
    found, before, last = [], START, START
    for token in text:
        found.append(float(scores[before, last].log_softmax(dim=0)[token]))
        before, last = last, token
    return found


def all_texts(scores: Tensor, max_length: int) -> list[Written]:
    """Every text with an end, and those that are cut off."""
    found = []
    for length in range(max_length + 1):
        for text in itertools.product(LETTERS, repeat=length):
            before, last = (START, START, *text)[-2:]
            nexts = scores[before, last].clone()
            nexts[START] = -math.inf
            if length < max_length or int(nexts.argmax()) == END:
                found.append(Written(list(text), log_prob(scores, (*text, END)), True))
            else:
                found.append(Written(list(text), log_prob(scores, text), False))
    return found


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_a_wide_beam_finds_the_best_of_all(alpha: float) -> None:
    scores = table(0, 6)
    found = write_beam(
        make_step(scores), first_state(6), 6, start=START, end=END, max_length=4, width=200, alpha=alpha, banned=[START]
    )
    for row, own in enumerate(found):
        texts = all_texts(scores[row], 4)
        best = max(texts, key=lambda one: one.score / ((5 + len(one.scores)) / 6) ** alpha)
        assert (own[0].tokens, own[0].ended) == (best.tokens, best.ended)
        assert own[0].scores == pytest.approx(best.scores) and own[0].score == pytest.approx(best.score)
    if alpha:
        lengths = [len(own[0].tokens) for own in found]
        plain = write_beam(make_step(scores), first_state(6), 6, start=START, end=END, max_length=4, width=200, alpha=0)
        assert sum(lengths) >= sum(len(own[0].tokens) for own in plain)


def test_a_beam_of_one_is_greedy_and_greedy_is_a_plain_loop() -> None:
    for seed in range(5):
        scores = table(seed, 8)
        given: Any = {"start": START, "end": END, "max_length": 5, "banned": [START]}
        greedy = write_greedy(make_step(scores), first_state(8), 8, **given)
        beam = write_beam(make_step(scores), first_state(8), 8, width=1, alpha=0.7, **given)
        for row in range(8):
            text, before, last = list[int](), START, START
            while len(text) < 5:
                nexts = scores[row, before, last].clone()
                nexts[START] = -math.inf
                if (token := int(nexts.argmax())) == END:
                    break
                before, last = last, token
                text.append(token)
            assert greedy[row].tokens == text
            assert (beam[row][0].tokens, beam[row][0].ended) == (text, greedy[row].ended)
            whole = (*text, END) if greedy[row].ended else tuple(text)
            assert greedy[row].scores == pytest.approx(log_prob(scores[row], whole))


def test_a_wider_beam_is_no_worse_and_texts_do_not_depend_on_the_batch() -> None:
    scores = table(3, 10)
    given: Any = {"start": START, "end": END, "max_length": 6, "alpha": 0.0, "banned": [START]}
    narrow, wide = (write_beam(make_step(scores), first_state(10), 10, width=width, **given) for width in (1, 5))
    assert all(a[0].score <= b[0].score + 1e-9 for a, b in zip(narrow, wide, strict=True))
    assert any(a[0].score < b[0].score for a, b in zip(narrow, wide, strict=True))
    for row in range(10):
        alone = write_beam(make_step(scores[row : row + 1]), first_state(1), 1, width=5, **given)
        assert alone[0][0] == wide[row][0]


def test_draws_follow_the_probabilities() -> None:
    logits = torch.tensor([-9.0, 0.0, 1.0, 2.0, 0.5], dtype=torch.float64)

    def step(tokens: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        return logits.expand(len(tokens), -1), state

    def shares(**options: float) -> dict[int, float]:
        texts = write_samples(step, (torch.zeros(20_000),), 20_000, start=0, end=9, max_length=1, seed=1, **options)  # type: ignore[arg-type]
        counts = Counter(one.tokens[0] for one in texts)
        return {token: count / 20_000 for token, count in counts.items()}

    p = logits.softmax(dim=0)
    assert shares() == pytest.approx(
        {k: float(p[k]) for k in range(1, 5)} | ({0: 0.0} if 0 in shares() else {}), abs=0.015
    )
    cold = (logits / 0.5).softmax(dim=0)
    assert shares(temperature=0.5)[3] == pytest.approx(float(cold[3]), abs=0.015)
    assert shares(top_k=2) == pytest.approx({3: math.e / (math.e + 1), 2: 1 / (math.e + 1)}, abs=0.015)
    assert set(shares(top_p=float(p[3]) - 0.01)) == {3} and set(shares(top_p=float(p[3]) + 0.01)) == {2, 3}
    assert set(shares(temperature=0.01)) == {3}


def test_the_penalty_is_that_of_the_paper() -> None:
    assert length_penalty(7, 0.6) == pytest.approx(2**0.6) and length_penalty(100, 0) == 1


def test_wrong_calls_and_scores() -> None:
    scores = table(0, 1)
    given: Any = {"start": START, "end": END, "max_length": 5}
    with pytest.raises(InputError, match="temperature must be above 0"):
        write_samples(make_step(scores), first_state(1), 1, temperature=0.0, **given)
    with pytest.raises(InputError, match="width must be"):
        write_beam(make_step(scores), first_state(1), 1, width=0, **given)
    with pytest.raises(InputError, match="contain nan"):
        write_greedy(make_step(scores * math.nan), first_state(1), 1, **given)
    assert write_greedy(make_step(scores), first_state(0), 0, **given) == []
    assert write_beam(make_step(scores), first_state(0), 0, **given) == []
