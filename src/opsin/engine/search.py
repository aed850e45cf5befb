"""The search of a tuning: its folder, its settings on disk, and the trials that Optuna keeps there."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from opsin import rooms
from opsin.engine.own_metrics import monitored
from opsin.engine.recipe import Recipe, load_recipe, parse_yaml, read_recipe
from opsin.engine.recipe_versions import version_of
from opsin.engine.search_space import Between, Range, parse_space
from opsin.engine.starting import given_keys
from opsin.engine.trial import Job, Outcome
from opsin.errors import InputError
from opsin.files import atomic, read_regular

if TYPE_CHECKING:
    import optuna

Say = Callable[[str], None]

TRIALS = 20  # where nobody says how many
_STUDY = "opsin"
# What trials are compared on, and by: other images or another measure would be another competition.
_FIXED = {
    *("task", "imports", "version", "train.monitor", "train.devices", "train.num_nodes", "train.keep"),
    *(f"data.{key}" for key in ("source", "val_fraction", "test_fraction", "split_seed", "limit", "skip_bad")),
}


@dataclass
class Settings:
    """What a search was begun with, as `tune.yaml` holds it. recipe: values, complete or those of flags."""

    recipe: dict[str, Any]
    space: dict[str, Any]
    overrides: dict[str, Any] = field(default_factory=dict)
    trials: int = TRIALS
    seed: int = 0
    prune: bool = True

    @cached_property
    def ranges(self) -> dict[str, Range]:
        """The space, read."""
        return parse_space(self.space)

    def load(self, values: Mapping[str, Any]) -> Recipe:
        """The recipe with some values of the space. Raises InputError for one that it does not take."""
        return load_recipe(self.recipe, {**self.overrides, **values})

    @cached_property
    def first(self) -> Recipe:
        """The recipe with the first value of each range."""
        return self.load({key: one.ends[0] for key, one in self.ranges.items()})

    def check(self) -> None:
        """Raise InputError for a space that the recipe does not take, before anything is trained."""
        for key in self.ranges:
            if key in _FIXED:
                raise InputError(f"{key} cannot be searched: all trials are compared on the same images by one metric")
            if key in self.overrides:
                raise InputError(f"{key} is given twice, once as a value and once as values to search")
        name, _ = monitored(self.first)
        losses = [key for key in self.ranges if key.startswith(("loss.", "mixing."))]
        if name == "val_loss" and losses:
            raise InputError(
                f"{losses[0]} changes what val_loss measures, by which trials are compared; set train.monitor"
            )
        start = {key: one.ends[0] for key, one in self.ranges.items()}
        for key, one in self.ranges.items():
            for value in one.ends:
                try:
                    self.load({**start, key: value})
                except InputError as error:
                    whole = isinstance(one, Between) and not one.whole and "integer" in str(error)
                    hint = f"; write int:{one.low:g}..{one.high:g}" if isinstance(one, Between) and whole else ""
                    raise InputError(f"{error}{hint}") from None
        _check_devices(self.first)

    def own_values(self) -> dict[str, Any]:
        """What the recipe itself has for keys of the space, where the space holds it: of flags, what they give."""
        found: dict[str, Any] = {}
        given = given_keys(self.recipe, self.overrides)
        values = load_recipe(self.recipe, self.overrides).model_dump(mode="json")
        for key, one in self.ranges.items():
            value: Any = values
            for part in key.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            if one.holds(value) and (given is None or key in given):
                found[key] = one.stored(value)
        return found


@dataclass(frozen=True)
class Trial:
    """A trial for people and programs. value: of what is monitored, on val. params: key of the recipe -> value."""

    name: str
    state: str
    value: float | None
    params: dict[str, Any]
    epochs: int
    seconds: float
    values: dict[int, float]  # epoch -> value
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


class Search:
    """The folder of a search, which Optuna's study lies in: `study.db`, `tune.yaml`, and a run folder a trial."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path = path
        self.settings = settings
        self.monitor, self.mode = monitored(settings.first)
        self.room = rooms.evaluating_room(rooms.find_room(settings.first.task))

    @classmethod
    def create(cls, out: str | Path | None, name: str, settings: Settings) -> Search:
        """A new folder: `out`, or the first free of tune/name, tune/name-2, ..."""
        settings.check()
        folder, number = Path("tune") / name if out is None else Path(out), 1
        while out is None and folder.exists():
            number += 1
            folder = Path("tune") / f"{name}-{number}"
        if (folder / "tune.yaml").exists():
            raise InputError(
                f"{folder} already holds a search; continue it with --resume {folder}, or choose another --out"
            )
        if folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"{folder} is not empty; choose another --out")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make the folder {folder}: {error.strerror}; choose another --out") from None
        search = cls(folder, settings)
        search.save_settings()
        if own := settings.own_values():
            search.study.enqueue_trial(own)
        return search

    @classmethod
    def open(cls, path: str | Path) -> Search:
        """The search that a folder holds. Raises InputError where there is none."""
        file = Path(path) / "tune.yaml"
        if not file.is_file():
            raise InputError(
                f"no search at {path}: there is no {file}; begin one with: opsin tune RECIPE --set KEY=VALUES"
            )
        values = parse_yaml(read_regular(file).decode("utf-8", "replace"), str(file))
        try:
            return cls(Path(path), Settings(**values))
        except TypeError:
            raise InputError(f"{file} does not hold the settings of a search") from None

    def save_settings(self) -> None:
        """Write tune.yaml."""
        with atomic(self.path / "tune.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(asdict(self.settings), sort_keys=False, width=120), encoding="utf-8")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder, so that no second process draws trials in it."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / "study.lock")
        try:
            with lock.acquire(timeout=0):
                yield
        except Timeout:
            raise InputError(f"another process is searching in {self.path}; wait for it, or stop it first") from None

    @cached_property
    def study(self) -> optuna.Study:
        """Optuna's study."""
        import optuna
        from sqlalchemy.engine import URL

        address = URL.create("sqlite", database=str(self.path / "study.db")).render_as_string()
        epochs = self.settings.first.train.epochs
        pruner: Any = optuna.pruners.NopPruner()
        if self.settings.prune:  # the first fifth of a training says little: warm-up and a frozen start are in it
            pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=max(1, math.ceil(epochs / 5)))
        direction = "maximize" if self.mode == "max" else "minimize"
        with quiet_optuna():
            return optuna.create_study(
                storage=address, study_name=_STUDY, direction=direction, pruner=pruner, load_if_exists=True
            )

    def ask(self, *, parallel: bool = False) -> tuple[optuna.Trial, Job]:
        """The next trial. parallel: whether others are under way, from whose values it then keeps away."""
        import optuna

        # The trials that count, so that a search that was interrupted draws what it would have drawn.
        number = sum(trial.state.name not in ("WAITING", "FAIL") for trial in self.study.get_trials(deepcopy=False))
        seed = int(np.random.SeedSequence((self.settings.seed, number)).generate_state(1)[0])
        with quiet_optuna():
            self.study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=parallel)
            trial = self.study.ask()
            params = {key: one.suggest(trial, key) for key, one in self.settings.ranges.items()}
        earlier = trial.user_attrs.get("earlier")
        return trial, Job(
            number=trial.number,
            recipe=self.settings.recipe,
            overrides={**self.settings.overrides, **params},
            folder=str(self.folder(trial.number)),
            earlier=None if earlier is None else str(self.folder(earlier)),
            monitor=(self.monitor, self.mode),
        )

    def folder(self, number: int) -> Path:
        """The run folder of a trial."""
        return self.path / f"trial_{number:03d}"

    def report(self, trial: optuna.Trial, epoch: int, value: float) -> bool:
        """Note a value of a trial under way, and say whether to stop it."""
        with quiet_optuna():
            trial.report(value, epoch)
            return trial.should_prune()

    def tell(self, trial: optuna.Trial, outcome: Outcome) -> None:
        """Note how a trial ended. One that failed by itself counts as pruned: the sampler then keeps away from it."""
        import optuna

        state = optuna.trial.TrialState
        trial.set_user_attr("epochs", outcome.epochs)
        trial.set_user_attr("error", outcome.error)
        if outcome.value is not None:
            trial.set_user_attr("value", outcome.value)
        with quiet_optuna():
            if outcome.state == "complete":
                self.study.tell(trial, outcome.value)
            else:
                self.study.tell(trial, state=state.PRUNED)

    def give_back(self, number: int) -> None:
        """Mark a trial that was interrupted as failed, and let its values be tried again."""
        import optuna

        frozen = self.study.get_trials(deepcopy=False)[number]
        values = {**frozen.system_attrs.get("fixed_params", {}), **frozen.params}
        with quiet_optuna():
            self.study.tell(number, state=optuna.trial.TrialState.FAIL)
            if values:
                self.study.enqueue_trial(values, user_attrs={"earlier": number})

    def give_back_killed(self) -> list[str]:
        """The names of trials that were under way when their process was killed, all given back."""
        import optuna

        running = (optuna.trial.TrialState.RUNNING,)
        numbers = [trial.number for trial in self.study.get_trials(deepcopy=False, states=running)]
        for number in numbers:
            self.give_back(number)
        return [self.folder(number).name for number in numbers]

    def trials(self) -> list[Trial]:
        """Every trial that was begun, in order, those that were interrupted too."""
        return [self._trial(one) for one in self.study.get_trials(deepcopy=False) if one.state.name != "WAITING"]

    def _trial(self, frozen: Any) -> Trial:
        notes = frozen.user_attrs
        state = {"RUNNING": "running", "FAIL": "interrupted", "COMPLETE": "complete"}.get(frozen.state.name, "pruned")
        error = notes.get("error", "")
        params: dict[str, Any] = {}
        for key, value in frozen.params.items():
            of_choices = not isinstance(self.settings.ranges.get(key), Between)
            params[key] = json.loads(value) if of_choices else value
        return Trial(
            name=self.folder(frozen.number).name,
            state="failed" if error else state,
            value=notes.get("value"),
            params=params,
            epochs=notes.get("epochs", len(frozen.intermediate_values)),
            seconds=round(frozen.duration.total_seconds(), 1) if frozen.duration else 0.0,
            values=dict(frozen.intermediate_values),
            error=error,
        )

    def ranked(self) -> list[Trial]:
        """The trials with the best first; the pruned ones after the others, those without a value last."""
        sign = -1 if self.mode == "max" else 1

        def place(trial: Trial) -> tuple[bool, bool, float]:
            value = math.inf if trial.value is None else sign * trial.value
            return trial.value is None, trial.state != "complete", value

        return sorted(self.trials(), key=place)

    def best(self) -> Trial | None:
        """The best of the trials that ran to their end."""
        found = [trial for trial in self.ranked() if trial.state == "complete"]
        return found[0] if found else None

    def left(self) -> int:
        """Trials that are still to be begun: those that were interrupted do not count."""
        return self.settings.trials - sum(trial.state != "interrupted" for trial in self.trials())

    def format(self, value: float | None) -> str:
        """The monitored metric for people."""
        return self.room.format(self.monitor, value)


def read_values(recipe: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """The values of a recipe as a search keeps them: a file's with their version, which makes them a recipe."""
    if isinstance(recipe, Mapping):
        return json.loads(json.dumps(dict(recipe)))
    values = read_recipe(recipe)
    return {"version": version_of(values), **values}


def describe(params: Mapping[str, Any]) -> str:
    """The values of a trial in a line."""
    return ", ".join(f"{key} {short(value)}" for key, value in params.items())


def short(value: Any) -> str:
    """A value with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Optuna's own lines are for who calls it."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"optuna(\..*)?")
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _check_devices(recipe: Recipe) -> None:
    """Refuse more than one process a trial: those that Lightning starts would each run the whole search."""
    devices = recipe.train.devices
    single = devices in (1, "1") or (
        isinstance(devices, Sequence) and not isinstance(devices, str) and len(devices) == 1
    )
    if devices == "auto":
        import torch

        single = recipe.train.accelerator == "cpu" or torch.cuda.device_count() < 2
    if not single or recipe.train.num_nodes > 1:
        raise InputError(
            f"a trial takes one device, and train.devices is {devices!r}; set train.devices=1 (--ray runs several "
            "trials at once)"
        )
