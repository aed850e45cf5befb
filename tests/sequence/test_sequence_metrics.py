"""Metrics of sequences: scenes worked by hand, and error rates equal to jiwer's."""

from __future__ import annotations

import math

import pytest

from opsin.sequence.metrics import Compared, by_length, error_rate, measure


def compared(length: int, exact: bool, truth: str = "", text: str = "", **more: float) -> Compared:
    values = {"loss": 2.0, "count": 4, "right": 4 if exact else 3, **more}
    return Compared(length, exact=exact, truth=truth, text=text, **values)  # type: ignore[arg-type]


def test_texts_by_hand() -> None:
    found = [compared(3, True, "a b c", "a b c"), compared(5, False, "a b c d", "a x c", loss=6.0)]
    metrics = measure("pairs", found)
    assert metrics["exact_match"] == 0.5 and metrics["token_accuracy"] == 7 / 8
    assert metrics["loss"] == 1.0 and metrics["perplexity"] == pytest.approx(math.e)
    assert metrics["wer"] == pytest.approx(2 / 7)  # x for b, d left out; seven words
    assert metrics["cer"] == pytest.approx(3 / 12)  # x for b, and " d"
    assert set(measure("pairs", found, whole=False)) == {"exact_match", "token_accuracy", "perplexity", "loss"}


def test_other_forms_by_hand() -> None:
    found = [compared(3, True), compared(3, False)]
    assert measure("classes", found) == {"accuracy": 0.5, "loss": 0.5}
    assert measure("labels", found) == {"exact_match": 0.5, "token_accuracy": 7 / 8, "loss": 0.5}
    assert set(measure("language", found)) == {"token_accuracy", "perplexity", "loss"}
    errors = [Compared(9, 0.25, 1, 0, False, absolute=0.5), Compared(9, 2.0, 2, 0, False, absolute=2.0)]
    assert measure("values", errors) == {"mse": 0.75, "mae": 2.5 / 3, "loss": 0.75}
    assert measure("pairs", []) == {}
    assert math.isfinite(measure("language", [compared(1, False, loss=1e9)])["perplexity"])


def test_word_error_rate_equals_jiwer() -> None:
    jiwer = pytest.importorskip("jiwer")
    truths = ["the cat sat on the mat", "a b c", "one", "two words"]
    texts = ["the cat sat on mat", "a c b d", "", "two  words"]
    assert error_rate("wer", texts, truths, str.split)["wer"] == pytest.approx(jiwer.wer(truths, texts))
    assert error_rate("wer", ["x"], [""], str.split) == {}


def test_lengths_are_grouped() -> None:
    found = [compared(length, length < 4) for length in (1, 2, 2, 3, 4, 9)]
    assert by_length(found, most=2) == [(1, 3, 4, 1.0), (4, 9, 2, 0.0)]
    assert by_length(found)[1] == (2, 2, 2, 1.0)
    assert by_length([]) == []
