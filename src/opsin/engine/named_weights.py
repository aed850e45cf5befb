"""Networks with weights that no training here made, published ones and files of one's own, as if one had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from opsin import registry
from opsin.backbones.fitting import fit_weights
from opsin.backbones.weight_files import read_weights
from opsin.data import Preprocessing, class_names
from opsin.engine.recipe import Recipe, load_recipe
from opsin.engine.recipe_data import create_preprocessing
from opsin.errors import InputError, unknown
from opsin.schemes import find_local

Classes = Sequence[str] | str | None


def saved_parts(
    name: str,
    weights: str | Path,
    *,
    classes: Classes = None,
    preprocessing: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The parts of what a training saves, by the fields of `opsin.engine.checkpoint.Saved`.

    weights: a name of published ones, fetched unless they are there, or a file, see `opsin.load_weights`. Of a file:
    classes: their names in order, or the data set that has them ("imagenet1k", "coco"); numbers if None.
    preprocessing: keys of `opsin.data.Preprocessing`; those left out are as the model's recipe would have them.
    options: of the builder. Raises InputError for what does not fit.
    """
    name, weights = registry.find_model(name).name, str(weights)
    path = find_local(weights) or (Path(weights) if registry.is_weight_file(name, weights) else None)
    if path is not None:
        return _of_file(name, weights, path, classes, preprocessing or {}, options or {})
    if classes is not None or preprocessing or options:
        raise InputError(f"{name}:{weights} is published with its classes and preprocessing; leave these out")
    return _of_published(name, weights)


def _of_published(name: str, weights: str) -> dict[str, Any]:
    published = registry.find_weights(name, weights)
    preprocessing = Preprocessing.from_dict(published.preprocessing)
    options: dict[str, Any] = {"num_classes": published.num_classes, "in_channels": preprocessing.channels}
    own = dict(published.options)
    model = registry.create_model(name, weights=weights, **options, **own)
    return {
        "recipe": _recipe(name, weights, own, {}),
        "preprocessing": preprocessing,
        "meaning": {"classes": list(class_names(published.classes, published.num_classes))},
        "options": options,
        "state": model.state_dict(),
    }


def _of_file(
    name: str, shown: str, path: Path, classes: Classes, given: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    known = registry.find_model(name).options
    data, own = _data(given), dict(options)
    stated = {key: own.pop(key) for key in ("num_classes", "in_channels") if key in own}
    if classes is not None and not isinstance(classes, str) and "num_classes" in known:
        stated["num_classes"] = len(classes)
    recipe = _recipe(name, shown, own, data)
    file = read_weights(path)
    with torch.device("meta"):
        form = registry.create_model(name, **stated, **own)
    fitted = fit_weights(form, name, file, {**stated, **own}, shown=shown)
    found = {key: n for key, n in fitted.source.items() if key in known}
    for key, n in stated.items():
        if found.get(key, n) != n:
            raise InputError(f"{shown} is for {found[key]} {key.partition('_')[2]}, and {n} are given")
    model = registry.create_model(name, **{**stated, **found}, **own)
    fitted = fit_weights(model, name, file, {**stated, **found, **own}, shown=shown)
    if fitted.fresh:
        raise InputError(
            f"{shown} lacks {fitted.fresh[0]} of {name}, and so gives no answers; a training can begin with it: "
            f"opsin train {name} --weights {shown}"
        )
    number, channels = _size(model, "num_classes", stated | found), _size(model, "in_channels", stated | found)
    sizes = {"num_classes": number, "in_channels": channels}
    return {
        "recipe": recipe,
        "preprocessing": create_preprocessing(recipe, channels),
        "meaning": {} if number is None else {"classes": _names(classes, number, shown)},
        "options": {key: n for key, n in sizes.items() if n is not None and key in known},
        "state": model.state_dict(),
        "first_weights": {"file": path.name},
    }


def _size(model: nn.Module, key: str, known: Mapping[str, int]) -> int | None:
    """The classes or the channels of a network; None where it has no such number."""
    return known.get(key, getattr(model, key, None))


def _names(classes: Classes, number: int, shown: str) -> list[str]:
    names = list(class_names(classes or "", number)) if classes is None or isinstance(classes, str) else list(classes)
    if len(names) != number:
        raise InputError(f"{shown} is for {number} classes, and {len(names)} names are given")
    return [str(one) for one in names]


def _data(given: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a recipe's data section that say a preprocessing."""
    known = ("size", "channels", "mean", "std", "fit", "crop_ratio", "interpolation")
    for key in given:
        if key not in known:
            raise unknown("key of preprocessing", key, known)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in given.items()}


def _recipe(name: str, weights: str, options: Mapping[str, Any], data: Mapping[str, Any]) -> Recipe:
    task = registry.find_model(name).task
    model = {"name": name, "weights": weights, **options}
    return load_recipe({"task": task, "model": model, "data": {"source": "", **data}})
