"""CTC decoding: every path of small outputs, a plain search over prefixes, and priors that decide."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from opsin.errors import InputError
from opsin.ops import CharacterModel, Lexicon, ctc_greedy, ctc_prefix_beam, decoding

WORDS = ["cat", "cart", "car", "at", "tact", "a"]
LETTERS = "-acrt"  # the blank and four letters


def outputs(steps: int, count: int, classes: int, sharpness: float = 1.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(steps, count, classes, generator=generator, dtype=torch.float64)
    return (logits * sharpness).log_softmax(2)


def encode(word: str) -> tuple[int, ...]:
    return tuple(LETTERS.index(letter) for letter in word)


def collapse(path: Sequence[int], blank: int) -> tuple[int, ...]:
    return tuple(label for label, _ in itertools.groupby(path) if label != blank)


def every_string(log_probs: Tensor, blank: int) -> dict[tuple[int, ...], float]:
    """Probability of every string, by all paths. log_probs: (T, K)."""
    found: dict[tuple[int, ...], float] = defaultdict(float)
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        found[collapse(path, blank)] += math.exp(sum(float(log_probs[t, k]) for t, k in enumerate(path)))
    return found


def log_sum(a: float, b: float) -> float:
    if -math.inf in (a, b):
        return max(a, b)
    return max(a, b) + math.log1p(math.exp(-abs(a - b)))


def plain_prefix_beam(
    log_probs: list[list[float]],
    blank: int,
    width: int,
    prior: Callable[[tuple[int, ...]], float] = lambda prefix: 0.0,
) -> list[tuple[list[int], float]]:
    """The search of Hannun et al. with dictionaries, one prefix and one label at a time."""
    beam = {(): (0.0, -math.inf)}
    for row in log_probs:
        found: dict[tuple[int, ...], list[float]] = defaultdict(lambda: [-math.inf, -math.inf])
        for prefix, (ends_blank, ends_label) in beam.items():
            for label, value in enumerate(row):
                if label == blank:
                    found[prefix][0] = log_sum(found[prefix][0], log_sum(ends_blank, ends_label) + value)
                    continue
                repeated = bool(prefix) and label == prefix[-1]
                if repeated:
                    found[prefix][1] = log_sum(found[prefix][1], ends_label + value)
                longer, before = (*prefix, label), ends_blank if repeated else log_sum(ends_blank, ends_label)
                found[longer][1] = log_sum(found[longer][1], before + value)
        ranked = sorted(found, key=lambda p: log_sum(*found[p]) + prior(p), reverse=True)
        beam = {p: (found[p][0], found[p][1]) for p in ranked[:width] if log_sum(*found[p]) + prior(p) > -math.inf}
    return [(list(p), log_sum(*ends) + prior(p)) for p, ends in beam.items()]


def assert_same(found: list[Any], expected: list[tuple[list[int], float]]) -> None:
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-9)
    assert [labels for labels, _ in found[:5]] == [labels for labels, _ in expected[:5]]


class TestGreedy:
    def test_by_hand(self) -> None:
        path = torch.tensor([[1, 1, 0, 1, 2, 2, 0], [0, 0, 0, 3, 3, 1, 1], [2, 1, 2, 1, 2, 1, 2]]).T
        log_probs = F.one_hot(path, 4).double().mul(0.9).add(0.025).log()
        assert [labels for labels, _ in ctc_greedy(log_probs)] == [[1, 1, 2], [3, 1], [2, 1, 2, 1, 2, 1, 2]]
        assert [labels for labels, _ in ctc_greedy(log_probs, [4, 3, 0])] == [[1, 1], [], []]
        assert [score for _, score in ctc_greedy(log_probs, [4, 3, 0])] == pytest.approx(
            [4 * math.log(0.925), 3 * math.log(0.925), 0]
        )
        assert ctc_greedy(log_probs, blank=2)[2].labels == [1, 1, 1]

    def test_is_the_best_path(self) -> None:
        log_probs = outputs(6, 5, 3)
        for column, (labels, score) in zip(log_probs.unbind(1), ctc_greedy(log_probs, blank=1), strict=True):
            assert tuple(labels) == collapse(column.argmax(1).tolist(), 1)
            assert score == pytest.approx(float(column.max(1).values.sum()))


class TestPrefixBeam:
    @pytest.mark.parametrize("blank", [0, 2])
    def test_a_wide_beam_is_exact(self, blank: int) -> None:
        log_probs = outputs(6, 3, 3, 1.5)
        for column, strings in zip(
            log_probs.unbind(1), ctc_prefix_beam(log_probs, width=500, blank=blank), strict=True
        ):
            expected = every_string(column, blank)
            assert {tuple(labels): score for labels, score in strings} == pytest.approx(
                {labels: math.log(p) for labels, p in expected.items()}
            )
            assert [score for _, score in strings] == sorted((score for _, score in strings), reverse=True)

    @pytest.mark.parametrize(
        ("steps", "classes", "width", "sharpness"),
        [(30, 37, 100, 1.0), (30, 37, 20, 6.0), (40, 4, 7, 1.0), (25, 3, 1, 2.0), (25, 2, 5, 1.0), (20, 90, 9, 3.0)],
    )
    def test_is_the_plain_search(self, steps: int, classes: int, width: int, sharpness: float) -> None:
        log_probs, lengths = outputs(steps, 3, classes, sharpness), [steps - 7, steps, 3]
        found = ctc_prefix_beam(log_probs, lengths, width=width)
        for place, length in enumerate(lengths):
            assert_same(found[place], plain_prefix_beam(log_probs[:length, place].tolist(), 0, width))

    def test_impossible_labels(self) -> None:
        log_probs = outputs(12, 2, 5)
        log_probs[::3, :, 2:] = -math.inf
        log_probs[5, :, [0, 1, 3, 4]] = -math.inf
        found = ctc_prefix_beam(log_probs, width=8)
        for place in range(2):
            assert_same(found[place], plain_prefix_beam(log_probs[:, place].tolist(), 0, 8))

    def test_a_prefix_that_comes_back_is_the_same(self) -> None:
        """A string whose parent fell out of the beam and returned must not be there twice."""
        for seed in range(40):
            log_probs = outputs(25, 1, 3, 2.0, seed)
            for width in (2, 3, 4):
                (strings,) = ctc_prefix_beam(log_probs, width=width)
                assert len({tuple(labels) for labels, _ in strings}) == len(strings)
                assert_same(strings, plain_prefix_beam(log_probs[:, 0].tolist(), 0, width))

    def test_batches_are_searched_in_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As many sequences at a time as their prefixes allow, at least one; the answers are the same."""
        log_probs, parts = outputs(6, 7, 4), []
        whole = ctc_prefix_beam(log_probs, [6, 1, 4, 0, 6, 2, 5], width=12)

        class Search(decoding._Search):
            def __init__(self, values: np.ndarray, *rest: Any) -> None:
                parts.append(values.shape[1])
                super().__init__(values, *rest)

        monkeypatch.setattr(decoding, "_Search", Search)
        for prefixes, sizes in ((1, [1] * 7), (2 * 6 * 12, [2, 2, 2, 1]), (99 * 6 * 12, [7])):
            monkeypatch.setattr(decoding, "_PREFIXES", prefixes)
            parts.clear()
            assert ctc_prefix_beam(log_probs, [6, 1, 4, 0, 6, 2, 5], width=12) == whole
            assert parts == sizes

    def test_beats_the_best_path(self) -> None:
        """Graves et al. 2006, figure 2: the best path is empty, the best string is not."""
        log_probs = torch.tensor([[[0.6, 0.4]], [[0.6, 0.4]]]).log()
        assert ctc_greedy(log_probs)[0].labels == []
        (strings,) = ctc_prefix_beam(log_probs)
        assert [labels for labels, _ in strings] == [[1], []]
        assert [math.exp(score) for _, score in strings] == pytest.approx([0.64, 0.36])

    def test_nothing_to_decode(self) -> None:
        assert ctc_prefix_beam(outputs(5, 1, 3), [0]) == [[([], 0.0)]]
        assert ctc_prefix_beam(outputs(0, 2, 3)) == [[([], 0.0)]] * 2
        assert ctc_prefix_beam(outputs(5, 0, 3)) == [] == ctc_greedy(outputs(5, 0, 3))
        assert ctc_greedy(outputs(0, 1, 3)) == [([], 0.0)]
        assert ctc_prefix_beam(torch.full((3, 1, 4), -math.inf)) == [[]]


