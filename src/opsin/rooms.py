"""Tasks by name, and what each brings: its networks, what trains, predicts and evaluates them, its options.

A task is declared by one `Room`, in a file that imports neither torch nor its networks. The built-in ones are listed
here; another package brings its own by an entry point of the group `opsin.rooms`, by `opsin.register`, or by
`opsin --import PACKAGE`. What it names by "module:name" is imported when it is asked for.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from opsin import errors
from opsin.errors import InputError, nearest, unknown

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

BUILT_IN: Mapping[str, str] = {
    "classify": "opsin.classify.room:ROOM",
    "detect": "opsin.detect.room:ROOM",
    "segment": "opsin.segment.room:ROOM",
    "read": "opsin.read.room:ROOM",
    "pages": "opsin.read.page_room:ROOM",
    "track": "opsin.track.room:ROOM",
    "embed": "opsin.embed.room:ROOM",
    "landmark": "opsin.landmark.room:ROOM",
    "sequence": "opsin.sequence.room:ROOM",
    "render": "opsin.render.room:ROOM",
    "adapt": "opsin.adapt.room:ROOM",
}
DEFAULT_TASK = "classify"  # of a recipe that names none
GROUP = "opsin.rooms"  # of entry points: the task's name = "package.module:ROOM"
_VARIABLE = "OPSIN_IMPORT"  # hands the packages of --import on to the processes that this one starts
_NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Metric:
    """A number that an evaluation gives.

    name: or a pattern, as "recall@*". better: which way is up; None where neither is. unit, scale, digits: how it is
    written for people, value * scale with so many digits; a share as percent with unit "%" and scale 100. brief: shown
    in the line of every epoch, beside the losses and the monitored one; of several the first.
    """

    name: str
    better: Literal["higher", "lower"] | None = "higher"
    unit: str = ""
    scale: float = 1.0
    digits: int = 4
    brief: bool = False

    def format(self, value: float) -> str:
        """The value for people: `98.61 %`, `31.20 dB`, `0.0512`."""
        shown = value * self.scale
        text = f"{shown:.{self.digits}f}" if abs(shown) < 1e6 else f"{shown:.3g}"
        return f"{text} {self.unit}".rstrip()


def share(name: str, better: Literal["higher", "lower"] | None = "higher", *, brief: bool = False) -> Metric:
    """A metric in [0, 1], written as percent."""
    return Metric(name, better, "%", 100.0, 2, brief)


@dataclass(frozen=True)
class Option:
    """An option of one verb, declared once: flag, Python keyword, check and help.

    type: bool, int, float or str; of a repeatable one that of each value. minimum, maximum: of numbers, both allowed.
    opens: of `data`, that it says how the files are read: it is handed to the formats, and given, it says the task; of
    `eval` the first, for a file of predictions. decides: of `data`, that it says the task where it is given, and
    nothing of how files are read.
    also: another name that it had before, which is taken still. fits: of `eval`, that something is fitted by it and
    kept with the model: it takes validation data where the run has some, and never test data. writes: of `predict`, a
    file that all answers together are written to at the end, by `to_<name>` of their list. local: it names files of
    this machine, so that who starts `opsin serve` may give it, and who asks the server may not.
    """

    name: str
    type: type
    help: str
    default: Any = None
    minimum: float | None = None
    maximum: float | None = None
    metavar: str | None = None
    short: str | None = None
    repeatable: bool = False
    opens: bool = False
    decides: bool = False
    also: str | None = None
    fits: bool = False
    writes: bool = False
    local: bool = False

    @property
    def flag(self) -> str:
        """As it is written on the command line: `--iou-threshold`."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def flags(self) -> list[str]:
        """All forms that the command line takes."""
        also = f"--{self.also.replace('_', '-')}" if self.also else None
        return [flag for flag in (self.flag, also, self.short) if flag]

    def check(self, value: Any) -> Any:
        """The value, if it can be one of this option. Raises InputError that names the option and what it takes."""
        if value is None:
            return None
        several = list(value) if self.repeatable and isinstance(value, list | tuple) else [value]
        for one in several:
            fits = isinstance(one, self.type) or (self.type is float and isinstance(one, int))
            if not fits or (isinstance(one, bool) and self.type is not bool):
                raise InputError(f"{self.name} is {one!r}; expected a value of type {self.type.__name__}")
            low, high = self.minimum, self.maximum
            if (low is not None and not one >= low) or (high is not None and not one <= high):
                limits = f"from {low:g} to {high:g}" if None not in (low, high) else f"of at least {low:g}"
                raise InputError(f"{self.name} is {one!r}; expected a number {limits}")
        return value


