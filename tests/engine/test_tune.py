"""A search: what it chooses, that it never sees the test split before its end, and that it survives being stopped."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure

import opsin
from opsin.engine import ray_trials, tune_report
from opsin.engine import search as searching
from opsin.engine import trial as training
from opsin.engine import tune as tuning
from opsin.engine.callbacks import StoppedError
from opsin.engine.search import Search, Settings, Trial
from opsin.engine.trial import Job, Outcome
from opsin.errors import InputError, JobError

pytestmark = pytest.mark.rendered

optuna = pytest.importorskip("optuna")

SPACE = {"optim.lr": "log:1e-4..1e-1", "optim.name": "choice:sgd,adamw"}
SHORT = {"train.epochs": 2, "data.limit": 60, "train.tensorboard": False}


def quiet(line: str) -> None:
    pass


Score = Callable[[dict[str, Any]], float]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[[Score], list[Job]]:
    """Trials that train nothing: their value is a function of what was drawn for them."""

    def install(score: Score) -> list[Job]:
        jobs: list[Job] = []

        def run(job: Job, report: Any, say: Any) -> Outcome:
            jobs.append(job)
            value = score(dict(job.overrides))
            folder = Path(job.folder)
            folder.mkdir()
            (folder / "recipe.yaml").write_text(opsin.engine.recipe.load_recipe(job.recipe, job.overrides).to_yaml())
            for epoch in (1, 2, 3, 4):
                if report(epoch, value):
                    return Outcome("pruned", value, epoch)
            return Outcome("complete", value, 4)

        monkeypatch.setattr(tuning, "run_trial", run)
        monkeypatch.setattr(tuning, "_test", lambda run: {"accuracy": 0.5})
        return jobs

    return install


def test_a_search_trains_chooses_and_reports(tmp_path: Path):
    done = opsin.tune("lenet5_digits", SPACE, SHORT, trials=2, out=tmp_path / "t", say=quiet)
    assert [one.name for one in done.trials] == ["trial_000", "trial_001"]
    assert done.trials[0].params == {"optim.lr": 0.002, "optim.name": "adamw"}  # the recipe's own come first
    for one in done.trials:
        run = tmp_path / "t" / one.name
        rows = (run / "metrics.csv").read_text().splitlines()
        place = rows[0].split(",").index("val_accuracy")
        assert one.value == float(rows[-1].split(",")[place])  # the recipe keeps the last epoch's weights
        saved = yaml.safe_load((run / "recipe.yaml").read_text())
        assert (saved["optim"]["lr"], saved["optim"]["name"]) == tuple(one.params.values())
        assert (run / "report.html").exists() and not (run / "train.log").read_text().count(" test\n")
        assert (run / "evaluation_test.json").exists() == (one.name == done.best.name)  # the best alone saw it
    assert done.best.value == max(one.value or 0 for one in done.trials)
    best = yaml.safe_load(done.recipe.read_text())
    assert best == yaml.safe_load((tmp_path / "t" / done.best.name / "recipe.yaml").read_text())
    again = opsin.evaluate(tmp_path / "t" / done.best.name, split="test")
    assert done.metrics == again
    page = done.report.read_text()
    for text in ("trial_001", "History", "optim.lr", "All settings at once", "The best recipe"):
        assert text in page
    assert "<script" not in page and "http://" not in page.replace("http://www.w3.org", "")
    assert json.loads((tmp_path / "t" / "tune.json").read_text())["best"]["name"] == done.best.name


def test_the_best_is_found_and_bad_trials_are_pruned(tmp_path: Path, pretend: Any):
    pretend(lambda values: -abs(values["optim.lr"] - 0.03) - 0.1 * (values["optim.name"] == "sgd"))
    done = opsin.tune("lenet5_digits", SPACE, {"train.epochs": 4}, trials=18, out=tmp_path / "t", say=quiet)
    assert len(done.trials) == 18
    assert done.best.params["optim.name"] == "adamw" and abs(done.best.params["optim.lr"] - 0.03) < 0.01
    pruned = [one for one in done.trials if one.state == "pruned"]
    assert pruned and all(one.epochs < 4 for one in pruned)
    assert "Importance" in done.report.read_text()
    with_all = opsin.tune(
        "lenet5_digits", SPACE, {"train.epochs": 4}, trials=8, prune=False, out=tmp_path / "u", say=quiet
    )
    assert {one.state for one in with_all.trials} == {"complete"}


def test_a_metric_that_falls_is_minimised(tmp_path: Path, pretend: Any):
    pretend(lambda values: values["optim.lr"])
    settings = {"train.monitor": "val_loss"}
    done = opsin.tune("lenet5_digits", {"optim.lr": "0.01..0.2"}, settings, trials=5, out=tmp_path / "t", say=quiet)
    assert done.best.value == min(one.value or 1 for one in done.trials)


def test_each_trial_says_how_long_it_took(tmp_path: Path, pretend: Any, monkeypatch: pytest.MonkeyPatch):
    clock = iter([100.0, 103.0, 110.0, 121.0])
    monkeypatch.setattr(tuning, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    pretend(lambda values: values["optim.lr"])
    said: list[str] = []
    options: dict[str, Any] = {"trials": 2, "prune": False, "out": tmp_path / "t", "say": said.append}
    opsin.tune("lenet5_digits", {"optim.lr": "0.01..0.2"}, **options)
    ended = [line for line in said if line.startswith("trial") and line.endswith(" s")]
    assert [line.rsplit(", ", 1)[1] for line in ended] == ["3 s", "11 s"]


def test_the_history_shows_the_best_so_far_over_whole_trials(monkeypatch: pytest.MonkeyPatch):
    canvases: list[Any] = []

    def keep(draw: Callable[[Any], None]) -> bytes:
        canvases.append(Figure(figsize=(9, 4)))
        draw(canvases[-1])
        return b""

    monkeypatch.setattr(tune_report.charts, "svg", keep)
    values = [("failed", None), ("complete", 0.5), ("pruned", 0.9), ("complete", 0.4)]
    trials = [Trial(f"trial_{k}", state, value, {}, 1, 1.0, {}) for k, (state, value) in enumerate(values, 1)]
    nothing = SimpleNamespace(metric=lambda name: None)
    for mode, best in (("max", [0.5, 0.5, 0.5]), ("min", [0.5, 0.5, 0.4])):
        tune_report._history(SimpleNamespace(mode=mode, monitor="x", room=nothing), trials)  # type: ignore[arg-type]
        (axes,) = canvases[-1].axes
        assert axes.lines[0].get_xdata().tolist() == [1, 2, 3, 4]
        assert axes.lines[0].get_ydata().tolist()[1:] == best  # a pruned trial is none to be the best
        assert all(float(tick).is_integer() for tick in axes.get_xticks())


@pytest.mark.parametrize(("mode", "best"), [("max", 0.8), ("min", 0.2)])
def test_the_best_trial_is_the_strongest_line(mode: str, best: float, monkeypatch: pytest.MonkeyPatch):
    canvas = Figure(figsize=(9, 4))
    monkeypatch.setattr(tune_report.charts, "svg", lambda draw, *size: draw(canvas) or b"")
    trials = [Trial(str(v), "complete", v, {"optim.lr": v}, 1, 1.0, {}) for v in (0.5, 0.2, 0.8)]
    search: Any = SimpleNamespace(mode=mode, monitor="x", format=str, settings=Settings({}, {"optim.lr": "0.1..0.9"}))
    tune_report._parallel(search, trials)
    rows = [(np.asarray(line.get_ydata()), line) for line in canvas.axes[0].lines if line.get_alpha()]
    lines = {float(heights[1]): line for heights, line in rows}
    assert sorted(lines) == pytest.approx([0, 0.5, 1])
    strongest = max(lines, key=lambda height: lines[height].get_alpha() or 0)
    assert strongest == pytest.approx((best - 0.2) / 0.6) and lines[strongest].get_color() == tune_report.charts.ORANGE
    assert canvas.axes[0].lines.index(lines[strongest]) == 2  # drawn last, above the others
    axes = [line for line in canvas.axes[0].lines if not line.get_alpha()]  # one a setting, and one of the value
    assert [(np.asarray(line.get_xdata())[0], line.get_color()) for line in axes] == [
        (place, tune_report.charts.GRID) for place in (0, 1)
    ]


def test_a_search_that_was_stopped_draws_what_it_would_have_drawn(tmp_path: Path, pretend: Any):
    def score(values: dict[str, Any]) -> float:
        return -abs(values["optim.lr"] - 0.03)

    pretend(score)
    whole = opsin.tune("lenet5_digits", SPACE, trials=15, out=tmp_path / "whole", say=quiet)
    calls = 0

    def stopping(values: dict[str, Any]) -> float:
        nonlocal calls
        calls += 1
        if calls in (4, 13):
            raise KeyboardInterrupt
        return score(values)

    pretend(stopping)
    with pytest.raises(StoppedError, match=r"after 3 of 15 .*opsin tune --resume .*parts"):
        opsin.tune("lenet5_digits", SPACE, trials=15, out=tmp_path / "parts", say=quiet)
    with pytest.raises(StoppedError, match="after 11 of 15"):
        opsin.tune(resume=tmp_path / "parts", say=quiet)
    parts = opsin.tune(resume=tmp_path / "parts", say=quiet)
    finished = [one for one in parts.trials if one.state != "interrupted"]
    assert len(parts.trials) - len(finished) == 2
    assert [one.params for one in finished] == [one.params for one in whole.trials]
    more = opsin.tune(resume=tmp_path / "parts", trials=16, say=quiet)
    assert len([one for one in more.trials if one.state != "interrupted"]) == 16


def test_a_trial_that_was_killed_is_tried_again(tmp_path: Path, pretend: Any):
    script = tmp_path / "kill.py"
    settings = {**SHORT, "train.epochs": 40}
    script.write_text(
        f"import opsin; opsin.tune('lenet5_digits', {SPACE}, {settings}, trials=2, out={str(tmp_path / 't')!r})"
    )
    process = subprocess.Popen([sys.executable, str(script)], env={**os.environ, "OMP_NUM_THREADS": "1"})
    first = tmp_path / "t" / "trial_000" / "last.ckpt"
    for _ in range(1200):
        if first.exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    search = Search.open(tmp_path / "t")
    assert [one.state for one in search.trials()] == ["running"]
    seen = pretend(lambda values: 0.5)
    said: list[str] = []
    done = opsin.tune(resume=tmp_path / "t", say=said.append)
    assert [one.state for one in done.trials] == ["interrupted", "complete", "complete"]
    assert done.trials[0].params == done.trials[1].params
    assert seen[0].earlier == str(tmp_path / "t" / "trial_000")
    assert "trial_000 was interrupted; its values are tried again" in said


def test_an_interrupted_trial_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recipe = {"version": 1, **opsin.engine.recipe.read_recipe("lenet5_digits")}
    job = Job(1, recipe, SHORT, str(tmp_path / "trial_001"), str(tmp_path / "trial_000"), ("val_accuracy", "max"))

    def stop(epoch: int, value: float) -> bool:
        raise StoppedError("stopped")

    whole = training.run_trial(Job(2, recipe, SHORT, str(tmp_path / "w"), None, job.monitor), lambda *_: False, quiet)
    first = Job(0, recipe, SHORT, job.earlier or "", None, job.monitor)
    with pytest.raises(StoppedError):
        training.run_trial(first, stop, quiet)
    reported: list[int] = []
    outcome = training.run_trial(job, lambda epoch, value: bool(reported.append(epoch)), quiet)
    assert outcome == whole and reported == [1, 2]
    assert not (tmp_path / "trial_000").exists()


def test_pruning_ends_a_training_as_a_whole_run(tmp_path: Path):
    recipe = {"version": 1, **opsin.engine.recipe.read_recipe("lenet5_digits")}
    job = Job(0, recipe, {**SHORT, "train.epochs": 5}, str(tmp_path / "trial_000"), None, ("val_accuracy", "max"))
    outcome = training.run_trial(job, lambda epoch, value: epoch == 2, quiet)
    assert (outcome.state, outcome.epochs) == ("pruned", 2)
    for name in ("model.safetensors", "report.html", "last.ckpt"):
        assert (tmp_path / "trial_000" / name).exists()


def test_trials_that_fail_do_not_end_a_search(tmp_path: Path, pretend: Any, monkeypatch: pytest.MonkeyPatch):
    pretend(lambda values: values["optim.lr"])
    good = tuning.run_trial

    def run(job: Job, report: Any, say: Any) -> Outcome:
        return Outcome("failed", error="the loss is not finite") if job.number == 1 else good(job, report, say)

    monkeypatch.setattr(tuning, "run_trial", run)
    done = opsin.tune("lenet5_digits", SPACE, trials=4, out=tmp_path / "t", say=quiet)
    assert [one.state for one in done.trials][1] == "failed" and done.trials[1].error == "the loss is not finite"
    assert len(done.trials) == 4 and "the loss is not finite" in done.report.read_text()


def test_a_search_in_which_everything_fails_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tuning, "run_trial", lambda *_: Outcome("failed", error="no", wrong=False))
    with pytest.raises(JobError, match="3 trials failed"):
        opsin.tune("lenet5_digits", SPACE, trials=9, out=tmp_path / "t", say=quiet)
    monkeypatch.setattr(tuning, "run_trial", lambda *_: Outcome("failed", error="wrong data", wrong=True))
    with pytest.raises(InputError, match="wrong data"):
        opsin.tune("lenet5_digits", SPACE, trials=9, out=tmp_path / "u", say=quiet)


@pytest.mark.parametrize(
    ("space", "overrides", "words"),
    [
        ({"train.batch_size": "16..128"}, {}, "write int:16..128"),
        ({"train.epoch": "int:1..2"}, {}, "did you mean train.epochs"),
        ({"optim.lr": "-1..1"}, {}, "optim.lr"),
        ({"model.name": "choice:lenet5,lenet55"}, {}, "lenet55"),
        ({"data.val_fraction": "0.1..0.5"}, {}, "cannot be searched"),
        ({"optim.lr": "0.1..0.2"}, {"optim.lr": 0.1}, "given twice"),
        ({"loss.name": "choice:focal,cross_entropy"}, {"train.monitor": "val_loss"}, "changes what val_loss measures"),
        ({"optim.lr": "0.1..0.2"}, {"train.devices": 2}, "a trial takes one device"),
        ({}, {}, "nothing to search"),
    ],
)
def test_a_wrong_space_is_refused_before_anything_is_trained(
    tmp_path: Path, space: dict[str, str], overrides: dict[str, Any], words: str
):
    with pytest.raises(InputError, match=words):
        opsin.tune("lenet5_digits", space, overrides, out=tmp_path / "t", say=quiet)
    assert not (tmp_path / "t").exists()


def test_a_folder_has_one_search_at_a_time(tmp_path: Path, pretend: Any):
    pretend(lambda values: 1.0)
    opsin.tune("lenet5_digits", SPACE, trials=1, out=tmp_path / "t", say=quiet)
    with pytest.raises(InputError, match="already holds a search"):
        opsin.tune("lenet5_digits", SPACE, trials=1, out=tmp_path / "t", say=quiet)
    with Search.open(tmp_path / "t").alone(), pytest.raises(InputError, match="another process"):
        opsin.tune(resume=tmp_path / "t", say=quiet)
    with pytest.raises(InputError, match="no search at"):
        opsin.tune(resume=tmp_path / "none", say=quiet)


def test_no_validation_is_refused_at_once(tmp_path: Path):
    with pytest.raises(InputError, match="no validation split"):
        opsin.tune("lenet5_digits", SPACE, {**SHORT, "data.val_fraction": 0.0}, out=tmp_path / "t", say=quiet)


# Ray, by a stand-in that runs a task when it is waited for


class Handle:
    """Of a task: what it gives, once it was waited for."""

    def __init__(self, run: Callable[[], Any]) -> None:
        self.run = run
        self.done: list[Any] = []


class Remote:
    """A function or the method of an actor, as Ray's."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def remote(self, *given: Any) -> Any:
        return Handle(lambda: self.function(*given))


