"""What synthetic images say."""

from __future__ import annotations

import string
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from opsin.data.text_engine.wording import Wording, alphabet, gb2312, word_list
from opsin.errors import InputError


def first(texts, count: int) -> list[str]:
    return list(islice(texts, count))


def test_alphabets_are_those_of_the_standard() -> None:
    assert [len(gb2312(level)) for level in (1, 2)] == [3755, 3008]
    assert gb2312(1)[:3] == "啊阿埃" and gb2312(1)[-1] == "座" and gb2312(2)[0] == "亍" and gb2312(2)[-1] == "齄"
    assert alphabet("gb2312") == gb2312(1) + gb2312(2) and len(set(alphabet("gb2312"))) == 6763
    assert alphabet("alphanumeric") == string.digits + string.ascii_lowercase
    assert sorted(alphabet("ascii")) == sorted(chr(code) for code in range(33, 127))
    assert alphabet("digits+abc+a b") == "0123456789abc" and alphabet("xyzzy") == "xyz"


def test_the_list_of_words_is_of_words() -> None:
    common, others = word_list()
    assert (len(common), len(others)) == (40_324, 34_212) and not {*common} & {*others}
    assert {"the", "street", "Monday"} <= {*common} and all(
        word.isascii() and word.isalpha() for word in common + others
    )


def test_texts_stay_within_the_alphabet_and_the_length() -> None:
    for name in ("ascii", "alphanumeric", "lower", "digits", "ABCDEFGH", "gb2312-1", "gb2312-1+ascii"):
        wording = Wording(alphabet(name))
        words, lines = first(wording.words(1), 300), first(wording.lines(1), 100)
        assert {*"".join(words)} <= {*alphabet(name)} and {*"".join(lines)} <= {*alphabet(name), " "}
        assert all(text == text.strip() and text for text in words + lines)
        for low, high in ((1, 1), (3, 3), (2, 9)):
            fixed = Wording(alphabet(name), length=(low, high))
            assert all(low <= len(word) <= high for word in first(fixed.words(2), 200)), (name, low)
            assert all(1 <= len(line) <= high for line in first(fixed.lines(2), 100))


def test_a_seed_decides_the_texts_and_a_longer_list_begins_alike() -> None:
    wording = Wording(alphabet("ascii"))
    assert first(wording.words(3), 50) == first(wording.words(3), 80)[:50] != first(wording.words(4), 50)


def test_words_are_of_all_kinds() -> None:
    words = first(Wording(alphabet("ascii")).words(0), 3000)
    kinds = Counter(
        "number" if any(map(str.isdigit, w)) else "upper" if w.isupper() else "capital" if w.istitle() else "lower"
        for w in words
    )
    assert all(kinds[kind] > 300 for kind in ("number", "upper", "capital", "lower"))
    assert 5.5 < sum(map(len, words)) / len(words) < 6.8  # a dictionary without bias gives 7.4


def test_characters_without_words_come_equally_often() -> None:
    singles = first(Wording(gb2312(1), length=(1, 1)).words(0), 3755 * 2)
    assert set(Counter(singles).values()) == {2} and len(set(singles[:3755])) == 3755


def test_a_list_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("Zürich\nBern\n\nBasel\n", "utf-8")
    assert {*first(Wording(alphabet("letters+ü"), str(file)).words(0), 99)} == {"Zürich", "Bern", "Basel"}
    assert {*first(Wording(alphabet("letters"), str(file)).words(0), 99)} == {"Bern", "Basel"}
    assert {*first(Wording(alphabet("lower"), str(file)).words(0), 99)} == {"bern", "basel"}
    file.write_bytes("eins\nzwei\nf\xfcnf\n".encode("latin-1"))
    with pytest.raises(InputError, match="line 3 is not UTF-8"):
        word_list.__wrapped__(str(file))
    file.write_text("\n\n")
    with pytest.raises(InputError, match="has no words; expected one a line"):
        word_list.__wrapped__(str(file))
    with pytest.raises(InputError, match="cannot be opened: no such file"):
        word_list.__wrapped__(str(tmp_path / "other.txt"))
    other = tmp_path / "numbers.txt"
    other.write_text("123\n456")
    with pytest.raises(InputError, match="no word of 1 to 2 characters of the characters asked for"):
        Wording(alphabet("digits"), str(other), (1, 2))
