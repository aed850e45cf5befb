"""Metrics of the user's own: functions of (predictions, truth) of a whole split, or torchmetrics'.

What they are given is the task's, see `Evaluator.compared`. They stand beside the task's own metrics wherever these do:
as `val_NAME` in metrics.csv, in what `opsin eval` says, and in the report.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from opsin import errors, objects, rooms
from opsin.engine.recipe import Recipe
from opsin.errors import InputError
from opsin.losses.own_loss import check_takes

_NAME = re.compile(r"[A-Za-z][\w@-]*")


def check_metric(name: Any, metric: Any) -> None:
    """Raise InputError for a name that is no word, and for what cannot be called with (predictions, truth)."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(f"metrics has the name {name!r}; expected letters, digits, _, - and @, a letter first")
    if inspect.isclass(metric):
        raise InputError(f"the metric {name} is the class {metric.__name__}; give {metric.__name__}(...)")
    if not callable(metric):
        raise InputError(
            f"the metric {name} is {metric!r}; expected a function of (predictions, truth), or a torchmetrics.Metric"
        )
    if not _is_torchmetrics(metric):
        check_takes(metric, f"the metric {name}")


def monitored(recipe: Recipe) -> tuple[str, str]:
    """The validation metric that chooses the best epoch, and whether it should rise ("max") or falls ("min")."""
    evaluation = rooms.evaluating_room(rooms.find_room(recipe.task))
    name = recipe.train.monitor or evaluation.monitor
    metric, own = evaluation.metric(name), find_metrics(recipe).get(name.removeprefix("val_"))
    falls = better(own) if metric is None else metric.better
    return name, "min" if falls == "lower" else "max"


def find_metrics(recipe: Recipe, *, needed: bool = False) -> dict[str, Any]:
    """A recipe's own metrics by their names; one that this call was not given is named in a line, and left out.

    needed: raise InputError instead.
    """
    found = {}
    for name, text in recipe.metrics.items():
        key = f"metrics.{name}"
        try:
            metric = objects.find(key, text)
        except InputError as error:
            if needed:
                raise
            errors.say(f"without {name}: {error}")
            continue
        if metric is None:
            raise InputError(f"{key}={text} is no dotted path, such as my_package.my_module.my_metric")
        if inspect.isclass(metric):
            try:
                metric = metric()
            except TypeError as error:
                raise InputError(f"{key}: {text} cannot be made without arguments: {error}") from error
        check_metric(name, metric)
        found[name] = metric
    return found


def measure(metrics: Mapping[str, Any], compared: Any, taken: Mapping[str, float]) -> dict[str, float]:
    """The values of metrics. compared: (predictions, truth) of a split. taken: of the task's own, by their names.

    A metric that gives several values by their names stands once for each, as NAME_KEY. One that is not a number, where
    it is not defined, is left out. Raises InputError with the metric's name for whatever its code raises.
    """
    found: dict[str, float] = {}
    for name, metric in metrics.items():
        try:
            value = _value(metric, *compared)
        except Exception as error:  # whatever the user's code raises
            what = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(f"the metric {name} fails: {what}") from error
        for key, one in value.items() if isinstance(value, Mapping) else [("", value)]:
            full = f"{name}_{key}" if key else name
            if isinstance(one, Tensor) and one.numel() != 1:
                if isinstance(value, Mapping):
                    continue  # torchmetrics' mean average precision has tensors of each class among its values
                raise InputError(f"the metric {name} gives a tensor of shape {tuple(one.shape)}; expected one number")
            try:
                number = float(one)
            except (TypeError, ValueError):
                raise InputError(f"the metric {name} gives {type(one).__name__}; expected one number") from None
            if full in taken:
                raise InputError(f"the metric {full} has the name of one of the task's own; call it otherwise")
            if math.isfinite(number):
                found[full] = number
    return found


def better(metric: Any) -> str | None:
    """Which way is up, "higher" or "lower", where the metric says so by `higher_is_better`; else None."""
    said = getattr(metric, "higher_is_better", None)
    return None if said is None else "higher" if said else "lower"


def _value(metric: Any, predictions: Any, truth: Any) -> Any:
    if not _is_torchmetrics(metric):
        return metric(predictions, truth)
    metric.sync_on_compute = False  # every process has the whole split already
    metric.reset()
    with torch.no_grad():
        metric.cpu().update(predictions, truth)
        return metric.compute()


def _is_torchmetrics(metric: Any) -> bool:
    return isinstance(metric, nn.Module) and all(
        callable(getattr(metric, n, None)) for n in ("update", "compute", "reset")
    )
