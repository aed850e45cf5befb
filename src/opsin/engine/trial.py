"""One trial of a tuning: a training with the values that were drawn for it, watched epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from opsin.engine.callbacks import StoppedError, read_rows
from opsin.engine.recipe import load_recipe
from opsin.engine.run import RunFolder
from opsin.engine.task import Task
from opsin.engine.train import Run, run_recipe
from opsin.engine.train_log import train_log
from opsin.errors import InputError, JobError

State = Literal["complete", "pruned", "failed"]
Report = Callable[[int, float], bool]  # (epoch, value) -> whether to stop here


@dataclass(frozen=True)
class Job:
    """What a trial trains; plain values, which another process can take.

    recipe, overrides: as `opsin.train` takes them. folder: of the run. earlier: of a trial that was interrupted, whose
    checkpoint is continued. monitor: the metric, and "max" or "min".
    """

    number: int
    recipe: Mapping[str, Any]
    overrides: Mapping[str, Any]
    folder: str
    earlier: str | None
    monitor: tuple[str, str]


@dataclass(frozen=True)
class Outcome:
    """How a trial ended. value: of the model that it saved, None where there is none. error: why it failed.

    wrong: whether the call or the data was at fault, an InputError.
    """

    state: State
    value: float | None = None
    epochs: int = 0
    error: str = ""
    wrong: bool = False


class Reporter(Callback):
    """Reports the monitored metric after each epoch, and ends the training where the answer is to stop.

    A training in stages is not stopped: the epochs of one stage say nothing of those of another.
    """

    def __init__(self, monitor: str, report: Report) -> None:
        self.monitor = monitor
        self.report = report
        self.stopped = False
        self.staged = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Task)
        self.staged = bool(pl_module.stages())
        if not self.staged and not trainer.enable_validation:
            raise InputError(
                f"trials are compared by {self.monitor}, and there is no validation split; set data.val_fraction"
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        value = float(trainer.callback_metrics.get(self.monitor, math.nan))
        if self.staged or not math.isfinite(value):
            return
        last = trainer.current_epoch + 1 >= (trainer.max_epochs or 0) or trainer.should_stop
        if self.report(trainer.current_epoch + 1, value) and not last:
            self.stopped = True
            trainer.should_stop = True  # the run is finished as any other: evaluated on val, saved, reported


def run_trial(job: Job, report: Report, say: Callable[[str], None]) -> Outcome:
    """Train a trial to its end, or to where it is stopped. What goes wrong on its way is its outcome.

    say: receives what has to be seen at once; everything else that the training says is in `train.log` of its folder.
    Raises StoppedError where the user stops it.
    """
    monitor, mode = job.monitor
    reporter = Reporter(monitor, report)
    settings: dict[str, Any] = {"watching": [reporter], "test": False, "say": train_log(Path(job.folder), say)}
    try:
        folder = _continued(job)
        if folder is None:
            run = run_recipe(job.recipe, job.overrides, out=job.folder, **settings)
        else:
            for row in read_rows(folder.metrics):
                if monitor in row:
                    report(int(row["epoch"]), row[monitor])
            run = run_recipe(resume=folder.path, **settings)
    except StoppedError:
        raise
    except (InputError, JobError) as error:
        return Outcome("failed", error=str(error), wrong=isinstance(error, InputError))
    except torch.OutOfMemoryError:
        return Outcome("failed", error="the device has not enough memory for it")
    value = saved_value(run, monitor, mode, last=_keeps_last(run), staged=reporter.staged)
    if value is None:
        return Outcome("failed", epochs=run.epochs, error=f"{monitor} was not a finite number in any epoch")
    return Outcome("pruned" if reporter.stopped else "complete", value, run.epochs)


def saved_value(run: Run, monitor: str, mode: str, *, last: bool, staged: bool) -> float | None:
    """The monitored metric of the model that a run saved: of its best epoch, or of its last where it keeps that.

    Of a training in stages, as the whole was evaluated on val: an epoch knows one stage.
    """
    if staged:
        return run.metrics.get(monitor.removeprefix("val_"))
    values = [row[monitor] for row in run.history if math.isfinite(row.get(monitor, math.nan))]
    if not values:
        return None
    if last:
        return values[-1]
    return max(values) if mode == "max" else min(values)


def _keeps_last(run: Run) -> bool:
    return load_recipe(run.path / "recipe.yaml").train.keep == "last"


def _continued(job: Job) -> RunFolder | None:
    """The folder of an interrupted trial, under the name of this one; None where there is nothing to continue."""
    folder = Path(job.folder)
    if job.earlier is not None and (Path(job.earlier) / "last.ckpt").is_file() and not folder.exists():
        Path(job.earlier).rename(folder)
    found = RunFolder(folder)
    return found if found.recipe.is_file() and found.last.is_file() else None
