"""A segmenter in training: what its pixels count, what it refuses, and that a training goes on bit for bit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import opsin
from opsin import data
from opsin.engine.checkpoint import read_checkpoint, read_model, read_tensors
from opsin.engine.recipe import load_recipe
from opsin.engine.train import prepare
from opsin.errors import InputError
from opsin.segment.border_weights import border_weights
from opsin.segment.task import SegmentTask

from .conftest import RECIPE


def recipe(**overrides: Any) -> Any:
    return load_recipe(copy.deepcopy(RECIPE), {key.replace("__", "."): value for key, value in overrides.items()})


def task_of(**overrides: Any) -> Any:
    torch.manual_seed(0)
    return prepare(recipe(**overrides), lambda line: None)[0]


def plain_weights(class_map: np.ndarray, background: int, w0: float, sigma: float) -> np.ndarray:
    """Equation 2 pixel by pixel: things by flooding, distances to every pixel of every thing."""
    height, width = class_map.shape
    things, taken = [], np.zeros(class_map.shape, bool)
    for y in range(height):
        for x in range(width):
            if taken[y, x] or class_map[y, x] in (background, 255):
                continue
            thing, todo = [], [(y, x)]
            taken[y, x] = True
            while todo:
                a, b = todo.pop()
                thing.append((a, b))
                for c, d in ((a - 1, b), (a + 1, b), (a, b - 1), (a, b + 1)):
                    if 0 <= c < height and 0 <= d < width and not taken[c, d] and class_map[c, d] == class_map[y, x]:
                        taken[c, d] = True
                        todo.append((c, d))
            things.append(np.array(thing))
    found = np.ones(class_map.shape)
    for y, x in np.argwhere(~taken):
        away = sorted(np.hypot(thing[:, 0] - y, thing[:, 1] - x).min() for thing in things)
        if len(away) > 1:
            found[y, x] += w0 * np.exp(-((away[0] + away[1]) ** 2) / (2 * sigma**2))
    return found


def test_border_weights_are_those_of_the_equation() -> None:
    random = np.random.default_rng(0)
    map_ = np.zeros((40, 50), np.uint8)
    for number, (y, x) in enumerate(random.integers(0, 34, (9, 2))):
        map_[y : y + 5, x : x + 7] = 1 + number % 2
    map_[30:33, 5:9] = 255
    for w0, sigma in ((10.0, 5.0), (4.0, 2.0)):
        found = border_weights(map_, 0, w0, sigma)
        assert found.dtype == np.float32 and np.abs(found - plain_weights(map_, 0, w0, sigma)).max() < 2e-4
    assert found.max() > 1.5 and (found[map_ == 1] == 1).all()
    alone = np.zeros((9, 9), np.uint8)
    alone[4, 4] = 1
    assert (border_weights(alone, 0) == 1).all() and (border_weights(np.zeros((3, 3), np.uint8), 0) == 1).all()


def test_border_weights_are_of_the_map_after_augmentation(segmenters: None) -> None:
    task = task_of(**{"segment__border_weights": 10, "augment": [{"elastic_grid": {"sigma": 2.0}}]})
    split = data.open("blobs:4", "segment").splits["all"]
    loader = data.create_loader(split, task.preprocessing, batch_size=4, augmentation=task.create_augmentation())
    batch = next(iter(loader))
    assert batch["pixel_weights"].shape == (4, 32, 32)
    for map_, weights in zip(batch["class_map"], batch["pixel_weights"], strict=True):
        assert np.array_equal(border_weights(np.asarray(map_), 0), weights.numpy())
    plain = data.open("blobs:4", "segment").splits["all"].truth
    assert not torch.equal(torch.as_tensor(plain.read(0, None)["class_map"]), torch.as_tensor(batch["class_map"][0]))  # type: ignore[union-attr]
    targets = task.targets(batch)
    logits = torch.randn(4, 3, 32, 32)
    weighted, even = (
        task.model.loss({"logits": logits}, one)["loss"] for one in (targets, {"labels": targets["labels"]})
    )
    terms = torch.nn.functional.cross_entropy(logits, targets["labels"], ignore_index=-1, reduction="none")
    mass = targets["weights"] * (targets["labels"] >= 0)
    torch.testing.assert_close(weighted, (terms * mass).sum() / mass.sum())
    assert not torch.isclose(weighted, even)
    with pytest.raises(InputError, match=r"segment\.background"):
        task_of(**{"segment__border_weights": 10, "segment__background": "sea"}).create_augmentation()


def test_the_recipes_loss_and_class_weights_are_used(segmenters: None) -> None:
    assert task_of().model.criterion.weight is None
    weights = task_of(loss__class_weights="balanced").model.criterion.weight
    assert weights.shape == (3,) and weights[0] < 1 < weights[1]
    smooth = task_of(loss__smoothing=0.1).model.criterion.smoothing
    assert (
        smooth == 0.1
        and task_of(loss__name="dice").model.criterion(torch.randn(1, 3, 4, 4), torch.zeros(1, 4, 4).long()) < 1
    )
    with pytest.raises(InputError, match="unknown"):
        task_of(loss__name="dicee")


def test_what_cannot_be_is_refused_before_training(segmenters: None) -> None:
    with pytest.raises(InputError, match="mixing"):
        task_of(mixing__mixup=0.2)
    with pytest.raises(InputError, match=r"data.size gives 31x31: TinyValid takes even sides"):
        task_of(model__name="tiny_valid", data__size=31)


def test_a_broken_training_goes_on_bit_for_bit(
    segmenters: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Border weights and bending are drawn in the loader: what is resumed in the middle of an epoch has the same."""
    settings = {
        "segment.border_weights": 10,
        "augment": [{"elastic_grid": {"sigma": 3.0}}, {"random_horizontal_flip": {}}],
        "train.epochs": 2,
        "train.save_every_steps": 1,
        "train.keep": "last",
    }
    opsin.train(RECIPE, settings, out=tmp_path / "whole")
    step = SegmentTask.training_step

    def breaking(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.steps == 3:
            raise RuntimeError("the power is off")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentTask, "training_step", breaking)
        with pytest.raises(RuntimeError, match="the power is off"):
            opsin.train(RECIPE, settings, out=tmp_path / "cut")
    opsin.train(resume=tmp_path / "cut")
    for read in (lambda run: read_model(run).state, lambda run: read_checkpoint(run / "last.ckpt")["state_dict"]):
        whole, cut = read(tmp_path / "whole"), read(tmp_path / "cut")
        assert whole.keys() == cut.keys() and all(torch.equal(whole[key], cut[key]) for key in whole)


