"""The task through its verbs: train, evaluate, predict, resume, on each form of sequences."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import opsin
from opsin import cli, data
from opsin.engine.checkpoint import read_checkpoint
from opsin.engine.evaluate import evaluate_run
from opsin.engine.task import Task
from opsin.engine.train import train
from opsin.errors import InputError
from opsin.sequence.inputs import text_of
from opsin.sequence.terms import Terms
from opsin.sequence.tokens import END, PAD

SMALL: dict[str, Any] = {"model.hidden": 24, "optim.lr": 0.01, "train.accelerator": "cpu"}
PAIRS = {**SMALL, "model.embedding": 16, "model.layers": 1, "model.attention": "dot"}


def fit(out: Path, model: str, source: Any, epochs: int = 1, said: Any = None, **more: Any) -> Any:
    settings = {**(PAIRS if model == "seq2seq" else SMALL), **more}
    say = (lambda line: None) if said is None else said.append
    return train(task="sequence", model=model, data=source, epochs=epochs, overrides=settings, out=out, say=say)


@pytest.fixture(scope="module")
def dates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has seen few dates, in one epoch."""
    out = tmp_path_factory.mktemp("runs") / "dates"
    fit(out, "seq2seq", "dates,count=200,val=20,test=20")
    return out


def test_pairs_are_learned(tmp_path: Path) -> None:
    words = ["".join(letters) for n in (1, 2, 3) for letters in itertools.product("abc", repeat=n)]
    for split, times in (("train", 10), ("val", 1), ("test", 1)):
        (tmp_path / f"{split}.tsv").write_text("".join(f"{word}\t{word}\n" for word in words * times))
    made = fit(tmp_path / "run", "seq2seq", str(tmp_path), 8)
    assert made.metrics["exact_match"] > 0.75  # it was 0.897 here, and is 0 untrained
    assert made.metrics["perplexity"] == pytest.approx(np.exp(made.metrics["loss"]))
    predictor = opsin.load(made.path)
    greedy, beam = ([one.text for one in predictor.predict(words, beam=width)] for width in (1, 3))
    shares = [sum(a == b for a, b in zip(found, words, strict=True)) / len(words) for found in (greedy, beam)]
    assert shares[0] == pytest.approx(made.metrics["exact_match"]) and shares[1] > 0.75
    report = (tmp_path / "run/report.html").read_text()
    assert "Accuracy by length" in report and "How to read the numbers" in report


def test_what_an_evaluation_finds_is_what_predict_says(dates: Path) -> None:
    found = evaluate_run(dates, split="val")
    split = data.open("dates,count=200,val=20,test=20", "sequence").splits["val"]
    texts = list(split.inputs.strings())  # type: ignore[attr-defined]
    answers = opsin.load(dates).predict(texts)
    right = sum(answer.text == truth for answer, truth in zip(answers, split.kind.texts, strict=True))
    assert found.metrics["exact_match"] == right / 20
    mistakes = [one["text"] for one in found.details["mistakes"]]
    assert mistakes == [a.text for a, t in zip(answers, split.kind.texts, strict=True) if a.text != t]
    one_by_one = opsin.load(dates).predict(texts, batch_size=1)  # padding changes nothing
    assert [a.text for a in one_by_one] == [a.text for a in answers]
    assert [a["score"] for a in one_by_one] == pytest.approx([a["score"] for a in answers], abs=1e-4)


def test_attention_is_an_answer_s_array(dates: Path) -> None:
    answer = opsin.load(dates).predict("May 3, 2021", max_length=7)
    assert answer.attention.shape == (len(answer.text) + 1, 11) and len(answer.text) <= 7
    np.testing.assert_allclose(answer.attention.sum(axis=1), 1, atol=1e-5)
    assert "attention" not in json.dumps(answer)


