"""Parts of a training that are the user's own: network, data set, loss, metrics, optimizer, callbacks.

`opsin.train` is given them as objects, or as dotted paths, see `opsin.objects`. Here they are checked before any data
is read, and turned into what a recipe says of them and what is lent to the training.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from torch import Tensor, nn

from opsin import objects, rooms
from opsin.engine.callback_state import check_state
from opsin.engine.own_metrics import check_metric, find_metrics
from opsin.engine.own_networks import Adapter, check_copies, check_learns, entry_of, task_of, try_network
from opsin.engine.recipe import Recipe, load_recipe
from opsin.engine.recipe_data import GivenData
from opsin.engine.task import Task
from opsin.errors import InputError, unknown
from opsin.losses import create_loss, list_identity_losses, list_losses, list_pixel_losses
from opsin.losses.own_loss import check_loss, create_own_loss
from opsin.optim import create_optimizer
from opsin.registry import Entry

_TASKS_OF = "task"
_FLAGS = {  # keyword of `opsin.train` -> key of the recipe, as the flags of the command are
    "task": "task",
    "weights": "model.weights",
    "epochs": "train.epochs",
    "batch_size": "train.batch_size",
    "lr": "optim.lr",
    "size": "data.size",
    "seed": "train.seed",
    "workers": "train.workers",
    "skip_bad": "data.skip_bad",
}
_OPTIM_KEYS = ("lr", "weight_decay", "decay_norm_and_bias")  # what an optimizer leaves to its successor


@dataclass
class Parts:
    """What a call was given. settings: key of the recipe -> what it says. objects: key -> what is lent."""

    settings: dict[str, Any] = field(default_factory=dict)
    objects: dict[str, Any] = field(default_factory=dict)

    def lend(self, key: str, given: Any) -> str:
        """Enter an object under a key; returns its name for the recipe."""
        self.objects[key] = given
        return objects.describe(given)


def collect(
    *,
    model: Any = None,
    data: Any = None,
    loss: Any = None,
    metrics: Mapping[str, Any] | None = None,
    optimizer: Any = None,
    callbacks: Sequence[Any] | None = None,
    classes: Sequence[str] | None = None,
    **flags: Any,
) -> Parts:
    """What `opsin.train` was given, checked as far as it can be without data. Raises InputError for what cannot be."""
    parts = Parts()
    for name, value in flags.items():
        if name not in _FLAGS:
            raise unknown("keyword of opsin.train", name, [*_FLAGS, *_PARTS])
        if value is not None:
            parts.settings[_FLAGS[name]] = list(value) if isinstance(value, tuple) else value
    if model is not None:
        _collect_model(parts, model)
    if data is not None or classes is not None:
        _collect_data(parts, data, classes)
    if loss is not None:
        parts.settings["loss"] = {"name": _collect_loss(parts, loss)}
    if optimizer is not None:
        parts.settings |= _collect_optimizer(parts, optimizer)
    if metrics is not None:
        parts.settings["metrics"] = collect_metrics(parts, metrics)
    if callbacks is not None:
        parts.settings["train.callbacks"] = [_collect_callback(parts, one, k) for k, one in enumerate(callbacks)]
    return parts


_PARTS = [name for name, p in inspect.signature(collect).parameters.items() if p.kind is p.KEYWORD_ONLY]


def _collect_model(parts: Parts, model: Any) -> None:
    if isinstance(model, str):
        parts.settings["model.name"] = model
        return
    if inspect.isclass(model) or not isinstance(model, nn.Module):
        shown = f"the class {model.__name__}; give {model.__name__}(...)" if inspect.isclass(model) else repr(model)
        raise InputError(f"model is {shown:.80}; expected an nn.Module, or the name of a model")
    check_learns(model)
    check_copies(model)
    task = parts.settings.get(_TASKS_OF) or task_of(model)
    parts.settings[_TASKS_OF] = task
    parts.settings["model"] = {"name": parts.lend("model.name", model)}
    parts.objects["model.name"] = entry_of(model, task)
    for key, value in _stated(model).items():
        parts.settings.setdefault(f"data.{key}", value)


def _stated(model: nn.Module) -> dict[str, Any]:
    """What a network says of the images that it takes, as keys of the data section."""
    found = dict(getattr(model, "preprocessing", None) or {})
    found = {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}
    fixed, channels = getattr(model, "fixed_size", None), getattr(model, "in_channels", None)
    found |= {} if fixed is None else {"size": fixed}
    return found | ({"channels": channels} if channels in (1, 3) else {})


def _collect_data(parts: Parts, data: Any, classes: Sequence[str] | None) -> None:
    if isinstance(data, str | Path) or data is None:
        if classes is not None:
            raise InputError("classes names those of a data set given as an object; folders and files have their own")
        parts.settings["data.source"] = str(data)
        return
    several = data.values() if isinstance(data, Mapping) else [data]
    single = next((one for one in several if not isinstance(one, str | Path)), data)
    parts.settings["data.source"] = objects.describe(single)
    parts.objects["data.source"] = GivenData(data, classes)


def _collect_loss(parts: Parts, loss: Any) -> str:
    if isinstance(loss, str):
        return _named(loss)
    create_own_loss(loss)
    return parts.lend("loss.name", loss)


def _collect_optimizer(parts: Parts, optimizer: Any) -> dict[str, Any]:
    """Settings of an optimizer: a name, a class, or a `functools.partial` of one with its options."""
    options: dict[str, Any] = {}
    if isinstance(optimizer, functools.partial):
        if optimizer.args:
            raise InputError("optimizer is a partial with positional arguments; give them by name")
        optimizer, options = optimizer.func, dict(optimizer.keywords)
    if isinstance(optimizer, str):
        name = _named(optimizer)
    elif inspect.isclass(optimizer) and issubclass(optimizer, torch.optim.Optimizer):
        torchs = getattr(torch.optim, optimizer.__name__, None) is optimizer
        name = f"torch.optim.{optimizer.__name__}" if torchs else parts.lend("optim.name", optimizer)
    else:
        made = isinstance(optimizer, torch.optim.Optimizer)
        hint = "; give its class, opsin makes it for the network that it trains" if made else ""
        raise InputError(f"optimizer is {type(optimizer).__name__}; expected a class of torch.optim or a name{hint}")
    return {"optim.name": name, **{f"optim.{key}": value for key, value in options.items()}}


def collect_metrics(parts: Parts, metrics: Any) -> dict[str, str]:
    """Of each metric's name what the recipe says; the objects are lent."""
    if not isinstance(metrics, Mapping):
        raise InputError(f"metrics is {type(metrics).__name__}; expected a mapping of names to functions or metrics")
    found = {}
    for name, metric in metrics.items():
        if isinstance(metric, str):
            found[name] = _named(metric)
            continue
        check_metric(name, metric)
        found[name] = parts.lend(f"metrics.{name}", metric)
    return found