@dataclass(frozen=True, eq=False)
class Room:
    """One task. What is a string "module:name" is imported when it is asked for; None: the task has no such thing.

    networks: a module whose import registers the task's networks. formats: of data, `opsin.data.formats` or others.
    reads: a `TargetReader` of `opsin.data.torch_dataset`, for data sets of other libraries, given in Python.
    adapts: an `Adapter` of `opsin.engine.own_parts`, which trains networks of the user's own.
    trains, predicts, evaluates: a `Task`, a `Predictor` and an `Evaluator` of `opsin.engine`. borrows: the task whose
    evaluation it takes, where it has none. scores: a function (path, source, split, **options) -> `Result`, which reads
    a file of predictions and evaluates it against a split of the source; options: those of "eval" that it has
    parameters for. section: its part of a recipe, a pydantic model, which stands there under
    the task's name; moved: keys of recipes that were elsewhere before, old key -> key of the section. defaults: section
    -> keys of a recipe whose defaults differ for this task. starts: a function that chooses what the flags of a
    training leave open, for the data, see `opsin.engine.starting`.
    metrics: every number that its evaluation gives. monitor: that of validation by which the best epoch is chosen.
    options: of the verbs predict, eval and data. checks: a function (source, name, split, options) -> findings by their
    key, which `opsin data` runs beside its own. examples: of calls, shown under the help of a verb. commands: verbs of
    its own, name -> "module:function". parts: of a pipeline, the runs that it is made of in the order of their work,
    name -> task; a name is a flag of `opsin predict` and a keyword of `opsin.load_pipeline`. not_built: patterns of
    files that describe networks and are not built -> a function of the file's name that says, in words, what there is
    in their place. hub_tag: what model hubs call the task, "image-classification". given: what `predict` takes:
    "files", all of which must be there before a model is loaded, or "anything": the `Predictor` says what it means.
    """

    task: str
    help: str
    networks: str | None = None
    formats: tuple[str, ...] = ()
    reads: str | None = None
    adapts: str | None = None
    trains: str | None = None
    predicts: str | None = None
    evaluates: str | None = None
    borrows: str | None = None
    scores: str | None = None
    section: str | None = None
    moved: Mapping[str, str] = field(default_factory=lambda: _NONE)
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: _NONE)
    starts: str | None = None
    metrics: tuple[Metric, ...] = ()
    monitor: str = "val_loss"
    options: Mapping[str, tuple[Option, ...]] = field(default_factory=lambda: _NONE)
    checks: str | None = None
    examples: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _NONE)
    commands: Mapping[str, str] = field(default_factory=lambda: _NONE)
    parts: Mapping[str, str] = field(default_factory=lambda: _NONE)
    hub_tag: str | None = None
    given: Literal["files", "anything"] = "files"
    not_built: Mapping[str, str] = field(default_factory=lambda: _NONE)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by its name: what another process loads is its own room of the task."""
        return find_room, (self.task,)

    def metric(self, name: str) -> Metric | None:
        """The metric of a name, with or without the split before it ("val_map"); None where it is not declared."""
        bare = name.removeprefix("val_").removeprefix("test_").removeprefix("train_")
        return next((metric for metric in self.metrics if fnmatchcase(bare, metric.name)), None)

    def format(self, name: str, value: float | None) -> str:
        """A metric's value for people, a dash where there is none."""
        if value is None:
            return "-"
        return (self.metric(name) or Metric(name)).format(value)

    def option(self, verb: str, name: str) -> Option | None:
        """An option of a verb by its name; None where the task has no such one."""
        return next((option for option in self.options.get(verb, ()) if name in (option.name, option.also)), None)

    def options_of(self, verb: str) -> tuple[Option, ...]:
        """All that a verb takes: its own, and of a pipeline's prediction those of the run that answers too."""
        own = self.options.get(verb, ())
        if not self.parts or verb != "predict":
            return own
        names = {option.name for option in own}
        last = find_room(list(self.parts.values())[-1])
        return (*own, *(option for option in last.options.get(verb, ()) if option.name not in names))

    def check_options(self, verb: str, given: Mapping[str, Any], of: str) -> dict[str, Any]:
        """The options given, checked. Raises InputError for one that the task does not have. of: whose they are."""
        known = {option.name: option for option in self.options.get(verb, ())}
        known |= {option.also: option for option in known.values() if option.also is not None}
        for name in given:
            if name not in known:
                if owners := [room.task for room in all_rooms() if room.option(verb, name) is not None]:
                    raise InputError(f"{name} is an option of {', '.join(owners)}, and {of} is of {self.task}")
                raise unknown(f"option of {of}", name, known)
        checked: dict[str, Any] = {}
        for name, value in given.items():
            if value is not None and checked.setdefault(known[name].name, known[name].check(value)) != value:
                raise InputError(f"{known[name].name} and {known[name].also} are one option; give one of them")
        return checked


_rooms: dict[str, Room] = {}
_failed: dict[str, str] = {}  # task -> why its entry point cannot be used
_said: set[str] = set()  # tasks whose failure stands on standard error
_imported: list[str] = []
_CODE_FAILED = (Exception, SystemExit)  # whatever the code of another package raises while it is imported


