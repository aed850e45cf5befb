"""Experiment trackers get what metrics.csv gets, once, in the run they began; without one nothing is imported."""

from __future__ import annotations

import csv
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import Logger

import opsin
from opsin.engine import loggers
from opsin.engine.recipe import load_recipe, read_recipe
from opsin.engine.run import RunFolder
from opsin.errors import InputError

RECIPE: dict[str, Any] = {
    "model": {"name": "lenet5"},
    "data": {"source": "digits", "limit": 40},
    "optim": {"lr": 0.01},
    "train": {"epochs": 2, "batch_size": 20},
}


class FakeTracker(Logger):
    """Writes down what it is given. failing: what raises an error."""

    made: list[FakeTracker] = []  # noqa: RUF012
    failing: str = ""

    def __init__(self, folder: RunFolder, known: str | None) -> None:
        super().__init__()
        self.run, self.known, self.begun = loggers.run_name(folder), known, False
        self.rows: list[tuple[int | None, dict[str, float]]] = []
        self.recipes: list[Any] = []
        self.ended: str | None = None
        FakeTracker.made.append(self)

    @property
    def experiment(self) -> object:
        if self.failing == "start":
            raise RuntimeError("no API key.")
        self.begun = True
        return self

    @property
    def name(self) -> str:
        return "fake"

    @property
    def version(self) -> str:
        return self.known or "id-1"

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.recipes.append(params)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:  # type: ignore[override]
        if self.failing == "metrics":
            raise RuntimeError("no route to host")
        self.rows.append((step, dict(metrics)))

    def finalize(self, status: str) -> None:
        self.ended = status


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeTracker]:
    monkeypatch.setattr(FakeTracker, "made", [])
    monkeypatch.setattr(FakeTracker, "failing", "")
    monkeypatch.setitem(loggers._CREATE, "mlflow", FakeTracker)
    monkeypatch.setattr(loggers, "find_spec", lambda name: object())
    return FakeTracker


def train(out: Path, **settings: Any) -> opsin.Run:
    overrides = {key.replace("__", "."): value for key, value in settings.items()}
    return opsin.train(RECIPE, overrides, out=out, say=lambda line: None)


def test_a_tracker_gets_the_rows_of_metrics_csv_and_the_recipe(fake: type[FakeTracker], tmp_path: Path) -> None:
    train(tmp_path / "run", train__logger=["csv", "mlflow"])
    (tracker,) = fake.made
    with (tmp_path / "run" / "metrics.csv").open() as file:
        written = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    assert [{"step": step, **row} for step, row in tracker.rows] == written and len(written) == 2
    assert not [row for _, row in tracker.rows if "step" in row]
    assert tracker.recipes == [load_recipe(read_recipe(tmp_path / "run" / "recipe.yaml")).model_dump(mode="json")]
    assert (tracker.run, tracker.ended) == ("run", "success")
    assert json.loads((tmp_path / "run" / "trackers.json").read_text()) == {"mlflow": "id-1"}


def test_a_resumed_run_goes_on_in_the_same_run_of_the_tracker(fake: type[FakeTracker], tmp_path: Path) -> None:
    train(tmp_path / "run", train__logger="mlflow")
    (tmp_path / "run" / "trackers.json").write_text('{"mlflow": "id-7"}')
    opsin.train(resume=tmp_path / "run", overrides={"train.epochs": 3}, say=lambda line: None)
    again = fake.made[1]
    assert again.known == "id-7" and again.recipes == []
    assert [row["epoch"] for _, row in again.rows] == [3]


def test_metrics_are_the_same_with_and_without_trackers(fake: type[FakeTracker], tmp_path: Path) -> None:
    def rows(run: opsin.Run) -> list[dict[str, float]]:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in run.history]

    with_one = train(tmp_path / "one", train__logger=["mlflow"])
    assert rows(with_one) == rows(train(tmp_path / "none")) and len(fake.made) == 1
    assert not (tmp_path / "none" / "trackers.json").exists() and not (tmp_path / "none" / "tensorboard").exists()


def test_a_tracker_that_does_not_start_stops_the_training_in_one_line(fake: type[FakeTracker], tmp_path: Path) -> None:
    fake.failing = "start"
    with pytest.raises(InputError, match=r"train.logger: mlflow does not start: no API key; MLFLOW_TRACKING_URI says"):
        train(tmp_path / "run", train__logger=["mlflow"])


