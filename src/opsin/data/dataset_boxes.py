"""Boxes in data sets of other libraries: how a target says them, and which corner of what they are.

Three forms are known by their keys, and only by these. {"boxes", "labels"}, as torchvision's detection references and
models have them: x1, y1, x2, y2, or the format that a `BoundingBoxes` of torchvision says. {"objects": {"bbox",
"category"}}, as Hugging Face's data sets for object detection: x, y, width, height. A list of annotations {"bbox",
"category_id"}, as torchvision's `CocoDetection`: x, y, width, height too. All in pixels of the image, x2 and y2
exclusive. Objects with `iscrowd` are regions to ignore.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from opsin import errors
from opsin.data.boxes import Boxes, Rows
from opsin.data.source import listed
from opsin.data.torch_dataset import Examples, TargetReader, plain, said_by
from opsin.errors import InputError

_CATEGORIES = ("category", "categories", "category_id", "label", "labels", "class")
_BACKGROUND = ("background", "__background__")
_MOST = 10_000  # a larger number is an id of its own, not a place in a list of classes

Objects = tuple[tuple[Any, ...], ...]  # of an example: (label, x1, y1, x2, y2) each, the label -1 to ignore


def read_objects(target: Any) -> Objects:
    """The objects of a target, x1, y1, x2, y2 each. Raises InputError for what is none of the three forms."""
    if isinstance(target, Mapping) and "boxes" in target:
        form = getattr(getattr(target["boxes"], "format", None), "name", "XYXY")
        return _rows(target["boxes"], target.get("labels"), target.get("iscrowd"), form)
    if isinstance(target, Mapping) and "objects" in target:
        target = target["objects"]
        if isinstance(target, Mapping):
            key = next((key for key in _CATEGORIES if key in target), "category")
            return _rows(target.get("bbox"), target.get(key), target.get("iscrowd"), "XYWH")
    if isinstance(target, Sequence) and all(isinstance(one, Mapping) and "bbox" in one for one in target):
        labels = [next((one[key] for key in _CATEGORIES if key in one), None) for one in target]
        return _rows([one["bbox"] for one in target], labels, [one.get("iscrowd", 0) for one in target], "XYWH")
    if isinstance(target, Mapping):
        shown = f"a dict of {', '.join(map(str, target)) or 'nothing'}"
    else:
        shown = type(target).__name__
    raise InputError(
        f"the target is {shown}; expected {{'boxes': x1 y1 x2 y2, 'labels'}}, "
        "or {'objects': {'bbox': x y width height, 'category'}}"
    )


def _rows(boxes: Any, labels: Any, crowd: Any, form: str) -> Objects:
    found, names = plain(boxes), plain(labels)
    if not isinstance(found, list | tuple) or not isinstance(names, list | tuple):
        raise InputError("boxes and labels must be lists or tensors, a row of four and a label for each object")
    if len(found) != len(names):
        raise InputError(f"there are {len(found)} boxes and {len(names)} labels")
    ignored = plain(crowd) or [0] * len(found)
    return tuple(
        (-1 if skip else _label(name), *_corners(box, form, k))
        for k, (box, name, skip) in enumerate(zip(found, names, ignored, strict=True))
    )


def _label(value: Any) -> int | str:
    value = plain(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int | str) or (isinstance(value, int) and value < -1):
        raise InputError(f"the label of a box is {value!r:.40}; expected a number from 0 on, or a name")
    return value


def _corners(box: Any, form: str, k: int) -> tuple[float, ...]:
    try:
        a, b, c, d = (float(value) for value in plain(box))
    except (TypeError, ValueError):
        raise InputError(f"box {k} is {box!r:.60}; expected four numbers") from None
    if form == "XYXY":
        x1, y1, x2, y2 = a, b, c, d
    elif form == "XYWH":
        x1, y1, x2, y2 = a, b, a + c, b + d
    elif form == "CXCYWH":
        x1, y1, x2, y2 = a - c / 2, b - d / 2, a + c / 2, b + d / 2
    else:
        raise InputError(f"boxes of the format {form} are not taken; convert them to XYXY")
    if not all(np.isfinite([x1, y1, x2, y2])) or x2 < x1 or y2 < y1:
        wrong = "x, y, width, height belong in objects, as bbox" if form == "XYXY" else "width and height are negative"
        meant = "x1, y1, x2, y2 with x2 above x1" if form == "XYXY" else "x, y, width, height"
        raise InputError(f"box {k} is {a:g}, {b:g}, {c:g}, {d:g}; expected {meant} ({wrong})")
    return x1, y1, x2, y2


def object_column(examples: Examples) -> Sequence[Any] | None:
    """The objects of all examples, where they are a column of their own."""
    if "objects" not in examples.features:
        return None
    return [{"objects": one} for one in examples.dataset["objects"]]


def object_names(examples: Examples) -> Sequence[str] | None:
    """The names of the classes, where the data set says them."""
    if (found := _names_in(examples.features.get("objects"))) is not None:
        return found
    categories = getattr(said_by(examples.dataset, "coco"), "cats", None)
    if isinstance(categories, Mapping) and categories:  # ids of COCO have gaps: a place without a name stays empty
        return [str(categories[k]["name"]) if k in categories else "" for k in range(max(categories) + 1)]
    found = said_by(examples.dataset, "classes")
    return list(found) if isinstance(found, list | tuple) and all(isinstance(n, str) for n in found) else None


def _names_in(feature: Any) -> list[str] | None:
    """The names of a `ClassLabel` of Hugging Face's, however deep it lies among the features."""
    if feature is None:
        return None
    if (names := getattr(feature, "names", None)) is not None:
        return list(names)
    inner = getattr(feature, "feature", feature)
    if isinstance(inner, list | tuple):
        inner = inner[0] if inner else None
    if isinstance(inner, Mapping):
        return next((found for key in _CATEGORIES if (found := _names_in(inner.get(key))) is not None), None)
    return _names_in(inner) if inner is not feature else None


