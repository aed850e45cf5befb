"""A run on drawn faces that is trained once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import opsin

RECIPE: dict[str, Any] = {
    "task": "landmark",
    "model": {"name": "wing_cnn6", "width": 8},
    "data": {"source": "drawn_faces:60"},
    "augment": [{"random_horizontal_flip": {}}],
    "optim": {"name": "adamw", "lr": 0.002},
    "train": {"epochs": 12, "batch_size": 4, "accelerator": "cpu", "keep": "last"},
}


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    opsin.train(RECIPE, out=folder)
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained run."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"