@pytest.mark.parametrize(
    ("model", "source", "metrics"),
    [
        ("language_model", "anbn:6", {"token_accuracy", "perplexity", "loss"}),
        ("sequence_labeller", "parity:6", {"exact_match", "token_accuracy", "loss"}),
        ("sequence_classifier", "rows:digits", {"accuracy", "loss"}),
        ("sequence_regressor", "adding:10", {"mse", "mae", "loss"}),
    ],
)
def test_other_forms(tmp_path: Path, model: str, source: str, metrics: set[str]) -> None:
    settings = ",count=300,val=30,test=30" if source != "rows:digits" else ""
    said = list[str]()
    made = fit(tmp_path / "run", model, source + settings, said=said)
    assert set(made.metrics) == metrics and made.split == "test"
    again = evaluate_run(made.path, split="test")
    assert again.metrics == pytest.approx(made.metrics)
    predictor: Any = opsin.load(made.path)
    if source == "anbn:6":
        drawn = [predictor.predict("aa", temperature=1.0, seed=3).text for _ in range(2)]
        assert drawn[0] == drawn[1] and set(drawn[0]) <= set("ab\ufffd")
        assert len(predictor.predict("aa", max_length=1).text) <= 1
    elif source == "parity:6":
        answer = predictor.predict("0 1 1")
        assert len(answer["labels"]) == 3 and set(answer["labels"]) <= {"odd", "even"}
    else:
        channels = predictor.terms.channels
        one, two = torch.rand(8, channels), torch.rand(5, channels)
        together = predictor.predict([one, two])
        alone = predictor.predict(two)
        of = (lambda one: [one.score]) if "score" in alone else (lambda one: one.numbers)
        assert of(together[1]) == pytest.approx(of(alone), abs=1e-5)


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "reverse:5,count=64,val=8,test=8"
    settings: dict[str, Any] = {"train.batch_size": 16, "train.save_every_steps": 2}
    fit(tmp_path / "whole", "seq2seq", source, 2, **settings)
    own = Task.training_step

    def dying(self: Task, batch: Any, batch_idx: int) -> Any:
        if 4 * self.current_epoch + batch_idx == 6:  # the third of the second epoch, whose buckets are others
            raise RuntimeError("power failed")
        return own(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Task, "training_step", dying)
        with pytest.raises(RuntimeError, match="power failed"):
            fit(tmp_path / "run", "seq2seq", source, 2, **settings)
    train(resume=tmp_path / "run", say=lambda line: None)
    whole, again = (read_checkpoint(tmp_path / name / "last.ckpt")["state_dict"] for name in ("whole", "run"))
    assert whole.keys() == again.keys() and all(torch.equal(value, again[name]) for name, value in whole.items())


def test_terms_by_hand() -> None:
    meaning = {"form": "pairs", "source": {"unit": "characters", "symbols": ["a", "b"]}}
    terms = Terms({**meaning, "target": {"unit": "words", "symbols": ["x", "y"]}})
    codes = [torch.tensor([97, 98], dtype=torch.int32), torch.tensor([98], dtype=torch.int32)]
    source, lengths = terms.as_input(codes)
    assert source.tolist() == [[4, 5], [5, PAD]] and lengths.tolist() == [2, 1]
    texts = [torch.tensor([ord(c) for c in text], dtype=torch.int32) for text in ("y x", "x")]
    assert text_of(texts[0]) == "y x"
    assert terms.as_target(texts, codes)["tokens"].tolist() == [[5, 4], [4, PAD]]
    language = Terms({**meaning, "form": "language"})
    assert language.as_input(codes)[0].tolist() == [[4, 5, END], [5, END, PAD]]
    scaled = Terms({"form": "values", "channels": 1, "values": 1, "mean": [2.0], "std": [4.0]})
    rows, lengths = scaled.as_input([torch.tensor([[2.0], [6.0]]), torch.tensor([[10.0]])])
    assert rows[..., 0].tolist() == [[0.0, 1.0], [2.0, 0.0]] and lengths.tolist() == [2, 1]


