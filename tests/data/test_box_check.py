"""What the doctor says of boxes: each planted illness with its file and number, and a sheet that shows them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from opsin import data
from opsin.data.drawing import IGNORED, PALETTE, draw_boxes
from opsin.errors import InputError
from opsin.structures import Instances

RANDOM = np.random.RandomState(0)


def table(folder: Path, rows: list[str], images: str = "abcd", name: str = "train.csv") -> None:
    folder.mkdir(exist_ok=True)
    for letter in images:
        pixels = RANDOM.randint(0, 256, (80, 100, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{letter}.png")
    (folder / name).write_text("path,x1,y1,x2,y2,label\n" + "\n".join(rows))


def found(diagnosis: data.Diagnosis) -> set[tuple[str, str, str]]:
    return {(p.kind, Path(p.path).name, p.severity) for p in diagnosis.problems}


def test_a_healthy_set(tmp_path: Path) -> None:
    table(tmp_path, ["a.png,5,5,40,40,dog", "a.png,30,5,90,70,cat", "b.png,1,1,50,50,cat"], "ab")
    diagnosis = data.inspect(tmp_path, "detect")
    assert diagnosis.healthy and not diagnosis.problems
    assert diagnosis.objects == {"train": {"cat": 2, "dog": 1}} and diagnosis.splits == {"train": {"cat": 2, "dog": 1}}
    assert diagnosis.boxes["objects"] == 3 and diagnosis.boxes["most_in_an_image"] == 2
    assert diagnosis.boxes["shortest_side"] == 35 and diagnosis.boxes["longest_side"] == 65
    text = data.render(diagnosis)
    assert "CSV of boxes, boxes, 2 images, 2 classes" in text and "boxes: 3, at most 2 in an image" in text
    assert json.loads(json.dumps(diagnosis.to_dict()))["objects"]["train"]["dog"] == 1


def test_every_illness_is_named(tmp_path: Path) -> None:
    rows = [
        "a.png,5,5,40,40,dog",
        "a.png,5,5,40,40,dog",  # line 3: twice
        "a.png,50,50,53,60,dog",  # the third object, three pixels wide
        "b.png,,,,,",
        "c.png,5,5,99,79,Dog",
        "missing.png,5,5,9,9,dog",
        "d.png,5,5,5,40,dog",  # line 8
        "d.png,95,5,140,40,dog",  # line 9
    ]
    table(tmp_path, rows)
    table(tmp_path, ["a.png,5,5,40,40,dog"], "", "test.csv")  # the same image, with another truth
    table(tmp_path, ["c.png,5,5,99,79,Dog"], "", "val.csv")  # and with the same
    diagnosis = data.inspect(tmp_path, "detect")
    assert not diagnosis.healthy
    assert found(diagnosis) >= {
        ("duplicate_box", "train.csv line 3", "warning"),
        ("degenerate_box", "train.csv line 8", "warning"),
        ("outside_box", "train.csv line 9", "error"),
        ("tiny_object", "a.png", "warning"),
        ("no_boxes", "b.png", "note"),
        ("no_boxes", "d.png", "note"),
        ("unreadable", "missing.png", "error"),
        ("alike_classes", tmp_path.name, "warning"),
        ("conflicting_labels", "a.png", "error"),
        ("leak", "a.png", "error"),
        ("leak", "c.png", "error"),
        ("empty_class", tmp_path.name, "warning"),
    }
    assert ("conflicting_labels", "c.png", "error") not in found(diagnosis)
    reasons = {p.kind: p.reason for p in diagnosis.problems}
    assert reasons["tiny_object"] == "object 3, a dog, is 3x10 pixels of 100x80"
    assert "but with other boxes" in reasons["conflicting_labels"]
    assert "'Dog', 'dog' are likely one class" in reasons["alike_classes"]


def test_boxes_of_another_image_size(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("path,width,height,x1,y1,x2,y2,label\na.png,300,300,5,5,200,40,dog\n")
    Image.new("RGB", (100, 80)).save(tmp_path / "a.png")
    (problem,) = [p for p in data.inspect(tmp_path, "detect").problems if p.kind == "size_mismatch"]
    assert problem.severity == "error" and "boxes reach to 200, 40" in problem.reason


def test_contact_sheet(tmp_path: Path) -> None:
    table(tmp_path, ["a.png,5,20,40,60,dog", "b.png,1,20,50,50,cat"], "ab")
    path = data.contact_sheet(data.open(tmp_path, "detect"), tmp_path / "sheet.png")
    with Image.open(path) as sheet:
        # A cell has the images' own shape: 100x80, twice as large, since three times would be more than 256.
        assert sheet.height == 2 * (160 + 4) + 4 and sheet.width > 4 * (200 + 4)
        pixels = np.asarray(sheet)
        colours = {colour for _, colour in sheet.getcolors(sheet.width * sheet.height) or []}
        assert {*PALETTE[:2]} <= colours
    left = sheet.width - 4 * 204
    assert (pixels[4:164, left : left + 200] < 255).any(axis=2).mean() > 0.95  # noise throughout: the cell is full
    assert tuple(pixels[4 + 2 * 20, left + 2 * 30]) == PALETTE[0]  # the cat's upper edge


def test_contact_sheet_of_many_shapes(tmp_path: Path) -> None:
    for name, size in (("a", (300, 200)), ("b", (100, 400)), ("c", (160, 160))):
        Image.new("RGB", size, "black").save(tmp_path / f"{name}.png")
    (tmp_path / "x.csv").write_text(
        "path,x1,y1,x2,y2,label\na.png,5,5,99,99,cat\nb.png,5,5,99,99,cat\nc.png,5,5,99,99,cat"
    )
    with Image.open(data.contact_sheet(data.open(tmp_path, "detect"), tmp_path / "sheet.png", per_class=3)) as sheet:
        pixels = np.asarray(sheet)
        assert sheet.height == 256 + 8
    dark = np.any(pixels < 255, axis=2)[4:260]
    left = sheet.width - 3 * 260
    seen = [dark[:, left + k * 260 : left + k * 260 + 256] for k in range(3)]
    assert [(int(d.any(axis=0).sum()), int(d.any(axis=1).sum())) for d in seen] == [(256, 171), (64, 256), (256, 256)]


def test_drawn_boxes_cover_their_pixels() -> None:
    instances = Instances(torch.tensor([[10.0, 20, 30, 50], [0, 0, 60, 90]]), torch.tensor([0, -1]))
    pixels = np.asarray(draw_boxes(Image.new("RGB", (60, 90)), instances, ["cat"]))
    assert tuple(pixels[49, 10]) == tuple(pixels[49, 29]) == PALETTE[0] and tuple(pixels[50, 30]) == (0, 0, 0)
    assert tuple(pixels[89, 59]) == IGNORED


def test_scenes_are_healthy() -> None:
    diagnosis = data.inspect("scenes:60", "detect")
    assert diagnosis.healthy and diagnosis.format == "built in"
    assert {p.kind for p in diagnosis.problems} <= {"empty_class"}


@pytest.mark.real_data
def test_blood_cells(data_dir: Path) -> None:
    diagnosis = data.inspect(data_dir / "bccd", "detect")
    assert diagnosis.healthy
    assert diagnosis.objects["train"] == {"Platelets": 209, "RBC": 2381, "WBC": 214}
    assert sorted(p.kind for p in diagnosis.problems) == ["degenerate_box", "degenerate_box", "imbalance"]


def test_the_task_is_what_the_data_looks_like(tmp_path: Path) -> None:
    pixels = Image.new("RGB", (9, 9))
    for path in ("classes/cat/a.png", "classes/dog/b.png", "wrapped/voc/a.png", "yolo/images/a.png"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        pixels.save(tmp_path / path)
    texts = {
        "classes/about.json": "{}",
        "wrapped/voc/a.xml": "<annotation></annotation>",
        "yolo/labels/a.txt": "",
        "coco/_annotations.coco.json": "broken",
        "other/x.json": '{"images": [], "annotations": [], "categories": []}',
        "boxes/x.csv": "image,label,xmin,ymin,xmax,ymax\na.png,cat,1,1,5,5",
        "bare/x.csv": "a.png,1,1,5,5,cat",
        "labels/x.csv": "path,label\na.png,cat",
        "many/x.csv": "path,cat,dog,cow,pig,hen\na.png,0,1,0,0,1",
        "bits/x.csv": "a.png,0,1,0,0,1",
    }
    for path, text in texts.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    boxed = {"wrapped", "yolo", "coco", "other", "boxes", "bare"}
    folders = {path.name for path in tmp_path.iterdir()}
    assert {name for name in folders if data.recognize_task(tmp_path / name) == "detect"} == boxed
    assert data.recognize_task(tmp_path / "coco/_annotations.coco.json") == "detect"
    assert data.recognize_task(tmp_path / "bare/x.csv") == "detect"
    assert data.recognize_task(tmp_path / "labels/x.csv") == "classify"
    assert [data.recognize_task(name) for name in ("digits", "scenes", "scenes:20")] == ["classify", "detect", "detect"]
    with pytest.raises(InputError, match="no file or folder at"):
        data.recognize_task(tmp_path / "gone")
