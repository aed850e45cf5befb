"""Two processes train to the weights of one with twice the batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from opsin.engine.checkpoint import read_model

RECIPE = {
    "model": {"name": "lenet5"},
    "data": {"source": "digits", "limit": 150},
    "augment": "digits",
    "optim": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
    "train": {"epochs": 2, "freeze_epochs": 1, "keep": "last", "accelerator": "cpu", "tensorboard": False},
}
TRAIN = "import json, sys, opsin; opsin.train(json.loads(sys.argv[1]), out=sys.argv[2])"


def train(out: Path, **settings: object) -> subprocess.CompletedProcess[str]:
    recipe = {**RECIPE, "train": {**RECIPE["train"], **settings}}
    script = out.parent / "train.py"
    script.write_text(TRAIN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), json.dumps(recipe), str(out)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def test_two_processes_equal_one_with_twice_the_batch(tmp_path: Path):
    one, two = tmp_path / "one", tmp_path / "two"
    for done in (train(one, batch_size=32), train(two, batch_size=16, devices=2, strategy="ddp")):
        assert done.returncode == 0, done.stderr
    left, right = read_model(one), read_model(two)
    for key, value in left.state.items():
        torch.testing.assert_close(right.state[key], value, rtol=1e-4, atol=1e-5)
    rows = [(path / "metrics.csv").read_text().splitlines() for path in (one, two)]
    assert [len(r) for r in rows] == [3, 3]
    columns = rows[0][0].split(",")
    for name in ("val_loss", "val_accuracy"):
        values = [float(r[-1].split(",")[columns.index(name)]) for r in rows]
        assert abs(values[0] - values[1]) < 1e-4
