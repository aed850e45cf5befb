"""Trials of a tuning as tasks of Ray, several at once, on one machine or on a cluster.

The process that was called draws the values and keeps the study. A task trains one trial; what it reports goes through
a small actor, the board, which this process empties: only one process ever writes the study.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from opsin import rooms
from opsin.engine.recipe import load_recipe
from opsin.engine.search import Say, Search, describe
from opsin.engine.trial import Job, Outcome, run_trial
from opsin.errors import InputError

_PAUSE = 0.5  # seconds between two looks at the board

Ended = Callable[[Any, Outcome, float], None]


class Board:
    """What trials report, (number, epoch, value), and which of them are to stop. An actor: one process holds it."""

    def __init__(self) -> None:
        self.reports: list[tuple[int, int, float]] = []
        self.stopped: set[int] = set()

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Note a value; whether the trial is to stop, as far as that has been decided."""
        self.reports.append((number, epoch, value))
        return number in self.stopped

    def stop(self, number: int) -> None:
        """Let a trial end with its next epoch."""
        self.stopped.add(number)

    def take(self) -> list[tuple[int, int, float]]:
        """The values reported since the last call."""
        taken, self.reports = self.reports, []
        return taken


def run_all(search: Search, parallel: int | None, ended: Ended, say: Say) -> None:
    """Run the trials that are left. parallel: so many at once; as many as the cluster has room for if None."""
    ray = importlib.import_module("ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry that nobody asked for
    ours = not ray.is_initialized()
    if ours:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        resources, room = _resources(search, ray.cluster_resources())
        say(f"Ray runs up to {room} trials at once, each with {_words(resources)}")
        _drive(ray, search, min(room, parallel or room), resources, ended, say)
    finally:
        if ours:
            ray.shutdown()


def _drive(ray: Any, search: Search, room: int, resources: Mapping[str, Any], ended: Ended, say: Say) -> None:
    board = ray.remote(num_cpus=0)(Board).remote()
    task = ray.remote(**resources, max_retries=0)(run_job)
    running: dict[Any, tuple[Any, float]] = {}
    while running or search.left() > 0:
        while len(running) < room and search.left() > 0:
            trial, job = search.ask(parallel=bool(running))
            params = {key: job.overrides[key] for key in search.settings.ranges}
            say(f"{Path(job.folder).name}: {describe(params)}")
            running[task.remote(_absolute(job), board, rooms.imported_packages())] = (trial, time.monotonic())
        done, _ = ray.wait(list(running), num_returns=1, timeout=_PAUSE)
        trials = {trial.number: trial for trial, _ in running.values()}
        for number, epoch, value in ray.get(board.take.remote()):
            if number in trials and search.report(trials[number], epoch, value):
                board.stop.remote(number)
        for handle in done:
            trial, started = running.pop(handle)
            ended(trial, _outcome(ray, handle), time.monotonic() - started)


def run_job(job: Job, board: Any, packages: list[str]) -> Outcome:
    """A trial in a process of Ray. packages: those that the command imported by name, which are imported here too."""
    ray: Any = importlib.import_module("ray")
    rooms.import_packages(packages)
    if not Path(job.folder).parent.is_dir():
        return Outcome("failed", error=f"this node does not see {Path(job.folder).parent}; --out needs a shared disk")
    report: Any = board.report
    return run_trial(job, lambda epoch, value: ray.get(report.remote(job.number, epoch, value)), lambda line: None)


def _outcome(ray: Any, handle: Any) -> Outcome:
    try:
        return ray.get(handle)
    except ray.exceptions.RayError as error:  # a worker that died: out of memory, or its node went
        return Outcome("failed", error=str(error).strip().splitlines()[-1])


def _absolute(job: Job) -> Job:
    """A job whose paths hold in another working folder: those of its folder, its data and weights of another run."""
    values: dict[str, Any] = {**vars(job), "folder": str(Path(job.folder).absolute())}
    recipe = load_recipe(job.recipe, job.overrides)
    paths = {"data.source": recipe.data.source, "train.init": recipe.train.init}
    found = {key: str(Path(path).absolute()) for key, path in paths.items() if path and Path(path).exists()}
    values["overrides"] = {**job.overrides, **found}
    if job.earlier is not None:
        values["earlier"] = str(Path(job.earlier).absolute())
    return Job(**values)


def _resources(search: Search, there: Mapping[str, float]) -> tuple[dict[str, Any], int]:
    """What a trial takes, and how many fit: a GPU each where there are some, else a processor core."""
    if there.get("GPU", 0) >= 1 and search.settings.first.train.accelerator != "cpu":
        return {"num_gpus": 1, "num_cpus": 1}, int(there["GPU"])
    cores = int(there.get("CPU", 0))
    if cores < 1:
        raise InputError("this Ray cluster has neither a GPU nor a processor core for a trial")
    return {"num_cpus": 1}, cores


def _words(resources: Mapping[str, Any]) -> str:
    return "a GPU" if "num_gpus" in resources else "a processor core"
