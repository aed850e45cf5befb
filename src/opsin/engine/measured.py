"""What training steps measure before a training begins: its batch size and its learning rate, where they are "auto"."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from opsin.data import Split
from opsin.data.loading import ImageLoader
from opsin.engine.automatic import measured_together
from opsin.engine.batch_size import find_batch_size
from opsin.engine.learning_rate import LearningRates, range_test
from opsin.engine.recipe import load_recipe
from opsin.engine.run import RunFolder
from opsin.engine.task import Task
from opsin.errors import InputError

Say = Callable[[str], None]
CreateLoader = Callable[[Task, Split], ImageLoader]  # of the batches that a task is trained on


def measure(
    task: Task, splits: Mapping[str, Split], folder: RunFolder, wanted: Collection[str], create: CreateLoader, say: Say
) -> None:
    """Put what was measured into the task's recipe, in the place of the keys that are wanted, and say what it is.

    All processes of a distributed training get what the first one found.
    """
    if not wanted:
        return
    split = task.predictor.prepare_split(splits["train"])

    def find() -> dict[str, Any]:
        values: dict[str, Any] = {}
        if "train.batch_size" in wanted:
            found, line = find_batch_size(task, split)
            values |= found
            say(line)
            _enter(task, found)
        if "optim.lr" in wanted:
            values["optim.lr"] = find_learning_rate(task, split, folder, create, say).suggestion
        return values

    _enter(task, measured_together(wanted, find))


def find_learning_rate(task: Task, split: Split, folder: RunFolder, create: CreateLoader, say: Say) -> LearningRates:
    """The range test of a task on a prepared split, its curve written into the run's folder."""
    if task.stages():
        raise InputError(f"{task.recipe.model.name} is trained in stages, which the learning-rate test does not cover")
    found = replace(range_test(task, create(task, split)), path=folder.path)
    found.write(folder)
    say(found.describe())
    return found


def _enter(task: Task, values: Mapping[str, Any]) -> None:
    task.facts.recipe = load_recipe(task.recipe.model_dump(), values)