def test_an_evaluation_looks_as_a_prediction_does(segmenters: None, tmp_path: Path) -> None:
    run = tmp_path / "run"
    opsin.train(RECIPE, out=run)
    plain, flipped = opsin.evaluate(run, split="test"), opsin.evaluate(run, split="test", flip=True)
    assert plain.keys() == flipped.keys() and plain != flipped
    wrong, pixels = 0, 0
    members = list(range(16))
    source = data.open("blobs:16", "segment").splits["all"]
    answers = opsin.load(run).predict([source.read(i) for i in members], flip=True)
    for i, answer in zip(members, answers, strict=True):
        truth = np.asarray(source.kind.read(i, None)["class_map"])
        wrong, pixels = wrong + int((answer.class_map != truth).sum()), pixels + truth.size
    whole = opsin.evaluate(run, data="blobs:16", flip=True)
    assert whole["pixel_accuracy"] == pytest.approx(1 - wrong / pixels)
    assert opsin.evaluate(run, data="blobs:16", tile=16, scale=[1.0, 0.5])["miou"] > 0.2


def test_an_fcn_is_trained_in_turn(segmenters: None, tmp_path: Path) -> None:
    model: Any = opsin.create_model("fcn8s", num_classes=3, backbone="resnet18").eval()
    coarse: Any = opsin.create_model("fcn32s", num_classes=3, backbone="resnet18").eval()
    torch.nn.init.normal_(model.scores["32"].weight)
    torch.nn.init.normal_(model.scores["8"].weight)
    coarse.load_state_dict({key: model.state_dict()[key] for key in coarse.state_dict()})
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        whole = model(images)["logits"]
        model.hold_at(32)
        assert torch.equal(model(images)["logits"], coarse(images)["logits"])
        assert (
            model.state_dict().keys()
            == opsin.create_model("fcn8s", num_classes=3, backbone="resnet18").state_dict().keys()
        )
        model.hold_at(None)
        assert torch.equal(model(images)["logits"], whole) and not torch.equal(whole, coarse(images)["logits"])
    options = {"model.name": "fcn16s", "model.backbone": "resnet18", "segment.staged": True, "train.epochs": 1}
    opsin.train(RECIPE, {**options, "optim.lr": 0.001, "data.source": "blobs:8"}, out=tmp_path / "run")
    first, second = (
        read_tensors(tmp_path / "run" / "stages" / name / "result.safetensors")[0] for name in ("32s", "16s")
    )
    assert first["scores.32.weight"].any() and not first["scores.16.weight"].any() and second["scores.16.weight"].any()
    saved = read_model(tmp_path / "run").state
    assert torch.equal(saved["scores.16.weight"], second["scores.16.weight"])
    with pytest.raises(InputError, match=r"segment\.staged"):
        task_of(segment__staged=True)
