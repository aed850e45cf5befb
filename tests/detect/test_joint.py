"""A detector trained on images with boxes and on images without, through the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from opsin.cli import app_for
from opsin.data import create_loader
from opsin.engine.checkpoint import read_model
from opsin.engine.recipe import load_recipe
from opsin.engine.train import prepare
from opsin.errors import InputError

SETTINGS: dict[str, Any] = {
    "data.size": 64,
    "data.limit": 8,
    "model.backbone": "mobilenet_v3_small",
    "model.width": 0.0625,
    "augment": "yolo",
    "train.batch_size": 4,
    "train.tensorboard": False,
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes in folders: "3", which the scenes have, and "owl", which they have not."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.RandomState(0)
    for name in ("3", "owl"):
        (folder / name).mkdir()
        for k in range(20):
            Image.fromarray(random.randint(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / name / f"{k}.png")
    return folder


def recipe(photos: Path, **overrides: Any) -> Any:
    values = {"task": "detect", "model": {"name": "yolov2"}, "data": {"source": "scenes:8", "joint": str(photos)}}
    return load_recipe(values, {**SETTINGS, **{key.replace("__", "."): value for key, value in overrides.items()}})


def test_from_training_to_prediction(photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    call = ["train", "detect", "--model", "yolov2", "--data", "scenes:8", "--epochs", "1", "--out", str(run)]
    settings = {**SETTINGS, "data.joint": str(photos), "data.limit": "null"}
    call += [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    told = CliRunner().invoke(app_for(call), call, catch_exceptions=False)
    assert told.exit_code == 0, told.output
    assert "40 images of" in told.stderr and "1 of them without boxes: 'owl'" in told.stderr
    assert "the 8 images with boxes come 2 times each" in told.stderr  # 40 / 16 is at most 4, 40 / 8 is not
    (row,) = csv.DictReader((run / "metrics.csv").read_text().splitlines())
    assert float(row["train_somewhere"]) > 0 and float(row["train_box"]) > 0
    assert read_model(run).classes == [*map(str, range(10)), "owl"]
    evaluated = CliRunner().invoke(app_for([]), ["eval", str(run), "--json"], catch_exceptions=False)
    assert evaluated.exit_code == 0 and 0 <= json.loads(evaluated.stdout)["map"] <= 1
    rows = {one["class"]: one for one in json.loads((run / "evaluation_test.json").read_text())["per_class"]}
    assert rows["owl"]["objects"] == 0 and rows["owl"]["map"] is None  # no boxes of it to evaluate on
    assert "joint: " in (run / "report.html").read_text() and "owl" in (run / "report.html").read_text()


def test_targets_of_a_batch_of_both(photos: Path) -> None:
    made, _, splits = prepare(recipe(photos), lambda line: None)
    task: Any = made.train()
    (batch,) = create_loader(
        splits["train"], task.preprocessing, batch_size=16, training=True, augmentation=task.create_augmentation()
    )
    targets = task.targets(batch)
    unboxed = [shown is not None for shown in batch["somewhere"]]
    assert sum(unboxed) == 8
    for target, index, alone in zip(targets, batch["index"].tolist(), unboxed, strict=True):
        assert target.boxes.isnan().all() if alone else target.boxes.isfinite().all()
        if alone:
            assert target.labels.tolist() == splits["train"].kind.shown(index)
    losses = task.detector.loss(task.model(*task.inputs(batch)), targets)
    assert all(torch.isfinite(term) for term in losses.values()) and losses["somewhere"] > 0
    assert losses["box"] > 0


def test_what_cannot_learn_from_it_is_refused(photos: Path) -> None:
    asked = recipe(photos, model={"name": "ssd", "backbone": "mobilenet_v3_small"})
    with pytest.raises(InputError, match=r"detect.joint .* which ssd cannot learn from; these can: yolov2, yolov2_voc"):
        prepare(asked, lambda line: None)
    with pytest.raises(InputError, match=r"^detect.joint: no file or folder at /nowhere"):
        prepare(recipe(Path("/nowhere")), lambda line: None)
    with pytest.raises(InputError, match=r"data.joint belongs to recipes for detect"):
        load_recipe({"model": {"name": "lenet5"}, "data": {"source": "digits", "joint": str(photos)}})
    with pytest.raises(InputError, match=r"detect.joint_ratio"):
        recipe(photos, data__joint_ratio=0)
