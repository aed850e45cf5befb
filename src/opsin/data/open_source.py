"""Open a data source by name or path: the formats say which of them it is."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from opsin import rooms
from opsin.data.allowed_folders import bounded, check_allowed
from opsin.data.formats.folders import describe
from opsin.data.formats.format import Format
from opsin.data.source import Source, Split, verify
from opsin.data.torch_dataset import is_dataset, name_splits, source_of
from opsin.data.truth import Problem
from opsin.errors import InputError, name_too_long, nearest, unknown
from opsin.image_files import list_folder, remembering
from opsin.schemes import Scheme, split_scheme

_SHAPE, _SIGNATURE, _BUILT_IN = 1, 2, 3  # the claims of a format


def open_source(
    source: Any,
    task: str = rooms.DEFAULT_TASK,
    *,
    skip_bad: bool = False,
    fetch: bool = True,
    allow: str | Path | Sequence[str | Path] = (),
    **options: Any,
) -> Source:
    """Open a built-in name, a path, a name in the folder that OPSIN_DATA names, or a name with a scheme, in this order.

    Or a data set of another library, or several as splits; see `opsin.data.torch_dataset.source_of`, which takes `name`
    and `classes` too. A name or a path may be such a split: its own of that name, or its only one.

    task: whose formats it may be in; the truth of every split is of the kind that the task learns from. skip_bad: leave
    out files that cannot be read, after reading them all (see `verify`); otherwise nothing is decoded here. options: of
    the formats, of which each takes those that it knows. multi_label, of class labels: they are (N, K) of 0 and 1, and
    sources with one label an image are converted. fetch: whether what a name with a scheme names, torchvision:CIFAR10
    or hf:owner/name, is downloaded where it is not here. allow: folders besides the data's own whose files lists and
    annotations may name, see `opsin.data.allowed_folders`.
    Raises InputError for what does not exist or is in no known format.
    """
    if is_dataset(source):
        named = isinstance(source, Mapping) and any(not is_dataset(part) for part in source.values())
        opened = _open_splits(source, task, fetch, options) if named else source_of(source, task, **options)
        return opened.without(verify(opened)) if skip_bad else opened
    formats = _formats(task)
    if not formats:
        raise InputError(f"{task} reads no data")
    for option in options.keys() - _options(formats):
        known = _options(format_ for room in rooms.built_in_rooms() for format_ in _formats(room.task))
        if option not in known:  # of another task's it says nothing here
            raise unknown("option of data", option, known)
    if (built_in := _built_in(source, formats)) is not None:
        opened = _open(built_in, Path(source), options)
    elif (scheme := _scheme(source)) is not None:
        opened = scheme[0].load("data")(scheme[1], task, options, fetch=fetch, how=_how(source))
    else:
        if not Path(source).exists():
            _refuse_built_in(source, task)
        path = _find(source, _names(formats))
        with bounded(path, [allow] if isinstance(allow, str | Path) else allow):
            opened = _open_path(path, task, formats, options)
            for split in opened.splits.values():
                check_allowed(split.inputs.paths(), path)
        opened.root = str(path if path.is_dir() or zipfile.is_zipfile(path) else path.parent)
    opened.name = opened.name.strip(".") or Path(source).resolve().name  # of the folder "." too
    opened.task = task
    return opened.without(verify(opened)) if skip_bad else opened


def _open_splits(given: Mapping[str, Any], task: str, fetch: bool, options: Mapping[str, Any]) -> Source:
    """One source of names, paths and data sets, as its splits; their classes are those of the training data.

    A data set whose labels are numbers means the classes of what has names.
    """
    parts = name_splits(given, "data")
    of_paths = {key: value for key, value in options.items() if key not in ("name", "classes", "default_classes")}
    opened = {
        key: open_source(part, task, fetch=fetch, **of_paths) for key, part in parts.items() if not is_dataset(part)
    }
    first = next(iter(opened.values()))
    known = {"default_classes": first.classes or None, **options}
    opened |= {key: source_of(part, task, **known) for key, part in parts.items() if key not in opened}
    splits = {key: _own_split(opened[key], key) for key in parts}
    main = opened["train" if "train" in parts else next(iter(parts))]
    for key, split in splits.items():
        if split.truth is not None and main.meaning:
            splits[key] = split.with_truth(split.truth.match(main.meaning))
    formats = dict.fromkeys(one.format for one in opened.values())
    found = Source(main.name, " and ".join(formats), splits, task=task)
    found.problems += [problem for one in opened.values() for problem in one.problems]
    return found


def _own_split(source: Source, key: str) -> Split:
    """A source's own split of a name, or its only one. Raises InputError where it has several, and none of the name."""
    if key in source.splits:
        return source.splits[key]
    if len(source.splits) > 1:
        raise InputError(
            f"{source.name} has the splits {', '.join(source.splits)} and no {key}; give other data as {key}"
        )
    return next(iter(source.splits.values()))