def _collect_callback(parts: Parts, callback: Any, place: int) -> str:
    if isinstance(callback, str):
        return _named(callback)
    check_callback(callback)
    return parts.lend(f"train.callbacks.{place}", callback)


def check_callback(callback: Any) -> Callback:
    """The callback itself. Raises InputError for what is none of Lightning's."""
    if inspect.isclass(callback) and issubclass(callback, Callback):
        raise InputError(f"the callback {callback.__name__} is a class; give {callback.__name__}(...)")
    if not isinstance(callback, Callback):
        kind = type(callback)
        other = "; it is of the package pytorch_lightning" if kind.__module__.startswith("pytorch_lightning") else ""
        raise InputError(f"a callback is {kind.__name__}, no subclass of lightning.pytorch.Callback{other}")
    return callback


def _named(path: str) -> str:
    """A name, or a dotted path whose module the call names by giving it."""
    if "." in path and not objects.is_object(path):
        objects.name_modules(path)
    return path


def create_callbacks(recipe: Recipe) -> list[Callback]:
    """The user's own callbacks, in their order; they come before what saves their state.

    Raises InputError for what is none, or was not given again.
    """
    made: list[Callback] = []
    for place, name in enumerate(recipe.train.callbacks):
        found = objects.find(f"train.callbacks.{place}", name)
        if found is None:
            raise InputError(f"train.callbacks: {name} is no dotted path, such as my_package.my_module.MyCallback")
        if inspect.isclass(found) and issubclass(found, Callback):
            try:
                found = found()
            except TypeError as error:
                raise InputError(f"train.callbacks: {name} cannot be made without arguments: {error}") from error
        made.append(check_callback(found))
        with contextlib.suppress(AttributeError):  # a state that begins with the training is checked when it is saved
            check_state(made[-1].state_key, made[-1].state_dict())
    return made


