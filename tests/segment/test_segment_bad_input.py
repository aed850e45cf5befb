"""Input that breaks segmenters elsewhere: a right result, or an error that says what is wrong."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import opsin
from opsin import data, rooms
from opsin.data.class_maps import ClassMaps, MapArray
from opsin.data.inputs import ImageArray
from opsin.data.source import Source, Split
from opsin.engine.recipe import load_recipe
from opsin.engine.starting import start
from opsin.errors import InputError

from . import tiny_blobs
from .conftest import RECIPE


def give(monkeypatch: pytest.MonkeyPatch, images: np.ndarray, maps: np.ndarray, classes: Any = None) -> None:
    """Let `blobs` be this data."""
    names = classes or tiny_blobs.CLASSES
    truth = ClassMaps(MapArray(maps, "blobs", len(names)), names)
    split = Split(ImageArray(torch.from_numpy(images), "blobs"), truth)
    opened = Source("blobs", "blobs", {"all": split})
    formats = (
        opsin.data.formats.format.Format("blobs", "", "", lambda path: 3, lambda path: opened, names=("blobs",)),
    )  # type: ignore[attr-defined]
    monkeypatch.setattr(tiny_blobs, "FORMAT", formats[0])


def train(tmp_path: Path, **settings: Any) -> Any:
    recipe = copy.deepcopy(RECIPE)
    recipe["data"]["source"] = "blobs"
    return opsin.train(recipe, {"train.epochs": 1, **settings}, out=tmp_path / "run")


def test_images_of_which_nothing_is_known_count_for_nothing(
    segmenters: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    images, maps = tiny_blobs.draw(12)
    maps[::2] = 255
    give(monkeypatch, images, maps)
    run = train(tmp_path, **{"train.batch_size": 1})
    assert np.isfinite(list(run.metrics.values())).all()
    assert all(torch.isfinite(p).all() for p in opsin.load(tmp_path / "run").model.parameters())


def test_ids_beyond_the_classes_are_an_error(segmenters: None, tmp_path: Path) -> None:
    images, maps = tiny_blobs.draw(8)
    maps[3, 5, 5] = 7
    from PIL import Image

    for folder in ("images", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for number, (image, map_) in enumerate(zip(images, maps, strict=True)):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / "data" / "images" / f"{number}.png")
        Image.fromarray(map_).save(tmp_path / "data" / "masks" / f"{number}.png")
    (tmp_path / "data" / "classes.txt").write_text("ground\ndisc\nsquare\n")
    recipe = {**RECIPE, "data": {"source": str(tmp_path / "data"), "size": 32}}
    with pytest.raises(InputError, match=r"3\.png"):
        opsin.train(recipe, {"train.epochs": 1}, out=tmp_path / "run")


def test_an_image_of_one_pixel_has_an_answer(run: Path) -> None:
    predictor = opsin.load(run)
    several: list[dict[str, Any]] = [{}, {"tile": 16}, {"flip": True}]
    for options in several:
        answer = predictor.predict(torch.full((3, 1, 1), 220, dtype=torch.uint8), **options)
        assert answer.class_map.shape == (1, 1) and answer.areas.sum() == 1 and answer.components.sum() == 1


def test_a_batch_of_one_trains_with_image_pooling_and_batch_norm(
    segmenters: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    images, maps = tiny_blobs.draw(5, 64)
    give(monkeypatch, images, maps)
    settings = {"model.name": "deeplabv3", "model.backbone": "resnet18", "data.size": 64, "train.batch_size": 1}
    train(tmp_path, **settings)
    assert opsin.load(tmp_path / "run").predict(torch.from_numpy(images[0])).class_map.shape == (64, 64)


def test_a_class_that_no_mask_has_is_never_answered_by_chance(
    segmenters: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    give(monkeypatch, *tiny_blobs.draw(12), classes=(*tiny_blobs.CLASSES, "unicorn"))
    train(tmp_path, **{"loss.class_weights": "balanced", "train.epochs": 3})
    metrics = opsin.evaluate(tmp_path / "run", split="train")
    assert 0 < metrics["miou"] <= 1 and np.isfinite(list(metrics.values())).all()


def test_what_the_flags_leave_open_is_chosen(segmenters: None) -> None:
    source = data.open("blobs:90", "segment")
    source = source.with_splits({"train": source.splits["all"]})
    recipe = load_recipe({"task": "segment", "model": {"name": "tiny_segmenter"}, "data": {"source": "blobs:90"}})
    made, (line,) = start(recipe, source, None, {"optim.lr"})
    assert made.train.batch_size == 4 and list(made.augment or ())[1] == {"random_horizontal_flip": {}}
    assert line.startswith("training: batches of 4, augment scale_jitter + random_horizontal_flip")
    sided = source.with_splits({"train": source.splits["train"].with_truth(
        source.splits["train"].kind.relabel([0, 1, 2], ["ground", "left lung", "right lung"])
    )})  # fmt: skip
    assert start(recipe, sided, None, {"train.batch_size"})[0].augment == [{"scale_jitter": {"scale": [0.75, 1.33]}}]
    assert rooms.find_room("segment").starts is not None
