"""Search for the settings of a training that give the best validation metric, by Optuna."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from opsin import errors
from opsin.engine.callbacks import StoppedError
from opsin.engine.checkpoint import read_model
from opsin.engine.evaluate import evaluate_run
from opsin.engine.membership import divide_as_trained
from opsin.engine.recipe_data import open_data
from opsin.engine.search import TRIALS, Say, Search, Settings, Trial, describe, read_values
from opsin.engine.trial import Outcome, run_trial
from opsin.engine.tune_report import write_tune_report
from opsin.errors import InputError, JobError
from opsin.files import atomic

_HOPELESS = 3  # trials that all failed, after which the next ones will too


@dataclass
class Tuning:
    """A search and what it found.

    monitor: the validation metric that decided. best: the best trial; recipe: its recipe as a file. metrics: of its
    model on the test split, which decided nothing; empty where the data has none.
    """

    path: Path
    monitor: str
    best: Trial
    recipe: Path
    report: Path
    trials: list[Trial] = field(repr=False)
    metrics: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        return {
            "tune": str(self.path),
            "monitor": self.monitor,
            "best": self.best.to_dict(),
            "recipe": str(self.recipe),
            "report": str(self.report),
            "test": self.metrics,
            "trials": [trial.to_dict() for trial in self.trials],
        }


def tune(
    recipe: str | Path | Mapping[str, Any] | None = None,
    space: Mapping[str, str | Sequence[Any]] | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    trials: int | None = None,
    seed: int = 0,
    prune: bool = True,
    ray: bool = False,
    parallel: int | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    say: Say = errors.say,
) -> Tuning:
    """Train by a recipe again and again, each time with other values, and keep what is best on validation.

    recipe, overrides: as `opsin.train` takes them. space: key of the recipe -> its values, as `log:1e-4..1e-1`,
    `int:16..128`, `choice:sgd,adamw` or a list of choices; see `opsin.engine.search_space`. trials: how many, 20 if not
    given. prune: end a trial early that is worse than the median of the others. ray: run trials as tasks of Ray, as
    many at once as it can run, or `parallel`. out: the folder to make, tune/<name> if None. resume: a search to go
    on with; trials then raises their number. Raises InputError before anything is trained, JobError after.
    """
    _check_call(trials, ray=ray, parallel=parallel)
    if resume is None:
        search = _begin(
            recipe, Settings({}, dict(space or {}), dict(overrides or {}), trials or TRIALS, seed, prune), out
        )
    else:
        if recipe is not None or space or overrides or out is not None:
            raise InputError("a search that is resumed has its recipe and space already; give --trials alone, if any")
        search = Search.open(resume)
        search.settings.trials = trials or search.settings.trials
    with search.alone():
        if resume is not None:
            search.save_settings()
            _resume(search, say)
        _announce(search, say)
        if ray:
            from opsin.engine.ray_trials import run_all

            _guarded(search, lambda: run_all(search, parallel, partial(_ended, search, say), say))
        else:
            _guarded(search, lambda: _run_all(search, say))
        return _finish(search, say)


def _check_call(trials: int | None, *, ray: bool, parallel: int | None) -> None:
    """Raise InputError for what is not installed, or does not go together."""
    _need("optuna", "opsin tune needs Optuna", "tune")
    if ray:
        _need("ray", "--ray needs Ray", "ray")
    if parallel is not None and not ray:
        raise InputError("trials run at the same time with Ray alone; add --ray, or leave --parallel out")
    if trials is not None and trials < 1:
        raise InputError(f"trials is {trials}; take 1 or more")


def _begin(recipe: str | Path | Mapping[str, Any] | None, settings: Settings, out: str | Path | None) -> Search:
    """A new search. settings: without the recipe's values."""
    if recipe is None:
        raise InputError("nothing to tune: give a recipe, or a search to resume")
    settings.recipe = read_values(recipe)
    name = Path(recipe).stem if isinstance(recipe, str | Path) else settings.first.model.name
    return Search.create(out, name, settings)


def _need(module: str, what: str, extra: str) -> None:
    try:
        importlib.import_module(module)
    except ImportError:
        raise InputError(f"{what}: pip install 'opsin[{extra}]'") from None