class Cluster(SimpleNamespace):
    """Two processor cores; actors answer at once, tasks when they are waited for, the last one first."""

    exceptions = SimpleNamespace(RayError=RuntimeError)

    def __init__(self) -> None:
        super().__init__(most=0, options=[])

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def remote(self, **options: Any) -> Callable[[Any], Any]:
        self.options.append(options)

        def wrap(what: Any) -> Any:
            if not isinstance(what, type):
                return Remote(what)
            held = what()
            methods = {name: Remote(getattr(held, name)) for name in ("report", "stop", "take")}
            return SimpleNamespace(remote=lambda: SimpleNamespace(**methods))

        return wrap

    def wait(self, handles: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        self.most = max(self.most, len(handles))
        handles[-1].done.append(handles[-1].run())
        return handles[-1:], handles[:-1]

    def get(self, handle: Any) -> Any:
        return handle.done[0] if handle.done else handle.run()


def test_trials_run_as_tasks_of_ray(tmp_path: Path, pretend: Any, monkeypatch: pytest.MonkeyPatch):
    from opsin.engine import ray_trials

    cluster = Cluster()
    monkeypatch.setitem(sys.modules, "ray", cluster)  # type: ignore[arg-type]
    pretend(lambda values: -abs(values["optim.lr"] - 0.03))
    run: Any = tuning.run_trial
    monkeypatch.setattr(ray_trials, "run_trial", run)
    done = opsin.tune("lenet5_digits", SPACE, trials=6, ray=True, out=tmp_path / "t", say=quiet)
    assert sorted(one.state for one in done.trials) == ["complete"] * 6 and cluster.most == 2
    assert cluster.options == [{"num_cpus": 0}, {"num_cpus": 1, "max_retries": 0}]
    values = {one.name: one.values for one in done.trials}
    assert all(len(found) == 4 for found in values.values())  # every epoch came through the board
    one = opsin.tune("lenet5_digits", SPACE, trials=1, ray=True, out=tmp_path / "one", say=quiet)
    assert [trial.state for trial in one.trials] == ["complete"]


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'opsin\[ray\]'"):
        opsin.tune("lenet5_digits", SPACE, ray=True, say=quiet)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"pip install 'opsin\[tune\]'"):
        opsin.tune("lenet5_digits", SPACE, say=quiet)


