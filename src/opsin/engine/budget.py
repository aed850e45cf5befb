"""A budget of time for a training: as many epochs as fit into it, measured on a few steps before it begins."""

from __future__ import annotations

import math
import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from opsin.engine.recipe import load_recipe
from opsin.engine.task import Task
from opsin.engine.train import run_recipe
from opsin.errors import InputError

_STEPS = 12  # that are timed, after the first two, which warm up
_PARTS = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")


def read_seconds(text: str | float) -> float:
    """Seconds of a time such as "20m", "90s" or "1h30m"; a number alone is of seconds. Raises InputError."""
    try:
        seconds = float(text)
    except ValueError:
        found = _PARTS.fullmatch(str(text).strip())
        numbers = [float(part or 0) for part in found.groups()] if found else [0.0]
        seconds = sum(number * unit for number, unit in zip(numbers, (3600, 60, 1), strict=False))
    if not 0 < seconds < math.inf:
        raise InputError(f"a budget of {text!r} is no time; write 20m, 90s or 1h30m")
    return seconds


@dataclass(frozen=True)
class Pace:
    """How fast a training is. step, validation: seconds of an optimizer step and of what follows an epoch."""

    step: float
    validation: float
    steps_per_epoch: int

    @property
    def epoch(self) -> float:
        """Seconds of an epoch."""
        return self.step * self.steps_per_epoch + self.validation

    def epochs_in(self, seconds: float) -> float:
        """Epochs, and a part of one, that fit into some seconds. A part of an epoch has a validation too."""
        whole = math.floor(seconds / self.epoch)
        left = seconds - whole * self.epoch - self.validation
        return whole + max(left, 0.0) / (self.step * self.steps_per_epoch)

    def keys(self, epochs: float) -> dict[str, int]:
        """The keys of a recipe that make a training of so many epochs. Raises InputError where not a step fits."""
        steps = math.floor(epochs * self.steps_per_epoch + 1e-6)
        if steps < 1:
            raise InputError(
                f"the budget is too small: a step takes {self.step:.2g} s and a validation {self.validation:.2g} s"
            )
        return {"train.epochs": math.ceil(steps / self.steps_per_epoch), "train.max_steps": steps}


class _Stopwatch(Callback):
    """When each step was over, and when the training was."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.ended = 0.0
        self.batches = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Task)
        if pl_module.stages():
            raise InputError("its training has stages, which no budget is measured for; leave the budget out")
        self.batches = int(trainer.num_training_batches)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.times.append(time.monotonic())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.ended = time.monotonic()


def measure_pace(recipe: Mapping[str, Any], overrides: Mapping[str, Any]) -> Pace:
    """Time a few steps of a training and a validation, in a folder that is then removed."""
    accumulate = load_recipe(recipe, overrides).train.accumulate
    watch = _Stopwatch()
    short = {**overrides, "train.max_steps": _STEPS, "train.epochs": _STEPS}
    with tempfile.TemporaryDirectory() as folder:
        run_recipe(recipe, short, out=Path(folder) / "run", watching=[watch], test=False, say=lambda line: None)
    gaps = sorted(later - earlier for earlier, later in zip(watch.times[1:], watch.times[2:], strict=False))
    if not gaps:
        raise InputError("an epoch has too few steps to be timed; leave the budget out, and say how many epochs")
    step = gaps[len(gaps) // 2]
    return Pace(
        accumulate * step, max(watch.ended - watch.times[-1], 0.0), max(1, math.ceil(watch.batches / accumulate))
    )
