"""Class labels that are written as folders or as a table read back as the same, or are refused."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from opsin import cli, data, rooms
from opsin.cli.written_formats import find_writer
from opsin.data.inputs import ImageFiles
from opsin.data.labels import ClassLabels
from opsin.data.source import Source, Split
from opsin.errors import InputError

WRITERS = {name: find_writer(rooms.find_room("classify"), name).write for name in ("folders", "csv")}


def source(folder: Path, labels: Any, classes: list[str], keys: tuple[str, ...] = ("train", "val")) -> Source:
    """An image for each label in each split, all called alike."""
    splits = {}
    for place, key in enumerate(keys):
        paths = [folder / f"{key}/{k}/photo 1.PNG" for k in range(len(labels))]
        for k, path in enumerate(paths):
            path.parent.mkdir(parents=True)
            Image.fromarray(np.full((6, 5), 10 * k + place, np.uint8)).save(path)
        splits[key] = Split(ImageFiles([str(path) for path in paths]), ClassLabels(np.array(labels), classes))
    return Source("given", "test", splits, task="classify")


def named(found: Source) -> dict[str, set[tuple[int, str]]]:
    """Of each split the first pixel of each image, and its classes."""
    return {
        key: {
            (int(split.read(i)[0, 0, 0]), "+".join(found.classes[k] for k in split.kind.shown(i)))
            for i in range(len(split))
        }
        for key, split in found.splits.items()
    }


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("keys", [("train", "val", "test"), ("all",)])
@pytest.mark.parametrize("form", WRITERS)
def test_one_class_an_image(form: str, keys: tuple[str, ...], link: bool, tmp_path: Path) -> None:
    given = source(tmp_path / "given", [1, 0, 1, 2], ['b, "1"', "a", "never test"], keys)
    notes = WRITERS[form](given, tmp_path / "out", link)
    assert notes == ["the classes are in the order of the alphabet there"]
    found = data.open(tmp_path / "out", "classify")
    assert found.problems == [] and found.classes == sorted(given.classes)
    assert named(found) == named(given)
    image = next((tmp_path / "out").rglob("*.PNG"))
    assert image.is_symlink() == link


@pytest.mark.parametrize("keys", [("train", "test"), ("all",)])
def test_several_classes_an_image(keys: tuple[str, ...], tmp_path: Path) -> None:
    rows = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0]], np.float32)
    given = source(tmp_path / "given", rows, ["a;b", "c|d", "never"], keys)
    assert WRITERS["csv"](given, tmp_path / "out") == ["several classes an image: set classify.multi_label=true"]
    found = data.open(tmp_path / "out", "classify", multi_label=True)
    assert found.classes == ["a;b", "c|d", "never"] and named(found) == named(given)
    with pytest.raises(InputError, match="folders cannot say; write --as csv"):
        WRITERS["folders"](given, tmp_path / "folders")


def test_what_is_not_kept_is_said(tmp_path: Path) -> None:
    given = source(tmp_path / "given", [0, -1, 2], ["a", "empty", "z"], ("train",))
    left = "1 images without a label are left out"
    assert WRITERS["folders"](given, tmp_path / "folders") == [left]
    assert sorted(path.name for path in (tmp_path / "folders/train").iterdir()) == ["a", "empty", "z"]
    lost = "1 classes without an image are left out, 'empty' the first"
    assert WRITERS["csv"](given, tmp_path / "csv") == [left, lost]
    with (tmp_path / "csv/labels.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["path", "split", "label"],
            ["images/train/photo 1.PNG", "train", "a"],
            ["images/train/photo 1-2.PNG", "train", "z"],
        ]


@pytest.mark.parametrize(
    ("form", "classes", "keys", "message"),
    [
        ("folders", ["a/b", "c"], ("train",), "can be no folder's name"),
        ("folders", ["..", "c"], ("train",), "can be no folder's name"),
        ("folders", [".hidden", "c"], ("train",), "can be no folder's name"),
        ("folders", [" a", "c"], ("train",), "can be no folder's name"),
        ("folders", ["é" * 130, "c"], ("train",), "too long for a folder's name"),
        ("folders", ["Train", "c"], ("all",), "would be read as a split"),
        ("folders", ["Cat", "cat"], ("train",), "one folder on some systems"),
        ("csv", ["a|b", "c"], ("train",), "would not be read back from a table"),
        ("csv", ["a\nb", "c"], ("train",), "would not be read back from a table"),
        ("csv", ["", "c"], ("train",), "would not be read back from a table"),
        ("several", ["Breed", "c"], ("train",), "would not be read back as a column"),
        ("several", ["a.png", "c"], ("train",), "would not be read back as a column"),
    ],
)
def test_names_that_would_not_be_read_back(
    form: str, classes: list[str], keys: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    rows = np.eye(2, dtype=np.float32) if form == "several" else [0, 1]
    given = source(tmp_path / "given", rows, classes, keys)
    with pytest.raises(InputError, match=message):
        WRITERS["csv" if form == "several" else form](given, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", WRITERS)
def test_the_command(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["opsin", "data", "digits", "--as", form, str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    called = {"folders": "class folders", "csv": "CSV"}[form]
    assert not stop.value.code and f"digits as {called} in {tmp_path / 'out'}: train " in capsys.readouterr().out
    digits, found = data.open("digits"), data.open(tmp_path / "out")
    assert found.classes == digits.classes
    for key, split in digits.splits.items():
        assert len(found.splits[key]) == len(split)
        assert np.bincount(found.splits[key].labels).tolist() == np.bincount(split.labels).tolist()
