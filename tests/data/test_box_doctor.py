"""What the doctor says of boxes: each planted illness with its file and number, and a sheet that shows them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from opsin import data
from opsin.data.box_doctor import anchor_problems, unmatchable
from opsin.data.picturing import class_colour, draw_boxes
from opsin.data.source import ArraySplit, Source
from opsin.errors import InputError
from opsin.ops import cell_anchors, grid_anchors, pairwise_iou
from opsin.structures import Instances

RANDOM = np.random.RandomState(0)


def table(folder: Path, rows: list[str], pictures: str = "abcd", name: str = "train.csv") -> None:
    folder.mkdir(exist_ok=True)
    for letter in pictures:
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
    assert diagnosis.boxes["objects"] == 3 and diagnosis.boxes["most_in_a_picture"] == 2
    assert diagnosis.boxes["shortest_side"] == 35 and diagnosis.boxes["longest_side"] == 65
    text = data.render(diagnosis)
    assert "CSV of boxes, boxes, 2 pictures, 2 classes" in text and "boxes: 3, at most 2 in a picture" in text
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
    table(tmp_path, ["a.png,5,5,40,40,dog"], "", "test.csv")  # the same picture, with another truth
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


def test_boxes_of_another_picture_size(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("path,width,height,x1,y1,x2,y2,label\na.png,300,300,5,5,200,40,dog\n")
    Image.new("RGB", (100, 80)).save(tmp_path / "a.png")
    (problem,) = [p for p in data.inspect(tmp_path, "detect").problems if p.kind == "size_mismatch"]
    assert problem.severity == "error" and "boxes reach to 200, 40" in problem.reason


def test_objects_that_no_anchor_matches() -> None:
    anchors = grid_anchors(cell_anchors([16, 32], [1.0]), (8, 8), 8)
    boxes = torch.tensor([[4.0, 4, 20, 20], [0, 0, 4, 4], [10, 10, 50, 16], [0, 0, 3, 3], [12, 13, 41, 42]])
    instances = [Instances(boxes[:3], torch.tensor([0, 1, 0])), Instances(boxes[3:], torch.tensor([-1, 0]))]
    best = pairwise_iou(boxes, anchors).amax(dim=1).tolist()
    assert [(k, n) for k, n, _ in unmatchable(instances, anchors)] == [(0, 1), (0, 2)]
    assert unmatchable(instances, anchors)[1][2] == pytest.approx(best[2])
    # By shape alone, as YOLO: 40x6 in 16x16 is 96 of 256 + 240 - 96.
    shapes = torch.tensor([[16.0, 16.0]])
    assert unmatchable(instances, shapes, 0.3)[1] == (0, 2, pytest.approx(96 / 400))
    assert unmatchable([Instances(torch.zeros(0, 4), torch.zeros(0).long())], anchors) == []
    assert unmatchable([], anchors) == []
    with pytest.raises(InputError, match=r"anchors must be \(A, 4\) or \(A, 2\)"):
        unmatchable(instances, torch.zeros(0, 4))


def test_objects_that_no_anchor_matches_are_named() -> None:
    one = Instances(torch.tensor([[0.0, 0, 40, 40], [10, 10, 14, 14]]), torch.tensor([1, 0]))
    split = ArraySplit(torch.zeros(1, 3, 80, 80, dtype=torch.uint8), np.ones((1, 2), np.float32), "x", instances=[one])
    source = Source("x", "npz", ["cat", "dog"], {"train": split}, multi_label=True, task="detect")
    made = data.Preprocessing(size=(40, 40), channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    (problem,) = anchor_problems(source, made, torch.tensor([[20.0, 20.0]]))
    assert problem.path == "x[0]" and "object 2, a cat of 2x2 input pixels" in problem.reason
    assert "no anchor by more than 0.01 IoU; 0.5 is needed" in problem.reason


def test_contact_sheet(tmp_path: Path) -> None:
    table(tmp_path, ["a.png,5,20,40,60,dog", "b.png,1,20,50,50,cat"], "ab")
    path = data.contact_sheet(data.open(tmp_path, "detect"), tmp_path / "sheet.png")
    with Image.open(path) as sheet:
        assert sheet.height == 2 * 260 + 4 and sheet.width > 4 * 260
        colours = {colour for _, colour in sheet.getcolors(sheet.width * sheet.height) or []}
        assert {class_colour(0), class_colour(1)} <= colours


def test_drawn_boxes_cover_their_pixels() -> None:
    picture = Image.new("RGB", (60, 60))
    draw_boxes(picture, Instances(torch.tensor([[10.0, 20, 30, 50], [0, 0, 60, 60]]), torch.tensor([0, -1])), ["cat"])
    pixels = np.asarray(picture)
    assert tuple(pixels[49, 10]) == tuple(pixels[49, 29]) == class_colour(0) and tuple(pixels[50, 30]) == (0, 0, 0)
    assert tuple(pixels[59, 59]) == class_colour(-1)


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