def gather_boxes(
    values: Mapping[str, list[Objects]], classes: list[str] | None, names: Mapping[str, str]
) -> dict[str, Boxes]:
    """The boxes of each split, with the same classes for all. names: of the splits in messages."""
    where = next(iter(names.values()))
    used = {one[0] for column in values.values() for objects in column for one in objects} - {-1}
    table, known = _table(used, classes, where)
    truths = {}
    for key, column in values.items():
        for i, objects in enumerate(column):
            for one in objects:
                if one[0] != -1 and one[0] not in table:
                    raise InputError(
                        f"{names[key]}[{i}] has a box of the class {one[0]!r}, which is none of {listed(known)}"
                    )
        rows = [torch.tensor([one[1:] for one in objects], dtype=torch.float32).reshape(-1, 4) for objects in column]
        labels = [-1 if one[0] == -1 else table[one[0]] for objects in column for one in objects]
        truths[key] = Boxes(Rows.of(rows, torch.zeros(0, 4)), torch.tensor(labels, dtype=torch.int64), known)
    return truths


def _table(used: set[Any], classes: list[str] | None, where: str) -> tuple[dict[Any, int], list[str]]:
    """Of each label that occurs its place among the classes, and their names."""
    numbers = sorted(value for value in used if isinstance(value, int))
    if len(numbers) < len(used):
        if numbers:
            raise InputError(f"{where} has labels that are numbers and such that are names; give one kind")
        known = classes if classes is not None else sorted(used)
        return {name: known.index(name) for name in used if name in known}, known
    if classes is None:
        counted = 0 in used and numbers[-1] < _MOST
        shown = list(range(numbers[-1] + 1)) if counted else numbers
        return {value: k for k, value in enumerate(shown)}, [str(value) for value in shown]
    if "" in classes:  # of ids with gaps
        ids = [k for k, name in enumerate(classes) if name]
        return {value: k for k, value in enumerate(ids)}, [classes[value] for value in ids]
    if classes[:1] and classes[0].casefold() in _BACKGROUND:
        return {k: k - 1 for k in range(1, len(classes))}, classes[1:]
    if numbers and numbers[0] >= 1 and numbers[-1] == len(classes):
        errors.say(f"{where}: labels are 1 to {numbers[-1]}, so 0 is read as the background, as torchvision's have it")
        return {k + 1: k for k in range(len(classes))}, classes
    if numbers and numbers[0] >= 1:
        errors.say(
            f"{where}: no box has the label 0, {classes[0]}; where labels count from 1, "
            "give 'background' as the first of classes"
        )
    return {k: k for k in range(len(classes))}, classes


READER = TargetReader("boxes", read_objects, object_column, object_names, gather_boxes)
