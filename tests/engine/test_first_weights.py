"""Weights of another training: the rows of classes of the same name, exactly, and what is said of the others."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import opsin
from opsin import registry
from opsin.engine import first_weights
from opsin.engine.checkpoint import read_model
from opsin.engine.first_weights import FirstWeights, _keep_classes, described_recipe
from opsin.engine.recipe import load_recipe
from opsin.engine.train import prepare
from opsin.errors import InputError
from opsin.nn.capabilities import ClassRows, class_rows, initialize

BEFORE, NOW = ["cat", "dog", "owl"], ["ant", "owl", "cat", "yak"]
KEPT = [(1, 2), (2, 0)]  # owl and cat: place now, place before

SMALL: dict[str, Any] = {"backbone": "mobilenet_v3_small"}
DETECTORS: dict[str, dict[str, Any]] = {
    "yolov3": {**SMALL, "width": 0.0625},
    "yolov2": {**SMALL, "width": 0.0625},
    "retinanet": {**SMALL, "channels": 16, "head_repeats": 1},
    "ssdlite": {},
    "m2det": {
        **SMALL,
        "planes": 8,
        "levels": 2,
        "fractions": (0.2, 0.4, 0.6, 0.8),
        "shrink_last": False,
        "neck_options": {"base_channels": (16, 16)},
    },
    "faster_rcnn_resnet50_fpn": {"backbone": "mobilenet_v3_small", "channels": 16},
}


def folder(root: Path, classes: list[str]) -> str:
    from PIL import Image

    random = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(10):
            Image.fromarray(random.integers(0, 256, (32, 32), np.uint8)).save(root / name / f"{number}.png")
    return str(root)


def test_a_classifier_keeps_the_rows_of_its_classes(tmp_path: Path) -> None:
    given = {"model": {"name": "lenet5"}, "data": {"source": folder(tmp_path / "a", BEFORE)}, "optim": {"lr": 0.01}}
    settings = {"train.max_steps": 1, "train.tensorboard": False}
    first = opsin.train(given, settings, out=tmp_path / "first", say=lambda line: None)
    lines: list[str] = []
    recipe = load_recipe(given, {"data.source": folder(tmp_path / "b", NOW), "train.init": str(first.path)})
    torch.manual_seed(0)
    fresh = prepare(load_recipe(given, {"data.source": recipe.data.source}), lambda line: None)[0].model.state_dict()
    torch.manual_seed(0)
    task = prepare(recipe, lines.append)[0]
    state, before = task.model.state_dict(), read_model(first.path).state
    names = list(class_rows(task.model))
    assert len(names) == 2 and all(len(state[name]) == 4 for name in names)
    for name in state:
        if name not in names:
            assert torch.equal(state[name], before[name])
            continue
        for now, then in ((1, 0), (2, 2)):  # a folder's classes are sorted: ant, cat, owl, yak
            assert torch.equal(state[name][now], before[name][then])
        for place in (0, 3):
            assert torch.equal(state[name][place], fresh[name][place])
    assert f"classes of {first.path}: 2 kept (cat, owl); 2 new (ant, yak); 1 lost (dog)" in lines
    assert described_recipe(str(first.path))["task"] == "classify"


def test_as_many_other_classes_start_fresh(tmp_path: Path) -> None:
    """Their rows would fit by their shape, each as another class."""
    model = registry.create_model("lenet5", num_classes=3, in_channels=1)
    state = {name: torch.full_like(tensor, 7.0) for name, tensor in model.state_dict().items()}
    made, lines = _keep_classes(model, FirstWeights(state, "classify", BEFORE), ["a", "b", "c"], "x")
    assert set(state) - set(made) == set(class_rows(model))
    assert lines == ["classes of x: 0 kept; 3 new (a, b, c); 3 lost (cat, dog, owl)"]
    made, _ = _keep_classes(model, FirstWeights(state, "classify", BEFORE), [*reversed(BEFORE)], "x")
    assert set(made) == set(state)


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_answers_as_before_for_the_classes_it_keeps(name: str) -> None:
    """Every number that is of no class, or of a kept one, comes out of both networks the same."""
    torch.manual_seed(0)
    old = registry.create_model(name, num_classes=3, **DETECTORS[name]).eval()
    with torch.no_grad():  # biases too differ from class to class
        for parameter in old.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    new = registry.create_model(name, num_classes=4, **DETECTORS[name]).eval()
    state, lines = _keep_classes(new, FirstWeights(dict(old.state_dict()), "detect", BEFORE), NOW, "x")
    assert initialize(new, state) == []
    assert lines == ["classes of x: 2 kept (owl, cat); 2 new (ant, yak); 1 lost (dog)"]
    images = torch.randn(1, 3, 64, 64)
    if name.startswith("faster"):
        features = torch.randn(5, old.roi.head.out_features)  # type: ignore[union-attr]
        left, right = (model.roi.predictor(features) for model in (old, new))  # type: ignore[union-attr, operator]
        pairs = [(left[0][:, :, None], right[0][:, :, None], 1), (left[1], right[1], 1)]
    else:
        left, right = old(images), new(images)
        if name.startswith("yolo"):
            anchors = [len(one) for one in old.anchors]  # type: ignore[arg-type, union-attr]
            views = [
                [out[k].unflatten(1, (n, -1)).transpose(1, 2)[0, :, None] for k, n in zip(out, anchors, strict=True)]
                for out in (left, right)
            ]
            pairs = [(a.movedim(0, 1), b.movedim(0, 1), 5) for a, b in zip(*views, strict=True)]
        else:
            first = 1 if name in ("ssdlite", "m2det") else 0
            pairs = [(left["logits"][0, :, :, None], right["logits"][0, :, :, None], first)]
            torch.testing.assert_close(left["offsets"], right["offsets"])
    for was, now, start in pairs:
        torch.testing.assert_close(was[:, :start], now[:, :start])
        for place, other in KEPT:
            torch.testing.assert_close(was[:, start + other], now[:, start + place])


def test_rows_before_and_after_those_of_the_classes_are_kept() -> None:
    """By hand: two groups of a row before, two rows a class, a row after; the last of three classes was the first."""
    layout = ClassRows(groups=2, before=1, width=2, after=1)
    own, other = torch.arange(16), torch.arange(100, 112)  # 2 x (1 + 3 x 2 + 1), and 2 x (1 + 2 x 2 + 1)
    moved = first_weights._move(own, other, layout, [(2, 0)])
    assert moved is not None
    assert moved.tolist() == [100, 1, 2, 3, 4, 101, 102, 105, 106, 9, 10, 11, 12, 107, 108, 111]


def test_a_head_of_another_form_starts_fresh() -> None:
    old = registry.create_model("yolov2", num_classes=3, **SMALL, width=0.0625, anchors=[[8, 8], [30, 30]])
    new = registry.create_model("yolov2", num_classes=4, **SMALL, width=0.0625)
    state, lines = _keep_classes(new, FirstWeights(dict(old.state_dict()), "detect", BEFORE), NOW, "x")
    assert "starts fresh" in lines[0]
    assert set(initialize(new, state)) == set(class_rows(new))


def test_of_several_readings_of_the_names_the_first_that_fits_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What shares a prefix is read with it, then without: names that fit with it are not lost to the second reading."""

    def refuse(*_: object, **options: object) -> None:
        raise InputError("other names")

    monkeypatch.setattr(first_weights, "fit_weights", refuse)
    model = nn.ModuleDict({"net": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    recipe = SimpleNamespace(model=SimpleNamespace(name="mine", options={}))
    task: Any = SimpleNamespace(model=model, recipe=recipe, facts=SimpleNamespace(options={}))
    file: Any = SimpleNamespace(tensors={"net.weight": torch.ones(2, 2), "net.bias": torch.ones(2)})
    assert sorted(first_weights._fill(task, file, "x")) == ["head.bias", "head.weight"]
    assert torch.equal(model.state_dict()["net.weight"], torch.ones(2, 2))
