"""What is written of texts and pages is read back as the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from opsin.data import open as open_source
from opsin.data.formats.icdar_text import PAGES
from opsin.data.formats.text_lists import FORMAT, TABLE


def make_page(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)).save(file)


@pytest.mark.parametrize("format_", [FORMAT, TABLE])
def test_lines_of_pages_as_a_list(format_, tmp_path: Path) -> None:
    for split in ("train", "test"):
        make_page(tmp_path / "pages" / split / "1.png")
        (tmp_path / "pages" / split / "1.txt").write_text(
            '5,5,25,5,25,15,5,15,a "quoted", text\n30,20,50,20,50,30,30,30,中文\n', encoding="utf-8"
        )
    source = open_source(tmp_path / "pages", "read")
    notes = format_.write(source, tmp_path / "out", False)
    again = open_source(tmp_path / "out", "read")
    assert not again.problems
    for key in ("train", "test"):
        ours, theirs = source.splits[key], again.splits[key]
        assert list(ours.kind.texts) == list(theirs.kind.texts) == ['a "quoted", text', "中文"]
        assert all((ours.read(i) == theirs.read(i)).all() for i in range(2))
        if format_ is FORMAT:
            assert list(ours.kind.pages) == list(theirs.kind.pages)
    assert bool(notes) is (format_ is TABLE)


def test_word_lists_are_kept(tmp_path: Path) -> None:
    make_page(tmp_path / "words" / "1.png")
    row = {"file": "1.png", "text": "CAFE", "lexicon": ["CAFE", "BAR"]}
    (tmp_path / "words" / "labels.jsonl").write_text(json.dumps(row))
    source = open_source(tmp_path / "words", "read")
    assert FORMAT.write is not None
    assert not FORMAT.write(source, tmp_path / "out", True)
    again = open_source(tmp_path / "out", "read", allow=tmp_path).splits["all"].kind
    assert list(again.lexicon(0)) == ["CAFE", "BAR"]


def test_pages_as_icdar(tmp_path: Path) -> None:
    make_page(tmp_path / "pages" / "img" / "1.png")
    (tmp_path / "pages" / "1.csv").write_text("5,5,25,6,25,16,5,15,a, text\n30,20,50,20,50,30,30,30,###\n")
    source = open_source(tmp_path / "pages", "detect")
    assert PAGES.write is not None
    assert not PAGES.write(source, tmp_path / "out", False)
    ours, theirs = (one.splits["all"].kind.regions(0) for one in (source, open_source(tmp_path / "out", "detect")))
    assert theirs.texts == ours.texts == ["a, text", ""]
    assert theirs.labels.tolist() == ours.labels.tolist() == [0, -1]
    assert [one.tolist() for one in theirs.polygons] == [one.tolist() for one in ours.polygons]