def is_built_in(source: str, task: str) -> bool:
    """Whether a source is built-in data of a task, by its name."""
    return _built_in(source, _formats(task)) is not None


def _scheme(source: str | Path) -> tuple[Scheme, str] | None:
    """The scheme of a name that is no path here, and what follows it; None where it has none that names data."""
    found = None if Path(source).exists() else split_scheme(source)
    if found is None or found[0].data is None:
        return None
    return found


def _how(source: str | Path) -> str:
    return f"--data {source}, or opsin data {source}"


def recognize_task(source: str | Path, *, fetch: bool = True) -> str:
    """The task whose formats claim a name or a path most surely; where that is by its shape alone, the first of them.

    Of a name with a scheme, the first task that learns from what is known of its images; fetch: as of `open_source`.
    Raises InputError for what does not exist, and for what the formats of several tasks claim.
    """
    known = sorted(rooms.all_rooms(), key=lambda room: room.task != rooms.DEFAULT_TASK)  # what several read is its
    tasks = {room.task: _formats(room.task) for room in known if room.formats}
    for task, formats in tasks.items():
        if _built_in(source, formats) is not None:
            return task
    if (scheme := _scheme(source)) is not None:
        truth = scheme[0].load("truth")(scheme[1], fetch=fetch, how=_how(source))
        return next(task for task, formats in tasks.items() if any(one.truth == truth for one in formats))
    path = _find(source, _names(format_ for formats in tasks.values() for format_ in formats))
    with remembering():
        found = {task: _claimed(path, formats) for task, formats in tasks.items()}
    strongest = max(claim for claim, _, _ in found.values())
    best: list[str] = []
    for task, (claim, _, formats) in found.items():  # who reads the very formats of another is no second meaning
        if claim == strongest and not any(formats == found[other][2] for other in best):
            best.append(task)
    if len(best) > 1 and strongest >= _SIGNATURE:
        listed = "; ".join(f"{' and '.join(f.name for f in found[task][2])} to {task}" for task in best)
        raise InputError(f"{path} looks like several formats: {listed}; say which is meant with --task")
    return best[0]


def _formats(task: str) -> list[Format]:
    return [rooms.load(name) for name in rooms.find_room(task).formats]


def _open(format_: Format, path: Path, options: Mapping[str, Any]) -> Source:
    return format_.open(path, **{key: value for key, value in options.items() if key in format_.options})


def _built_in(source: str | Path, formats: Sequence[Format]) -> Format | None:
    """The format of built-in data by its name."""
    return next((one for one in formats if one.names and one.claims(Path(source)) == _BUILT_IN), None)


def _refuse_built_in(source: str | Path, task: str) -> None:
    """Raise InputError for built-in data of another task."""
    own = ", ".join(_names(_formats(task)))
    for room in rooms.built_in_rooms():
        if (found := _built_in(source, _formats(room.task))) is not None:
            advice = f"; to {task}, take {own}" if own else ""
            raise InputError(f"{source} has {found.truth}, for the task {room.task}{advice}")


def _claimed(path: Path, formats: Sequence[Format]) -> tuple[int, Path, list[Format]]:
    """How surely a path is of some of the formats, of which, and where: it may be the only folder in the one given."""
    try:
        claims = [format_.claims(path) for format_ in formats]
        strongest = max(claims, default=0)
        found = strongest, path, [f for f, claim in zip(formats, claims, strict=True) if claim == strongest > 0]
        if strongest < _SIGNATURE and path.is_dir() and (inside := _only_folder(path)) is not None:
            found = max(_claimed(inside, formats), found, key=lambda one: (one[0], one is found))
        return found
    except OSError as error:
        raise _unseen(path, error) from error


