"""Many trainings for one comparison: each is done once, kept in a cache by what decides its result, and resumed.

The cache is a folder of run folders. The name of one is a digest of the whole recipe, of the data as it was divided,
and of opsin's version: who trains the same again gets what is there.
"""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

from opsin import objects, rooms
from opsin.engine.callbacks import StoppedError, read_rows
from opsin.engine.few_bits import evaluate_quantized
from opsin.engine.recipe import Recipe, load_recipe
from opsin.engine.run import RunFolder
from opsin.engine.starting import given_keys
from opsin.engine.train import Run, run_recipe
from opsin.engine.train_log import train_log
from opsin.engine.trial import saved_value
from opsin.errors import InputError, JobError
from opsin.files import atomic
from opsin.schemes import naming
from opsin.version import __version__

Say = Callable[[str], None]

_RESULT = "trained.json"
# Keys of a recipe that change nothing of what is learned.
_INDIFFERENT = {"train": ("workers", "logger", "save_every_steps"), "data": ("allow", "changes")}


@dataclass(frozen=True)
class Wanted:
    """A training to do; plain values, which another process can take.

    recipe, overrides: as `opsin.train` takes them. metric: its value is what is compared, without the split before it;
    mode: "max" or "min", which way is up. split: "val" or "test", on which the trained model is evaluated. bits: of its
    weights and maps when it is, see `opsin.engine.few_bits`; as it was trained if None.
    """

    name: str
    recipe: Mapping[str, Any]
    overrides: Mapping[str, Any]
    metric: str
    mode: str
    split: str = "val"
    bits: int | None = None

    def load(self) -> Recipe:
        """The recipe in effect."""
        return load_recipe(self.recipe, self.overrides)

    def key(self, data: str) -> str:
        """16 hexadecimal digits of all that decides the result. data: a digest of the divided data."""
        values = self.load().model_dump(mode="json")
        for section, names in _INDIFFERENT.items():
            for name in names:
                values[section].pop(name)
        given = given_keys(self.recipe, self.overrides)
        parts = [values, None if given is None else sorted(given), data, self.split, __version__]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Trained:
    """How a training ended. value: of the metric, None where it failed, then with the error in words.

    metrics: all of the split. history: a row an epoch. seconds: of its epochs. cached: it was there before.
    """

    name: str
    path: Path
    value: float | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    history: Sequence[Mapping[str, float]] = field(default_factory=list, repr=False)
    seconds: float = 0.0
    error: str = ""
    wrong: bool = False
    cached: bool = False

    def to_dict(self) -> dict[str, Any]:
        """For machines; without the history, which is in the metrics.csv of its folder."""
        kept = ("name", "value", "metrics", "seconds", "error")
        return {"run": str(self.path), **{key: getattr(self, key) for key in kept}, "epochs": len(self.history)}


def run_all(
    wanted: Sequence[Wanted],
    cache: Path,
    *,
    parallel: int = 1,
    say: Say,
    ended: Callable[[int, Trained], None] | None = None,
) -> list[Trained]:
    """Do all trainings, in order or `parallel` at once in processes of their own; what the cache holds is not repeated.

    ended: called with the place and the result of each as it ends. A training that fails is a result with an error; the
    others go on. Raises StoppedError where the user stops it: what was trained so far is kept.
    """
    cache.mkdir(parents=True, exist_ok=True)
    digests: dict[str, str] = {}
    folders = [cache / one.key(_data_digest(one, digests)) for one in wanted]
    ended = ended or (lambda place, done: None)
    if parallel == 1:
        found = []
        for place, (one, folder) in enumerate(zip(wanted, folders, strict=True)):
            found.append(train_one(one, folder, say))
            ended(place, found[-1])
        return found
    return _in_processes(wanted, folders, parallel, say, ended)


def train_one(wanted: Wanted, folder: Path, say: Say, watching: Sequence[Callback] = ()) -> Trained:
    """One training: from the cache, or from its last checkpoint, or anew. What goes wrong is its result."""
    done = _train(wanted, folder, say, watching)
    if wanted.bits is None or done.error:
        return done
    metrics = _in_few_bits(folder, wanted.split, wanted.bits)
    value = metrics.get(wanted.metric)
    error = "" if value is not None else f"no {wanted.metric} in {wanted.bits} bits"
    return replace(done, value=value, metrics=metrics, error=error)


