"""Pages with text files: what a detector and a recognizer learn from the same folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from opsin.data import open as open_source
from opsin.data import recognize_task
from opsin.data.formats.icdar_text import parse
from opsin.data.splits import divide
from opsin.errors import InputError


def make_page(file: Path, seed: int = 0, size: tuple[int, int] = (60, 40)) -> np.ndarray:
    """A page of noise, width x height, written as PNG."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
    return pixels


def write(file: Path, *lines: str, encoding: str = "utf-8") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes("\r\n".join([*lines, ""]).encode(encoding))


@pytest.mark.parametrize(
    ("line", "corners", "text"),
    [
        ("72,25,326,25,326,64,72,64,NO.53 55,57 & 59", [72, 25, 326, 25, 326, 64, 72, 64], "NO.53 55,57 & 59"),
        ('38, 43, 920, 215, "Tiredness"', [38, 43, 920, 215], "Tiredness"),
        ('158 128 411 181 "Foot path"', [158, 128, 411, 181], "Foot path"),
        ('1, 2, 3, 4, "a, ""b"""', [1, 2, 3, 4], 'a, ""b""'),
        ("1,2,3,4,5,6,7,8,", [1, 2, 3, 4, 5, 6, 7, 8], ""),
        ("1,2,3,4,5,6,7,8,12,50", [1, 2, 3, 4, 5, 6, 7, 8], "12,50"),
        ("x: [[1 5 5]], y: [[2 2  9]], ornt: [u'c'], transcriptions: [u'it\\'s']", [1, 2, 5, 2, 5, 9], "it's"),
    ],
)
def test_a_line_of_each_layout(line: str, corners: list[float], text: str) -> None:
    assert (parse(line).corners, parse(line).text) == (corners, text)


def test_a_script_before_the_text_is_no_part_of_it() -> None:
    assert parse("1,2,3,4,5,6,7,8,Latin,a,b", scripts=True).text == "a,b"


@pytest.mark.parametrize("line", ["1,2,3", "a,b,c,d,text", "x: [[1 2]], y: [[1]], ornt: [], transcriptions: ['a']"])
def test_no_line_of_any_layout(line: str) -> None:
    with pytest.raises(ValueError, match=r"expected|outline"):
        parse(line)


def test_boxes_and_lines_of_the_same_pages(tmp_path: Path) -> None:
    pixels = make_page(tmp_path / "img" / "7.png")
    write(tmp_path / "box" / "7.csv", "5,5,25,5,25,15,5,15,TOTAL", "30,20,50,20,50,30,30,30,###")
    boxes = open_source(tmp_path, "detect").splits["all"].kind
    found = boxes.regions(0)
    assert boxes.classes == ["text"]
    assert found.boxes.tolist() == [[5, 5, 25, 15], [30, 20, 50, 30]]
    assert found.labels.tolist() == [0, -1]
    assert found.texts == ["TOTAL", ""]
    assert found.polygons[0].tolist() == [[5, 5], [25, 5], [25, 15], [5, 15]]
    lines = open_source(tmp_path, "read").splits["all"]
    assert list(lines.kind.texts) == ["TOTAL"]
    assert lines.name(0).endswith("7.png line 1")
    assert np.array_equal(lines.read(0).permute(1, 2, 0), pixels[5:15, 5:25])
    assert lines.inputs.size(0) == (10, 20)


def test_the_layout_of_icdar_2015_with_its_splits(tmp_path: Path) -> None:
    for split, folder in (
        ("training", "ch4_training_localization_transcription_gt"),
        ("test", "Challenge4_Test_Task1_GT"),
    ):
        make_page(tmp_path / f"ch4_{split}_images" / "img_1.png")
        write(tmp_path / folder / "gt_img_1.txt", "5,5,25,6,25,16,5,15,Genaxis", encoding="utf-8-sig")
    opened = open_source(tmp_path, "detect")
    assert {key: len(split) for key, split in opened.splits.items()} == {"train": 1, "test": 1}
    assert opened.splits["test"].kind.regions(0).texts == ["Genaxis"]
    assert not opened.problems


def test_a_division_keeps_a_page_together_and_is_that_of_the_pages(tmp_path: Path) -> None:
    for k in range(30):
        make_page(tmp_path / "img" / f"{k}.png", seed=k)
        write(tmp_path / "box" / f"{k}.csv", *(f"5,{y},25,{y},25,{y + 4},5,{y + 4},line" for y in (2, 12, 22)))
    (tmp_path / "img" / "30.png").write_bytes((tmp_path / "img" / "4.png").read_bytes())  # a copy, with other lines
    write(tmp_path / "box" / "30.csv", "5,2,22,2,22,9,5,9,line")
    pages, lines = (divide(open_source(tmp_path, task), split="hash") for task in ("detect", "read"))
    for key in ("train", "val", "test"):
        ours = {lines[key].name(i).split("/")[-1].split()[0] for i in range(len(lines[key]))}
        theirs = {pages[key].name(i).split("/")[-1] for i in range(len(pages[key]))}
        assert ours - {"30.png"} == theirs - {"30.png"}  # without digests the copy of a page is not known to be one
        assert ("30.png" in ours) == ("4.png" in ours)


