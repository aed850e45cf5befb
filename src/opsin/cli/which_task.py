"""Which task a call of the command is about, found out before its options are read, without torch where it can be."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import BinaryIO

from opsin import rooms
from opsin.cli.early_checks import check_data
from opsin.errors import InputError
from opsin.files import load_json
from opsin.registry import WEIGHT_FILES
from opsin.rooms import Room
from opsin.schemes import find_local

_LARGEST_HEADER = 100_000_000  # bytes, as in the safetensors format
_ANSWERS = ("--predictions", "--detections")  # flags of `eval` that are in the place of a run
_OF_A_MODEL = (".safetensors", ".ckpt", ".onnx", *WEIGHT_FILES)
_OF_ANSWERS = (".txt", ".csv", ".json", ".jsonl", ".xml", ".idl", ".zip")
_LARGEST_TAIL = 10_000_000  # bytes of an .xml in which its metadata is looked for


def find_room(verb: str, arguments: Sequence[str], *, fetch: bool = False) -> Room | None:
    """The room of the run, the data or the `--task` that a call names; None where that is not known.

    fetch: whether a run or data that are named by a scheme may be downloaded for that. A wrong name is left to the
    verb, which says what is wrong with it.
    """
    try:
        if (task := flag_value(arguments, "--task")) is not None:
            return rooms.find_room(task)
        if verb in ("predict", "serve") and (named := _named_parts(arguments)):
            return rooms.find_pipeline(named)
        if verb == "eval" and _names_answers(arguments):
            data = flag_value(arguments, "--data") or flag_value(arguments, "-d")
            task = None if data is None else _task_of_data(data, arguments, fetch)
            return None if task is None else rooms.find_room(task)
        for word in arguments:
            if not word.startswith("-"):
                task = _task_of_data(word, arguments, fetch) if verb == "data" else task_of_run(word, fetch=fetch)
                if task is not None:
                    return rooms.find_room(task)
    except InputError:
        return None
    return None


def _names_answers(arguments: Sequence[str]) -> bool:
    """Whether a call of `eval` gives a file of answers, by a flag or in the place of a run."""
    if any(flag_value(arguments, flag) is not None for flag in _ANSWERS):
        return True
    before = ["", *arguments]
    words = [word for last, word in zip(before, arguments, strict=False) if last not in ("--data", "-d")]
    paths = [Path(word) for word in words if not word.startswith("-") and Path(word).exists()]
    return any(map(holds_answers, paths)) and not any(task_of_run(str(path)) for path in paths)


def holds_answers(path: Path) -> bool:
    """Whether a path that exists is one of answers and not of a run: nothing in it is a recipe, a model or weights."""
    try:
        if path.is_dir():
            inside = [one.name for one in path.iterdir()]
            return not any(name == "recipe.yaml" or Path(name).suffix.lower() in _OF_A_MODEL for name in inside)
        return path.is_file() and path.suffix.lower() in _OF_ANSWERS and task_of_run(str(path)) is None
    except OSError:
        return False


def _named_parts(arguments: Sequence[str]) -> list[str]:
    """The parts of pipelines to which a call gives runs, by their flags."""
    names = dict.fromkeys(name for room in rooms.built_in_rooms() for name in room.parts)
    return [name for name in names if flag_value(arguments, f"--{name}") is not None]


def task_of_run(run: str, *, fetch: bool = False) -> str | None:
    """The task of a run folder, a model file, a task without networks or published weights; None if it is neither.

    fetch: whether a run of a hub may be downloaded.
    """
    path = Path(run)
    try:
        if path.is_dir():
            text = (path / "recipe.yaml").read_text(encoding="utf-8") if (path / "recipe.yaml").is_file() else ""
            found = re.search(r"^task:\s*['\"]?([\w.-]+)", text, re.MULTILINE)
            return found[1] if found else _task_of_file(path / "model.safetensors")
        if path.is_file():
            readers = {".safetensors": _task_of_file, ".onnx": _task_of_onnx, ".xml": _task_of_openvino}
            return readers.get(path.suffix.lower(), lambda path: None)(path)
    except OSError:
        return None
    if run in rooms.list_tasks():
        return run
    if (file := find_local(run, fetch=fetch)) is not None:
        return _task_of_file(file)
    if re.match(r"\w+:", run):
        from opsin import registry

        name = registry.split_weights(run)[0]
        return registry.find_model(name).task if re.fullmatch(r"[\w:]+", name) and registry.is_model(name) else None
    return None


def _task_of_file(path: Path) -> str | None:
    """The task that a model.safetensors states in its header."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = load_json(file.read(min(length, _LARGEST_HEADER)))
        return str(load_json(header["__metadata__"]["opsin"])["recipe"]["task"])
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return None


def _task_of_onnx(path: Path) -> str | None:
    """The task that an exported ONNX file states, found without its weights being read.

    An ONNX file is a protocol buffer, a row of fields with their lengths; field 14 is an entry of the metadata, of
    which field 1 is the key and field 2 the text.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        while file.tell() < size:
            tag, wire = divmod(_varint(file), 8)
            if wire == 0:
                _varint(file)
            elif wire == 2 and tag == 14:
                entry = io.BytesIO(file.read(min(_varint(file), _LARGEST_HEADER)))
                parts = {}
                while entry.tell() < len(entry.getvalue()):
                    field = _varint(entry) // 8
                    parts[field] = entry.read(_varint(entry)).decode("utf-8", "replace")
                if parts.get(1) == "task":
                    return parts.get(2)
            elif wire == 2:
                file.seek(_varint(file), 1)
            else:
                return None
    return None


def _varint(file: BinaryIO) -> int:
    """A whole number of a protocol buffer: seven bits a byte, the lowest first."""
    value = shift = 0
    while shift < 64:
        (byte,) = file.read(1) or b"\0"
        value |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
    return value


def _task_of_openvino(path: Path) -> str | None:
    """The task that an exported OpenVINO file states, near its end."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LARGEST_TAIL))
        found = re.search(rb'<task value="([\w.-]+)"', file.read())
    return found[1].decode() if found else None


def _task_of_data(source: str, arguments: Sequence[str], fetch: bool) -> str | None:
    flags = [word.partition("=")[0][2:].replace("-", "_") for word in arguments if word.startswith("--")]
    if (task := task_of_options(flags)) is not None:
        return task
    check_data(source)
    from opsin import data

    return data.recognize_task(source, fetch=fetch)


def task_of_options(given: Collection[str]) -> str | None:
    """The task of an option of `data` that says it, see `Option.opens` and `decides`; None where none is given."""
    for known in (rooms.built_in_rooms, rooms.all_rooms):
        for room in known() if given else ():
            deciding = [option for option in room.options.get("data", ()) if option.opens or option.decides]
            if any(option.name in given for option in deciding):
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
        if other is not room and any(flag in option.flags for option in other.options.get(verb, ()))
    ]
    if not owners:
        return ""
    here = "this is of no task that opsin knows" if room is None else f"this is {room.task}"
    return f"{flag} is an option of {', '.join(owners)}, and {here}"
