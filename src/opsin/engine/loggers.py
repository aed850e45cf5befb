"""Experiment trackers: a run's metrics and recipe in TensorBoard, Weights & Biases, MLflow or Comet, by Lightning.

`train.logger` names them. metrics.csv is written in any case. Each tracker is configured by its own environment
variables, and imported only where a recipe names it.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger

from opsin.engine.callbacks import History
from opsin.engine.run import RunFolder
from opsin.engine.task import Task
from opsin.errors import InputError
from opsin.files import atomic

CSV = "csv"  # metrics.csv, which opsin writes itself
_MODULES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow", "comet": "comet_ml"}
_ADVICE = {
    "wandb": "WANDB_MODE=offline needs no account",
    "mlflow": "MLFLOW_TRACKING_URI says where it writes",
    "comet": "COMET_API_KEY is the account, COMET_START_ONLINE=0 needs none",
}
_PROJECT = "opsin"  # where the tracker's own variable names none


def check_installed(names: Sequence[str]) -> None:
    """Raise InputError, with the command that installs it, for a tracker whose package is not there."""
    for name in names:
        if name != CSV and find_spec(_MODULES[name]) is None:
            raise InputError(
                f"train.logger: {name} needs the package {_MODULES[name].replace('_', '-')}; "
                f"pip install 'opsin[{name}]', or leave it out"
            )


def create_loggers(names: Sequence[str], folder: RunFolder) -> list[Logger]:
    """Lightning's loggers of a run, begun, by the names in `train.logger`; none for csv.

    A resumed run goes on in its own. Raises InputError where one does not start, such as without an account.
    """
    known, made = _read_runs(folder), []
    for name in names:
        if name == CSV:
            continue
        try:
            logger: Any = _CREATE[name](folder, known.get(name))
            _ = logger.experiment  # begins the run, in the first process alone
        except Exception as error:
            advice = f"; {_ADVICE[name]}" if name in _ADVICE else ""
            raise InputError(f"train.logger: {name} does not start: {_line(error)}{advice}") from error
        made.append(logger)
    return made


class Trackers(Callback):
    """Gives every tracker the recipe at the start, and each row of metrics.csv; the first process alone.

    What fails on the way is reported once, and the training goes on: metrics.csv has everything.
    """

    def __init__(self, names: Sequence[str], folder: RunFolder, history: History, say: Callable[[str], None]) -> None:
        self.names = [name for name in names if name != CSV]  # in the order of `create_loggers`
        self.folder, self.history, self.say = folder, history, say
        self.failed: set[str] = set()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or not self.names:
            return
        assert isinstance(pl_module, Task)
        known = _read_runs(self.folder)
        made = {}
        recipe = pl_module.recipe.model_dump(mode="json")
        for name, logger in zip(self.names, trainer.loggers, strict=True):
            made[name] = str(logger.version)
            if known.get(name) != made[name]:  # of a resumed run they are there, and MLflow takes them once
                self._try(name, lambda logger=logger: logger.log_hyperparams(recipe))
        with atomic(_runs_file(self.folder)) as temporary:
            temporary.write_text(json.dumps(made, indent=1), encoding="utf-8")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        row = dict(self.history.rows[-1])
        step = int(row.pop("step"))
        for name, logger in zip(self.names, trainer.loggers, strict=True):
            self._try(name, lambda logger=logger: logger.log_metrics(dict(row), step))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.is_global_zero:
            for name, logger in zip(self.names, trainer.loggers, strict=True):
                self._try(name, lambda name=name, logger=logger: _END.get(name, lambda logger: None)(logger))

    def _try(self, name: str, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:
            if name not in self.failed:
                self.say(f"{name} fails ({_line(error)}); the training goes on, and metrics.csv has the metrics")
            self.failed.add(name)


def run_name(folder: RunFolder) -> str:
    """What a run is called in a tracker: its folder's name; of a stage, the run's and its own."""
    path = folder.path.resolve()
    return f"{path.parents[1].name}/{path.name}" if path.parent.name == "stages" else path.name


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _runs_file(folder: RunFolder) -> Path:
    return folder.path / "trackers.json"


def _read_runs(folder: RunFolder) -> dict[str, str]:
    """What identifies the run in each tracker; nothing where none has begun, or the file is damaged."""
    try:
        found = json.loads(_runs_file(folder).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def _tensorboard(folder: RunFolder, known: str | None) -> Logger:
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(folder.path, name="tensorboard", version="", default_hp_metric=False)


def _wandb(folder: RunFolder, known: str | None) -> Logger:
    from lightning.pytorch.loggers import WandbLogger

    project = os.environ.get("WANDB_PROJECT", _PROJECT)
    name = os.environ.get("WANDB_NAME", run_name(folder))
    return WandbLogger(name=name, save_dir=folder.path, id=known or os.environ.get("WANDB_RUN_ID"), project=project)


def _mlflow(folder: RunFolder, known: str | None) -> Logger:
    from lightning.pytorch.loggers import MLFlowLogger

    mlflow: Any = importlib.import_module("mlflow")
    return MLFlowLogger(
        experiment_name=os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT),
        run_name=run_name(folder),
        tracking_uri=mlflow.get_tracking_uri(),  # MLFLOW_TRACKING_URI, or where `mlflow ui` looks in this folder
        run_id=known or os.environ.get("MLFLOW_RUN_ID"),
    )


def _comet(folder: RunFolder, known: str | None) -> Logger:
    from lightning.pytorch.loggers import CometLogger

    return CometLogger(
        project=os.environ.get("COMET_PROJECT_NAME", _PROJECT),
        experiment_key=known or os.environ.get("COMET_EXPERIMENT_KEY"),
        offline_directory=os.environ.get("COMET_OFFLINE_DIRECTORY", str(folder.path)),
        name=run_name(folder),
    )


_CREATE: dict[str, Callable[[RunFolder, str | None], Logger]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
    "comet": _comet,
}

# Lightning leaves these open, and the next training of the process would write into the same.
_END: dict[str, Callable[[Any], None]] = {
    "wandb": lambda logger: logger.experiment.finish(),
    "comet": lambda logger: logger.experiment.end(),
}
