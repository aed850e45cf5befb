"""The learning-rate range test: which rates a training can take. Smith 2015, arXiv:1506.01186, section 3.3.

The rate rises exponentially from step to step, on the training's own batches, with the recipe's optimizer, until the
loss runs away. Where the loss falls fastest is a good rate to begin with; the paper raises it linearly, later practice
on a logarithmic scale. It runs on a copy of the task, so that the training that follows is as if there had been none.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure as Canvas

from opsin.data.loading import ImageLoader
from opsin.engine import charts
from opsin.engine.batch_size import copied, create_probe_trainer, untouched_randomness
from opsin.engine.report import Figure
from opsin.engine.run import RunFolder
from opsin.engine.task import NonFiniteLossError, Task
from opsin.errors import InputError
from opsin.files import atomic

LOWEST, HIGHEST, STEPS = 1e-7, 10.0, 100
_MEMORY = 0.9  # of the moving average of the loss: about ten steps, not quite a decade of rates
_DIVERGED = 4.0  # times the lowest loss so far, at which the test ends
_SETTLED = 10  # steps from which the average is worth comparing
_FALL = 0.02  # of the first loss, that the lowest must be below it: less is noise
_FILE = "learning_rate.csv"


@dataclass(frozen=True)
class LearningRates:
    """What a range test found. rates, losses: of each step. suggestion: the rate to begin with. path: of its run."""

    rates: list[float]
    losses: list[float]
    suggestion: float
    path: Path | None = None

    @property
    def smoothed(self) -> list[float]:
        """The moving average of the losses, in which the suggestion was looked for."""
        return smooth(self.losses)

    @property
    def lowest(self) -> float:
        """The rate at the lowest average loss: a little above it the training diverges."""
        return self.rates[int(np.argmin(self.smoothed))]

    def describe(self) -> str:
        """In a line."""
        return (
            f"learning rate: the loss falls fastest at {self.suggestion:.2g}, is lowest at {self.lowest:.2g}, and was "
            f"tried up to {self.rates[-1]:.2g}"
        )

    def figure(self) -> Figure:
        """The curve, for a report."""
        caption = f"{self.describe()}. Each step has another rate: the loss beside it is of all steps until then."
        return Figure("Learning rate", charts.svg(self._draw), caption)

    def write(self, folder: RunFolder) -> None:
        """learning_rate.csv, and the curve as learning_rate.svg and .png."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["lr", "loss", "smoothed"])
        writer.writerows(zip(self.rates, self.losses, self.smoothed, strict=True))
        with atomic(folder.path / _FILE) as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8")
        with atomic(folder.path / "learning_rate.svg") as temporary:
            temporary.write_bytes(charts.svg(self._draw))
        with atomic(folder.path / "learning_rate.png") as temporary:
            charts.image(self._draw).save(temporary, format="PNG")

    def _draw(self, canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        axes.plot(self.rates, self.losses, color=charts.MUTED, linewidth=0.8, label="loss of a step")
        axes.plot(self.rates, self.smoothed, color=charts.BLUE, label="moving average")
        axes.axvline(self.suggestion, color=charts.ORANGE, linewidth=1.2, label=f"suggestion, {self.suggestion:.2g}")
        shown = self.smoothed
        low, high = min(shown), max(shown[0], min(shown))
        axes.set_ylim(low - 0.1 * (high - low) - 1e-9, high + 0.5 * (high - low) + 1e-9)
        axes.set_xscale("log")
        axes.set_xlabel("learning rate")
        axes.set_ylabel("loss")
        axes.legend(loc="lower left")


def read_learning_rates(folder: RunFolder) -> LearningRates | None:
    """What an earlier range test of a run found; None where there was none, or its file is damaged."""
    try:
        with (folder.path / _FILE).open(encoding="utf-8", newline="") as file:
            rows = [(float(row["lr"]), float(row["loss"])) for row in csv.DictReader(file)]
        rates, losses = ([row[place] for row in rows] for place in (0, 1))
        return LearningRates(rates, losses, suggest(rates, losses), folder.path)
    except (OSError, ValueError, KeyError, TypeError, InputError):
        return None


def range_test(task: Task, loader: ImageLoader, *, steps: int = STEPS) -> LearningRates:
    """The range test of a task on a fresh loader of its batches. Raises InputError where the loss never falls."""
    base = task.recipe.optim.lr
    settings = {"schedule": {"name": "constant"}, "train.freeze_epochs": None}  # the rate is the test's own
    with untouched_randomness():
        tested = copied(task, settings)
        tested.epoch_batches = len(loader)
        sweep = Sweep(np.geomspace(LOWEST, HIGHEST, steps).tolist(), base)
        trainer = create_probe_trainer(tested, max_epochs=steps * tested.recipe.train.accumulate, callbacks=[sweep])
        with suppress(NonFiniteLossError):  # the highest rate there is
            trainer.fit(tested, loader)
    rates = sweep.rates[: len(sweep.losses)]
    return LearningRates(rates, sweep.losses, suggest(rates, sweep.losses))


class Sweep(Callback):
    """Gives each optimizer step the next rate, notes its loss, and ends the training where that runs away.

    rates: ascending. base: the rate that the optimizers were made with; groups keep their ratio to it. losses: of the
    steps that were done, the mean over the batches of each.
    """

    def __init__(self, rates: Sequence[float], base: float) -> None:
        self.rates, self.base = list(rates), base
        self.losses: list[float] = []
        self._ratios: list[list[float]] = []
        self._now: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._ratios = [[group["lr"] / self.base for group in one.param_groups] for one in trainer.optimizers]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        rate = self.rates[len(self.losses)]
        for optimizer, ratios in zip(trainer.optimizers, self._ratios, strict=True):
            for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
                group["lr"] = rate * ratio

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Task)
        assert pl_module.last_loss is not None
        self._now.append(float(pl_module.last_loss))
        if not pl_module.steps_after(batch_idx):
            return
        self.losses.append(sum(self._now) / len(self._now))
        self._now = []
        trainer.should_stop = len(self.losses) == len(self.rates) or diverged(self.losses)


def smooth(losses: Sequence[float]) -> list[float]:
    """An exponential moving average without the bias of its start, as Adam corrects it."""
    average, found = 0.0, []
    for step, loss in enumerate(losses, 1):
        average = _MEMORY * average + (1 - _MEMORY) * loss
        found.append(average / (1 - _MEMORY**step))
    return found


def diverged(losses: Sequence[float]) -> bool:
    """Whether the average loss is over four times its lowest, or is no number."""
    shown = smooth(losses)
    return not math.isfinite(shown[-1]) or (len(shown) > _SETTLED and shown[-1] > _DIVERGED * min(shown))


def suggest(rates: Sequence[float], losses: Sequence[float]) -> float:
    """The rate at which the average loss falls fastest over the logarithm of the rate, before it is lowest.

    Raises InputError where it never falls.
    """
    shown = np.array(smooth(losses))
    lowest = int(np.argmin(shown)) if len(shown) else 0
    if lowest < 2 or shown[lowest] > (1 - _FALL) * shown[0]:
        raise InputError(
            f"the learning-rate test finds no rate at which the loss falls, from {LOWEST:g} to "
            f"{rates[-1] if rates else HIGHEST:.2g} in {len(rates)} steps; give optim.lr, or look at the data"
        )
    slopes = np.gradient(shown[: lowest + 1], np.log(np.asarray(rates[: lowest + 1])))
    return float(f"{rates[int(np.argmin(slopes))]:.2g}")  # what is said is what is taken
