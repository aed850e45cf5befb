"""What is written in another format reads back as the same data, and says what it could not keep."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from opsin import cli, data
from opsin.data.formats.write_boxes import write_coco, write_voc, write_yolo
from opsin.errors import InputError

WRITERS = {"coco": write_coco, "yolo": write_yolo, "voc": write_voc}
RUNS: dict[str, Any] = {"size": [80, 100], "counts": [0, 80, 80 * 99]}  # the first column


def source(folder: Path, splits: tuple[str, ...] = ("train", "val")) -> data.Source:
    """COCO: a box, a polygon, runs, a crowd and a box of a pixel in `1.png` of each split, nothing in `A 2.PNG`."""
    objects: list[dict[str, Any]] = [
        {"bbox": [10.25, 20, 30.5, 12.125], "category_id": 7},
        {"bbox": [1, 2, 20, 30], "category_id": 3, "segmentation": [[1, 2, 21, 2, 11, 32]]},
        {"bbox": [0, 0, 1, 80], "category_id": 7, "segmentation": RUNS},
        {"bbox": [70, 10, 9, 9], "category_id": 3, "iscrowd": 1},
        {"bbox": [50, 60, 1, 1], "category_id": 3},
    ]
    for place, split in enumerate(splits):
        named = [{"id": 1, "file_name": "1.png"}, {"id": 2, "file_name": "A 2.PNG"}]
        content = {
            "images": [{**one, "width": 100, "height": 80} for one in named],
            "annotations": [{"id": k, "image_id": 1, **one} for k, one in enumerate(objects)],
            "categories": [{"id": 7, "name": "cat & <dog>"}, {"id": 3, "name": "zebra"}],
        }
        (folder / split).mkdir(parents=True)
        (folder / split / "_annotations.coco.json").write_text(json.dumps(content))
        for one in named:
            pixels = np.full((80, 100, 3), 20 + place, np.uint8)
            Image.fromarray(pixels).save(folder / split / one["file_name"], "PNG")
    return data.open(folder if len(splits) > 1 else folder / next(iter(splits)), "detect")


def same(one: data.Source, other: data.Source, *, ignored: bool = True) -> None:
    assert one.classes == other.classes and list(one.splits) == list(other.splits)
    for key, split in one.splits.items():
        part = other.splits[key]
        assert len(split) == len(part)
        for i in range(len(split)):
            assert torch.equal(split.read(i), part.read(i))
            wanted, found = split.kind.at(i), part.kind.at(i)
            kept = slice(None) if ignored else wanted.labels >= 0
            assert wanted.labels[kept].tolist() == found.labels.tolist()
            torch.testing.assert_close(wanted.boxes[kept], found.boxes, atol=0.011, rtol=0)


@pytest.mark.parametrize("splits", [("train", "val"), ("x",)])
@pytest.mark.parametrize("name", WRITERS)
def test_it_reads_back_the_same(tmp_path: Path, name: str, splits: tuple[str, ...]) -> None:
    given = source(tmp_path / "in", splits)
    notes = WRITERS[name](given, tmp_path / "out")
    count = len(splits)
    expected = {
        "coco": [f"{count} regions to ignore are crowds of the first category"],
        "yolo": [
            f"{count} regions to ignore are left out: YOLO has none",
            f"{count} masks of runs or of several parts are boxes alone",
        ],
        "voc": [
            f"{count} regions to ignore are difficult objects",
            f"{2 * count} masks are left out: VOC's XML has none",
        ],
    }
    assert notes == expected[name]
    found = data.open(tmp_path / "out", "detect")
    assert [problem for problem in found.problems if problem.severity != "note"] == []
    same(given, found, ignored=name != "yolo")
    if name == "coco":  # boxes to the bit, and masks
        split = next(iter(given.splits))
        assert torch.equal(found.splits[split].kind.boxes.values, given.splits[split].kind.boxes.values)
        drawn = [one.splits[split].kind.drawn.draw(0, (80, 100)) for one in (given, found)]
        assert torch.equal(*drawn) and drawn[0].any()
    if name == "yolo":
        text = (tmp_path / "out/labels" / ("train" if count > 1 else "") / "1.txt").read_text().splitlines()
        assert [len(line.split()) for line in text] == [5, 7, 5, 5]  # the polygon is kept


def test_scenes_have_images_in_memory(tmp_path: Path) -> None:
    given = data.open("scenes:10", "detect")
    write_coco(given, tmp_path / "out")
    same(given, data.open(tmp_path / "out", "detect"))


def test_names_that_meet_are_told_apart(tmp_path: Path) -> None:
    given = source(tmp_path / "in")
    write_voc(given, tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out/JPEGImages").iterdir()) == [
        "1-2.png",
        "1.png",
        "A 2-2.PNG",
        "A 2.PNG",
    ]


def test_links_and_what_is_refused(tmp_path: Path) -> None:
    given = source(tmp_path / "in")
    write_yolo(given, tmp_path / "out", link=True)
    assert (tmp_path / "out/images/train/1.png").resolve() == (tmp_path / "in/train/1.png").resolve()
    same(given, data.open(tmp_path / "out", "detect"), ignored=False)
    with pytest.raises(InputError, match="out is not empty; name a new folder"):
        write_coco(given, tmp_path / "out")
    (tmp_path / "in/val/1.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"1.png: .*; fix or remove it"):
        write_coco(given, tmp_path / "half")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in", "out"]  # nothing half done


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["opsin", "data", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), "".join(capfd.readouterr())

    source(tmp_path / "in")
    status, output = call(tmp_path / "in", "--as", "coco", tmp_path / "out")
    assert status == 0 and "train 2, val 2" in output and "2 regions to ignore" in output
    for arguments, reason in (
        (["--as", "coco"], "a folder to write to"),
        ([tmp_path / "y"], "--as FORMAT"),
        (["--as", "tfds", tmp_path / "y"], "data of the task detect takes voc, coco, yolo"),
        (["--as", "coco", tmp_path / "out"], "is not empty"),
    ):
        status, output = call(tmp_path / "in", *arguments)
        assert status == 2 and reason in output
