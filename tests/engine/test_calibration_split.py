"""What a training fits after the last epoch sees validation data, never test data."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import opsin
from opsin import data
from opsin.classify.calibration import fit_temperature
from opsin.engine.checkpoint import read_model
from opsin.engine.predict import load

RECIPE: dict[str, Any] = {
    "model": {"name": "lenet5"},
    "data": {"channels": 1},
    "optim": {"name": "adam", "lr": 0.003},
    "schedule": {"name": "constant"},
    "train": {"epochs": 6, "batch_size": 32, "tensorboard": False},
}


@pytest.fixture
def disagreeing(tmp_path: Path) -> Path:
    """Digits whose labels are wrong for a third of val and for four fifths of test."""
    source = data.open("digits")
    images = next(iter(source.splits.values()))
    generator, arrays, first = np.random.default_rng(0), {}, 0
    for name, count, share in (("train", 400, 0.0), ("val", 200, 0.35), ("test", 200, 0.8)):
        places = range(first, first + count)
        first += count
        labels = images.kind.labels[list(places)].copy()
        wrong = generator.random(count) < share
        labels[wrong] = generator.integers(0, 10, int(wrong.sum()))
        arrays[f"{name}_x"] = np.stack([images.read(i).numpy()[0] for i in places])
        arrays[f"{name}_y"] = labels
    np.savez(tmp_path / "digits.npz", **arrays)
    return tmp_path / "digits.npz"


def test_the_temperature_is_that_of_val_and_not_of_test(disagreeing: Path, tmp_path: Path) -> None:
    recipe = copy.deepcopy(RECIPE)
    recipe["data"]["source"] = str(disagreeing)
    opsin.train(recipe, out=tmp_path / "run", say=lambda line: None)
    fitted = read_model(tmp_path / "run").values["temperature"]
    predictor, expected = load(tmp_path / "run", "cpu"), {}
    for name, split in data.open(disagreeing).splits.items():
        loader = data.create_loader(split, predictor.preprocessing, batch_size=64, workers=0)
        with torch.no_grad():
            batches = [(predictor.outputs(batch), batch["label"]) for batch in loader]
        logits, labels = (torch.cat(column) for column in zip(*batches, strict=True))
        expected[name] = fit_temperature(logits.float(), labels)
    assert abs(expected["test"] - expected["val"]) > 0.3  # the two splits disagree
    assert fitted == pytest.approx(expected["val"], rel=1e-3)