def register(room: Room) -> Room:
    """Add a task of another package: `opsin.register(Room(...))`. A second one of a task is an error."""
    if room.task in BUILT_IN:
        raise InputError(f"the task {room.task!r} is opsin's own; give yours another name")
    known = _rooms.setdefault(room.task, room)
    if known is not room:
        raise InputError(
            f"the task {room.task!r} is registered twice: {known.help!r} and {room.help!r}; give one another name"
        )
    return room


def find_room(task: str) -> Room:
    """What a task brings. Raises InputError for an unknown name, with the nearest ones."""
    if task in BUILT_IN and task not in _rooms:
        _rooms[task] = load(BUILT_IN[task])
    if task not in _rooms:
        import_inherited()  # a process that the command has started, and not by its own name
    if task not in _rooms:
        if points := _entry_points().get(task):
            _load_entry_point(task, points)
        if task in _failed:
            raise InputError(_failed[task])
        if task not in _rooms:
            raise _unknown_task(task)
    return _rooms[task]


def _unknown_task(task: str) -> InputError:
    near = nearest(task, list_tasks())
    hint = f"did you mean {' or '.join(near)}? The" if near else "the"
    return InputError(f"unknown task {task!r}; {hint} tasks are {', '.join(list_tasks())}")


def list_tasks() -> list[str]:
    """Names of all tasks, sorted: built in, registered and installed; none of them is imported for it."""
    return sorted({*BUILT_IN, *_rooms, *_entry_points()})


def built_in_rooms() -> list[Room]:
    """The rooms that are there without a look at what else is installed: built in, registered or imported."""
    return [find_room(task) for task in [*BUILT_IN, *(task for task in _rooms if task not in BUILT_IN)]]


def all_rooms() -> list[Room]:
    """Every room. One of another package that cannot be loaded is one line on standard error, and left out."""
    for task, points in _entry_points().items():
        if task in BUILT_IN:
            _failed[task] = f"the task {task!r} is opsin's own; that of the package {_package(points[0])} is not used"
        elif task not in _rooms:
            _load_entry_point(task, points)
    for task in _failed.keys() - _said:
        _said.add(task)
        errors.say(_failed[task])
    return built_in_rooms()


def load(place: str) -> Any:
    """The object at "module:name"."""
    module, _, name = place.partition(":")
    found = importlib.import_module(module)
    return getattr(found, name) if name else found


def find_pipeline(names: Collection[str]) -> Room:
    """The task that is made of runs with these names. Raises InputError, with what there is, where none is."""
    pipelines = [room for room in built_in_rooms() if room.parts]
    found = next((room for room in pipelines if room.parts.keys() == set(names)), None)
    if found is None:
        known = [f"{' and '.join(room.parts)} make {room.task}" for room in pipelines]
        raise InputError(f"no task is made of {' and '.join(names)} alone; {'; '.join(known) or 'none is of runs'}")
    return found


def import_packages(names: Iterable[str]) -> None:
    """Import modules that register tasks and networks, as `--import` does; this process's children do so too."""
    for name in names:
        if name in _imported:
            continue
        try:
            importlib.import_module(name)
        except _CODE_FAILED as error:
            missing = isinstance(error, ModuleNotFoundError) and error.name == name.partition(".")[0]
            hint = "; install it, or name the folder that it lies in in PYTHONPATH" if missing else ""
            raise InputError(f"--import {name}: {type(error).__name__}: {error}{hint}") from error
        if name not in _imported:  # by itself, while it was imported
            _imported.append(name)
    if _imported:
        os.environ[_VARIABLE] = ",".join(_imported)


def imported_packages() -> list[str]:
    """The modules that `import_packages` has imported, in order."""
    return list(_imported)


def import_inherited() -> None:
    """What the process that started this one had imported."""
    import_packages(filter(None, os.environ.get(_VARIABLE, "").split(",")))


def evaluating_room(room: Room) -> Room:
    """The room whose evaluation a task uses: its own, or that of the task it borrows from."""
    return room if room.evaluates is not None or room.borrows is None else find_room(room.borrows)


def _entry_points() -> dict[str, list[EntryPoint]]:
    """What is installed, by task: one entry point of each, unless several packages bring a task of the same name."""
    from importlib.metadata import entry_points  # a hundredth of a second, which help can do without

    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        found.setdefault(point.name, []).append(point)
    return found


def _load_entry_point(task: str, points: Sequence[EntryPoint]) -> None:
    if task in _failed:
        return
    point, *others = points
    if others:
        packages = " and ".join(sorted(_package(one) for one in points))
        _failed[task] = f"the task {task!r} is registered twice, by the packages {packages}; uninstall one"
        return
    try:
        room = point.load()
        if not isinstance(room, Room) or room.task != task:
            raise TypeError(f"{point.value} is no opsin.Room of the task {task!r}")
        register(room)
    except _CODE_FAILED as error:
        _rooms.pop(task, None)  # its module may have registered it before it failed
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        _failed[task] = f"the task {task!r} of the package {_package(point)} cannot be used: {cause}"


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value


def examples(verb: str) -> list[str]:
    """Calls of a verb that the tasks which are there show under its help."""
    return [call for room in built_in_rooms() for call in room.examples.get(verb, ())]