class TestPriors:
    def test_a_lexicon_gives_the_words_in_order_of_their_loss(self) -> None:
        log_probs = outputs(9, 4, 5)
        for place, strings in enumerate(ctc_prefix_beam(log_probs, width=200, lexicon=Lexicon(map(encode, WORDS)))):
            losses = {
                encode(word): float(
                    F.ctc_loss(
                        log_probs[:, place],
                        torch.tensor(encode(word)),
                        torch.tensor(9),
                        torch.tensor(len(word)),
                        reduction="none",
                    )
                )
                for word in WORDS
            }
            assert {tuple(labels): -score for labels, score in strings} == pytest.approx(losses)
            assert tuple(strings[0].labels) == min(losses, key=lambda word: losses[word])

    def test_a_lexicon_is_the_plain_search_over_its_prefixes(self) -> None:
        words = [encode(word) for word in WORDS]
        log_probs = outputs(15, 3, 5)

        def prior(prefix: tuple[int, ...]) -> float:
            return 0.0 if any(word[: len(prefix)] == prefix for word in words) else -math.inf

        found = ctc_prefix_beam(log_probs, width=3, lexicon=Lexicon(words), label_bonus=0.3)
        for place in range(3):
            plain = plain_prefix_beam(log_probs[:, place].tolist(), 0, 3, lambda p: prior(p) + 0.3 * len(p))
            assert_same(found[place], [(labels, score) for labels, score in plain if tuple(labels) in words])

    def test_words_and_separators(self) -> None:
        lexicon = Lexicon([(1,), (2, 3)], separator=4)
        texts = [labels for labels, _ in ctc_prefix_beam(outputs(6, 1, 5), width=500, lexicon=lexicon)[0]]
        assert [1, 4, 2, 3] in texts and [2, 3, 4, 1, 4, 1] in texts
        assert all(all(word in ([1], [2, 3]) for word in split(text, 4)) for text in texts)

    def test_a_width_above_the_number_of_words(self) -> None:
        """Slots that no word fills stay empty, and do not come back to life."""
        words = [(1, 1), (1, 2)]
        for seed in range(10):
            (strings,) = ctc_prefix_beam(outputs(8, 1, 4, seed=seed), width=30, lexicon=Lexicon(words))
            assert sorted(tuple(labels) for labels, _ in strings) == words

    def test_no_word_fits(self) -> None:
        assert ctc_prefix_beam(outputs(2, 1, 5), lexicon=Lexicon([(1, 2, 3)])) == [[]]

    def test_a_language_model_is_the_plain_search_with_it(self) -> None:
        model = CharacterModel([encode(word) for word in WORDS * 3], 5, order=3)
        log_probs = outputs(15, 3, 5)
        found = ctc_prefix_beam(log_probs, width=6, language_model=model, language_weight=0.7, label_bonus=0.5)
        for place in range(3):
            plain = plain_prefix_beam(
                log_probs[:, place].tolist(), 0, 6, lambda p: 0.7 * model.log_prob(p) + 0.5 * len(p)
            )
            assert_same(found[place], plain)

    def test_a_language_model_decides(self) -> None:
        """The outputs cannot tell c from r; the model has only seen c before a."""
        log_probs = torch.tensor([[0.02, 0.02, 0.48, 0.47, 0.01], [0.02, 0.95, 0.01, 0.01, 0.01]]).log()[:, None]
        log_probs[0, 0, [2, 3]] = log_probs[0, 0, [3, 2]]
        assert ctc_prefix_beam(log_probs)[0][0].labels == list(encode("ra"))
        model = CharacterModel([encode("ca")], 5, order=2)
        assert ctc_prefix_beam(log_probs, language_model=model)[0][0].labels == list(encode("ca"))

    def test_a_lexicon_and_a_model_together(self) -> None:
        model = CharacterModel([encode(word) for word in WORDS], 5)
        lexicon = Lexicon(map(encode, WORDS))
        (strings,) = ctc_prefix_beam(outputs(9, 1, 5), width=200, lexicon=lexicon, language_model=model)
        (alone,) = ctc_prefix_beam(outputs(9, 1, 5), width=200, lexicon=lexicon)
        expected = {tuple(labels): score + model.log_prob(labels) for labels, score in alone}
        assert {tuple(labels): score for labels, score in strings} == pytest.approx(expected)

    def test_a_bonus_makes_strings_longer(self) -> None:
        log_probs = outputs(12, 1, 5)
        lengths = [len(ctc_prefix_beam(log_probs, label_bonus=bonus)[0][0].labels) for bonus in (-3.0, 0.0, 3.0)]
        assert lengths == sorted(lengths) and lengths[0] < lengths[2]


