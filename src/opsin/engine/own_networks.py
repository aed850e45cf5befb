"""Networks of the user's own, given as objects: how a task takes them, and what the registry knows of them."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from opsin import objects, registry, rooms
from opsin.engine.checkpoint import Saved, read_model
from opsin.errors import InputError
from opsin.nn.counting import copy_without_data
from opsin.registry import Entry


class Adapter(Protocol):
    """How a task trains a network of the user's own; a class that a task names, see `opsin.rooms.Room.adapts`."""

    @classmethod
    def claims(cls, module: nn.Module) -> bool:
        """Whether a network says by its class that it is for this task."""
        ...

    @classmethod
    def accept(cls, module: nn.Module) -> None:
        """Raise InputError for a network that lacks a method that the task needs."""
        ...

    @classmethod
    def adapt(cls, module: nn.Module, num_classes: int | None, in_channels: int | None) -> nn.Module:
        """The network with the three verbs, itself where it has them. Raises InputError where it cannot have them."""
        ...

    @classmethod
    def check(cls, outputs: Any, num_classes: int | None, name: str) -> None:
        """Raise InputError for outputs of a batch of two that do not fit. num_classes: None while it is not known."""
        ...


def check_learns(model: nn.Module) -> None:
    """Raise InputError for a network without a parameter to train."""
    if not any(p.requires_grad for p in model.parameters()):
        kind = "parameter" if next(model.parameters(), None) is None else "parameter that requires a gradient"
        raise InputError(f"{type(model).__name__} has no {kind}: there is nothing to train")


def check_copies(model: nn.Module) -> None:
    """Raise InputError for a network that cannot be copied, as its report and `batch_size="auto"` do."""
    with _copying(model):
        copy_without_data(model)


def twin_of(model: nn.Module) -> nn.Module:
    """A copy for what must leave the user's own network as it is. Raises InputError where it cannot be copied."""
    with _copying(model):
        return copy.deepcopy(model)


@contextmanager
def _copying(model: nn.Module) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever the user's code raises
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"{type(model).__name__} cannot be copied, as a report and an export need: {what}. Keep open files, locks "
            "and generators out of it, or give it a __deepcopy__"
        ) from error


def task_of(model: nn.Module) -> str:
    """The task of a network by its class; that of plain ones is the usual one. Raises InputError where it is open."""
    able = {room.task: rooms.load(room.adapts) for room in rooms.built_in_rooms() if room.adapts is not None}
    claimed = [task for task, adapter in able.items() if adapter.claims(model)]
    if claimed:
        return claimed[0]
    if callable(getattr(model, "decode", None)):
        raise InputError(f"{type(model).__name__} has a decode of its own; say its task, task=... of {', '.join(able)}")
    return rooms.DEFAULT_TASK


def entry_of(model: nn.Module, task: str) -> Entry:
    """A network that was given as what the registry knows of a model; its builder adapts it to the task.

    task: "" while it is not known; it cannot be built then.
    """
    if not task:
        name = objects.describe(model)
        return Entry(name, task, functools.partial(_refuse, name))
    room = rooms.find_room(task)
    if room.adapts is None:
        raise InputError(f"{task} takes models by their names only, not a network of your own")
    adapter: Any = rooms.load(room.adapts)
    adapter.accept(model)
    network = type(model) if adapter.claims(model) else adapter
    entry = Entry(objects.describe(model), task, functools.partial(_adapt, adapter, model), network=network)
    remembered = functools.partial(_refuse, entry.name)
    registry.remember_object(replace(entry, builder=remembered))
    return entry


@contextmanager
def opened_with(model: nn.Module, run: str | Path) -> Iterator[Saved]:
    """A run that was given its network as an object, while another network is lent to take its weights.

    Raises InputError for a run whose network has a name.
    """
    with objects.lending({"model.name": entry_of(model, "")}):
        saved = read_model(run)
    if not objects.is_object(name := saved.recipe.model.name):
        raise InputError(f"{run} was trained by the name {name}: leave model= out")
    if saved.preprocessing is not None:
        materialize(model, (2, saved.preprocessing.channels, *saved.preprocessing.size))
    with objects.lending({"model.name": entry_of(model, saved.recipe.task)}):
        yield saved


def _adapt(
    adapter: Any, model: nn.Module, *, num_classes: int | None = None, in_channels: int | None = None
) -> nn.Module:
    return adapter.adapt(model, num_classes, in_channels)


def _refuse(name: str, *, num_classes: int | None = None, in_channels: int | None = None) -> nn.Module:
    raise objects.missing("model.name", name)


@torch.no_grad()
def try_network(module: nn.Module, shape: Sequence[int]) -> Any:
    """What a network gives in eval mode for images of a shape, or the error that it raises; it stays as it was."""
    first = next(module.parameters(), None)
    device = torch.device("cpu") if first is None or first.is_meta else first.device
    modes = {part: part.training for part in module.modules()}
    with torch.random.fork_rng(devices=[]):
        try:
            return module.eval()(torch.zeros(*shape, device=device))
        except Exception as error:  # whatever the user's code raises
            return error
        finally:
            for part, training in modes.items():
                part.training = training


def materialize(module: nn.Module, shape: Sequence[int]) -> None:
    """Run a network with lazy layers once, so that these have their weights' shapes; nothing of any other network.

    Raises InputError with what it raises.
    """
    if any(isinstance(p, UninitializedParameter | UninitializedBuffer) for p in _tensors(module)):
        found = try_network(module, shape)
        if isinstance(found, Exception):
            raise InputError(f"{type(module).__name__} fails on images of shape {tuple(shape)}: {found}") from found


def _tensors(module: nn.Module) -> list[Any]:
    return [*module.parameters(), *module.buffers()]
