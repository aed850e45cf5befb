"""Which task a call of the command is about, found out before its options are read, without torch where it can be."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Collection, Sequence
from pathlib import Path

from opsin import rooms
from opsin.cli.early_checks import check_data
from opsin.errors import InputError
from opsin.rooms import Room

_LARGEST_HEADER = 100_000_000  # bytes, as in the safetensors format


def find_room(verb: str, arguments: Sequence[str]) -> Room | None:
    """The room of the run, the data or the `--task` that a call names; None where none can be told.

    A wrong name is left to the verb, which says what is wrong with it.
    """
    try:
        if (task := flag_value(arguments, "--task")) is not None:
            return rooms.find_room(task)
        for word in arguments:
            if not word.startswith("-"):
                task = _task_of_data(word, arguments) if verb == "data" else task_of_run(word)
                if task is not None:
                    return rooms.find_room(task)
    except InputError:
        return None
    return None


def task_of_run(run: str) -> str | None:
    """The task of a run folder, a model.safetensors, a task without networks or published weights; None if neither."""
    path = Path(run)
    try:
        if path.is_dir():
            text = (path / "recipe.yaml").read_text(encoding="utf-8") if (path / "recipe.yaml").is_file() else ""
            found = re.search(r"^task:\s*['\"]?([\w.-]+)", text, re.MULTILINE)
            return found[1] if found else _task_of_file(path / "model.safetensors")
        if path.is_file():
            return _task_of_file(path) if path.suffix == ".safetensors" else None
    except OSError:
        return None
    if run in rooms.list_tasks():
        return run
    name = run.partition(":")[0]
    if ":" in run and re.fullmatch(r"\w+", name):
        from opsin import registry

        return registry.find_model(name).task if registry.is_model(name) else None
    return None


def _task_of_file(path: Path) -> str | None:
    """The task that a model.safetensors states in its header."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, _LARGEST_HEADER)))
        return str(json.loads(header["__metadata__"]["opsin"])["recipe"]["task"])
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return None


def _task_of_data(source: str, arguments: Sequence[str]) -> str | None:
    flags = [word.partition("=")[0][2:].replace("-", "_") for word in arguments if word.startswith("--")]
    if (task := task_of_options(flags)) is not None:
        return task
    check_data(source)
    from opsin import data

    return data.recognize_task(source)


def task_of_options(given: Collection[str]) -> str | None:
    """The task of an option of `data` that says how files are read, see `Option.opens`; None where none is given."""
    for known in (rooms.built_in_rooms, rooms.all_rooms):
        for room in known() if given else ():
            if any(option.opens and option.name in given for option in room.options.get("data", ())):
                return room.task
    return None


def flag_value(arguments: Sequence[str], flag: str) -> str | None:
    """The value that a call gives a flag; None where it gives none."""
    for place, word in enumerate(arguments):
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
        if word == flag and place + 1 < len(arguments):
            return arguments[place + 1]
    return None


def why_unknown(arguments: Sequence[str]) -> str:
    """Why the task of a run that a call names is not known, in words; "" where none is named, or it is known."""
    for run in arguments:
        task = task_of_run(run) if Path(run).exists() else None
        try:
            if task is not None:
                rooms.find_room(task)
        except InputError:
            from opsin.engine.checkpoint import read_model  # which says what the run was made with

            try:
                read_model(run)
            except InputError as error:
                return str(error)
    return ""


def owner_of(verb: str, flag: str, room: Room | None) -> str:
    """Which other tasks have a flag for a verb, in words to append to an error; "" where none has."""
    owners = [
        other.task
        for other in rooms.all_rooms()
        if other is not room and any(flag in (option.flag, option.short) for option in other.options.get(verb, ()))
    ]
    if not owners:
        return ""
    here = "this is of no task that opsin knows" if room is None else f"this is {room.task}"
    return f"{flag} is an option of {', '.join(owners)}, and {here}"
