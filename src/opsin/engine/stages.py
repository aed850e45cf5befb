"""A training in stages: each writes its result before the next begins, and what is finished is never done again.

Some models are made in steps, which `Task.stages` gives: a network is fine-tuned, its features are written to disk,
classifiers are fitted to them. A stage's result is a part of the model's state dict; what else it writes stays in its
folder, `stages/<name>/` of the run, for later stages to read. `stages.json` lists what is done, with its time and its
disk, and what it was made from: a run goes on only with the same data and the same recipe.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import track
from safetensors.torch import save_file
from torch import Tensor, nn

from opsin.data import Split
from opsin.data.fingerprint import identify
from opsin.engine.callbacks import StoppedError, on_terminal, read_rows, write_rows
from opsin.engine.checkpoint import read_tensors
from opsin.engine.recipe import DataSection, MixingSection, Recipe, TrainSection, migrate_flat
from opsin.engine.report import Table
from opsin.engine.run import RunFolder
from opsin.engine.task import Stage, Task
from opsin.errors import InputError
from opsin.files import atomic

Say = Callable[[str], None]

# Keys of a recipe that say how a training runs, not what comes of it.
_HOW = ("workers", "accelerator", "devices", "num_nodes", "strategy", "save_every_steps", "logger")
_RESULT = "result.safetensors"
_QUIET = 30.0  # seconds between two lines of progress where there is no terminal


class Fit(Protocol):
    """One training by gradient: it goes on from the folder's last.ckpt, and leaves in the model what the recipe keeps.

    That is the best epoch's weights or the last's; the last's where the splits have no "val" to tell them by.
    """

    def __call__(self, task: Task, splits: Mapping[str, Split], folder: RunFolder, say: Say) -> None: ...


@dataclass(frozen=True)
class Workplace:
    """What a stage works with. folder: its own, which it finds as an interrupted attempt left it."""

    task: Task
    splits: Mapping[str, Split]
    run: RunFolder
    folder: Path
    fit: Fit
    say: Say

    def train(self, splits: Mapping[str, Split], model: nn.Module | None = None) -> None:
        """One training by gradient, as the recipe says, in this stage's folder.

        model: stands in the place of the task's own for that long, such as one that trains a part of it or by another
        loss. It has the same tensors under the same names, so that checkpoints and results are the task's.
        """
        own = self.task.model
        self.task.model = self.task.predictor.model = own if model is None else model  # what validates it, too
        try:
            self.task.train()  # Lightning leaves the mode as it is
            self.fit(self.task, splits, RunFolder(self.folder), self.say)
        finally:
            if model is not None:
                self.task.model = self.task.predictor.model = own.train(model.training)

    def folder_of(self, stage: str) -> Path:
        """The folder of an earlier stage."""
        return self.folder.parent / stage

    def result_of(self, stage: str) -> dict[str, Tensor]:
        """What an earlier stage made, as it is on disk."""
        return read_tensors(self.folder_of(stage) / _RESULT)[0]


@dataclass
class Record:
    """A stage in stages.json: seconds spent on it over all attempts, bytes of its folder."""

    name: str
    seconds: float = 0.0
    bytes: int = 0
    finished: bool = False


def run_stages(
    stages: Sequence[Stage], task: Task, splits: Mapping[str, Split], run: RunFolder, fit: Fit, say: Say
) -> list[Record]:
    """Run the stages in order, each with the results of those before it in the model.

    A finished one is not run again: its result is read. The epochs of all trainings by gradient are those of the run's
    metrics.csv, counted on. Raises InputError where the folder's results were made from other data or by another
    recipe, and JobError, with the way to go on, where the user stops it.
    """
    origin = {"recipe": _decisive(task.recipe), "data": identify(splits["train"])}
    path = run.path / "stages.json"
    records = _read_records(path, origin, [stage.name for stage in stages])
    run.path.mkdir(parents=True, exist_ok=True)
    run.write_recipe(task.recipe.to_yaml())
    for number, (stage, record) in enumerate(zip(stages, records, strict=True), start=1):
        folder = run.path / "stages" / stage.name
        title = f"stage {number} of {len(stages)}, {stage.name}"
        result = folder / _RESULT
        if record.finished:
            _apply(task, read_tensors(result)[0])
            say(f"{title}: finished before, in {record.seconds:.1f} s")
            continue
        say(title)
        folder.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        try:
            made = stage.run(Workplace(task, splits, run, folder, fit, say))
            with atomic(result) as temporary:
                save_file({k: v.detach().cpu().contiguous() for k, v in made.items()}, temporary)
            record.finished = True
        except (KeyboardInterrupt, StoppedError):
            raise StoppedError(f"stopped in stage {stage.name}; go on with: opsin train --resume {run.path}") from None
        finally:
            record.seconds += time.monotonic() - started
            record.bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            _write_records(path, origin, records)
        _apply(task, made)
        _join_metrics(run, [run.path / "stages" / one.name for one in stages[:number]])
        say(f"{title}: {record.seconds:.1f} s, {record.bytes / 1e6:,.1f} MB on disk")
    return records


def read_records(run: str | Path) -> list[Record]:
    """What a run's stages.json says of each stage. Raises InputError where there is none, or a damaged one."""
    path = Path(run) / "stages.json"
    try:
        return [Record(**row) for row in json.loads(path.read_text(encoding="utf-8"))["stages"]]
    except OSError:
        raise InputError(f"{run} has no stages.json: it was not trained in stages") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}); remove it to run every stage again") from None


