"""Class labels in data sets of other libraries: how a target says them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from opsin.data.labels import MULTI_LABEL, ClassLabels, one_hot
from opsin.data.source import listed
from opsin.data.torch_dataset import Examples, TargetReader, columns_of, plain, said_by
from opsin.errors import InputError

_KEYS = ("label", "labels", "fine_label", "target", "class", "category")
_MOST = 10_000  # a larger number is an id of its own, not a place in a list of classes


def read_label(target: Any) -> Any:
    """A target as an int (-1 for none), a name, ("row", 0.0, 1.0, ...) or ("set", 3, 5): one class or several.

    Raises InputError for any other.
    """
    if isinstance(target, Mapping):
        target = _of_row(target)
    value = plain(target)
    if value is None:
        return -1
    if isinstance(value, bool | int):
        return _number(int(value))
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return _number(int(value))
    if isinstance(value, list | tuple):
        return _several(value, isinstance(target, Tensor | np.ndarray))
    kind = type(value).__name__
    raise InputError(f"a class label must be a number, a name, or a row of 0 and 1; got {kind} {value!r:.40}")


def _of_row(row: Mapping[str, Any]) -> Any:
    for key in _KEYS:
        if key in row:
            return row[key]
    shown = ", ".join(map(str, row)) or "nothing"
    raise InputError(f"there is no label beside the image, only {shown}; call it label, such as by rename_column")


def _number(value: int) -> int:
    if value < -1:
        raise InputError(f"the label is {value}; expected 0 or more, or -1 for none")
    return value


def _several(values: Sequence[Any], vector: bool) -> Any:
    """Several labels. vector: they are a tensor or an array, which has a place for each class; a list names classes."""
    if vector or (values and all(isinstance(v, float) for v in values)):
        if any(v not in (0, 1) for v in values):
            raise InputError("a row of labels must be of 0 and 1, a place for each class; opsin makes soft ones itself")
        return ("row", *map(float, values))
    if all(isinstance(v, int | str) for v in values):
        return ("set", *values)
    raise InputError(f"several labels must be numbers, names, or a row of 0 and 1; got {values!r:.40}")


def label_column(examples: Examples) -> Sequence[Any] | None:
    """All labels, where the data set has them ready."""
    if examples.features:
        key = next((key for key in _KEYS if key in examples.features), None)
        return None if key is None else list(examples.dataset[key])
    if tensors := said_by(examples.dataset, "tensors"):
        return columns_of(examples.dataset, ["targets"]) or _second(examples.dataset, tensors)
    return columns_of(examples.dataset, ["targets", "labels", "_labels"])


def _second(dataset: Any, tensors: Sequence[Any]) -> Sequence[Any] | None:
    """Of a `TensorDataset` that is not wrapped."""
    return plain(tensors[1]) if getattr(dataset, "tensors", None) is tensors and len(tensors) > 1 else None


def label_names(examples: Examples) -> Sequence[str] | None:
    """The names of the classes, where the data set says them."""
    for key in _KEYS:
        feature = examples.features.get(key)
        feature = getattr(feature, "feature", feature)  # of a sequence
        if (names := getattr(feature, "names", None)) is not None:
            return list(names)
    found = said_by(examples.dataset, "classes")
    if isinstance(found, list | tuple) and found and all(isinstance(name, str) for name in found):
        return list(found)
    return None


def gather_labels(
    values: Mapping[str, list[Any]],
    classes: list[str] | None,
    names: Mapping[str, str],
    multi_label: bool = False,
) -> dict[str, ClassLabels]:
    """Class labels of each split, with the same classes for all. names: of the splits in messages."""
    several = any(isinstance(value, tuple) for column in values.values() for value in column)
    if several and not multi_label:
        if not all(isinstance(v, tuple) and v[0] == "row" and sum(v[1:]) == 1 for c in values.values() for v in c):
            raise InputError(f"{next(iter(names.values()))} has examples with several labels; set {MULTI_LABEL}")
        values = {key: [value[1:].index(1.0) for value in column] for key, column in values.items()}
    known = classes if classes is not None else _classes_of(values)
    given = classes is not None
    truths = {}
    for key, column in values.items():
        if multi_label:
            rows = [_row(value, known, given, f"{names[key]}[{i}]") for i, value in enumerate(column)]
            truths[key] = ClassLabels(np.stack(rows), known)
        else:
            places = [_place(value, known, given, f"{names[key]}[{i}]") for i, value in enumerate(column)]
            truths[key] = ClassLabels(np.array(places, np.int64), known)
    return truths


def _classes_of(values: Mapping[str, list[Any]]) -> list[str]:
    """Names of the classes where nobody says them: those that occur, or numbers, from 0 on where one is 0."""
    flat: set[int | str] = set()
    for column in values.values():
        for value in column:
            if isinstance(value, tuple):
                flat |= set(range(len(value) - 1)) if value[0] == "row" else set(value[1:])
            elif value != -1:
                flat.add(value)
    numbers = [value for value in flat if isinstance(value, int)]
    if len(numbers) < len(flat):
        if numbers:
            raise InputError(f"labels are numbers and names mixed, such as {numbers[0]} and {listed(_texts(flat))}")
        return sorted(_texts(flat))
    if 0 in flat and max(numbers) < _MOST:
        return [str(k) for k in range(max(numbers) + 1)]
    return [str(k) for k in sorted(numbers)]


def _texts(values: set[int | str]) -> list[str]:
    return [value for value in values if isinstance(value, str)]


def _place(value: Any, classes: Sequence[str], given: bool, where: str) -> int:
    """The place of a label in the classes. given: they are names by their place; else named by their numbers."""
    if value == -1:
        return -1
    if isinstance(value, int) and given:
        if value < len(classes):
            return value
        raise InputError(
            f"{where} has the label {value}, and there are {len(classes)} classes, 0 to {len(classes) - 1}"
        )
    if str(value) in classes:
        return classes.index(str(value))
    raise InputError(f"{where} has the label {value!r}, which is none of the classes {listed(classes)}")


def _row(value: Any, classes: Sequence[str], given: bool, where: str) -> np.ndarray:
    """A row of 0 and 1, one place a class."""
    if isinstance(value, tuple) and value[0] == "row":
        if len(value) - 1 != len(classes):
            raise InputError(f"{where} has a row of {len(value) - 1} labels, and there are {len(classes)} classes")
        return np.array(value[1:], np.float32)
    chosen = value[1:] if isinstance(value, tuple) else [value]
    places = np.array([_place(one, classes, given, where) for one in chosen], np.int64)
    return one_hot(places, len(classes)).max(axis=0, initial=0) if len(places) else np.zeros(len(classes), np.float32)


READER = TargetReader("labels", read_label, label_column, label_names, gather_labels)
