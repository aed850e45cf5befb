"""Evaluations of recognizers: lexicons, protocols, decoding, reports, and files of other tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import opsin
from opsin.data import Split
from opsin.data.inputs import ImageArray
from opsin.data.source import Source
from opsin.data.texts import PackedTexts, Texts
from opsin.engine.evaluate import evaluate_run, evaluate_split
from opsin.engine.evaluator import create_evaluator
from opsin.engine.score import evaluate_predictions
from opsin.errors import InputError
from opsin.read import report
from opsin.read.alphabet import Alphabet
from opsin.read.evaluate import WorstReads
from opsin.read.fit import steps_needed
from opsin.read.report import draw_alignment
from opsin.read.score import read_texts, score

from . import tiny_words
from .conftest import TinyReader

pytestmark = pytest.mark.rendered


def test_the_most_probable_word_of_the_images_own_list_is_taken(run: Path) -> None:
    images, texts = tiny_words.draw(40, seed=9)
    predictor: Any = opsin.load(run)
    predictor.model.head.bias.data[predictor.alphabet.encode("c")] -= 14  # so that some are read wrongly
    lists = [PackedTexts.pack(["bbbb", text]) for text in texts[:20]] + [PackedTexts.pack(["b", "?", "cab"])]
    lexicons = np.array([*range(20), *[20] * 10, *[-1] * 10])
    split = Split(ImageArray(torch.from_numpy(images), "words"), Texts.of(texts, "abc", lexicons=lexicons, words=lists))
    evaluator = create_evaluator(predictor)
    found = evaluate_split(evaluator, split, batch_size=7).result
    compared = evaluator.collected()
    assert sum(one.text == one.truth for one in compared[:20]) < sum(
        one.by_lexicon == one.truth for one in compared[:20]
    )
    assert [one.by_lexicon is None for one in compared] == [False] * 30 + [True] * 10
    assert {one.by_lexicon for one in compared[20:30]} <= {"b", "cab"}
    right = sum(one.by_lexicon == one.truth for one in compared[:30])
    assert found.metrics["word_accuracy_lexicon"] == right / 30
    titles = [section.title for section in evaluator.sections(found, split)]
    assert titles == [
        "How texts are compared",
        "Characters",
        "Confusion matrix",
        "Most frequent confusions",
        "Errors by length",
        "Worst texts",
        "How to read the numbers",
    ]


def test_protocol_and_decoding_are_options_and_are_said(run: Path, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("a\nB\nab\n")
    found = evaluate_run(run, split="test", ignore_case=True, decode="beam")
    assert found.addition is not None
    assert found.addition.describe().startswith("upper and lower case are one; every character counts; beam search")
    assert found.metrics["word_accuracy"] > 0.9
    alone = evaluate_run(run, split="test", lexicon=str(tmp_path / "words.txt"))
    assert alone.metrics["word_accuracy"] < 0.5
    answers = opsin.load(run).predict(torch.from_numpy(tiny_words.draw(6)[0]), lexicon=str(tmp_path / "words.txt"))
    assert {one.text for one in answers} <= {"a", "ab", ""}  # the alphabet has no B


def test_characters_stand_where_they_are_in_the_image(run: Path) -> None:
    images, texts = tiny_words.draw(12, seed=4)
    wide = torch.from_numpy(images).repeat_interleave(3, dim=3).repeat_interleave(2, dim=2)
    for answer, text in zip(opsin.load(run).predict(wide), texts, strict=True):
        if answer.text != text:
            continue
        for place, one in enumerate(answer.characters):
            middle = (one["left"] + one["right"]) / 2 / 3
            assert abs(middle - (8 * place + 3.5)) < 5
            assert 0 <= one["left"] < one["right"] <= 96
        drawn = answer.plot()
        assert drawn.size[0] >= 320


def test_the_report_has_the_worst_texts(run: Path) -> None:
    page = (run / "report.html").read_text()
    assert "How texts are compared" in page
    kept = WorstReads(limit=2)
    for place, (truth, text) in enumerate([("abc", "abc"), ("abc", "abd"), ("ab", "xy"), ("a", ""), ("abcd", "")]):
        kept.add(place, truth, text, torch.full((2, 3), float(place)), [place])
    assert kept.places() == [4, 2]
    assert kept.found(4)[0].tolist() == [[4.0] * 3] * 2 and kept.found(2)[1] == [2]


def test_losses_are_taken_once_a_batch_of_the_texts_that_fit(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, texts = tiny_words.draw(20, seed=9)
    split = Split(ImageArray(torch.from_numpy(images), "words"), Texts.of([*texts[:19], ""], "abc"))
    evaluator = create_evaluator(opsin.load(run))
    calls: list[int] = []
    loss_of_each = TinyReader.loss_of_each

    def counted(self: TinyReader, outputs: dict[str, Any], targets: Any) -> torch.Tensor:
        calls.append(len(targets["labels"]))
        return loss_of_each(self, outputs, targets)

    monkeypatch.setattr(TinyReader, "loss_of_each", counted)
    monkeypatch.setattr(TinyReader, "steps", lambda self, size: 3)  # fewer than there are probabilities
    evaluate_split(evaluator, split, batch_size=10)
    fits = [0 < steps_needed([ord(one) for one in text], blank=True) <= 3 for text in [*texts[:19], ""]]
    assert True in fits and fits.count(False) > 1
    assert [one.loss is not None for one in evaluator.collected()] == fits
    assert calls == [sum(fits[:10]), sum(fits[10:])]


def test_the_path_of_a_worst_text_is_of_what_was_read(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, texts = tiny_words.draw(12, seed=9)
    predictor: Any = opsin.load(run)
    predictor.alphabet = Alphabet("a-C")  # read as they were trained, b is a hyphen now
    split = Split(ImageArray(torch.from_numpy(images), "words"), Texts.of(["x"] * 12, "x"))
    evaluator = create_evaluator(predictor, ignore_case=True, alphanumeric=True)
    found = evaluate_split(evaluator, split).result
    drawn: dict[int, str] = {}

    def draw(probabilities: np.ndarray, labels: list[int], alphabet: Alphabet, blank: int) -> Any:
        drawn[len(drawn)] = alphabet.text_of(labels)
        return draw_alignment(probabilities, labels, alphabet, blank)

    monkeypatch.setattr(report, "draw_alignment", draw)
    evaluator.sections(found, split)
    worst = found.evidence.worst.places()
    assert list(drawn.values()) == [texts[place].replace("b", "-").replace("c", "C") for place in worst]
    assert any("-" in text for text in drawn.values())


def source() -> Source:
    images, _texts = tiny_words.draw(3)
    truth = Texts.of(["Ab-1", "c", ""])
    return Source("here", "tiny", {"test": Split(ImageArray(torch.from_numpy(images[:3]), "x"), truth)})


FORMS = {
    "a.csv": 'path,text\nx[0],Ab-1\nx[1],"c"\nx[2],\n',
    "a.tsv": "x[2]\t\nx[0]\tAb-1\nx[1]\tc\n",
    "a.jsonl": '{"path": "x[0]", "text": "Ab-1"}\n{"file": "x[1]", "text": "c"}\n{"path": "x[2]", "text": ""}\n',
    "a.json": json.dumps([{"path": f"x[{i}]", "text": text} for i, text in enumerate(["Ab-1", "c", ""])]),
    "texts_first.csv": "\ntext,path\nAb-1,x[0]\nc,x[1]\n,x[2]\n",
    "quoted.txt": 'x[0], "Ab-1"\nx[1], "c"\nx[2], ""\n',
    "a.txt": "x[0] Ab-1\nx[1] c\nx[2] \n",
}


@pytest.mark.parametrize("name", FORMS)
def test_texts_of_other_tools_are_compared(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(FORMS[name])
    assert score(tmp_path / name, source(), "test").metrics["word_accuracy"] == 1
    (tmp_path / name).write_text(FORMS[name].replace("Ab-1", "aB1"))
    found = score(tmp_path / name, source(), "test")
    assert found.metrics["word_accuracy"] == pytest.approx(2 / 3)
    assert found.metrics["cer"] == pytest.approx(3 / 5)
    assert score(tmp_path / name, source(), "test", ignore_case=True, alphanumeric=True).metrics["cer"] == 0


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "x[0],a\nx[0],b\n", "has a text already"),
        ("a.csv", "x[0],a\n", "has no text for 2 of 3"),
        ("a.csv", "y.png,a\n", "not in here"),
        ("a.csv", "text,path\nAb-1,x[0]\nc\n", "has no text for 2 of 3"),
        ("a.csv", f"x[0],{'a' * 200_000}\n", "line 1 cannot be read as a table"),
        ("a.json", "[1]", "lacks a path"),
        ("a.json", "{", "no readable JSON"),
        ("a.jsonl", "", "holds no texts"),
    ],
)
def test_what_cannot_be_compared_is_named(name: str, content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=words):
        score(tmp_path / name, source(), "test")
    (tmp_path / name).write_bytes(b"x[0],a\nx[1],\xe9\n")
    with pytest.raises(InputError, match="line 2 is not UTF-8"):
        read_texts(tmp_path / name)


def test_a_comma_in_a_text_parts_no_table(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("0.png Hello, world\n1.png b\n")
    assert [(one.image, one.text) for one in read_texts(tmp_path / "a.txt")] == [
        ("0.png", "Hello, world"),
        ("1.png", "b"),
    ]
    (tmp_path / "b.txt").write_text("my word.png,Hello\n1.png,b\n")
    assert [one.text for one in read_texts(tmp_path / "b.txt")] == ["Hello", "b"]


def test_answers_that_predict_wrote_are_scored(run: Path, tmp_path: Path, readers: None) -> None:
    images, texts = tiny_words.draw(10, seed=2)
    answers = opsin.load(run).predict(torch.from_numpy(images))
    rows = [{"path": f"words[{i}]", **one} for i, one in enumerate(answers)]
    (tmp_path / "answers.json").write_text(json.dumps(rows))
    found = evaluate_predictions(tmp_path / "answers.json", "tinywords:10", "all", task="read")
    right = [one.text == text for one, text in zip(answers, tiny_words.draw(10)[1], strict=True)]
    assert found["word_accuracy"] == sum(right) / 10
    assert len(texts) == 10
