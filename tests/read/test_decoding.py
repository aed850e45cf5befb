"""Alignments and decoding held against brute force over all paths."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from opsin.errors import InputError
from opsin.read.alignment import BLANK, align, read_along, score_words
from opsin.read.alphabet import Alphabet
from opsin.read.decoding import Decoding, TextDecoder, most_probable_word, nearest_word
from opsin.read.recognizer import Reading

ALPHABET = Alphabet("ab")


def collapse(path: tuple[int, ...], blank: int) -> tuple[int, ...]:
    return tuple(label for label, _ in itertools.groupby(path) if label != blank)


def paths(probabilities: np.ndarray) -> dict[tuple[int, ...], float]:
    """Every path of (T, K), with its probability."""
    steps, count = probabilities.shape
    every = itertools.product(range(count), repeat=steps)
    return {path: math.prod(probabilities[t, k] for t, k in enumerate(path)) for path in every}


def draw(seed: int, steps: int = 5, count: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet([0.5] * count, steps)


@pytest.mark.parametrize("blank", [0, 1, 2])
@pytest.mark.parametrize("seed", range(6))
def test_words_have_the_probability_of_all_their_paths(blank: int, seed: int) -> None:
    probabilities = draw(seed)
    sums: defaultdict[tuple[int, ...], float] = defaultdict(float)
    for path, p in paths(probabilities).items():
        sums[collapse(path, blank)] += p
    words = [[0], [1, 1], [0, 1, 0], [], [0, 0, 1, 1], [1, 0, 1, 0, 1]]
    shifted = [tuple(n + (n >= blank) for n in word) for word in words]
    found = score_words(torch.from_numpy(probabilities).log(), words, blank).exp()
    assert found.tolist() == pytest.approx([sums[word] for word in shifted], abs=1e-9)
    assert found[4] == 0  # two pairs of equal labels take six steps


@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize("seed", range(6))
def test_the_alignment_is_the_most_probable_path_of_the_text(blank: int, seed: int) -> None:
    probabilities = draw(seed)
    classes = [n + (n >= blank) for n in (0, 1, 1)]
    path = align(np.log(probabilities), classes, blank)
    assert path is not None
    taken = tuple(blank if place == BLANK else classes[place] for place in path)
    assert collapse(taken, blank) == tuple(classes)
    best = max(p for one, p in paths(probabilities).items() if collapse(one, blank) == tuple(classes))
    assert math.prod(probabilities[t, k] for t, k in enumerate(taken)) == pytest.approx(best)
    assert align(np.log(probabilities), [classes[0]] * 4, blank) is None
    assert align(np.log(probabilities), [], blank).tolist() == [BLANK] * 5  # type: ignore[union-attr]


def test_characters_stand_where_they_are_most_probable() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0.8, 0.1, 0.1], [0.3, 0.1, 0.6]])
    found = read_along(probabilities, [0, 1], blank=0)
    assert found == Reading([0, 1], [0.8, 0.6], [2, 4])


def decode(probabilities: np.ndarray, blank: int | None = 0, **options: Any) -> str:
    decoder = TextDecoder(Decoding.of(options), ALPHABET, 3, blank)
    (reading,) = decoder(torch.from_numpy(probabilities)[None], [Reading([0], [0.5], [0])])
    return ALPHABET.text_of(reading.labels)


def test_a_beam_finds_what_the_best_path_does_not() -> None:
    # Graves' example: the best path is blank, blank with 0.36; "a" has 0.24 + 0.24 + 0.16.
    probabilities = np.array([[0.6, 0.4, 0.0], [0.6, 0.4, 0.0]])
    assert decode(probabilities, decode="beam") == "a"
    assert decode(probabilities) == "a"  # what was given as greedy
    assert decode(np.array([[0.9, 0.1, 0.0]] * 2), decode="beam") == ""


def test_a_lexicon_lets_nothing_else_out(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("ab\nbb\n\nzz\n")
    for seed in range(8):
        probabilities = draw(seed)
        sums: defaultdict[tuple[int, ...], float] = defaultdict(float)
        for path, p in paths(probabilities).items():
            sums[collapse(path, 0)] += p
        best = max(["ab", "bb"], key=lambda word: sums[tuple("_ab".index(one) for one in word)])
        assert decode(probabilities, lexicon=str(tmp_path / "words.txt")) == best
        words = [[0, 1], [1, 1]]
        place = most_probable_word(torch.from_numpy(probabilities), Reading([], [], []), words, 0)
        assert ["ab", "bb"][place] == best
    assert decode(draw(0), blank=None, lexicon=str(tmp_path / "words.txt")) == "ab"  # nearest to "a"


def test_a_language_model_breaks_ties(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("bbbb\n" * 20)
    even = np.array([[0.1, 0.46, 0.44]])
    assert decode(even, decode="beam") == "a"
    assert decode(even, language_model=str(tmp_path / "text.txt")) == "b"


def test_a_word_without_a_blank_is_the_nearest() -> None:
    reading = Reading([0, 1, 1], [0.9, 0.8, 0.7], [0, 1, 2])
    assert nearest_word(reading, [[0, 1, 1]]) is reading
    found = nearest_word(reading, [[1], [0, 1, 0, 1]])
    assert found.labels == [0, 1, 0, 1]
    assert found.scores == pytest.approx([0.8] * 4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"decode": "grredy"}, "greedy"),
        ({"language_weight": 0.4}, "language_model"),
        ({"lexicon": "nowhere.txt"}, "no such file"),
        ({"lexicon": "zz.txt"}, "no word"),
        ({"lexicon": "latin.txt"}, "not UTF-8, at byte 1"),
        ({"lexicon": "empty.txt"}, "is empty"),
    ],
)
def test_what_cannot_be_decoded_by_is_named(
    options: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("zz.txt").write_text("zz\n")
    Path("latin.txt").write_bytes(b"a\xe9")
    Path("empty.txt").write_text("\n")
    with pytest.raises(InputError, match=words):
        decode(draw(0), **options)
    with pytest.raises(InputError, match="blank"):
        decode(draw(0), blank=None, decode="beam")