def test_pages_of_one_name_in_several_folders_keep_their_own_texts(tmp_path: Path) -> None:
    for k, folder in enumerate(("a", "b", "c/img")):
        make_page(tmp_path / folder / "1.png", seed=k)
    for folder in ("a", "b", "c/gt"):
        write(tmp_path / folder / "gt_1.txt", f"5,5,25,5,25,15,5,15,of {folder}")
    opened = open_source(tmp_path, "read").splits["all"]
    assert [opened.name(i).rpartition("/1.png")[0] for i in range(3)] == [
        str(tmp_path / folder) for folder in ("a", "b", "c/img")
    ]
    assert list(opened.kind.texts) == ["of a", "of b", "of c/gt"]


def test_pages_that_cannot_be_read_are_named_and_are_nobodys_copies(tmp_path: Path) -> None:
    """Two pipes have the size of equal files; to read one would wait without end."""
    make_page(tmp_path / "1.png")
    for k in (2, 3):
        os.mkfifo(tmp_path / f"{k}.png")
    for k in (1, 2, 3):
        write(tmp_path / f"{k}.txt", "5,5,25,5,25,15,5,15,line")
    opened = open_source(tmp_path, "read")
    assert [one.kind for one in opened.problems] == ["unreadable", "unreadable"]
    assert sorted(set(opened.splits["all"].kind.pages)) == ["1.png", "2.png", "3.png"]


def test_wrong_encoding_is_named_with_its_line(tmp_path: Path) -> None:
    make_page(tmp_path / "1.png")
    file = tmp_path / "1.txt"
    file.write_bytes("5,5,25,5,25,15,5,15,fine\n5,5,25,5,25,15,5,15,中文字\n".encode("gb18030"))
    (problem,) = open_source(tmp_path, "read").problems
    assert problem.kind == "wrong_encoding"
    assert problem.path == f"{file} line 2"
    assert "gb18030" in problem.reason
    opened = open_source(tmp_path, "read", encoding="gb18030")
    assert list(opened.splits["all"].kind.texts) == ["fine", "中文字"]


def test_what_is_wrong_with_quads(tmp_path: Path) -> None:
    make_page(tmp_path / "1.png")
    write(
        tmp_path / "1.txt",
        "5,5,25,5,25,15,5,15,fine",
        "50,5,65,5,65,15,50,15,leaves",
        "90,5,99,5,99,15,90,15,outside",
        "5,5,25,5,25,5,5,5,flat",
        "5,5,25,5,25,15,5,15, ",
    )
    opened = open_source(tmp_path, "read")
    assert [(one.kind, one.path.split()[-1], one.severity) for one in opened.problems] == [
        ("clipped_quad", "2", "warning"),
        ("outside_quad", "3", "error"),
        ("degenerate_quad", "4", "warning"),
        ("empty_text", "5", "warning"),
    ]
    assert list(opened.splits["all"].kind.texts) == ["fine", "leaves"]


def test_both_tasks_claim_pages_and_files_of_other_formats_are_none(tmp_path: Path) -> None:
    make_page(tmp_path / "1.png")
    write(tmp_path / "1.txt", "5,5,25,5,25,15,5,15,fine")
    with pytest.raises(InputError, match="--task"):
        recognize_task(tmp_path)
    write(tmp_path / "1.txt", "1,2,3,4,5,6,7,8,9,10", "1,2,3,4,5,6,7,8,9,10")  # tracks
    with pytest.raises(InputError, match="has no list of its images' texts"):
        open_source(tmp_path, "read")


def test_receipts(data_dir: Path) -> None:
    lines = open_source(data_dir / "sroie", "read")
    split = lines.splits["all"]
    assert (len(split), len(set(split.kind.pages))) == (4586, 98)  # two receipts are copies of others
    assert not lines.problems
    assert split.kind.texts[0] == "TAN WOON YANN"
    assert split.read(0).shape == (3, 39, 254)
    parts = divide(lines, split="hash", test_fraction=0.2, val_fraction=0.0)
    assert not set(parts["train"].kind.pages) & set(parts["test"].kind.pages)
    pages = open_source(data_dir / "sroie", "detect")
    assert len(pages.splits["all"].kind.labels) == 4586
    assert isinstance(pages.splits["all"].kind.regions(0).polygons[0], torch.Tensor)