def _unseen(path: Path, error: OSError) -> InputError:
    """The error for a source of which the system does not show something."""
    if too_long := name_too_long(error):
        return InputError(f"{path}: {too_long}")
    return InputError(f"cannot look into {path}: {(error.strerror or str(error)).lower()}")


def _only_folder(path: Path) -> Path | None:
    """The folder within a folder where there is but one."""
    inside = [path / name for name in list_folder(path)[1]]
    return inside[0] if len(inside) == 1 else None


def _open_path(path: Path, task: str, formats: Sequence[Format], options: Mapping[str, Any]) -> Source:
    with remembering():
        claim, where, found = _claimed(path, formats)
    if not found:
        *rest, last = [format_.expects for format_ in formats if format_.expects] or ["a built-in name"]
        kinds = " or ".join(dict.fromkeys(format_.truth for format_ in formats))
        empty = path.is_dir() and not any(path.iterdir())
        what = "empty" if empty else f"{'a folder' if path.is_dir() else 'a file'} of no known format of {kinds}"
        looks = "" if empty else _other_task(path, task) or (describe(path) if path.is_dir() else "")
        raise InputError(f"{path} is {what}; expected {', '.join([*rest, f'or {last}' if rest else last])}{looks}")
    taken, *others = found
    if claim < _SIGNATURE and taken.insists and not options.get(taken.insists):
        _refuse_claimed(path, task, taken)
    try:
        opened = _open(taken, where, options)
    except OSError as error:
        raise _unseen(path, error) from error
    if others and claim >= _SIGNATURE:
        listed = " and ".join(format_.name for format_ in others)
        reason = f"it also looks like {listed}; {taken.name} is read. Give the file itself for another"
        opened.problems.append(Problem("several_formats", str(where), reason, "note"))
    return opened


def _other_task(path: Path, task: str) -> str:
    """What another task reads a path as, in words to append to an error; "" where none does surely."""
    for room in rooms.built_in_rooms():
        if room.task != task and room.formats:
            claim, _, found = _claimed(path, _formats(room.task))
            if claim >= _SIGNATURE:
                return f"; it looks like {found[0].name} ({found[0].truth}), for the task {room.task}"
    return ""


def _refuse_claimed(path: Path, task: str, taken: Format) -> None:
    """Raise InputError for what a format of another task claims more surely than the one that would be taken."""
    for room in rooms.built_in_rooms():
        if room.task == task or not room.formats:
            continue
        with remembering():
            claim, _, found = _claimed(path, _formats(room.task))
        if claim >= _SIGNATURE:
            flag = f"--{taken.insists.replace('_', '-')}"
            raise InputError(
                f"{path} looks like {found[0].name} ({found[0].truth}), for the task {room.task}; to {task} by its "
                f"folders all the same, set {task}.{taken.insists}=true (opsin data: {flag})"
            )


def _options(formats: Iterable[Format]) -> set[str]:
    return {option for format_ in formats for option in format_.options}


def _names(formats: Iterable[Format]) -> list[str]:
    return list(dict.fromkeys(name for format_ in formats for name in format_.names))


def _find(source: str | Path, built_in: Sequence[str]) -> Path:
    path = Path(source).expanduser()
    if path.exists() and str(source):
        return path
    home = os.environ.get("OPSIN_DATA")
    if home and not path.is_absolute() and str(source):
        inside = Path(home) / path
        if inside.exists():
            return inside
    names = [p.name for p in Path(home).iterdir() if p.is_dir()] if home and Path(home).is_dir() else []
    is_path = len(path.parts) > 1 or path.suffix or str(source).endswith(("/", os.sep))
    if str(source) and (is_path or not nearest(source, [*built_in, *names], cutoff=0.7)):
        listed = f"; built-in data has a name: {', '.join(built_in)}" if built_in and not is_path else ""
        raise InputError(f"no file or folder at {source}{listed}")
    raise unknown("data source", source, [*built_in, *names])