def test_one_that_fails_on_the_way_is_said_once(fake: type[FakeTracker], tmp_path: Path) -> None:
    fake.failing, lines = "metrics", []
    run = opsin.train(RECIPE, {"train.logger": "mlflow"}, out=tmp_path / "run", say=lines.append)
    assert len(run.history) == 2
    assert [line for line in lines if "mlflow" in line] == [
        "mlflow fails (no route to host); the training goes on, and metrics.csv has the metrics"
    ]


@pytest.mark.parametrize(("name", "package"), [("wandb", "wandb"), ("comet", "comet-ml"), ("tensorboard",) * 2])
def test_a_missing_package_is_said_before_data_is_read(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda module: None)
    settings = {"train.logger": ["csv", name], "data.source": str(tmp_path / "not there")}
    with pytest.raises(InputError, match=rf"{name} needs the package {package}; pip install 'opsin\[{name}\]'"):
        opsin.train(RECIPE, settings, out=tmp_path / "run", say=lambda line: None)
    assert not (tmp_path / "run").exists()


def test_an_unknown_tracker_is_refused() -> None:
    with pytest.raises(InputError, match=r"recipe key train.logger: .*'wandb'.*got \['neptune'\]"):
        load_recipe(RECIPE, {"train.logger": ["neptune"]})
    assert load_recipe(RECIPE, {"train.logger": ["wandb", "csv", "wandb"]}).train.logger == ["wandb", "csv"]


@pytest.mark.parametrize("installed", [True, False])
def test_the_key_of_earlier_recipes_means_tensorboard_where_it_is_installed(
    installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from opsin.engine import recipe_versions

    monkeypatch.setattr(recipe_versions, "find_spec", lambda name: object() if installed else None)
    wanted = ["csv", "tensorboard"] if installed else ["csv"]
    lines: list[str] = []
    old = {**RECIPE, "version": 2, "train": {"tensorboard": True}}
    assert load_recipe(old, say=lines.append).train.logger == wanted
    assert load_recipe(RECIPE, {"train.tensorboard": True}, say=lines.append).train.logger == wanted
    assert load_recipe({**old, "train": {"tensorboard": False}}).train.logger == ["csv"]
    assert load_recipe(old, {"train.tensorboard": False}).train.logger == ["csv"]
    assert load_recipe({**old, "train": {"tensorboard": True, "logger": "wandb"}}).train.logger == ["wandb"]
    assert not lines


def test_training_imports_no_tracker() -> None:
    code = "import sys, opsin.engine.train; print([m for m in ('tensorboard', 'wandb', 'mlflow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_stage_is_named_after_its_run() -> None:
    assert loggers.run_name(RunFolder(Path("runs/x"))) == "x"
    assert loggers.run_name(RunFolder(Path("runs/x/stages/finetune"))) == "x/finetune"


def test_tensorboard_reads_what_is_written(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = train(tmp_path / "run", train__logger="tensorboard")
    found = events.EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    for name in ("val_accuracy", "train_loss", "lr"):
        assert [event.value for event in found.Scalars(name)] == pytest.approx([row[name] for row in run.history])


def test_wandb_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("wandb") is None:
        pytest.skip("wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for number in (1, 2):  # the second writes into a run of its own
        train(tmp_path / f"run{number}", train__logger="wandb")
    names = [json.loads((tmp_path / f"run{number}" / "trackers.json").read_text())["wandb"] for number in (1, 2)]
    assert names[0] != names[1]
    assert list((tmp_path / "run1" / "wandb").glob(f"offline-run-*-{names[0]}/*.wandb"))


def test_mlflow_keeps_one_run_over_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    store = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    train(tmp_path / "run", train__logger="mlflow")
    opsin.train(resume=tmp_path / "run", overrides={"train.epochs": 3}, say=lambda line: None)
    client = mlflow.MlflowClient(store)
    identity = json.loads((tmp_path / "run" / "trackers.json").read_text())["mlflow"]
    assert [one.value for one in client.get_metric_history(identity, "epoch")] == [1, 2, 3]
    assert client.get_run(identity).data.params["model/name"] == "lenet5"


def test_an_event_file_holds_what_was_logged_and_nothing_else(tmp_path: Path) -> None:
    """Lightning's logger would add a metric hp_metric of -1, which nobody measured."""
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger: Any = loggers._tensorboard(RunFolder(tmp_path), None)
    logger.log_hyperparams({"lr": 0.1})
    logger.log_metrics({"train_loss": 2.0}, step=3)
    logger.finalize("success")
    read = events.EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert read.Tags()["scalars"] == ["train_loss"]
    assert [(one.step, one.value) for one in read.Scalars("train_loss")] == [(3, 2.0)]