def _in_few_bits(folder: Path, split: str, bits: int) -> dict[str, float]:
    """What the evaluation with few bits gives, kept beside the training."""
    file = folder / f"bits{bits}_{split}.json"
    try:
        return {str(name): float(value) for name, value in json.loads(file.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        metrics = evaluate_quantized(folder, split, bits)
    with atomic(file) as temporary:
        temporary.write_text(json.dumps(metrics, indent=1), encoding="utf-8")
    return metrics


def _train(wanted: Wanted, folder: Path, say: Say, watching: Sequence[Callback]) -> Trained:
    if (known := _known(wanted, folder)) is not None:
        return known
    settings: dict[str, Any] = {"watching": watching, "test": wanted.split == "test", "say": train_log(folder, say)}
    try:
        if RunFolder(folder).recipe.is_file():  # it was interrupted, perhaps before its first checkpoint
            run = run_recipe(resume=folder, **settings)
        else:
            run = run_recipe(wanted.recipe, wanted.overrides, out=folder, **settings)
    except StoppedError:
        raise
    except (InputError, JobError) as error:
        return Trained(wanted.name, folder, None, error=str(error), wrong=isinstance(error, InputError))
    except torch.OutOfMemoryError:
        return Trained(wanted.name, folder, None, error="the device has not enough memory for it")
    value = _value(wanted, run)
    if value is None:
        return Trained(wanted.name, folder, None, run.metrics, run.history, error=f"no finite {wanted.metric}")
    seconds = round(sum(row.get("seconds", 0.0) for row in run.history), 2)
    with atomic(folder / _RESULT) as temporary:
        kept = {"metrics": run.metrics, "seconds": seconds, "split": run.split, "loss": _loss(wanted, run)}
        temporary.write_text(json.dumps(kept, indent=1), encoding="utf-8")
    return Trained(wanted.name, folder, value, run.metrics, run.history, seconds)


def _value(wanted: Wanted, run: Run) -> float | None:
    """The metric of the model that a run saved, on the split that is asked for."""
    if run.split == wanted.split and math.isfinite(value := run.metrics.get(wanted.metric, math.nan)):
        return value
    return _loss(wanted, run) if wanted.split == "val" else None


def _loss(wanted: Wanted, run: Run) -> float | None:
    """The column of metrics.csv, for what the whole evaluation does not give, as the loss."""
    last = load_recipe(run.path / "recipe.yaml").train.keep == "last"
    return saved_value(run, f"val_{wanted.metric}", wanted.mode, last=last, staged=False)


def _known(wanted: Wanted, folder: Path) -> Trained | None:
    """What the cache holds of a training that ended."""
    try:
        held = json.loads((folder / _RESULT).read_text(encoding="utf-8"))
        metrics = {str(name): float(value) for name, value in held["metrics"].items()}
        value = metrics.get(wanted.metric, held["loss"])
        history, seconds = read_rows(RunFolder(folder).metrics), float(held["seconds"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return None if value is None else Trained(wanted.name, folder, value, metrics, history, seconds, cached=True)


def _data_digest(wanted: Wanted, known: dict[str, str]) -> str:
    """A digest of the data of a training as it is divided for it; "" of what has no digests."""
    recipe = wanted.load()
    room = rooms.find_room(recipe.task)
    place = json.dumps([recipe.task, recipe.data.model_dump(mode="json"), str(getattr(recipe, recipe.task, ""))])
    if place not in known:
        if room.trains is None:
            raise InputError(f"{recipe.task} trains nothing, so that nothing of it can be compared")
        if objects.is_object(recipe.data.source):
            raise InputError("data that is given as an object cannot be found again by a cache; give a path or a name")
        with naming(wanted.overrides, wanted.recipe):
            source = rooms.load(room.trains).open(recipe, lambda line: None)
        members = getattr(source.division, "members", None)
        known[place] = "" if members is None else hashlib.sha256(members.pack()).hexdigest()
    return known[place]


def make_home(home: Path, name: str, out: str | Path | None, file: str, noun: str) -> Path:
    """A new folder for several trainings: `out`, or the first free of home/name, home/name-2, ...

    file: by whose presence a folder holds such already; noun: what it is called then, "a design". Raises InputError
    for a folder that is not new or cannot be made.
    """
    folder, number = home / name if out is None else Path(out), 1
    while out is None and folder.exists():
        number += 1
        folder = home / f"{name}-{number}"
    if (folder / file).exists():
        raise InputError(f"{folder} already holds {noun}; continue it with --resume {folder}, or choose another --out")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is {'not empty' if folder.is_dir() else 'a file'}; choose another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror}; choose another --out") from None
    return folder


# In processes of their own


def _in_processes(
    wanted: Sequence[Wanted], folders: Sequence[Path], parallel: int, say: Say, ended: Callable[[int, Trained], None]
) -> list[Trained]:
    found: dict[int, Trained] = {}
    threads = max(1, (os.cpu_count() or 1) // parallel)
    first: dict[Path, int] = {}
    for place, folder in enumerate(folders):
        first.setdefault(folder, place)  # two that are the same training are one
    with _pool(parallel, threads) as pool:
        futures: dict[Future[Trained], int] = {
            pool.submit(_train_quietly, wanted[place], folders[place]): place for place in first.values()
        }
        try:
            for future in as_completed(futures):
                place = futures[future]
                found[place] = future.result()
                ended(place, found[place])
        except (KeyboardInterrupt, StoppedError):
            say("stopping: each training writes its checkpoint first")
            pool.shutdown(wait=True, cancel_futures=True)
            raise StoppedError("stopped") from None
        except BaseException:  # what is under way ends; nothing new is begun
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [found[first[folder]] for folder in folders]


@contextmanager
def _pool(parallel: int, threads: int) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes, each with its share of the cores, which import what this one was told to."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(parallel, mp_context=context, initializer=_begin, initargs=(threads,)) as pool:
        yield pool


def _begin(threads: int) -> None:
    torch.set_num_threads(threads)
    rooms.import_inherited()


def _train_quietly(wanted: Wanted, folder: Path) -> Trained:
    return train_one(wanted, folder, lambda line: None)
