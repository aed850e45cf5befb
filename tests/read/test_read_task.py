"""A recognizer is trained, evaluated and used through the verbs that all tasks have."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image

import opsin
from opsin.data.texts import Texts
from opsin.errors import InputError
from opsin.read.blanks import BlankWatch
from opsin.read.recipe import ReadSection, choose_alphabet

from . import tiny_words
from .conftest import RECIPE


def test_a_tiny_reader_learns_and_reads(run: Path) -> None:
    found = opsin.evaluate(run, split="test")
    assert found["word_accuracy"] > 0.9
    assert found["cer"] < 0.1
    images, texts = tiny_words.draw(8, seed=5)
    answers = opsin.load(run).predict(torch.from_numpy(images))
    assert [one.text for one in answers] == texts
    assert all(0.3 < one.score <= 1 for one in answers)
    assert "".join(one["text"] for one in answers[0].characters) == texts[0]


def test_fine_tuning_keeps_the_rows_of_the_characters_that_both_know(run: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    tuned = {**RECIPE, "read": {"alphabet": "bcXa"}, "train": {**RECIPE["train"], "init": str(run), "epochs": 1}}
    opsin.train({**tuned, "optim": {"lr": 1e-9}}, out=tmp_path / "tuned", say=lines.append)
    assert any("3 kept (b, c, a); 1 new (X); 0 lost" in line for line in lines)
    before, after = opsin.load(run).model.head, opsin.load(tmp_path / "tuned").model.head
    for row, old in enumerate([1, 2, None, 0, 3]):  # the blank last
        if old is not None:
            assert torch.allclose(after.weight[row], before.weight[old], atol=1e-5)
    assert opsin.load(tmp_path / "tuned").facts.meaning == {"alphabet": "bcXa"}
    assert opsin.evaluate(tmp_path / "tuned", split="test")["word_accuracy"] > 0.9


def test_what_cannot_be_learned_is_left_out_and_named(readers: None, tmp_path: Path) -> None:
    lines: list[str] = []
    recipe = {**RECIPE, "read": {"alphabet": "ab"}, "train": {**RECIPE["train"], "max_steps": 1, "epochs": 1}}
    opsin.train(
        {**recipe, "data": {"source": "tinywords:96", "size": [12, 12]}}, out=tmp_path / "run", say=lines.append
    )
    assert any("characters that the alphabet lacks and are left out: 'c' in" in line for line in lines)
    (long,) = [line for line in lines if "need more than the network's 3 steps" in line]
    assert "words[" in long and "(4)" in long
    with pytest.raises(InputError, match="no training text can be learned"):
        opsin.train({**recipe, "read": {"alphabet": "xyz"}}, out=tmp_path / "none")


def test_a_training_that_reads_nothing_is_spoken_of() -> None:
    watch = BlankWatch()
    assert "first learns that most steps are blank" in (watch.observe(1.0, 4.0, 50) or "")
    assert watch.observe(1.0, 3.0, 100) is None  # once
    assert watch.observe(1.0, 3.0, 2000) is None
    assert watch.observe(1.0, 2.999, 2050) is None
    assert "the loss stands still" in (watch.observe(1.0, 3.0, 2100) or "")
    assert watch.observe(1.0, 3.0, 2150) is None
    assert watch.observe(0.4, 1.0, 2200) is None
    assert "at its beginning" not in (watch.observe(1.0, 0.5, 2250) or "")


def test_alphabets_are_chosen_by_name_or_characters() -> None:
    truth = Texts.of(["Ab", "b!"])
    assert choose_alphabet(ReadSection(), truth) == {"alphabet": "!Ab", "fold_case": False, "only": False}
    assert choose_alphabet(ReadSection(fold_case=True), truth)["alphabet"] == "!ab"
    assert choose_alphabet(ReadSection(alphabet="alphanumeric"), truth) == {
        "alphabet": "0123456789abcdefghijklmnopqrstuvwxyz",
        "fold_case": True,
        "only": True,
    }
    assert len(choose_alphabet(ReadSection(alphabet="ascii"), truth)["alphabet"]) == 95
    with pytest.raises(InputError, match="'a' twice"):
        choose_alphabet(ReadSection(alphabet="aba"), truth)


def test_data_sets_of_python_have_texts() -> None:
    images, texts = tiny_words.draw(5)
    rows = [{"image": torch.from_numpy(image), "label": text} for image, text in zip(images, texts, strict=True)]
    source = opsin.data.source_of(rows, "read", name="mine")
    assert list(source.splits["all"].kind.texts) == texts
    pairs = [(torch.from_numpy(image), text) for image, text in zip(images, texts, strict=True)]
    assert source.meaning == opsin.data.source_of(pairs, "read").meaning
    with pytest.raises(InputError, match=r"\[0\]: what an image reads must be a string; got int 3"):
        opsin.data.source_of([(pairs[0][0], 3)], "read")


def test_a_zip_with_labels_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "some_test.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(2):
            content = io.BytesIO()
            Image.new("L", (20, 10)).save(content, "PNG")
            archive.writestr(f"{number}.png", content.getvalue())
        lines = [{"file": "0.png", "text": "Ä b", "lexicon": ["Ä b", "c"]}, {"file": "1.png", "text": "c"}]
        archive.writestr("labels.jsonl", "\n".join(map(json.dumps, lines)))
    split = opsin.data.open(path, "read").splits["test"]
    assert list(split.kind.texts) == ["Ä b", "c"]
    assert split.kind.characters == " bcÄ"
    assert list(split.kind.lexicon(0)) == ["Ä b", "c"]
    assert split.kind.lexicon(1) is None
    assert split.read(1).shape == (1, 10, 20)