def with_own_optimizer(values: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's values without what belongs to the optimizer that another one replaces. settings: of `Parts`."""
    section = values.get("optim")
    if "optim.name" not in settings or not isinstance(section, Mapping):
        return dict(values)
    return {**values, "optim": {key: value for key, value in section.items() if key in _OPTIM_KEYS}}


def check_given(values: Mapping[str, Any], overrides: Mapping[str, Any], run: str | Path) -> None:
    """Raise InputError where a run was trained with objects that this call was not given, naming all of them.

    values: of the run's recipe; overrides: what changes them.
    """
    lacking = {}
    for key, name in _names(values):
        named = key in overrides or key.partition(".")[0] in overrides or key.rpartition(".")[0] in overrides
        if objects.is_object(name) and not named and objects.lent(key) is None:
            lacking.setdefault(objects.keyword(key), []).append(objects.short_name(name))
    if lacking:
        listed = ", ".join(f"{keyword} ({', '.join(names)})" for keyword, names in lacking.items())
        raise InputError(f"{run} was trained with objects, which no file holds; give them again, in Python: {listed}")


def _names(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What a recipe names: (key, name)."""
    sections = {key: value if isinstance(value, Mapping) else {} for key, value in values.items()}
    found = [
        (f"{section}.{key}", sections.get(section, {}).get(key))
        for section, key in (("model", "name"), ("data", "source"), ("loss", "name"), ("optim", "name"))
    ]
    found += [(f"metrics.{name}", path) for name, path in sections.get("metrics", {}).items()]
    callbacks = sections.get("train", {}).get("callbacks") or []
    return found + [(f"train.callbacks.{place}", name) for place, name in enumerate(callbacks)]


def _check_loss(name: str, options: Mapping[str, Any]) -> None:
    """A dotted path or an object is made; a name is one that some task has, which looks at it when its turn comes."""
    known = {*list_losses(), *list_pixel_losses(), *list_identity_losses()}
    if "." in name:
        create_loss(name, **options)
    elif name not in known:
        raise unknown("loss", name, sorted(known))


def check_recipe(recipe: Recipe) -> Recipe:
    """Check the parts that a recipe names, before data is read; returns it with the channels that a network takes.

    Raises InputError for a part that does not fit, does not resolve, or was not given again.
    """
    create_callbacks(recipe)
    find_metrics(recipe, needed=True)
    if (name := recipe.loss.name) is not None:
        _check_loss(name, recipe.loss.options)
    if "." in recipe.optim.name:
        own = recipe.optim
        create_optimizer(nn.Linear(2, 2), own.name, lr=own.lr, weight_decay=own.weight_decay, **own.options)
    if not objects.is_object(recipe.model.name):
        return recipe
    given = objects.find("model.name", recipe.model.name)
    if recipe.data.size is None or recipe.data.size == "auto":
        short = objects.short_name(recipe.model.name)
        raise InputError(f"{short} states no size of its input; give size=32, or (height, width)")
    given_size = recipe.data.size
    size = (given_size, given_size) if isinstance(given_size, int) else given_size
    known: GivenData | None = objects.lent("data.source")
    count = None if known is None or known.classes is None else len(known.classes)
    channels = _probe(given, recipe, size, count)
    return load_recipe(recipe.model_dump(), {"data.channels": channels})


def _probe(entry: Entry, recipe: Recipe, size: tuple[int, int], count: int | None) -> int:
    """Try a network on a batch of two; returns the channels that it takes. Raises InputError with its own words."""
    module: nn.Module = entry.builder.args[1]  # type: ignore[attr-defined]
    adapter: Adapter = rooms.load(rooms.find_room(recipe.task).adapts or "")
    asked = [recipe.data.channels] if recipe.data.channels else [3, 1]
    reasons = []
    for channels in asked:
        outputs = try_network(module, (2, channels, *size))
        if not isinstance(outputs, Exception):
            adapter.check(outputs, count, type(module).__name__)
            return channels
        reasons.append(outputs)
    shape = (2, asked[0], *size)
    what = " ".join(f"{type(reasons[0]).__name__}: {reasons[0]}".split())
    raise InputError(f"{type(module).__name__} fails on images of shape {shape}: {what}") from reasons[0]


def check_task(task: Task) -> None:
    """Check what only the data could say: the number of classes that a network of the user's own gives, and its loss.

    Raises InputError.
    """
    recipe, prepared, count = task.recipe, task.preprocessing, len(task.classes)
    if objects.is_object(recipe.model.name) and prepared is not None:
        adapter: Adapter = rooms.load(rooms.find_room(recipe.task).adapts or "")
        outputs = try_network(task.model, (2, prepared.channels, *prepared.size))
        name = objects.short_name(recipe.model.name)
        if isinstance(outputs, Exception):
            raise InputError(f"{name} fails on images of {prepared.channels}x{prepared.size}: {outputs}") from outputs
        adapter.check(outputs, count, name)
    criterion = getattr(task.model, "criterion", None)
    if recipe.loss.name is not None and "." in recipe.loss.name and isinstance(criterion, nn.Module) and count:
        several = bool(task.facts.meaning.get("multi_label")) or recipe.mixing.mixup > 0 or recipe.mixing.cutmix > 0
        targets: Tensor = torch.zeros(2, count) if several else torch.zeros(2, dtype=torch.int64)
        check_loss(criterion, torch.zeros(2, count), targets)
