"""The few settings of a tracker searched on given truth, by Optuna."""

from __future__ import annotations

import importlib
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from opsin import rooms
from opsin.errors import InputError, JobError, unknown
from opsin.progress import Meter
from opsin.track.evaluate import evaluate
from opsin.track.following import stoppable
from opsin.track.rules import Rules
from opsin.track.trackers import create_tracker, find_tracker, settings_of
from opsin.track.tracks import Tracks
from opsin.track.tuned_settings import TunedSettings, digests_of

METRICS = ("hota", "mota", "idf1", "assa", "deta")  # that can be raised
TRIALS = 40
_DIGITS = 3  # of settings that are fractions: more make no difference that holds on other videos


@dataclass
class Search:
    """A search for the settings of a tracker that give its tracks the highest metric, over all sequences together.

    detections, truth: by the names of sequences, the same for both. fixed: settings that are not searched. rules: by
    which tracks are evaluated. seed: of what is tried; the same gives the same.
    """

    tracker: str
    detections: Mapping[str, Tracks]
    truth: Mapping[str, Tracks]
    rules: Rules
    metric: str = "hota"
    trials: int = TRIALS
    fixed: Mapping[str, Any] | None = None
    every: int = 1
    seed: int = 0

    def run(self, *, quiet: bool = False) -> TunedSettings:
        """Try the tracker's own settings first, then `trials` - 1 others. Ctrl-C ends it with the best so far.

        Raises InputError for a metric or a tracker that cannot be tuned, and where Optuna is not installed.
        """
        optuna = _import_optuna()
        ranges = self._ranges()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=self.seed))
        defaults = settings_of(self.tracker)
        study.enqueue_trial({name: _inside(defaults[name], *limits) for name, limits in ranges.items()})
        before = self._value(dict(self.fixed or {}))
        done = 0
        with stoppable() as stopped, Meter(f"tuning {self.tracker}", self.trials, "trials", quiet=quiet) as meter:
            while done < self.trials and not stopped():
                trial = study.ask()
                given = {name: self._suggest(trial, name, limits) for name, limits in ranges.items()}
                value = self._value({**_rounded(given), **(self.fixed or {})})
                study.tell(trial, value, state=None if value is not None else optuna.trial.TrialState.FAIL)
                done += 1
                meter(done)
        return self._best(study, before, done)

    def _best(self, study: Any, before: float | None, done: int) -> TunedSettings:
        finished = [trial for trial in study.trials if trial.value is not None]
        if not finished:
            raise JobError(f"none of {done} settings of {self.tracker} could be tried; fix some with --set")
        best = max(finished, key=lambda trial: trial.value)
        found, value = _rounded(best.params), float(best.value)
        if before is not None and before >= value:
            found, value = {}, before
        tuned_on = {name: digests_of(one) for name, one in self.truth.items()}
        settings = {**found, **(self.fixed or {})}
        return TunedSettings(self.tracker, settings, tuned_on, self.metric, before or 0.0, value, done)

    def _ranges(self) -> dict[str, tuple[float, float]]:
        """What is searched, and between which values. Raises InputError where that is nothing."""
        if self.metric not in METRICS:
            raise unknown("metric to tune for", self.metric, METRICS)
        known: Mapping[str, tuple[float, float]] = find_tracker(self.tracker).ranges
        ranges = {name: limits for name, limits in known.items() if name not in (self.fixed or {})}
        if not ranges:
            raise InputError(f"{self.tracker} has no setting left to search; take fewer --set, or another tracker")
        return ranges

    def _suggest(self, trial: Any, name: str, limits: tuple[float, float]) -> float:
        low, high = limits
        if isinstance(settings_of(self.tracker)[name], int):
            return trial.suggest_int(name, int(low), int(high))
        return trial.suggest_float(name, low, high)

    def _value(self, settings: Mapping[str, Any]) -> float | None:
        """The metric with some settings; None for those that the tracker refuses."""
        tracks = {}
        for name, detections in self.detections.items():
            try:
                tracker = create_tracker(self.tracker, frame_rate=detections.fps or 1.0, **settings)
            except InputError:
                return None
            tracks[name] = replace(tracker.run(detections, every=self.every), num_frames=detections.num_frames)
        return float(evaluate(self.truth, tracks, self.rules).metrics.get(self.metric, 0.0))


def _rounded(settings: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, _DIGITS) if isinstance(value, float) else value for name, value in settings.items()}


def _inside(value: float, low: float, high: float) -> float:
    return min(max(value, type(value)(low)), type(value)(high))


def _import_optuna() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("optuna")
    except ImportError:
        raise InputError("--tune needs Optuna: pip install 'opsin[tune]'") from None


def describe(found: TunedSettings, seconds: float) -> list[str]:
    """What a search found, in lines."""
    room = rooms.find_room("track")
    before, after = (room.format(found.metric, value) for value in (found.before, found.value))
    settings = " ".join(f"--set {key}={value}" for key, value in found.settings.items()) or "its own settings stay"
    each = "sequence" if len(found.tuned_on) == 1 else "sequences"
    return [
        f"{found.tracker}: {found.metric} {before} with its own settings, {after} with the best of {found.trials} on "
        f"{len(found.tuned_on)} {each}, {seconds:.0f} s",
        settings,
    ]


def timed(search: Callable[[], TunedSettings]) -> tuple[TunedSettings, float]:
    """What a search found, and its seconds."""
    started = time.perf_counter()
    return search(), time.perf_counter() - started
