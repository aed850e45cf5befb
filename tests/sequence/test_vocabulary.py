"""Texts as numbers and back: characters, words and pairs of bytes."""

from __future__ import annotations

import pytest

from opsin.errors import InputError
from opsin.sequence.tokens import END, PAD, SPECIALS, START, UNKNOWN
from opsin.sequence.vocabulary import Vocabulary, build_vocabulary


def test_characters_by_hand() -> None:
    vocabulary = build_vocabulary(["bad", "cab"])
    assert vocabulary.symbols == ("a", "b", "c", "d") and len(vocabulary) == SPECIALS + 4
    assert vocabulary.encode("dax") == [7, 4, UNKNOWN]
    assert vocabulary.decode([START, 7, 4, UNKNOWN, END, 5, PAD]) == "da\ufffd"
    assert vocabulary.unknown("xaxy") == ["x", "y"]


def test_words_by_hand() -> None:
    texts = ["the cat  saw the dog", "a dog"]
    assert build_vocabulary(texts, "words").symbols == ("a", "cat", "dog", "saw", "the")
    often = build_vocabulary(texts, "words", min_count=2)
    assert often.symbols == ("dog", "the")
    assert often.decode(often.encode("the cat")) == "the <unk>"
    assert build_vocabulary([*texts, "the"], "words", most=1).symbols == ("the",)  # the most frequent
    with pytest.raises(InputError, match="no symbol that occurs 9 times"):
        build_vocabulary(texts, "words", min_count=9)
    with pytest.raises(InputError, match="no symbol;"):
        build_vocabulary(["", " "], "words")
    with pytest.raises(InputError, match="unknown unit 'word'; did you mean words"):
        build_vocabulary(texts, "word")


def test_a_vocabulary_is_the_same_after_saving() -> None:
    vocabulary = build_vocabulary(["déjà vu"])
    assert Vocabulary.from_meaning(vocabulary.to_meaning()) == vocabulary


def test_byte_pairs() -> None:
    pytest.importorskip("tokenizers")
    vocabulary = build_vocabulary(["low lower lowest"] * 5, "bpe", most=262)
    assert len(vocabulary.symbols) == 262
    assert "low" in vocabulary.split("low")  # the most frequent pairs, joined: lo, low
    again = Vocabulary.from_meaning(vocabulary.to_meaning())
    for text in ("lowest", "größer \U0001f600  x"):  # every byte is a symbol: nothing is unknown
        numbers = again.encode(text)
        assert min(numbers) >= SPECIALS and max(numbers) < len(again)
        assert again.decode([START, *numbers, END, PAD]) == text and again.unknown(text) == []
    with pytest.raises(InputError, match="256 or more"):
        build_vocabulary(["x"], "bpe", most=100)
    with pytest.raises(ValueError, match="no tokenizer"):
        Vocabulary("bpe", (), "{}").encode("x")
