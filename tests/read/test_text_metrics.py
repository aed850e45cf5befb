"""Rates of errors in texts, by hand, by a plain version and by other libraries."""

from __future__ import annotations

import random

import pytest

from opsin.read.metrics import Compared, Protocol, align_texts, describe_pairs, evaluate, measure_texts


def plain_distance(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, one in enumerate(a, 1):
        row, before = [i], row
        for j, other in enumerate(b, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (one != other)))
    return row[-1]


def drawn(count: int = 60) -> tuple[list[str], list[str]]:
    generator = random.Random(3)
    truths = ["".join(generator.choices("abc d", k=generator.randint(1, 12))).strip() or "a" for _ in range(count)]
    texts = ["".join(one for one in text if generator.random() > 0.2) for text in truths]
    texts = [text.replace("b", "c") if generator.random() < 0.3 else text for text in texts]
    return [" ".join(one.split()) for one in truths], [" ".join(one.split()) for one in texts]  # as jiwer has them


def test_rates_by_hand() -> None:
    found = measure_texts(["STREET 5", "cafe", "no"], ["STREET", "caffe", "no"])
    assert found == pytest.approx(
        {
            "word_accuracy": 1 / 3,
            "cer": 3 / 14,  # two left out, one put in; of 8 + 4 + 2
            "cer_without_spaces": 2 / 13,
            "wer": 2 / 4,
            "edit_similarity": (6 / 8 + 4 / 5 + 1) / 3,
        }
    )
    assert measure_texts([], []) == {}
    assert measure_texts([""], ["a"]) == {"word_accuracy": 0, "edit_similarity": 0}
    assert measure_texts([""], [""]) == {"word_accuracy": 1, "edit_similarity": 1}


def test_rates_are_those_of_other_libraries() -> None:
    jiwer = pytest.importorskip("jiwer")
    truths, texts = drawn()
    found = measure_texts(truths, texts)
    assert found["cer"] == pytest.approx(jiwer.cer(truths, texts))
    assert found["wer"] == pytest.approx(jiwer.wer(truths, texts))


def test_similarities_are_rapidfuzzs() -> None:
    distance = pytest.importorskip("rapidfuzz.distance")
    truths, texts = drawn()
    pairs = zip(truths, texts, strict=True)
    expected = [distance.Levenshtein.normalized_similarity(a, b) for a, b in pairs]
    assert measure_texts(truths, texts)["edit_similarity"] == pytest.approx(sum(expected) / len(expected))


def test_alignments_have_as_many_differences_as_the_distance() -> None:
    for truth, text in zip(*drawn(), strict=True):
        pairs = align_texts(truth, text)
        assert "".join(a for a, _ in pairs) == truth
        assert "".join(b for _, b in pairs) == text
        assert sum(a != b for a, b in pairs) == plain_distance(truth, text)
    assert describe_pairs(align_texts("street", "stret5")) == "str[e>]et[>5]"


def test_confusions_are_counted_by_characters() -> None:
    compared = [Compared("look", "l00k"), Compared("so", "so", loss=2.0), Compared("to", "t", by_lexicon="to")]
    found = evaluate(compared)
    assert found.confusions == {("o", "0"): 2, ("o", ""): 1}
    assert found.characters == {"k": (1, 1), "l": (1, 1), "o": (4, 1), "s": (1, 1), "t": (1, 1)}
    assert found.metrics["word_accuracy_lexicon"] == 1
    assert found.metrics["loss"] == 2
    assert found.worst(5) == [0, 2]
    written = found.to_dict()
    assert written["confusions"][0] == {"true": "o", "read": "0", "count": 2}
    assert written["mistakes"][0] == {"truth": "look", "text": "l00k", "place": 0}
    assert written["characters"]["o"] == {"count": 4, "recall": 0.25}


def test_a_protocol_says_what_is_compared() -> None:
    assert Protocol(ignore_case=True).normalise("It's É") == "it's é"
    assert Protocol(alphanumeric=True).normalise("It's É 5") == "Its5"
    assert Protocol(True, True).describe() == "upper and lower case are one; letters and digits alone count"
    assert Protocol().describe(fold_case=True, only=True).startswith("upper and lower case are one; what the alphabet")
