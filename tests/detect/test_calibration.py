"""The threshold of answers is fitted on validation data alone, and an unfinished training has one too."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import opsin
from opsin import data
from opsin.detect.metrics import CONFIDENCES
from opsin.engine.checkpoint import read_model
from opsin.engine.evaluator import create_evaluator
from opsin.engine.predict import load
from opsin.engine.recipe_data import split_data
from opsin.errors import JobError
from opsin.ops.iou import numpy_iou
from opsin.structures import Instances

RECIPE: dict[str, Any] = {
    "task": "detect",
    "model": {"name": "cells", "width": 8},
    "data": {"source": "scenes:50"},
    "train": {"epochs": 6, "batch_size": 8, "tensorboard": False, "ema_decay": None},
    "optim": {"lr": 0.01},
}


@pytest.fixture
def disagreeing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenes of whose test images the first object alone counts: most of what is right in val is wrong there."""
    from opsin.engine import task

    def divide(recipe: Any, source: Any) -> Any:
        splits = split_data(recipe, source)
        instances = splits["test"].kind.instances
        fewer = [Instances(one.boxes[:1], one.labels[:1]) for one in instances]
        own = data.boxes.Boxes.of(fewer, splits["test"].kind.classes)
        return {**splits, "test": splits["test"].with_truth(own)}

    monkeypatch.setattr(task, "split_data", divide)


def plain_threshold(run: Path, split: str) -> list[float]:
    """The thresholds with the best mean F1, by trying each on each class, prediction by prediction."""
    predictor = load(run)
    source = data.open(predictor.recipe.data.source, "detect")
    chosen = split_data(predictor.recipe, source)[split]
    evaluator: Any = create_evaluator(predictor)
    loader = data.create_loader(chosen, predictor.preprocessing, batch_size=8, workers=0)
    with torch.no_grad():
        for batch in loader:
            evaluator.update(predictor.outputs(batch), batch)
    truth, found = evaluator.gathered()
    if split == "test":
        truth = [Instances(one.boxes[:1], one.labels[:1]) for one in truth]
    curves = []
    for label in range(len(predictor.classes)):
        objects = [one.boxes[one.labels == label].numpy() for one in truth]
        if not sum(map(len, objects)):
            continue
        rows = sorted(
            ((float(s), i, box.numpy()) for i, one in enumerate(found) for s, box in zip(
                one.scores[one.labels == label], one.boxes[one.labels == label], strict=True)),
            key=lambda row: -row[0],
        )  # fmt: skip
        taken: set[tuple[int, int]] = set()
        right = []
        for _, image, box in rows:
            ious = numpy_iou(box[None], objects[image])[0]
            free = [(iou, at) for at, iou in enumerate(ious) if (image, at) not in taken and iou >= 0.5]
            right.append(bool(free))
            taken |= {(image, max(free)[1])} if free else set()
        count = sum(map(len, objects))
        scores, hits = np.array([row[0] for row in rows]), np.array(right, bool)
        kept = [scores >= least for least in CONFIDENCES]
        curves.append([2 * hits[one].sum() / max(1, one.sum() + count) for one in kept])
    mean = np.mean(curves, axis=0)
    best = np.flatnonzero(mean >= mean.max() - 1e-9)
    return [float(CONFIDENCES[best[0]]), float(CONFIDENCES[best[-1]])]


def test_the_threshold_is_that_of_val_and_not_of_test(cells: str, disagreeing: None, tmp_path: Path) -> None:
    opsin.train(copy.deepcopy(RECIPE), out=tmp_path / "run", say=lambda line: None)
    fitted = read_model(tmp_path / "run").values["score_threshold"]
    low, high = plain_threshold(tmp_path / "run", "val")
    other_low, other_high = plain_threshold(tmp_path / "run", "test")
    assert other_low > high or other_high < low  # the two splits disagree
    assert low <= fitted <= high


def test_an_unfinished_training_says_so_and_has_a_threshold(
    cells: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from opsin.engine import train

    def killed(*args: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(JobError, match="stopped"):
        patched.setattr(train, "_finish", killed)
        opsin.train(copy.deepcopy(RECIPE), {"train.epochs": 3}, out=tmp_path / "run", say=lambda line: None)
    capsys.readouterr()
    low, high = plain_threshold(tmp_path / "run", "val")
    assert "run is an unfinished training: this is its best model so far" in capsys.readouterr().err
    fitted = read_model(tmp_path / "run").values["score_threshold"]
    assert fitted is not None and low - 1e-9 <= fitted <= high + 1e-9
    opsin.train(resume=tmp_path / "run", say=lambda line: None)
    capsys.readouterr()
    load(tmp_path / "run")
    assert "unfinished" not in capsys.readouterr().err
