"""Many kills at random moments, and long use of one process. `make soak` does what it must reach; the suite a little.

OPSIN_SOAK: how many kills; `make soak` sets it.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import opsin
from opsin.engine.checkpoint import read_checkpoint, read_model

KILLS = int(os.environ.get("OPSIN_SOAK", "3"))
COMMON = {"epochs": 2, "save_every_steps": 1, "accelerator": "cpu"}
RECIPES: dict[str, dict[str, Any]] = {
    "classify": {
        "model": {"name": "lenet5"},
        "data": {"source": "digits", "limit": 120},
        "augment": "digits",
        "optim": {"name": "sgd", "lr": 0.02, "momentum": 0.9},
        "train": {**COMMON, "batch_size": 8, "ema_decay": 0.9},
    },
    "detect": {
        "task": "detect",
        "model": {"name": "efficientdet_d0", "backbone": "timm:test_convnext"},
        "data": {"source": "scenes:16", "size": 128},
        "train": {**COMMON, "batch_size": 4},
    },
    "stages": {
        "task": "detect",
        "model": {
            "name": "rcnn",
            "backbone": "lenet5",
            "side": 32,
            "context": 4,
            "proposals": "sliding_windows",
            "proposal_options": {"limit": 40},
        },
        "data": {"source": "scenes:20", "size": 96},
        "train": {**COMMON, "batch_size": 4},
    },
}
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are forked")


def child(*given: Any) -> Any:
    """A process that trains; forked from one which has imported everything and run nothing.

    Not from this one: where a test before has started threads of autograd, a fork of it can't train.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["opsin.engine.train", "opsin.engine.task", "pytest"])
    process = context.Process(target=runpy.run_path, args=(__file__, {"GIVEN": given}, "__main__"))
    process.start()
    return process


def train(recipe: dict[str, Any], out: Path, die_at: tuple[str, int] | None = None) -> None:
    """Begin or resume; dies within the n-th write of a file where it is told to."""
    if die_at is not None:
        where, left = die_at[0], [die_at[1]]
        kept = getattr(os, where)

        def dying(*given: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return kept(*given, **named)

        setattr(os, where, dying)
    say = lambda line: None  # noqa: E731
    if (out / "recipe.yaml").exists():
        opsin.train(resume=out, say=say)
    else:
        opsin.train(recipe, out=out, say=say)


def state(run: Path) -> dict[str, torch.Tensor]:
    found = {f"model.{key}": value for key, value in read_model(run).state.items()}
    for path in sorted(run.rglob("last.ckpt")):
        found |= {f"{path.relative_to(run)}.{k}": v for k, v in read_checkpoint(path)["state_dict"].items()}
    return found


@pytest.mark.parametrize("name", RECIPES if "OPSIN_SOAK" in os.environ else ["classify"])
def test_kills_at_any_moment_lose_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPSIN_HOME", str(tmp_path / "home"))
    dice = random.Random(f"{name} {os.environ.get('OPSIN_SOAK_SEED', '')}")
    recipe = RECIPES[name]
    started = time.monotonic()
    whole = child(recipe, tmp_path / "whole")
    whole.join(600)
    assert whole.exitcode == 0
    seconds = time.monotonic() - started
    expected = state(tmp_path / "whole")
    killed = 0
    share = {"classify": 0.4, "detect": 0.3, "stages": 0.3}[name]
    for number in range(max(1, round(KILLS * share))):
        out = tmp_path / f"run{number}"
        settings = {**recipe, "train": {**recipe["train"], "workers": dice.choice((0, 2))}}
        die_at = dice.choice((None, ("fsync", dice.randrange(1, 30)), ("replace", dice.randrange(1, 30))))
        process = child(settings, out, die_at)
        process.join(dice.uniform(0.1, 1.0) * seconds if die_at is None else 600)
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        again = child(settings, out)
        again.join(600)
        assert again.exitcode == 0, (number, die_at)
        found = state(out)
        assert found.keys() == expected.keys()
        assert [key for key in found if not torch.equal(found[key], expected[key])] == [], (number, die_at)
        assert not list(out.rglob("*.tmp"))
    assert killed


USE = """
import os, sys
import numpy as np
import opsin
from lightning.pytorch import Callback

def memory():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

class Look(Callback):
    def __init__(self):
        self.seen = {}
    def on_train_batch_end(self, trainer, *given):
        if trainer.global_step in (100, 500):
            self.seen[trainer.global_step] = memory()

look = Look()
recipe = {
    "model": {"name": "lenet5"}, "data": {"source": "digits", "limit": 200},
    "train": {"epochs": 100, "batch_size": 16, "max_steps": 500},
}
opsin.train(recipe, out=sys.argv[1], callbacks=[look], say=lambda line: None)
model, image = opsin.load(sys.argv[1]), np.zeros((40, 30, 3), np.uint8)
for number in range(2000):
    if number == 200:
        before = memory()
    model.predict(image)
print(look.seen[500] - look.seen[100], memory() - before)
"""


@pytest.mark.skipif("OPSIN_SOAK" not in os.environ, reason="minutes: make soak")
def test_memory_stays_flat(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", USE, str(tmp_path / "run")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    training, predicting = map(float, done.stdout.split())
    assert training < 20 and predicting < 20, done.stdout


def test_few_open_files_are_enough_or_said(tmp_path: Path) -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48)); import sys; from opsin.cli import main"
    )
    code += "; sys.argv = ['opsin', 'train', 'lenet5_digits', '--set', 'data.limit=40', '--epochs', '1', *sys.argv[1:]]"
    words = ["--set", "train.workers=4", "--out", str(tmp_path / "run")]
    command = [sys.executable, "-c", f"{code}; main()", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)  # no worker is waited for at the end
    assert "Traceback" not in done.stderr and "unexpected" not in done.stderr, done.stderr
    assert done.returncode == 0 or "too many open files for the workers: raise ulimit -n" in done.stderr


if __name__ == "__main__":
    multiprocessing.set_start_method("fork", force=True)  # the workers', as in a training that the shell began
    train(*globals()["GIVEN"])