class TestCharacterModel:
    def test_is_a_distribution(self) -> None:
        model = CharacterModel([encode(word) for word in WORDS], 5, order=3)
        rows = model([(), (2,), encode("ca"), encode("tt"), encode("cartcartcart")])
        assert np.exp(rows).sum(axis=1) == pytest.approx(np.ones(5))
        assert (rows[:, 0] == -math.inf).all() and np.isfinite(rows[:, 1:]).all()

    def test_by_hand(self) -> None:
        model = CharacterModel([(1, 2), (1, 3)], 5, order=2, discount=0.5)
        single = [(2 - 0.5 + 0.5 * 3 / 4) / 4, (1 - 0.5 + 0.5 * 3 / 4) / 4]  # n(1) = 2, n(2) = n(3) = 1 of 4; 4 labels
        assert math.exp(model([(1,)])[0][2]) == pytest.approx((1 - 0.5 + 0.5 * 2 * single[1]) / 2)
        assert math.exp(model([()])[0][1]) == pytest.approx((2 - 0.5 + 0.5 * 1 * single[0]) / 2)
        assert model.log_prob((1, 2)) == pytest.approx(float(model([()])[0][1] + model([(1,)])[0][2]))
        alone = CharacterModel([(1, 2), (1, 3)], 5, order=1, discount=0.5)
        assert math.exp(alone([(3, 3)])[0][1]) == pytest.approx(single[0])


