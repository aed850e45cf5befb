"""`model.anchors: auto`, against k-means by itself and boxes counted by hand; and what is said of a bad fit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

import opsin
from opsin import data
from opsin.data.boxes import Boxes
from opsin.data.inputs import ImageArray
from opsin.data.source import Source, Split
from opsin.detect.anchor_fitting import box_sides, choose, describe_fit, find_anchors, mean_best_iou
from opsin.engine.recipe import load_recipe
from opsin.engine.train import prepare
from opsin.errors import InputError
from opsin.ops import kmeans_anchors
from opsin.structures import Instances

YOLO: dict[str, Any] = {"name": "yolov3", "backbone": "mobilenet_v3_small", "width": 0.0625}
FLAGS: dict[str, Any] = {
    "task": "detect",
    "model": YOLO,
    "data": {"source": "scenes:16", "size": 64},
    "train": {"max_steps": 1, "batch_size": 4, "tensorboard": False},
}


def recipe(model: dict[str, Any] | None = None, **settings: Any) -> Any:
    keys = {key.replace("__", "."): value for key, value in settings.items()}
    return load_recipe({"task": "detect", "model": model or YOLO, "data": {"source": "x"}}, keys)


def split(*boxes: tuple[float, float], side: int = 64) -> Split:
    """An image a box, of these widths and heights."""
    found = [Instances(torch.tensor([[0.0, 0.0, w, h]]), torch.zeros(1, dtype=torch.int64)) for w, h in boxes]
    return Split(ImageArray(torch.zeros(len(boxes), 3, side, side, dtype=torch.uint8), "x"), Boxes.of(found, ["cat"]))


def preprocessing(side: int) -> data.Preprocessing:
    return data.Preprocessing(size=(side, side), channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)


def test_a_training_by_flags_finds_saves_and_uses_them(tmp_path: Path) -> None:
    lines: list[str] = []
    run = opsin.train(FLAGS, out=tmp_path / "run", say=lines.append)
    saved = yaml.safe_load((run.path / "recipe.yaml").read_text())["model"]["anchors"]
    source = data.open("scenes:16", "detect")
    task = prepare(load_recipe(FLAGS), lambda line: None)
    sides = box_sides(task[2]["train"], task[0].preprocessing)
    expected = kmeans_anchors(sides, 9)
    torch.testing.assert_close(torch.tensor(saved), expected.sizes, atol=0.051, rtol=0)
    told = next(line for line in lines if line.startswith("anchors: "))
    own = [pair for level in task[0].model.anchors for pair in level]
    fit = f"{mean_best_iou(sides, own):.2f} with those of yolov3, {expected.mean_iou:.2f} with 9 by k-means"
    assert f"{fit} on {len(sides)} training boxes at 64x64" in told
    loaded: Any = opsin.load(run.path)
    assert [list(pair) for level in loaded.model.anchors for pair in level] == saved
    assert opsin.evaluate(run.path) == pytest.approx(run.metrics, abs=1e-5)
    assert source.task == "detect"
    again: list[str] = []
    opsin.train(resume=run.path, overrides={"train.max_steps": 2}, say=again.append)
    assert not [line for line in again if line.startswith("anchors: ")]
    assert yaml.safe_load((run.path / "recipe.yaml").read_text())["model"]["anchors"] == saved


def test_the_input_size_scales_the_boxes() -> None:
    boxes = [(float(w), float(h)) for w in range(20, 32) for h in range(16, 20)]
    asked = recipe(model__anchors="auto")
    made, lines = find_anchors(asked, split(*boxes), preprocessing(32))  # half of 64
    sides = torch.tensor(boxes) / 2
    assert torch.equal(box_sides(split(*boxes), preprocessing(32)), sides)
    found = torch.tensor(made.model.options["anchors"])
    torch.testing.assert_close(found, kmeans_anchors(sides, 9).sizes, atol=0.051, rtol=0)
    assert len(lines) == 1 and "model.anchors overrides" in lines[0]


def test_too_few_sizes_leave_the_models_own() -> None:
    made, lines = find_anchors(recipe(model__anchors="auto"), split((10, 10), (20, 10)), preprocessing(64))
    assert "anchors" not in made.model.options
    assert lines == ["anchors: 2 different sizes of boxes are too few for 9 anchors; those of yolov3 stay"]


def test_as_many_as_the_levels_want() -> None:
    boxes = [(float(w), float(h)) for w in range(8, 40, 2) for h in range(8, 40, 2)]
    made, _ = find_anchors(recipe({**YOLO, "strides": [16, 32], "anchors": "auto"}), split(*boxes), preprocessing(64))
    assert len(made.model.options["anchors"]) == 6


def chosen(given: tuple[str, ...] = (), **settings: Any) -> dict[str, Any]:
    made = recipe(**settings)
    return dict(choose(made, Source("x", "made", {"train": split((10, 10))}), preprocessing(64), given).values)


def test_where_it_is_the_default(tmp_path: Path) -> None:
    auto = {"model.anchors": "auto"}
    assert chosen() == auto
    assert chosen(("model.anchors",)) == {}
    assert chosen(model={"name": "retinanet"}) == {} and chosen(model={"name": "ssdlite"}) == {}
    assert chosen(train__init=str(tmp_path / "unknown.safetensors")) == {}
    other = opsin.train({**FLAGS, "model": {**YOLO, "anchors": [[8, 8], [9, 9], [10, 20], [20, 10], [30, 30], [31, 31],
                         [40, 40], [41, 41], [50, 50]]}}, out=tmp_path / "run", say=lambda line: None)  # fmt: skip
    kept = chosen(train__init=str(other.path))["model.anchors"]
    assert kept[2] == [10, 20] and len(kept) == 9
    digits = {"model": {"name": "lenet5"}, "data": {"source": "digits", "limit": 20}}
    settings = {"train.max_steps": 1, "train.tensorboard": False}
    classifier = opsin.train(digits, settings, out=tmp_path / "c", say=lambda line: None)
    assert chosen(train__init=str(classifier.path)) == auto


def test_a_recipe_keeps_its_models_anchors() -> None:
    lines: list[str] = []
    task, _, _ = prepare(load_recipe({**FLAGS, "optim": {"name": "adamw"}}), lines.append)
    assert "anchors" not in task.recipe.model.options
    assert not [line for line in lines if line.startswith("anchors: ")]


def test_auto_is_refused_where_there_are_no_boxes() -> None:
    with pytest.raises(InputError, match="follow from the boxes of a training"):
        opsin.create_model(**{**YOLO, "anchors": "auto"})


def test_says_a_bad_fit_and_objects_below_a_stride() -> None:
    asked = recipe({**YOLO, "anchors": [[30, 30]] * 9})
    model: Any = opsin.create_model(**asked.model.model_dump(exclude_none=True))
    wide = split(*[(40.0 + n, 5.0) for n in range(12)])
    fit = mean_best_iou(torch.tensor([[40.0 + n, 5.0] for n in range(12)]), [[30, 30]])
    lines = describe_fit(asked, model, wide, preprocessing(64))
    assert len(lines) == 1 and f"mean best IoU of {fit:.2f}" in lines[0]
    small = split(*[(6.0, 6.0 + n / 10) for n in range(9)], (30.0, 30.0))
    lines = describe_fit(recipe(), model, small, preprocessing(64))
    below = next(line for line in lines if "smaller than 8x8 pixels" in line)
    assert below.startswith("90 % of the training boxes") and "data.size=[96, 96]" in below
    assert not describe_fit(recipe(), model, split(*[(20.0, 20.0)] * 3), preprocessing(64))
    regions: Any = SimpleNamespace(strides=())  # one that looks at regions has no finest map to say anything of
    assert describe_fit(recipe({"name": "fast_rcnn"}), regions, small, preprocessing(64)) == []
