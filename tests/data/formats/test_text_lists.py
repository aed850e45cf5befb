"""Cropped words with a list of their texts, in every layout of such lists."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from opsin.data import open as open_source
from opsin.data import recognize_task
from opsin.data.formats.text_lists import parse_line
from opsin.errors import InputError

TEXTS = {"1.png": "Rescue", "2.png": "a, b", "3.png": "中文"}


def make_images(folder: Path, names: list[str] = [*TEXTS]) -> None:  # noqa: B006
    folder.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(names):
        Image.new("L", (20 + k, 10), 40 * k).save(folder / name)


LAYOUTS = {
    "labels.jsonl": "\n".join(json.dumps({"file": file, "text": text}) for file, text in TEXTS.items()),
    "metadata.jsonl": "\n".join(json.dumps({"file_name": file, "text": text}) for file, text in TEXTS.items()),
    "labels.csv": 'file,text\n1.png,Rescue\n2.png,"a, b"\n3.png,中文\n',
    "labels.tsv": "file\ttext\n1.png\tRescue\n2.png\ta, b\n3.png\t中文\n",
    "gt.txt": "1.png\tRescue\n2.png\ta, b\n3.png\t中文\n",
    "rec_gt.txt": "1.png Rescue\n2.png a, b\n3.png 中文\n",
    "annotation.txt": '1.png, "Rescue"\n2.png, "a, b"\n3.png, "中文"\n',
    "labels.json": json.dumps(TEXTS),
    "label.json": json.dumps(
        {"metainfo": {}, "data_list": [{"img_path": f, "instances": [{"text": t}]} for f, t in TEXTS.items()]}
    ),
}


@pytest.mark.parametrize("folder", ["", "images"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_reads_the_same(name: str, folder: str, tmp_path: Path) -> None:
    make_images(tmp_path / folder)
    (tmp_path / name).write_text(LAYOUTS[name] + "\n", encoding="utf-8-sig")
    assert recognize_task(tmp_path) == "read"
    opened = open_source(tmp_path, "read")
    split = opened.splits["all"]
    assert list(split.kind.texts) == list(TEXTS.values())
    assert [split.read(i).shape[-1] for i in range(3)] == [20, 21, 22]
    assert not opened.problems


@pytest.mark.parametrize(
    ("line", "row"),
    [
        ('word_1.png, "He said \\"no\\""', ("word_1.png", 'He said "no"', ())),
        ("a/1.jpg MARKET BAR,MARKET,CAFE", ("a/1.jpg", "MARKET", ("BAR", "MARKET", "CAFE"))),
        ("1.jpg two words", ("1.jpg", "two words", ())),
        ("n01440764/1 0", None),
        ("val_0.JPEG\tn03444034\t0\t32\t44\t62", None),
    ],
)
def test_a_line_of_a_text_list(line: str, row: tuple | None) -> None:
    assert parse_line(line) == row


def test_the_splits_of_lists_folders_and_columns(tmp_path: Path) -> None:
    make_images(tmp_path / "lists" / "images")
    for split, name in (("train", "1.png"), ("test", "2.png")):
        (tmp_path / "lists" / f"rec_gt_{split}.txt").write_text(f"{name}\tword\n")
        make_images(tmp_path / "folders" / split)
        (tmp_path / "folders" / split / "labels.csv").write_text(f"file,text\n{name},word\n")
    make_images(tmp_path / "column")
    (tmp_path / "column" / "labels.csv").write_text("file,text,split\n1.png,word,training\n2.png,word,test\n")
    for folder in ("lists", "folders", "column"):
        opened = open_source(tmp_path / folder, "read")
        assert {key: len(split) for key, split in opened.splits.items()} == {"train": 1, "test": 1}
        assert opened.splits["test"].read(0).shape[-1] == 21


def make_zip(path: Path, rows: list[dict]) -> None:
    make_images(path.parent / "loose")
    with zipfile.ZipFile(path, "w") as archive:
        for name in TEXTS:
            archive.write(path.parent / "loose" / name, f"crops/{name}")
        archive.writestr("crops/labels.jsonl", "\n".join(map(json.dumps, rows)))


def test_zips_with_lexicons(tmp_path: Path) -> None:
    make_zip(tmp_path / "words_train.zip", [{"file": "1.png", "text": "Rescue"}])
    make_zip(tmp_path / "words_test.zip", [{"file": "2.png", "text": "CAFE", "lexicon": ["CAFE", "BAR"]}])
    make_zip(tmp_path / "other_test.zip", [{"file": "3.png", "text": "HALL", "lexicon": ["CAFE", "BAR"]}])
    opened = open_source(tmp_path, "read")
    assert {key: list(split.kind.texts) for key, split in opened.splits.items()} == {
        "train": ["Rescue"],
        "test": ["CAFE"],
    }
    assert [problem.kind for problem in opened.problems] == ["ignored"]
    lexicon = opened.splits["test"].kind.lexicon(0)
    assert list(lexicon) == ["CAFE", "BAR"]
    assert opened.splits["test"].read(0).shape[-1] == 21
    other = open_source(tmp_path / "other_test.zip", "read")
    assert [*other.splits] == ["test"]
    assert [problem.kind for problem in other.problems] == ["text_not_in_lexicon"]


def test_what_is_wrong_is_named_with_its_line(tmp_path: Path) -> None:
    make_images(tmp_path)
    file = tmp_path / "labels.jsonl"
    rows = ['{"file": "1.png", "text": "fine"}', '{"file": "2.png"}', '{"file": "3.png", "text": " "}', "{"]
    file.write_bytes("\n".join(rows).encode() + '\n{"file": "1.png", "text": "é"}\n'.encode("latin-1"))
    opened = open_source(tmp_path, "read")
    assert sorted((one.path.rpartition(" ")[2], one.kind) for one in opened.problems) == [
        ("2", "broken_annotation"),
        ("3", "empty_text"),
        ("4", "broken_annotation"),
        ("5", "wrong_encoding"),
    ]
    assert list(open_source(tmp_path, "read", encoding="latin-1").splits["all"].kind.texts) == ["fine", "é"]


def test_the_encoding_that_a_line_with_a_tab_may_be_in_is_named(tmp_path: Path) -> None:
    make_images(tmp_path)
    (tmp_path / "gt.txt").write_bytes("1.png\tfine\r\n2.png\t中文字\r\n".encode("gb18030"))
    (problem,) = open_source(tmp_path, "read").problems
    assert (problem.path, problem.kind) == (f"{tmp_path / 'gt.txt'} line 2", "wrong_encoding")
    assert "gb18030" in problem.reason


def test_two_lists_of_one_split_are_refused(tmp_path: Path) -> None:
    make_images(tmp_path / "train")
    (tmp_path / "train" / "gt.txt").write_text("1.png\tword\n")
    (tmp_path / "train_gt.txt").write_text("1.png\tword\n")
    make_images(tmp_path)
    with pytest.raises(InputError, match="both"):
        open_source(tmp_path, "read")


def test_tables_of_classes_stay_those_of_classes(tmp_path: Path) -> None:
    make_images(tmp_path)
    (tmp_path / "labels.csv").write_text("path,label\n1.png,cat\n2.png,dog\n3.png,dog\n")
    assert recognize_task(tmp_path) == "classify"
    assert list(open_source(tmp_path, "read").splits["all"].kind.texts) == ["cat", "dog", "dog"]
    (tmp_path / "labels.csv").unlink()
    (tmp_path / "train.txt").write_text("1.png 0\n2.png 1\n3.png 1\n")
    assert recognize_task(tmp_path) == "classify"


def test_real_words(data_dir: Path) -> None:
    opened = open_source(data_dir / "words", "read")
    assert {key: len(split) for key, split in opened.splits.items()} == {"train": 2000, "test": 3000}
    street = open_source(data_dir / "words" / "svt_test.zip", "read").splits["test"]
    lengths = [len(street.kind.lexicon(i)) for i in range(len(street))]
    assert (len(street), min(lengths), max(lengths)) == (647, 37, 64)
    toy = data_dir / "text_toy" / "rec_toy_dataset"
    read = [list(open_source(toy / name, "read").splits["all"].kind.texts) for name in ("", "old_label.jsonl")]
    assert read[0] == read[1] == list(open_source(toy / "old_label.txt", "read").splits["all"].kind.texts)


def test_the_subset_that_a_protocol_counts(tmp_path: Path) -> None:
    make_images(tmp_path)
    rows = ["1.png\tab", "2.png\tabc", "3.png\tit's", "1.png\tcafé", "2.png\t12"]
    for split in ("train", "test"):
        (tmp_path / f"{split}.txt").write_text("\n".join(rows), encoding="utf-8")
    kept = {"": 5, "alphanumeric": 3, "alphanumeric-3": 1}
    for subset, count in kept.items():
        opened = open_source(tmp_path, "read", subset=subset)
        assert {key: len(split) for key, split in opened.splits.items()} == {"train": 5, "test": count}
    opened = open_source(tmp_path, "read", subset="alphanumeric-3")
    assert [problem.reason for problem in opened.problems] == ["1 of 5 texts are in the subset alphanumeric-3"]
    with pytest.raises(InputError, match="alphanumeric-3"):
        open_source(tmp_path, "read", subset="857")