def stage_table(records: Sequence[Record]) -> Table:
    """Time and disk of each stage, for a report."""
    rows = [[r.name, f"{r.seconds:,.1f} s", f"{r.bytes / 1e6:,.1f} MB"] for r in records]
    return Table("Stages", ["stage", "time", "disk"], rows)


def write_shards(
    folder: Path, count: int, size: int, make: Callable[[range], Mapping[str, Tensor]], *, title: str, say: Say
) -> list[Path]:
    """Files of tensors, one for every `size` of `count` examples, in order; those that are there are not made again.

    make: the tensors of a range of examples. A file is whole or absent, whenever the process dies.
    """
    ranges = [range(start, min(start + size, count)) for start in range(0, count, size)]
    paths = [folder / f"{number:06d}.safetensors" for number in range(len(ranges))]
    missing = [pair for pair in zip(paths, ranges, strict=True) if not pair[0].exists()]
    if len(missing) < len(paths):
        say(f"{title}: {len(paths) - len(missing)} of {len(paths)} shards were there")
    for path, places in progress(missing, title, say):
        with atomic(path) as temporary:
            save_file({k: v.detach().cpu().contiguous() for k, v in make(places).items()}, temporary)
    return paths


def progress(items: Sequence[Any], title: str, say: Say) -> Iterator[Any]:
    """The items, with a bar on a terminal, else with a line now and then."""
    if on_terminal():
        yield from track(items, title, console=Console(stderr=True), transient=True)
        return
    told = time.monotonic()
    for done, item in enumerate(items):
        if time.monotonic() - told > _QUIET:
            say(f"{title}: {done} of {len(items)}")
            told = time.monotonic()
        yield item


def _decisive(recipe: Recipe) -> dict[str, Any]:
    """What of a recipe changes the result, as flat keys."""
    flat: dict[str, Any] = {}
    for section, values in recipe.model_dump(mode="json").items():
        if isinstance(values, dict):
            flat |= {f"{section}.{key}": value for key, value in values.items()}
        else:
            flat[section] = values
    how = {"version", "imports", *(f"train.{name}" for name in _HOW)}
    return {key: value for key, value in flat.items() if key not in how}


def _read_records(path: Path, origin: Mapping[str, Any], names: Sequence[str]) -> list[Record]:
    """The records of a run's stages, fresh ones where none has begun."""
    if not path.exists():
        return [Record(name) for name in names]
    records = read_records(path.parent)
    made = json.loads(path.read_text(encoding="utf-8"))
    now = origin["recipe"]
    sections = {"train": TrainSection(), "data": DataSection(source=""), "mixing": MixingSection()}
    defaults = {f"{name}.{key}": v for name, one in sections.items() for key, v in one.model_dump(mode="json").items()}
    # A key that there was not yet when the stages were made has its default.
    before = {key: value for key, value in defaults.items() if key in now}
    before |= migrate_flat(made.get("recipe", {}), now["task"])
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    advice = "start another run, or remove its folder stages/ and stages.json"
    if changed:
        key = changed[0]
        raise InputError(
            f"the stages in {path.parent} were made with {key}={before.get(key)!r}, the recipe now has "
            f"{now.get(key)!r}; {advice}"
        )
    if made.get("data") != origin["data"]:
        raise InputError(
            f"the stages in {path.parent} were made from other data than {now['data.source']} is now; {advice}"
        )
    if [record.name for record in records] != list(names):
        raise InputError(
            f"the stages in {path.parent} are {', '.join(r.name for r in records)}, the model's are "
            f"{', '.join(names)}; {advice}"
        )
    return records


def _write_records(path: Path, origin: Mapping[str, Any], records: Sequence[Record]) -> None:
    with atomic(path) as temporary:
        temporary.write_text(json.dumps({**origin, "stages": [asdict(r) for r in records]}, indent=1))


def _join_metrics(run: RunFolder, folders: Sequence[Path]) -> None:
    """The run's metrics.csv, of the rows that the stages in these folders have written."""
    rows: list[dict[str, float]] = []
    for folder in folders:
        before = {key: rows[-1][key] if rows else 0 for key in ("epoch", "step")}
        for row in read_rows(RunFolder(folder).metrics):
            rows.append(row | {key: int(row[key] + count) for key, count in before.items()})
    if rows:
        write_rows(run.metrics, rows)


def _apply(task: Task, part: Mapping[str, Tensor]) -> None:
    """Put a part of the state dict into the model. Raises InputError where it is another model's."""
    own = task.model.state_dict()
    for name, tensor in part.items():
        if name not in own or own[name].shape != tensor.shape:
            raise InputError(f"a stage's result has {name} {tuple(tensor.shape)}, which the model has not")
    task.model.load_state_dict(dict(part), strict=False)
