"""Ablation and race: which part of a recipe matters, and which of several recipes is best, over several seeds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from opsin import errors, rooms
from opsin.engine.budget import Pace, measure_pace, read_seconds
from opsin.engine.callbacks import StoppedError
from opsin.engine.comparison import Comparison, Found, Side
from opsin.engine.comparison_report import write_comparison_report
from opsin.engine.own_metrics import monitored
from opsin.engine.recipe import Recipe, load_recipe, parse_setting, parse_yaml
from opsin.engine.search import read_values
from opsin.engine.trainings import Say, Trained, Wanted, make_home, run_all
from opsin.errors import InputError, JobError, unknown
from opsin.files import atomic, read_regular

# Whose change would make another competition: other images to evaluate on, or another measure.
_FIXED = {
    *("task", "imports", "version", "train.monitor", "train.seed", "train.devices", "train.num_nodes"),
    *(f"data.{key}" for key in ("source", "val_fraction", "test_fraction", "split", "split_seed", "skip_bad")),
}
_SAME = ("source", "val_fraction", "test_fraction", "split", "split_seed", "limit")  # of the data of a race
_FILE = "comparison.yaml"


@dataclass
class Settings:
    """What a comparison was begun with, as comparison.yaml holds it.

    recipes: of an ablation its one recipe, by name; of a race all. switches: "KEY=VALUE; KEY=VALUE" each. budget:
    seconds; epochs, lengths: what it was measured to mean, of an ablation for all, and the keys of each side. cache:
    the folder of the trainings, within the comparison's own if None.
    """

    kind: str
    recipes: dict[str, Any]
    overrides: dict[str, Any] = field(default_factory=dict)
    switches: list[str] = field(default_factory=list)
    seeds: int = 3
    budget: float | None = None
    metric: str | None = None
    split: str = "val"
    level: float = 0.95
    bits: int | None = None
    cache: str | None = None
    epochs: float | None = None
    lengths: dict[str, dict[str, Any]] = field(default_factory=dict)

    def sides(self) -> list[Side]:
        """The sides; of an ablation the recipe itself comes first."""
        if self.kind == "race":
            return [Side(name, recipe, self.overrides) for name, recipe in self.recipes.items()]
        ((name, recipe),) = self.recipes.items()
        turned = [Side(_label(text), recipe, {**self.overrides, **read_switch(text)}) for text in self.switches]
        return [Side(name, recipe, self.overrides), *turned]

    def wanted(self) -> list[tuple[str, int, Wanted]]:
        """Every training: side, seed and what to train; seed by seed, so that an early look has all sides."""
        sides, (metric, mode), found = self.sides(), self.compared(), []
        first = sides[0].recipe, sides[0].overrides
        base = load_recipe(*first).train.seed
        for seed in range(base, base + self.seeds):
            for side in sides:
                values = {**side.overrides, **self.lengths.get(side.name, {}), "train.seed": seed}
                name = f"{side.name}, seed {seed}"
                found.append((side.name, seed, Wanted(name, side.recipe, values, metric, mode, self.split, self.bits)))
        return found

    def compared(self) -> tuple[str, str]:
        """The metric without its split, and "max" or "min"."""
        first = self.sides()[0]
        overrides = first.overrides if self.metric is None else {**first.overrides, "train.monitor": self.metric}
        name, mode = monitored(load_recipe(first.recipe, overrides))
        return name.removeprefix("val_"), mode

    def check(self) -> None:
        """Raise InputError for what cannot be compared, before anything is trained."""
        if not 1 <= self.seeds <= 100:
            raise InputError(f"seeds is {self.seeds}; take from 1 to 100, 3 for an interval that says something")
        if not 0 < self.level < 1:
            raise InputError(f"the level of confidence is {self.level}; expected a number such as 0.95")
        if self.bits is not None and not 2 <= self.bits <= 16:
            raise InputError(f"bits is {self.bits}; take from 2 to 16")
        if self.split not in ("val", "test"):
            raise unknown("split to compare on", self.split, ("val", "test"))
        sides = self.sides()
        if len(sides) < 2:
            what = "give a switch: --switch model.residual=false" if self.kind != "race" else "name another recipe"
            raise InputError(f"there is nothing to compare {sides[0].name} with; {what}")
        twice = [one.name for place, one in enumerate(sides) if one.name in [other.name for other in sides[:place]]]
        if twice:
            raise InputError(f"{twice[0]} is given twice")
        loaded = [load_recipe(side.recipe, side.overrides) for side in sides]
        for text in self.switches:
            _check_switch(text, self.compared()[0])
        values = [one.model_dump(mode="json", exclude={"imports"}) for one in loaded]
        if self.kind != "race":
            for side, one in zip(sides[1:], values[1:], strict=True):
                if one == values[0]:
                    raise InputError(f"--switch {side.name} changes nothing: the recipe has that already")
        else:
            _check_race([side.name for side in sides], loaded)
            if self.compared()[0] == "loss":
                raise InputError("recipes are compared by a metric, and theirs is the loss, which each has its own of; "
                                 "give --metric")  # fmt: skip


def read_switch(text: str) -> dict[str, Any]:
    """The keys that a switch sets: "model.residual=false", or several with "; " between them."""
    parts = [part for part in text.split(";") if part.strip()]
    if not parts:
        raise InputError(f"--switch takes KEY=VALUE, for example model.residual=false; got {text!r}")
    return dict(parse_setting(part.strip()) for part in parts)


def _label(text: str) -> str:
    return "; ".join(part.strip() for part in text.split(";") if part.strip())


def _check_switch(text: str, metric: str) -> None:
    for key in read_switch(text):
        if key in _FIXED:
            raise InputError(f"--switch {key}: both sides must see the same images and be measured alike; use --set")
        if metric == "loss" and key.startswith(("loss.", "mixing.")):
            raise InputError(f"--switch {key} changes what the loss measures, by which is compared; give --metric")


def _check_race(names: Sequence[str], loaded: Sequence[Recipe]) -> None:
    first = loaded[0]
    for name, one in zip(names[1:], loaded[1:], strict=True):
        if one.task != first.task:
            raise InputError(f"{names[0]} is of {first.task} and {name} of {one.task}; a race is within one task")
        for key in _SAME:
            mine, other = getattr(first.data, key), getattr(one.data, key)
            if mine != other:
                raise InputError(
                    f"{names[0]} has data.{key}={mine} and {name} has {other}; set one for all: --set data.{key}={mine}"
                )


def ablate(
    recipe: str | Path | Mapping[str, Any] | None = None,
    switches: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    *,
    seeds: int | None = None,
    budget: str | float | None = None,
    metric: str | None = None,
    split: str = "val",
    level: float = 0.95,
    bits: int | None = None,
    parallel: int = 1,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    cache: str | Path | None = None,
    say: Say = errors.say,
) -> Comparison:
    """Train a recipe as it is, and once more with each switch turned, all with the same seeds and the same budget.

    recipe, overrides: as `opsin.train` takes them; the overrides hold for all sides. switches: "model.residual=false"
    each, or several keys as one with "; " between them. seeds: trainings of each side, 3 if not given, the first with
    the recipe's own seed. budget: the longest that a training may take, "3m": where the slowest side would take longer,
    all have fewer epochs, the same for each. metric: the one that is compared; the recipe's monitored one if None.
    split: "val", or "test" for a figure to quote. level: of the intervals. bits: of weights and maps when
    the trained models are evaluated, see `opsin.engine.few_bits`. parallel: trainings at once, in processes of their
    own. out: the folder to make, ablate/<name> if None. resume: a comparison to go on with; switches and seeds then add
    to it. cache: the folder of trainings, which several may share. Raises InputError before a training, JobError after.
    """
    name = "" if recipe is None else _name(recipe, overrides)
    recipes = {} if recipe is None else {name: read_values(recipe)}
    asked = Settings(
        "ablation", recipes, dict(overrides or {}), [_label(one) for one in switches], seeds or 3, metric=metric,
        split=split, level=level, bits=bits, cache=None if cache is None else str(cache),
    )  # fmt: skip
    asked.budget = None if budget is None else read_seconds(budget)
    if resume is None:
        return _run(_create(asked, out, name), asked, parallel, say)
    path, held = _open(resume, "ablation")
    if recipe is not None or overrides or budget is not None or out is not None:
        raise InputError("a comparison that is resumed has its recipe already; give --switch and --seeds alone, if any")
    held.switches += [one for one in asked.switches if one not in held.switches]
    held.seeds = max(held.seeds, seeds or 0)
    held.check()
    return _run(path, held, parallel, say)


def race(
    recipes: Sequence[str | Path | Mapping[str, Any]] = (),
    overrides: Mapping[str, Any] | None = None,
    *,
    budget: str | float | None = None,
    seeds: int | None = None,
    metric: str | None = None,
    split: str = "val",
    level: float = 0.95,
    bits: int | None = None,
    parallel: int = 1,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    cache: str | Path | None = None,
    say: Say = errors.say,
) -> Comparison:
    """Train recipes of one task on the same data, each for the same time, and say which is ahead, if any is.

    recipes: at least two, of names, files or values. budget: of each training, "20m"; its epochs, and so its schedule,
    are made to fit, by a few steps that are timed; as long as each recipe says if None. seeds: of each recipe, 3 if not
    given. The rest is as of `ablate`.
    """
    found: dict[str, Any] = {}
    for one in recipes:
        name = _name(one, overrides)
        if name in found:
            raise InputError(f"{name} is given twice")
        found[name] = read_values(one)
    asked = Settings(
        "race", found, dict(overrides or {}), [], seeds or 3, metric=metric, split=split, level=level,
        bits=bits, cache=None if cache is None else str(cache),
    )  # fmt: skip
    asked.budget = None if budget is None else read_seconds(budget)
    if resume is None:
        if not found:
            raise InputError("say which recipes to race: opsin race lenet5_digits resnet20_digits --budget 3m")
        return _run(_create(asked, out, "-".join(list(found)[:3])), asked, parallel, say)
    path, held = _open(resume, "race")
    if found or overrides or budget is not None or out is not None:
        raise InputError("a race that is resumed has its recipes already; give --seeds alone, if anything")
    held.seeds = max(held.seeds, seeds or 0)
    held.check()
    return _run(path, held, parallel, say)


def _name(recipe: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | None) -> str:
    if isinstance(recipe, str | Path):
        return Path(recipe).stem
    loaded = load_recipe(recipe, overrides)
    return f"{loaded.model.name}_{Path(loaded.data.source).name}"


def _create(settings: Settings, out: str | Path | None, name: str) -> Path:
    """A new folder for a comparison: `out`, or the first free of ablate/name, ablate/name-2, ..."""
    if not settings.recipes:
        raise InputError("nothing to ablate: give a recipe (opsin ablate lenet5_digits --switch augment=null)")
    settings.check()
    home = Path("ablate" if settings.kind == "ablation" else "race")
    folder = make_home(home, name, out, _FILE, "a comparison")
    _save(folder, settings)
    return folder


def _open(path: str | Path, kind: str) -> tuple[Path, Settings]:
    """The comparison that a folder holds. Raises InputError where there is none, or one of another kind."""
    file = Path(path) / _FILE
    verb = "ablate" if kind == "ablation" else "race"
    if not file.is_file():
        raise InputError(f"no comparison at {path}: there is no {file}; begin one with: opsin {verb}")
    values = parse_yaml(read_regular(file).decode("utf-8", "replace"), str(file))
    try:
        settings = Settings(**values)
        settings.check()
    except TypeError:
        raise InputError(f"{file} does not hold the settings of a comparison") from None
    if settings.kind != kind:
        other = "ablate" if settings.kind == "ablation" else "race"
        raise InputError(f"{path} holds a comparison of opsin {other}; go on with: opsin {other} --resume {path}")
    return Path(path), settings


def _save(folder: Path, settings: Settings) -> None:
    with atomic(folder / _FILE) as temporary:
        temporary.write_text(yaml.safe_dump(asdict(settings), sort_keys=False, width=120), encoding="utf-8")


def _run(folder: Path, settings: Settings, parallel: int, say: Say) -> Comparison:
    """Do the trainings of a comparison that are left, and write its table and its page."""
    if parallel < 1:
        raise InputError(f"parallel is {parallel}; take 1 or more")
    with _alone(folder):
        _measure(settings, say)
        _save(folder, settings)
        wanted = settings.wanted()
        metric, mode = settings.compared()
        room = rooms.evaluating_room(rooms.find_room(load_recipe(*_first(settings)).task))
        say(f"{len(wanted)} trainings in {folder}; compared by {metric} on {settings.split}")

        def ended(place: int, done: Trained) -> None:
            shown = f"failed: {done.error}" if done.error else f"{metric} {room.format(metric, done.value)}"
            say(f"{done.name}: {shown}, {done.seconds:.0f} s{' (from the cache)' if done.cached else ''}")
            if done.error and done.wrong and place == 0:
                raise InputError(done.error)

        cache = Path(settings.cache) if settings.cache is not None else folder / "trainings"
        try:
            done = run_all([one for _, _, one in wanted], cache, parallel=parallel, say=say, ended=ended)
        except (KeyboardInterrupt, StoppedError):
            verb = "race" if settings.kind == "race" else "ablate"
            raise StoppedError(f"stopped; nothing is lost: opsin {verb} --resume {folder}") from None
        by_side: dict[str, list[Trained]] = {}
        for (name, _, _), one in zip(wanted, done, strict=True):
            by_side.setdefault(name, []).append(one)
        sides = [Found(name, trainings, settings.level) for name, trainings in by_side.items()]
        seeds = list(dict.fromkeys(seed for _, seed, _ in wanted))
        found = Comparison(
            folder, settings.kind, metric, mode, settings.split, room, sides, seeds, settings.level,
            settings=asdict(settings),
        )  # fmt: skip
        return _finish(found, say)


def _finish(found: Comparison, say: Say) -> Comparison:
    if not found.reference.values:
        raise JobError(f"no training of {found.reference.name} ended well: {found.reference.trainings[0].error}")
    found.report = write_comparison_report(found)
    with atomic(found.path / "comparison.json") as temporary:
        temporary.write_text(json.dumps(found.to_dict(), indent=1), encoding="utf-8")
    for line in found.lines():
        say(line)
    say(found.summary())
    say(f"report: {found.report}")
    return found


def _first(settings: Settings) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    side = settings.sides()[0]
    return side.recipe, side.overrides


def _measure(settings: Settings, say: Say) -> None:
    """Turn the budget into epochs of each side, once: what was measured stays with the comparison."""
    if settings.budget is None:
        return
    paces: dict[str, Pace] = {}
    for side in settings.sides():
        if side.name not in settings.lengths:
            paces[side.name] = measure_pace(side.recipe, side.overrides)
            say(f"{side.name}: {paces[side.name].epoch:.1f} s an epoch")
    if settings.kind == "race":
        for side in settings.sides():
            if (pace := paces.get(side.name)) is not None:
                settings.lengths[side.name] = _length(side, pace, pace.epochs_in(settings.budget))
                steps = settings.lengths[side.name]["train.max_steps"]
                say(f"{side.name}: {steps:,} steps in {settings.budget:.0f} s")
        return
    own = load_recipe(*_first(settings)).train.epochs
    if settings.epochs is None:  # switches that come later get as much as those before them
        least = min(pace.epochs_in(settings.budget) for pace in paces.values())
        settings.epochs = min(float(own), float(int(least)) if least >= 1 else least)
        if settings.epochs < own:
            say(f"all have {settings.epochs:g} epochs, not {own}, so that none takes over {settings.budget:.0f} s")
    for side in settings.sides():
        if (pace := paces.get(side.name)) is not None:
            settings.lengths[side.name] = _length(side, pace, settings.epochs) if settings.epochs < own else {}


def _length(side: Side, pace: Pace, epochs: float) -> dict[str, Any]:
    """The keys by which a side is trained for so many epochs; where these are fewer, the warm-up is in proportion."""
    recipe = load_recipe(side.recipe, side.overrides)
    keys: dict[str, Any] = dict(pace.keys(epochs))
    if recipe.schedule.warmup_epochs:
        shorter = recipe.schedule.warmup_epochs * min(1.0, epochs / recipe.train.epochs)
        keys["schedule.warmup_epochs"] = round(shorter, 4)
    return keys


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder, so that no second process trains in it."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / "comparison.lock")
    try:
        with lock.acquire(timeout=0):
            yield
    except Timeout:
        raise InputError(f"another process is training in {folder}; wait for it, or stop it first") from None