def test_what_the_settings_of_a_search_leave_out_is_as_a_call_has_it(tmp_path: Path):
    (tmp_path / "tune.yaml").write_text(
        yaml.safe_dump({"recipe": {"model": {"name": "lenet5"}, "data": {"source": "digits"}}, "space": SPACE})
    )
    left, call = Search.open(tmp_path).settings, inspect.signature(opsin.tune).parameters
    assert (left.prune, left.seed) == (call["prune"].default, call["seed"].default) == (True, 0)


def test_flags_leave_to_the_data_what_they_do_not_give(tmp_path: Path, pretend: Any):
    jobs = pretend(lambda values: 1.0)
    recipe = {"task": "classify", "model": {"name": "lenet5"}, "data": {"source": "digits"}}
    opsin.tune(recipe, {"optim.lr": "0.001..0.2"}, trials=1, out=tmp_path / "t", say=quiet)
    assert "version" not in jobs[0].recipe and searching.read_values(recipe) == recipe
    assert jobs[0].overrides["optim.lr"] != 0.1  # the default of recipes is not what such a training starts with


def test_a_process_of_ray_imports_what_the_command_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    imported: list[str] = []
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace())
    monkeypatch.setattr(ray_trials.rooms, "import_packages", imported.extend)
    job: Any = SimpleNamespace(folder=str(tmp_path / "gone" / "trial_1"))
    outcome = ray_trials.run_job(job, None, ["my_package", "another"])
    assert imported == ["my_package", "another"]
    assert outcome.state == "failed" and "this node does not see" in outcome.error
