"""What happens around the training steps: averaging, records, checkpoints, progress, a clean stop."""

from __future__ import annotations

import csv
import io
import math
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from opsin import rooms
from opsin.data.loading import STOPPING
from opsin.engine.callback_state import check_state
from opsin.engine.checkpoint import read_checkpoint
from opsin.engine.run import RunFolder
from opsin.engine.task import Task, average_state
from opsin.errors import JobError
from opsin.errors import on_terminal as on_terminal
from opsin.files import atomic, keep_previous
from opsin.progress import duration

_LOOK = 3.0  # seconds of steps from which the whole training is forecast
_WORTH = 20.0  # seconds that are worth a word


class Position(Callback):
    """Tells the loader how far training has come, so that a checkpoint of any step resumes with the next batch."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loader: Any = trainer.train_dataloader
        done = batch_idx + 1 >= _batches(trainer)
        loader.position = (trainer.current_epoch + 1, 0) if done else (trainer.current_epoch, batch_idx + 1)


class MovingAverage(Callback):
    """Exponential moving average of the weights and norm statistics; validation and the saved model use it.

    average = d * average + (1 - d) * weights after each optimizer step, with d = min(decay, (1 + n) / (10 + n)) so that
    the first steps do not linger.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.average: dict[str, Tensor] = {}
        self._own: dict[str, Tensor] | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        state = _model_state(pl_module)
        loaded, self.average = self.average, {k: v.detach().clone() for k, v in state.items()}
        for key, value in loaded.items():
            if key in self.average:  # an earlier average has the criterion's parameters too
                self.average[key].copy_(value)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = _steps(pl_module)
        if step == self.steps:  # gradients are still being accumulated
            return
        self.steps = step
        decay = min(self.decay, (1 + step) / (10 + step))
        state = _model_state(pl_module)
        floats = [k for k, v in state.items() if v.is_floating_point()]
        lerp = get_ema_multi_avg_fn(decay)
        lerp([self.average[k] for k in floats], [state[k] for k in floats], step)
        for key, value in state.items():
            if not value.is_floating_point():
                self.average[key].copy_(value)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        state = _model_state(pl_module)
        self._own = {k: v.detach().clone() for k, v in state.items()}
        _copy_into(state, self.average)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._own is not None:
            _copy_into(_model_state(pl_module), self._own)
            self._own = None

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "average": {k: v.cpu() for k, v in self.average.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.steps, self.average = state_dict["steps"], state_dict["average"]


class History(Callback):
    """One row an epoch: on the console and in metrics.csv."""

    def __init__(self, run: RunFolder, say: Callable[[str], None]) -> None:
        self.run = run
        self.say = say
        self.rows: list[dict[str, float]] = []
        self._started = 0.0
        self._spent = 0.0  # seconds of this epoch before an interruption
        self._first_step: tuple[float, int] | None = None  # when it was over: it warms up
        self._forecast_said = False

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started, self._spent = time.monotonic(), 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Task)
        row: dict[str, float] = {"epoch": trainer.current_epoch + 1, "step": pl_module.steps}
        row["lr"] = trainer.optimizers[0].param_groups[0]["lr"]
        row |= pl_module.train_losses()
        row |= {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val_")}
        row["seconds"] = round(self._spent + time.monotonic() - self._started, 3)
        self.rows.append(row)
        if trainer.is_global_zero:
            write_rows(self.run.metrics, self.rows)
            self.say(self._line(row, pl_module))
        self._forecast_said = True

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "spent": self._spent + time.monotonic() - self._started}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self._spent = list(state_dict["rows"]), state_dict["spent"]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._forecast_said:
            return
        now = time.monotonic()
        since, first = self._first_step = self._first_step or (now, batch_idx)
        if now - since < _LOOK:
            return
        assert isinstance(pl_module, Task)
        self._forecast_said = True
        train, batches = pl_module.recipe.train, len(trainer.train_dataloader)  # type: ignore[arg-type]
        steps = batches * train.epochs
        if train.max_steps is not None:
            steps = min(steps, train.max_steps * train.accumulate)
        steps -= trainer.current_epoch * batches
        whole = (now - since) / (batch_idx - first) * steps
        if whole >= _WORTH and trainer.is_global_zero:
            epochs = max(1, -(-steps // batches))
            self.say(f"about {duration(whole)} for {epochs} epoch{'s' if epochs > 1 else ''}")

    def _line(self, row: dict[str, float], task: Task) -> str:
        """The losses, the monitored metric and one more: four figures, whatever the task has."""
        room, train = rooms.evaluating_room(task.room), task.recipe.train
        rest = [key for key in row if key.startswith("val_") and key not in ("val_loss", task.monitored[0])]
        brief = [key for key in rest if (metric := room.metric(key)) is not None and metric.brief]
        names = [name for name in ("val_loss", task.monitored[0], *(brief or rest)[:1]) if name in row]
        shown = [f"epoch {int(row['epoch'])}/{train.epochs}", f"loss {room.format('loss', row['train_loss'])}"]
        shown += [f"{name} {room.format(name, row[name])}" for name in dict.fromkeys(names)]
        shown += [f"lr {row['lr']:.2g}", f"{row['seconds']:.1f} s"]
        recent = [one["seconds"] for one in self.rows[-3:]]
        left = (train.epochs - row["epoch"]) * sum(recent) / len(recent)
        if train.max_steps is None and left >= _WORTH:
            shown.append(f"about {duration(left)} left")
        return "  ".join(shown)


class Divergence(Callback):
    """Says once that the loss runs away: not finite, or over ten times its best and twice its first value.

    The first of the training loss is that of the first step. A first validation is over 1000 times that.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.now = False  # whether the last epoch had diverged
        self.epoch = 0  # in which it began
        self.seen: dict[str, list[float]] = {}  # of each loss the first and the best

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if "train_loss" not in self.seen:
            first = pl_module.train_losses()["train_loss"]
            self.seen["train_loss"] = [first, first]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        losses = {"train_loss": pl_module.train_losses()["train_loss"]}
        if (val_loss := trainer.callback_metrics.get("val_loss")) is not None:
            losses["val_loss"] = float(val_loss)
        found = [name for name, value in losses.items() if self._diverged(name, value)]
        self.now = bool(found)
        if not found or self.epoch:
            return
        self.epoch, name = trainer.current_epoch + 1, found[-1]
        best = f", {self.seen[name][1]:.4g} at best" if name in self.seen else ""
        recipe = pl_module.recipe
        limit = 1.0 if recipe.train.clip_norm is None else recipe.train.clip_norm / 10
        if trainer.is_global_zero:
            self.say(
                f"the loss diverges ({name} {losses[name]:.3g}{best}): lower optim.lr, which is {recipe.optim.lr:g}, "
                f"or set train.clip_norm={limit:g}"
            )

    def _diverged(self, name: str, value: float) -> bool:
        if not math.isfinite(value):
            return True
        if name not in self.seen:
            if value > 1000 * max(1.0, self.seen["train_loss"][0]):
                return True
            self.seen[name] = [value, value]
        first, best = self.seen[name]
        if value > 10 * best and value > 2 * first:
            return True
        self.seen[name][1] = min(best, value)
        return False

    def state_dict(self) -> dict[str, Any]:
        return {"now": self.now, "epoch": self.epoch, "seen": self.seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.now, self.epoch, self.seen = state_dict["now"], state_dict["epoch"], dict(state_dict["seen"])


class Checkpoints(Callback):
    """last.ckpt at each epoch's end and every N batches; best.ckpt and a model file when the metric is better.

    Where gradients are being accumulated after N batches, it is written with the step that they lead to.
    """

    def __init__(
        self,
        run: RunFolder,
        monitor: str,
        mode: str,
        every: int | None,
        save_weights: Callable[[dict[str, Tensor]], None],
        divergence: Divergence | None = None,
    ) -> None:
        self.run = run
        self.monitor = monitor
        self.sign = 1.0 if mode == "max" else -1.0
        self.every = every
        self.save_weights = save_weights
        self.divergence = divergence or Divergence(lambda line: None)
        self.best: float | None = None
        self.best_epoch = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Task)
        done, last = batch_idx + 1, _batches(trainer)
        if not self.every or done == last or not pl_module.steps_after(batch_idx):
            return
        before = done - pl_module.recipe.train.accumulate
        if done // self.every > before // self.every:
            trainer.save_checkpoint(self.run.last)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        value = float(trainer.callback_metrics.get(self.monitor, math.nan))
        better = self.best is None or self.sign * value > self.sign * self.best
        if better and self._sound(value, evaluated_weights(trainer, pl_module)):
            self.best, self.best_epoch = value, trainer.current_epoch + 1
            trainer.save_checkpoint(self.run.best)
            if trainer.is_global_zero:
                self.save_weights(evaluated_weights(trainer, pl_module))
        trainer.save_checkpoint(self.run.last)

    def _sound(self, value: float, weights: dict[str, Tensor]) -> bool:
        """Whether an epoch may be the best: the score of broken weights says nothing of them."""
        if self.divergence.now or not math.isfinite(value):
            return False
        return all(bool(torch.isfinite(one).all()) for one in weights.values() if one.is_floating_point())

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]


class StepLimit(Callback):
    """Ends the training after so many optimizer steps, with a validation, as an epoch's end would."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if _steps(pl_module) >= self.steps:
            trainer.should_stop = True


class CleanStop(Callback):
    """Ctrl-C, SIGTERM and SIGHUP end the training after the step under way, with a checkpoint; Ctrl-C again at once.

    SIGTERM and SIGHUP come several times where a scheduler or a closed terminal sends them to each process of a group.
    """

    def __init__(self, run: RunFolder, say: Callable[[str], None]) -> None:
        self.run = run
        self.say = say
        self.asked = False
        self._previous: dict[int, Any] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                self._previous[number] = signal.signal(number, self._ask)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Task)
        last = batch_idx + 1 >= _batches(trainer)  # after it, the epoch's end writes the checkpoint
        if not last and pl_module.steps_after(batch_idx) and self._agreed(trainer, pl_module):
            trainer.save_checkpoint(self.run.last)
            self._stop(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        finished = trainer.current_epoch + 1 >= (trainer.max_epochs or 0) or trainer.should_stop
        if self._agreed(trainer, pl_module) and not finished:
            self._stop(trainer, pl_module)

    def _ask(self, number: int, frame: Any) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.asked:
            self.asked = True
            again = "; press Ctrl-C again to stop at once" if number == signal.SIGINT else ""
            self.say(f"stopping after this step{again}")

    def _agreed(self, trainer: Trainer, pl_module: LightningModule) -> bool:
        if trainer.world_size == 1:
            return self.asked
        flag = torch.tensor(int(self.asked), device=pl_module.device)
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
        return bool(flag)

    def _stop(self, trainer: Trainer, pl_module: LightningModule) -> None:
        raise StoppedError(
            f"stopped at epoch {trainer.current_epoch + 1}, step {_steps(pl_module)}; nothing is lost: "
            f"opsin train --resume {self.run.path}"
        )


class StoppedError(JobError):
    """The user stopped the training; its state was saved."""


class ProgressBar(Callback):
    """A bar for the epoch under way, on a terminal only."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.progress = Progress(*columns, TextColumn("{task.fields[loss]}"), console=console, transient=True)
        self.bar: TaskID | None = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", _batches(trainer))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.bar is None:
            self.on_train_epoch_start(trainer, pl_module)
        loss = f"loss {float(outputs['loss']):.4f}" if batch_idx % 10 == 0 and isinstance(outputs, dict) else None
        assert self.bar is not None
        fields: dict[str, Any] = {} if loss is None else {"loss": loss}
        self.progress.update(self.bar, completed=batch_idx + 1, **fields)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin("validation", sum(int(n) for n in trainer.num_val_batches))

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        assert self.bar is not None
        self.progress.update(self.bar, completed=batch_idx + 1)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._end()

    def _begin(self, title: str, total: int) -> None:
        self._end()
        self.progress.start()
        self.bar = self.progress.add_task(title, total=total, loss="")

    def _end(self) -> None:
        if self.bar is not None:
            self.progress.remove_task(self.bar)
            self.bar = None
        self.progress.stop()


class CheckpointFiles(TorchCheckpointIO):
    """Lightning's checkpoints, written atomically and read without running code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        path = Path(path)
        for key, state in checkpoint.get("callbacks", {}).items():
            check_state(key, state)
        with atomic(path) as temporary:
            torch.save(checkpoint, temporary)
            if path.name == "last.ckpt":
                keep_previous(path, path.with_name("previous.ckpt"))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read_checkpoint(Path(path))


def early_stopping(monitor: str, mode: str, patience: int) -> EarlyStopping:
    """Lightning's early stopping, which keeps its own state over a resume.

    It looks after validation: at the epoch's end Lightning calls it after the checkpoint has been written without it.
    """
    return _EarlyStopping(monitor, mode=mode, patience=patience, check_finite=False, check_on_train_epoch_end=False)


class _EarlyStopping(EarlyStopping):
    """Of which a value that is not finite is never the best."""

    @property
    def state_key(self) -> str:  # of runs that were begun with Lightning's own
        return f"EarlyStopping{ {'monitor': self.monitor, 'mode': self.mode} }"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, "patience": self.patience})  # a resumed run may be given more

    def _evaluate_stopping_criteria(self, current: Tensor) -> tuple[bool, str | None]:
        worst = torch.full_like(current, -math.inf if self.mode == "max" else math.inf)
        return super()._evaluate_stopping_criteria(current if bool(torch.isfinite(current)) else worst)


