"""A recognizer is trained, evaluated and used through the verbs that all tasks have."""

from __future__ import annotations

from pathlib import Path

import torch

import opsin

from . import tiny_words


def test_a_tiny_reader_learns_and_reads(run: Path) -> None:
    found = opsin.evaluate(run, split="test")
    assert found["word_accuracy"] > 0.9
    assert found["cer"] < 0.1
    images, texts = tiny_words.draw(8, seed=5)
    answers = opsin.load(run).predict(torch.from_numpy(images))
    assert [one.text for one in answers] == texts
    assert all(0.3 < one.score <= 1 for one in answers)
    assert "".join(one["text"] for one in answers[0].characters) == texts[0]