def _announce(search: Search, say: Say) -> None:
    first, settings = search.settings.first, search.settings
    better = "highest" if search.mode == "max" else "lowest"
    say(
        f"{settings.trials} trials of {first.model.name} on {first.data.source} in {search.path}; the {better} "
        f"{search.monitor} decides, the test split is not looked at before the end"
    )


def _resume(search: Search, say: Say) -> None:
    killed = search.give_back_killed()
    done = search.settings.trials - search.left()
    for name in killed:
        say(f"{name} was interrupted; its values are tried again")
    say(f"{done} trial{'s' if done != 1 else ''} of {search.settings.trials} done before")


def _guarded(search: Search, run: Any) -> None:
    """Run trials; where the user stops them, give back those under way, and say how to go on."""
    try:
        run()
    except (KeyboardInterrupt, StoppedError):
        search.give_back_killed()
        count = f"{search.settings.trials - search.left()} of {search.settings.trials}"
        raise StoppedError(
            f"stopped after {count} trials; nothing is lost: opsin tune --resume {search.path}"
        ) from None
    except BaseException:
        search.give_back_killed()
        raise


def _run_all(search: Search, say: Say) -> None:
    """One trial after the other, in this process."""
    while search.left() > 0:
        trial, job = search.ask()
        params = {key: job.overrides[key] for key in search.settings.ranges}
        say(f"{Path(job.folder).name}: {describe(params)}")
        started = time.monotonic()
        outcome = run_trial(job, lambda epoch, value, trial=trial: search.report(trial, epoch, value), say)
        _ended(search, say, trial, outcome, time.monotonic() - started)


def _ended(search: Search, say: Say, trial: Any, outcome: Outcome, seconds: float) -> None:
    """Note how a trial ended, say it, and raise where the next ones would end so too."""
    search.tell(trial, outcome)
    name, best = search.folder(trial.number).name, search.best()
    if outcome.state == "failed":
        say(f"{name}: failed: {outcome.error}")
        if best is None:
            tried = [one for one in search.trials() if one.state == "failed"]
            if outcome.wrong and len(tried) == 1:
                raise InputError(outcome.error)
            if len(tried) >= _HOPELESS:
                raise JobError(f"{len(tried)} trials failed and none was finished; the last one: {outcome.error}")
        return
    shown = f"{search.monitor} {search.format(outcome.value)}"
    if outcome.state == "pruned":
        shown = f"pruned after {outcome.epochs} epochs, {shown}"
    elif best is not None and best.name == name:
        shown += ", the best so far"
    elif best is not None:
        shown += f" (best {search.format(best.value)}, {best.name})"
    say(f"{name}: {shown}, {seconds:.0f} s")


def _finish(search: Search, say: Say) -> Tuning:
    """Write the best recipe and the report, and evaluate the best model on the test split, once."""
    best = search.best()
    if best is None:
        raise JobError(f"none of the trials in {search.path} was finished; raise --trials, or see their train.log")
    run = search.path / best.name
    recipe = search.path / "best.yaml"
    header = (
        f"# {best.name} of {sum(one.state != 'interrupted' for one in search.trials())} trials: {search.monitor} "
        f"{search.format(best.value)}; {describe(best.params)}\n# opsin train {recipe}\n"
    )
    with atomic(recipe) as temporary:
        temporary.write_text(header + (run / "recipe.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    metrics = _test(run)
    report = write_tune_report(search, metrics)
    done = Tuning(search.path, search.monitor, best, recipe, report, search.trials(), metrics)
    with atomic(search.path / "tune.json") as temporary:
        temporary.write_text(json.dumps(done.to_dict(), indent=1), encoding="utf-8")
    say(f"best: {best.name} with {search.monitor} {search.format(best.value)}: {describe(best.params)}")
    if metrics:
        texts = [f"{name} {search.room.format(name, value)}" for name, value in list(metrics.items())[:3]]
        say(f"its model on the test split, which decided nothing: {', '.join(texts)}")
    say(f"its recipe: {recipe}; report: {report}")
    return done


def _test(run: Path) -> dict[str, float]:
    """The metrics of a run on the test split; none where there is no such split."""
    saved = read_model(run)
    if "test" not in divide_as_trained(saved.recipe, open_data(saved.recipe), saved.members, errors.say):
        return {}
    return evaluate_run(run, split="test").metrics