def test_numbers_are_learned_by_their_scale_and_answered_in_their_units(tmp_path: Path) -> None:
    """Answers around a million, which a network would not reach from 0 in so few steps."""
    random = np.random.RandomState(0)
    rows = [{"series": [1000 + x, 3], "value": [1e6 + 500 * x, 7]} for x in random.uniform(-1, 1, 240).tolist()]
    for split, part in (("train", rows[:200]), ("val", rows[200:]), ("test", rows[200:])):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, part)))
    made = fit(tmp_path / "run", "sequence_regressor", str(tmp_path), 1, **{"sequence.normalize": True})
    model: Any = opsin.load(made.path)
    terms = model.terms
    truth = np.array([row["value"] for row in rows], np.float32).astype(float)
    assert terms.meaning["answer_mean"] == pytest.approx(truth[:200].mean(axis=0), rel=1e-12)
    assert terms.meaning["answer_std"] == pytest.approx([truth[:200, 0].std(), 1.0])  # what never changes has none
    assert terms.as_target(torch.tensor([[1e6, 7.0]]), [])["values"][0, 1] == 0
    answers = opsin.load(made.path).predict(tmp_path / "test.jsonl")
    errors = np.array([one["values"] for one in answers]) - truth[200:]
    assert made.metrics["mse"] == pytest.approx((errors**2).mean(), rel=1e-3)
    assert (errors[:, 0] ** 2).mean() < 2 * truth[200:, 0].var()  # from 0 it were 1e12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "sequence_classifier"}, "copy:3 has a text for each text, and sequence_classifier is for a class"),
        ({"model.source_vocabulary": 9}, "model.source_vocabulary follows from the data; remove it"),
        ({"augment": "digits"}, "augment"),
        ({"mixing.mixup": 0.2}, "mixing blends images, and sequences are none"),
        ({"train.monitor": "val_mota"}, "unknown train.monitor"),
        ({"sequence.unit": "letters"}, "sequence.unit"),
        ({"sequence.target_unit": "words", "sequence.shared": True}, "one vocabulary of both texts needs one unit"),
    ],
)
def test_wrong_settings(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    model = change.pop("model", "seq2seq")
    settings = {} if model != "seq2seq" else {**PAIRS, **change}
    with pytest.raises(InputError, match=message):
        train(task="sequence", model=model, data="copy:3", overrides=settings, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_wrong_inputs(dates: Path, tmp_path: Path) -> None:
    predictor = opsin.load(dates)
    for given, message in (
        ("", "the text is empty"),
        ("3 Ŝept 2021", "'3 Ŝept 2021' has characters that the model was never trained on: 'Ŝ'"),
        (3, "."),
        (np.zeros((3, 2)), "the model reads texts, got ndarray"),
    ):
        with pytest.raises((InputError, TypeError), match=message):
            predictor.predict(given)
    with pytest.raises(InputError, match="beam"):
        predictor.predict("3 May 2021", beam=0)
    with pytest.raises(InputError, match="temperature draws at random and beam searches"):
        predictor.predict("3 May 2021", beam=2, temperature=1.0)
    with pytest.raises(InputError, match="the model was trained on a text for each text, this data has a label"):
        evaluate_run(dates, "parity:9")
    (tmp_path / "lines.txt").write_text("3 May 2021\n\nMay 4, 2022\n")
    assert [one["source"] for one in predictor.predict(tmp_path / "lines.txt")] == ["3 May 2021", "May 4, 2022"]


def test_the_command(
    dates: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["opsin", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    status, out, _ = call("predict", dates, "1 May 2021", "007", "--json")
    assert status == 0 and [one["source"] for one in json.loads(out)] == ["1 May 2021", "007"]
    status, _, err = call("predict", dates, "3 \u015cept 2021", "1 May 2021")
    assert status == 2 and "1 of 2 inputs could not be read" in err
    status, _, err = call("predict", dates, "")
    assert status == 2 and "an empty text was given" in err
    status, out, _ = call("eval", dates, "--beam", "2", "--json")
    assert status == 0 and "exact_match" in out
    status, _, err = call("predict", dates, tmp_path)
    assert status == 2 and "the model reads texts; give a text, or a file with one a line" in err
