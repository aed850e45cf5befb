"""Names: of models, with their builders and published facts, and of tasks.

A room registers its models with `@register` when it is imported; `_MODEL_ROOMS` lists the rooms. Nothing else in opsin
is looked up by registration: losses, optimizers and transforms are plain functions with a small table beside them.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from opsin.errors import InputError, unknown

if TYPE_CHECKING:
    from torch import nn

_MODEL_ROOMS = ("opsin.backbones",)
_TASKS = {"classify": "opsin.classify.task:ClassifyTask"}

Builder = TypeVar("Builder", bound=Callable[..., Any])


@dataclass(frozen=True)
class Published:
    """What the paper (or the named port) states of a network, in its default form. The contract tests hold us to it.

    paper: arXiv id or citation. input: (channels, height, width). params: all learnable tensors. macs: multiply-adds of
    convolutions and linear layers for one input, None where nobody published or counted them. metrics: published
    results, keyed "data set metric", in percent. source: where params, macs and metrics were counted or read.
    """

    paper: str
    year: int
    input: tuple[int, int, int]
    params: int
    macs: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    idea: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", MappingProxyType(dict(self.metrics)))


@dataclass(frozen=True)
class Entry:
    """A registered model."""

    name: str
    task: str
    builder: Callable[..., nn.Module]
    published: Published

    @property
    def family(self) -> str:
        """The file that holds the network: `resnet` for resnet50."""
        return self.builder.__module__.rpartition(".")[2]

    @property
    def options(self) -> Mapping[str, inspect.Parameter]:
        """Every keyword that the builder accepts, found in its signature and the network's constructor."""
        return _options(self.builder)


_models: dict[str, Entry] = {}


def register(name: str, *, task: str, published: Published) -> Callable[[Builder], Builder]:
    """Enter a builder under a name. A second builder of the same name is an error."""

    def enter(builder: Builder) -> Builder:
        if name in _models:
            raise ValueError(
                f"model {name!r} is registered twice: {_models[name].builder.__module__} and {builder.__module__}"
            )
        _models[name] = Entry(name, task, builder, published)
        return builder

    return enter


def find_model(name: str) -> Entry:
    """The entry of a model. Raises InputError with the nearest names when there is none."""
    _import_rooms()
    if name not in _models:
        raise unknown("model", name, _models)
    return _models[name]


def list_models(pattern: str = "*", task: str | None = None) -> list[str]:
    """Names of models that match a shell pattern and serve a task, sorted. Without `*` or `?` it matches inside."""
    _import_rooms()
    if not any(sign in pattern for sign in "*?["):
        pattern = f"*{pattern}*"
    if task is not None and task not in _TASKS:
        raise unknown("task", task, _TASKS)
    return sorted(n for n, e in _models.items() if fnmatchcase(n, pattern) and task in (None, e.task))


def create_model(name: str, **options: Any) -> nn.Module:
    """Build a model by name, with its builder's options: for classifiers `num_classes` and `in_channels` among them.

    Raises InputError for an unknown name or option, with the nearest known ones.
    """
    entry = find_model(name)
    known = entry.options
    for option in options:
        if option not in known:
            raise unknown(f"option of {name}", option, known)
    try:
        return entry.builder(**options)
    except (TypeError, ValueError) as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is None:
            raise
        raise InputError(f"{name} cannot be built with {options}: {error}") from error


def list_tasks() -> list[str]:
    """Names of the tasks that can be trained."""
    return sorted(_TASKS)


def find_task(name: str) -> Any:
    """The LightningModule class of a task. Raises InputError when there is none."""
    if name not in _TASKS:
        raise unknown("task", name, _TASKS)
    module, _, attribute = _TASKS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def _import_rooms() -> None:
    for room in _MODEL_ROOMS:
        importlib.import_module(room)


def _options(builder: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Keywords of a builder; where it ends in `**options`, those of the class it returns are added."""
    signature = inspect.signature(builder, eval_str=False)
    found = {n: p for n, p in signature.parameters.items() if p.kind is not p.VAR_KEYWORD}
    if len(found) < len(signature.parameters):
        returned = builder.__globals__.get(str(signature.return_annotation))  # type: ignore[attr-defined]
        if inspect.isclass(returned):
            inside = inspect.signature(returned.__init__).parameters
            found |= {n: p for n, p in inside.items() if p.kind is p.KEYWORD_ONLY and n not in found}
    return found
