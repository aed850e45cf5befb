"""Trainings begun by flags are completed for their data; recipes never are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import opsin
from opsin.classify.starting import choose
from opsin.data import Preprocessing, Source, Split
from opsin.data.inputs import ImageArray
from opsin.data.labels import ClassLabels
from opsin.engine.recipe import list_recipes, load_recipe, read_recipe
from opsin.engine.starting import given_keys

FLAGS: dict[str, Any] = {"model": {"name": "lenet5"}, "data": {"source": "digits", "limit": 40}}
STEP = {"train.max_steps": 1, "train.tensorboard": False}


def source(images: int, classes: list[str]) -> Source:
    pixels = torch.zeros(images, 1, 8, 8, dtype=torch.uint8)
    labels = ClassLabels(np.zeros(images, np.int64), classes)
    return Source("x", "made", {"train": Split(ImageArray(pixels, "x"), labels)}, task="classify")


def prepared(side: int, channels: int) -> Preprocessing:
    return Preprocessing(size=(side, side), channels=channels, mean=(0.5,) * channels, std=(0.5,) * channels)


def chosen(
    *, images: int = 100, classes: str = "cat dog", side: int = 32, channels: int = 3, **settings: Any
) -> dict[str, Any]:
    overrides = {key.replace("__", "."): value for key, value in settings.items()}
    recipe = load_recipe({"model": {"name": "resnet20"}, "data": {"source": "x"}}, overrides)
    start = choose(recipe, source(images, classes.split()), prepared(side, channels), overrides.keys())
    assert not start.values.keys() & overrides.keys()
    return dict(start.values)


def test_what_flags_give() -> None:
    assert given_keys(FLAGS, {"optim.lr": 0.1, "augment": "light"}) == {
        "model.name",
        "data.source",
        "data.limit",
        "optim.lr",
        "augment",
    }
    assert given_keys(FLAGS, {"optim": {"lr": 0.1}}) == {"model.name", "data.source", "data.limit", "optim", "optim.lr"}
    for recipe in ("lenet5_digits", Path("x.yaml"), {**FLAGS, "optim": {}}, {**FLAGS, "version": 2}):
        assert given_keys(recipe, {"optim.lr": 0.1}) is None
    assert given_keys(FLAGS, {"version": 2}) is None
    for name in list_recipes():
        assert given_keys(read_recipe(name), None) is None, name


def test_only_what_was_left_open_is_chosen_said_and_saved(tmp_path: Path) -> None:
    lines: list[str] = []
    overrides = {**STEP, "optim.lr": 0.3, "train.batch_size": 8}
    run = opsin.train(FLAGS, overrides, out=tmp_path / "run", say=lines.append)
    saved = yaml.safe_load((run.path / "recipe.yaml").read_text())
    assert saved["optim"]["name"] == "adamw" and saved["optim"]["lr"] == 0.3
    assert saved["train"]["batch_size"] == 8
    assert saved["augment"] == [{"random_crop": {"padding": 2}}]
    said = [line for line in lines if line.startswith("training from scratch: ")]
    assert said == [
        "training from scratch: AdamW, weight decay 0.05, warm-up 1 epoch, augment random_crop; "
        "a recipe or --set overrides"
    ]
    again: list[str] = []
    more = opsin.train(resume=run.path, overrides={"train.max_steps": 2}, say=again.append)
    assert not [line for line in again if line.startswith("training from scratch")]
    assert load_recipe(read_recipe(more.path / "recipe.yaml")).optim == load_recipe(saved).optim


def test_a_recipe_in_python_keeps_its_defaults(tmp_path: Path) -> None:
    lines: list[str] = []
    run = opsin.train({**FLAGS, "optim": {"lr": 0.05}}, STEP, out=tmp_path / "run", say=lines.append)
    saved = load_recipe(read_recipe(run.path / "recipe.yaml"))
    assert saved.optim.name == "sgd" and saved.augment is None and saved.train.batch_size == 64
    assert not [line for line in lines if "overrides" in line]


def test_from_weights_the_rate_is_low_and_the_start_frozen_where_images_are_few() -> None:
    scratch, tuned = chosen(), chosen(train__init="runs/x")
    assert tuned["optim.lr"] < scratch["optim.lr"]
    assert tuned["train.freeze_epochs"] == 3 and "train.freeze_epochs" not in scratch
    assert "train.freeze_epochs" not in chosen(images=5000, train__init="runs/x")
    assert "train.freeze_epochs" not in chosen(train__freeze_epochs=None, train__init="runs/x")
    assert chosen(train__epochs=4)["schedule.warmup_epochs"] == pytest.approx(0.4)


def test_an_optimizer_that_is_given_keeps_its_options() -> None:
    assert {key for key in chosen(optim__name="sgd") if key.startswith("optim.")} == {"optim.lr"}
    assert chosen(optim__name="sgd")["optim.lr"] == 0.05
    assert chosen(optim__name="sgd", train__init="runs/x")["optim.lr"] == 0.01
    assert "optim.name" not in chosen(optim__momentum=0.8)  # which AdamW has not


@pytest.mark.parametrize(("images", "batch"), [(100, 16), (639, 16), (640, 32), (1280, 64), (50_000, 64)])
def test_batches_are_small_where_images_are_few(images: int, batch: int) -> None:
    assert chosen(images=images)["train.batch_size"] == batch


def test_augmentation_follows_the_images() -> None:
    flip = {"random_horizontal_flip": {}}
    assert chosen(side=32)["augment"] == [{"random_crop": {"padding": 4}}, flip]
    assert chosen(side=224)["augment"] == [{"random_resized_crop": {"scale": [0.25, 1.0]}}, flip]
    assert flip not in chosen(channels=1)["augment"]
    for classes in ("0 1 2", "turn_left turn_right", "a b"):
        assert flip not in chosen(classes=classes)["augment"]
    assert flip in chosen(classes="leftover bright")["augment"]
