"""A loss that runs away is said once, and no epoch of it is ever the best one."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from opsin.engine import callbacks
from opsin.engine.run import RunFolder


class Training:
    """A trainer and a task, as far as the callbacks look at them; `epoch` ends one with these losses."""

    def __init__(self, folder: Path, *, first: float = 2.3) -> None:
        self.said: list[str] = []
        self.saved: list[str] = []
        self.kept: list[dict[str, torch.Tensor]] = []
        self.divergence = callbacks.Divergence(self.said.append)
        run = RunFolder(folder)
        self.checkpoints = callbacks.Checkpoints(run, "val_accuracy", "max", None, self.kept.append, self.divergence)
        self.weights = {"weight": torch.ones(2), "count": torch.ones(1, dtype=torch.int64)}
        average = callbacks.MovingAverage(0.9)
        average.average = self.weights
        self.trainer: Any = SimpleNamespace(
            callbacks=[average], callback_metrics={}, current_epoch=0, is_global_zero=True,
            save_checkpoint=lambda path: self.saved.append(Path(path).name),
        )  # fmt: skip
        recipe = SimpleNamespace(train=SimpleNamespace(clip_norm=None), optim=SimpleNamespace(lr=0.1))
        self.task: Any = SimpleNamespace(recipe=recipe, train_losses=lambda: {"train_loss": first})
        self.divergence.on_train_batch_end(self.trainer, self.task, None, None, 0)

    def epoch(self, train_loss: float, val_loss: float, accuracy: float) -> None:
        self.task.train_losses = lambda: {"train_loss": train_loss}
        self.trainer.callback_metrics = {"val_loss": torch.tensor(val_loss), "val_accuracy": torch.tensor(accuracy)}
        self.divergence.on_train_epoch_end(self.trainer, self.task)
        self.checkpoints.on_train_epoch_end(self.trainer, self.task)
        self.trainer.current_epoch += 1


def test_it_is_said_once_with_the_remedy_and_the_best_stays(tmp_path: Path) -> None:
    training = Training(tmp_path)
    training.epoch(2.0, 1.5, 0.5)
    training.epoch(1.0, 1.2e36, 0.9)  # a broken network may score well by chance
    training.epoch(1.0, math.nan, 0.95)
    assert training.said == [
        "the loss diverges (val_loss 1.2e+36, 1.5 at best): lower optim.lr, which is 0.1, or set train.clip_norm=1"
    ]
    assert (training.checkpoints.best, training.checkpoints.best_epoch) == (0.5, 1)
    assert training.saved == ["best.ckpt", "last.ckpt", "last.ckpt", "last.ckpt"]
    assert training.divergence.now
    training.epoch(1.0, 1.4, 0.8)  # it came back
    assert not training.divergence.now
    assert training.checkpoints.best_epoch == 4


@pytest.mark.parametrize(
    ("losses", "diverges"),
    [
        ([(2.0, 1.0), (1.0, 0.05), (0.5, 0.8)], False),  # overfitting, below where it began
        ([(2.0, 300.0), (1.0, 2.0), (1.0, 150.0)], False),  # a bad first validation
        ([(2.0, 5000.0)], True),  # the first epoch already, held against the first step
        ([(50.0, 1.0)], True),
        ([(2.0, 1.0), (2.0, 9.0)], False),
        ([(2.0, 1.0), (2.0, 11.0)], True),
    ],
)
def test_what_diverging_means(losses: list[tuple[float, float]], diverges: bool, tmp_path: Path) -> None:
    training = Training(tmp_path)
    for train_loss, val_loss in losses:
        training.epoch(train_loss, val_loss, 0.5)
    assert bool(training.said) == diverges


def test_broken_weights_are_never_the_best(tmp_path: Path) -> None:
    training = Training(tmp_path)
    training.epoch(2.0, 1.0, math.nan)
    assert training.checkpoints.best is None
    training.weights["weight"] = torch.tensor([1.0, math.inf])
    training.epoch(2.0, 1.0, 0.9)
    assert training.checkpoints.best is None
    training.weights["weight"] = torch.ones(2)
    training.epoch(2.0, 1.0, 0.4)
    assert training.checkpoints.best_epoch == 3


def test_its_state_survives_a_resume(tmp_path: Path) -> None:
    training, other = Training(tmp_path), callbacks.Divergence(lambda line: None)
    training.epoch(2.0, 1.0, 0.5)
    training.epoch(2.0, 99.0, 0.5)
    other.load_state_dict(training.divergence.state_dict())
    assert (other.now, other.epoch, other.seen) == (True, 2, {"train_loss": [2.3, 2.0], "val_loss": [1.0, 1.0]})