def split(text: list[int], separator: int) -> list[list[int]]:
    return [
        list(part)
        for is_separator, part in itertools.groupby(text, lambda label: label == separator)
        if not is_separator
    ]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ctc_greedy(torch.zeros(3, 4)), r"log_probs must be float \(T, B, K\) with K >= 2, got"),
        (lambda: ctc_greedy(outputs(3, 1, 4), blank=4), "blank=4 is no class of 4"),
        (lambda: ctc_greedy(outputs(3, 1, 4).add(5)), r"log-probabilities are at most 0: apply log_softmax\(2\)"),
        (lambda: ctc_prefix_beam(outputs(3, 1, 4) * math.nan), "log_probs contain nan"),
        (lambda: ctc_prefix_beam(outputs(3, 2, 4), [3]), r"lengths must be 2 numbers from 0 to 3, got \[3\]"),
        (lambda: ctc_prefix_beam(outputs(3, 1, 4), torch.tensor([4])), "from 0 to 3, got"),
        (lambda: ctc_prefix_beam(outputs(3, 1, 4), width=0), "width=0 must be at least 1"),
        (lambda: ctc_prefix_beam(outputs(3, 1, 4), language_weight=0), "language_weight=0 must be above 0; leave"),
        (lambda: ctc_prefix_beam(outputs(3, 1, 4), lexicon=Lexicon([(4,)])), r"labels outside 0..3 or the blank 0"),
        (lambda: ctc_prefix_beam(outputs(3, 1, 4), language_model=lambda p: np.zeros((1, 3))), r"gave \(1, 3\) for 1"),
        (lambda: Lexicon([]), "the lexicon has no words"),
        (lambda: Lexicon([()]), "the lexicon has no words"),
        (lambda: CharacterModel([(0,)], 4), r"labels outside 0..3 or the blank 0: \[0\]"),
        (lambda: CharacterModel([(1,)], 4, order=0), "order=0 must be at least 1"),
        (lambda: CharacterModel([(1,)], 4, discount=1.0), "discount=1.0 must be between 0 and 1"),
    ],
)
def test_wrong_calls_are_named(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