def evaluated_weights(trainer: Trainer, pl_module: LightningModule) -> dict[str, Tensor]:
    """The weights that validation evaluates: the moving average where there is one, else the model's own."""
    averages = [one for one in _callbacks(trainer) if isinstance(one, MovingAverage)]
    return dict(averages[0].average) if averages else _model_state(pl_module)


def write_rows(path: Path, rows: list[dict[str, float]]) -> None:
    """Write metrics.csv anew, with every column that any row has."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def read_rows(path: Path) -> list[dict[str, float]]:
    """The rows of metrics.csv; none if there is no such file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [{k: float(v) for k, v in row.items() if k and v} for row in csv.DictReader(file)]


def _model_state(pl_module: LightningModule) -> dict[str, Tensor]:
    assert isinstance(pl_module, Task)
    return average_state(pl_module.model)


def _batches(trainer: Trainer) -> int:
    """Training batches of this process in an epoch."""
    loader: Any = trainer.train_dataloader
    return len(loader)


def _callbacks(trainer: Trainer) -> list[Callback]:
    """The trainer's callbacks, an attribute that Lightning sets without declaring it."""
    held: Any = trainer
    return held.callbacks


def _steps(pl_module: LightningModule) -> int:
    """Training steps done, one a batch however many optimizers there are."""
    assert isinstance(pl_module, Task)
    return pl_module.steps


def _copy_into(state: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for key, value in values.items():
            state[key].copy_(value)
