"""BLEU: a case worked by hand, and equality with sacreBLEU."""

from __future__ import annotations

import math
import random

import pytest

from opsin.sequence.bleu import corpus_bleu, tokenize_13a


def test_by_hand() -> None:
    # 5 of 6 words, 3 of 5 pairs, 2 of 4 triples, 1 of 3 quadruples; as long as the reference: no penalty
    found = corpus_bleu(["the cat sat on a mat"], ["the cat sat on the mat"])
    assert found == pytest.approx(100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)
    # all right, but four words where the reference has five
    assert corpus_bleu(["a b c d"], ["a b c d e"]) == pytest.approx(100 * math.exp(1 - 5 / 4))
    assert corpus_bleu(["a b"], ["a b"]) == 0.0  # there are no four words in a row
    assert corpus_bleu(["x y z w"], ["a b c d"]) == 0.0 and corpus_bleu([], []) == 0.0
    with pytest.raises(ValueError):
        corpus_bleu(["a"], [])


def test_equals_sacrebleu() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    tokenize = sacrebleu.BLEU().tokenizer
    draw = random.Random(3)
    words = [
        "the",
        "cat,",
        "sat.",
        "3.5",
        "1,000",
        "don't",
        "(on)",
        "mat-like",
        "5-6",
        "&quot;x&quot;",
        "ende",
        "A/B",
        ".",
    ]
    for _ in range(20):
        references = [" ".join(draw.choices(words, k=draw.randint(1, 12))) for _ in range(5)]
        written = [
            " ".join(w for w in text.split() if draw.random() < 0.8) + draw.choice(["", " cat", ".."])
            for text in references
        ]
        expected = sacrebleu.corpus_bleu(written, [references])
        assert corpus_bleu(written, references) == pytest.approx(expected.score, abs=1e-9)
        for text in written + references:
            assert " ".join(tokenize_13a(text)) == tokenize(text)
