"""Evaluate a file of predictions, of whatever tool, against data: no model is run, and no image is read."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from opsin import data as data_
from opsin import rooms
from opsin.data import Source
from opsin.engine.evaluator import Result
from opsin.errors import InputError, say
from opsin.rooms import Room


def evaluate_predictions(
    predictions: str | Path, data: str | Path, split: str | None = None, *, task: str | None = None, **options: Any
) -> dict[str, float]:
    """The metrics of a file of predictions, or of a folder of them, on a split of data, by the field's official rules.

    predictions: what another tool or `opsin predict` wrote; the task says which forms it reads. data: what opens with
    the truth. split: as of `evaluate`. task: whose answers they are; that of the data if None. options: the task's, as
    `iou` and `protocol` of boxes. Raises InputError for a file that is not understood as a whole.
    """
    return score(predictions, data, split, task=task, **options).metrics


def score(
    predictions: str | Path, data: str | Path, split: str | None = None, *, task: str | None = None, **options: Any
) -> Result:
    """`evaluate_predictions`, with everything that was found."""
    path = Path(predictions).expanduser()
    if not path.exists():
        raise InputError(f"no file or folder at {predictions}")
    room = scoring_room(rooms.find_room(task or data_.recognize_task(data)))
    read: Any = rooms.load(room.scores or "")
    given = room.check_options("eval", options, f"evaluation of {predictions}")
    known = inspect.signature(read).parameters
    opening = {one.name: given[one.name] for one in room.options.get("eval", ()) if one.opens and one.name in given}
    for name in given.keys() - opening.keys():
        if name not in known:
            raise InputError(f"{name} is for the evaluation of a run; {predictions} holds answers")
    source = data_.open(data, room.task, stated=True, **opening)
    _say_problems(source)
    name = split or next((n for n in ("test", "val", "all") if n in source.splits), "train")
    if name not in source.splits:
        raise InputError(f"{source.name} has no split {name!r}; it has {', '.join(source.splits)}")
    result: Result = read(path, source, name, **{key: value for key, value in given.items() if key in known})
    chosen = source.splits[name]
    result.shown = {key: room.format(key, value) for key, value in result.metrics.items()}
    classes = f", {len(source.classes):,} classes" if source.classes else ""
    result.data = f"{path.name} on {source.name}, {name}: {len(chosen):,} {chosen.inputs.noun}s{classes}{result.data}"
    return result


def scoring_room(room: Room) -> Room:
    """The room that reads a task's files of predictions: its own, or that of the task whose evaluation it borrows.

    Raises InputError where none does.
    """
    own = room if room.scores is not None else rooms.evaluating_room(room)
    if own.scores is None:
        able = [one.task for one in rooms.built_in_rooms() if one.scores is not None]
        raise InputError(f"{room.task} evaluates no file of predictions; {' and '.join(able)} do")
    return own


def _say_problems(source: Source) -> None:
    """Errors in the truth change the result, so a line says so."""
    wrong = [problem for problem in source.problems if problem.severity == "error"]
    if wrong:
        more = f", and {len(wrong) - 1:,} more: opsin data {source.name} lists them" if wrong[1:] else ""
        say(f"the truth has errors: {wrong[0].path}: {wrong[0].reason}{more}")
