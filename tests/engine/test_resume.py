"""Kill a training at any step, resume it, and get the weights of the uninterrupted run, bit for bit."""

from __future__ import annotations

import random
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from tests.processes import run_python

import opsin
from opsin.engine.checkpoint import read_checkpoint, read_model

RECIPE = {
    "model": {"name": "lenet5"},
    "data": {"source": "digits", "limit": 150},
    "augment": "digits",
    "mixing": {"mixup": 0.2},
    "optim": {"name": "sgd", "lr": 0.02, "momentum": 0.9},
    "schedule": {"name": "plateau", "patience": 0, "warmup_epochs": 1},
    "train": {
        "epochs": 3,
        "batch_size": 16,
        "ema_decay": 0.9,
        "keep": "last",
        "save_every_steps": 2,
        "tensorboard": False,
    },
}  # nine steps an epoch

# Trains until the given step has begun, then dies as if the power had failed.
KILLED = """
import os, signal, sys, json
import opsin
from opsin.engine.task import Task

step = Task.training_step
def dying(self, batch, batch_idx):
    if self.current_epoch * 9 + batch_idx == int(sys.argv[1]):
        os.kill(os.getpid(), getattr(signal, sys.argv[4]))
    return step(self, batch, batch_idx)
Task.training_step = dying
opsin.train(json.loads(sys.argv[2]), out=sys.argv[3])
"""


def train_and_kill(
    step: int, out: Path, number: str = "SIGKILL", **settings: object
) -> subprocess.CompletedProcess[str]:
    import json

    recipe = {**RECIPE, "train": {**RECIPE["train"], **settings}}
    return run_python(["-c", KILLED, str(step), json.dumps(recipe), str(out), number], Path.cwd())


def weights(run: Path) -> dict[str, torch.Tensor]:
    checkpoint = read_checkpoint(run / "last.ckpt")
    average = next(v["average"] for v in checkpoint["callbacks"].values() if "average" in v)
    momentum = checkpoint["optimizer_states"][0]["state"]
    buffers = {f"momentum.{k}": v["momentum_buffer"] for k, v in momentum.items()}
    kept = {f"saved.{k}": v for k, v in read_model(run).state.items()}
    return {**checkpoint["state_dict"], **{f"average.{k}": v for k, v in average.items()}, **buffers, **kept}


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    differing = [k for k in left if not torch.equal(left[k], right[k])]
    assert differing == []


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    out = tmp_path_factory.mktemp("whole") / "run"
    opsin.train(RECIPE, out=out, say=lambda line: None)
    return weights(out)


# Before the first checkpoint and right behind it, the first and last step of an epoch, and one at random.
@pytest.mark.parametrize(("step", "workers"), [(1, 0), (9, 0), ("random", 2)])
def test_killed_and_resumed_equals_uninterrupted(
    step: int | str, workers: int, uninterrupted: dict[str, torch.Tensor], tmp_path: Path
):
    step = random.randrange(2, 26) if isinstance(step, str) else step
    out = tmp_path / "run"
    died = train_and_kill(step, out, workers=workers)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert (out / "last.ckpt").exists() == (step >= 2)
    run = opsin.train(resume=out, say=lambda line: None)
    assert run.epochs == 3
    assert_same(weights(out), uninterrupted)


def test_interrupt_saves_and_says_how_to_resume(uninterrupted: dict[str, torch.Tensor], tmp_path: Path):
    out = tmp_path / "run"
    stopped = train_and_kill(13, out, "SIGINT", save_every_steps=None)
    assert stopped.returncode != 0
    assert f"opsin train --resume {out}" in stopped.stderr
    assert read_checkpoint(out / "last.ckpt")["global_step"] == 14
    opsin.train(resume=out, say=lambda line: None)
    assert_same(weights(out), uninterrupted)


@pytest.mark.parametrize(("step", "number"), [(14, "SIGKILL"), (11, "SIGINT")])
def test_no_checkpoint_lies_amid_an_accumulation(step: int, number: str, tmp_path: Path):
    """Gradients are not saved: of 9 batches an epoch, the optimizer steps after 4, 8 and 9, and so may be written."""
    recipe = {**RECIPE, "train": {**RECIPE["train"], "accumulate": 4, "save_every_steps": 3, "epochs": 2}}
    opsin.train(recipe, out=tmp_path / "whole", say=lambda line: None)
    stopped = train_and_kill(step, tmp_path / "run", number, **recipe["train"])
    assert stopped.returncode != 0, stopped.stderr
    # Killed before the 6th batch of the second epoch, behind its 3rd; interrupted as its 3rd began.
    position = read_checkpoint(tmp_path / "run" / "last.ckpt")["opsin"]["position"]
    opsin.train(resume=tmp_path / "run", say=lambda line: None)
    assert_same(weights(tmp_path / "run"), weights(tmp_path / "whole"))
    assert position == [1, 4]


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path):
    out = tmp_path / "run"
    short = {**RECIPE, "train": {**RECIPE["train"], "epochs": 1}}
    opsin.train(short, out=out, say=lambda line: None)
    before = weights(out)
    opsin.train(resume=out, say=lambda line: None)
    assert_same(weights(out), before)


def test_resume_can_prolong_a_run(tmp_path: Path):
    out = tmp_path / "run"
    short = {**RECIPE, "train": {**RECIPE["train"], "epochs": 1}}
    opsin.train(short, out=out, say=lambda line: None)
    run = opsin.train(resume=out, overrides={"train.epochs": 2}, say=lambda line: None)
    assert [row["epoch"] for row in run.history] == [1, 2]
