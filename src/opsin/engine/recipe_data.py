"""The data that a recipe names: opened, divided, and how its images become a network's input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from opsin import data, objects, registry
from opsin.backbones.extraction import find_backbone
from opsin.data import Preprocessing, Source, Split
from opsin.data.decoder_messages import listening
from opsin.data.said_problems import describe_problems
from opsin.data.source import examine, with_messages
from opsin.engine.membership import divide_for_training
from opsin.engine.recipe import ModelSection, Recipe, own_section
from opsin.errors import InputError
from opsin.progress import Meter
from opsin.schemes import is_named

Say = Callable[[str], None]


@dataclass(frozen=True)
class GivenData:
    """A data set that a call was given. classes: names of its classes, where it does not say them."""

    dataset: Any
    classes: Sequence[str] | None = None


def open_data(recipe: Recipe, source: Any = None, classes: Sequence[str] | None = None) -> Source:
    """The recipe's data, or another source, a name, a path or a data set, opened as the recipe's own is.

    classes: what the numbers of a data set mean that does not say it. What must be downloaded is, where the call under
    way names it; see `opsin.schemes.naming`.
    """
    opening = own_section(recipe).opening()
    if source is None or (isinstance(source, str) and not source):
        source = recipe.data.source
        if objects.is_object(source):
            source = objects.find("data.source", source)
    if isinstance(source, str | Path):
        return data.open(source, recipe.task, fetch=is_named(source), allow=recipe.data.allow, **opening)
    given = source if isinstance(source, GivenData) else GivenData(source)
    return data.open(given.dataset, recipe.task, classes=given.classes, default_classes=classes, **opening)


def open_readable(recipe: Recipe, say: Say, source: str | None = None, **opening: Any) -> Source:
    """`open_data`, with every file read: InputError names the bad ones, or the recipe skips them and `say` gets a line.

    opening: the task, and keywords of `opsin.data.open`, where they are others than the recipe's.
    """
    name = source or recipe.data.source
    opening = opening and {"fetch": is_named(name), "allow": recipe.data.allow, **opening}
    opened = data.open(name, **opening) if opening else open_data(recipe, source)
    with listening() as heard, Meter("checking files", None, "files") as meter:
        opened, problems = examine(opened, progress=meter)
    opened.problems += with_messages((), {k: v for k, v in heard.items() if k not in {one.path for one in problems}})
    problems = [one for one in with_messages(problems, heard) if one.kind == "unreadable"]
    if problems and not recipe.data.skip_bad:
        listed = "; ".join(f"{p.path}: {p.reason}" for p in problems[:5])
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise InputError(f"{len(problems)} unreadable files in {name}: {listed}{more}; remove them or pass --skip-bad")
    for problem in problems:
        say(f"skipped {problem.path}: {problem.reason}")
    opened = opened.without(problems) if problems else opened
    for line in describe_problems(opened):
        say(line)
    return opened


def open_own(recipe: Recipe) -> Source:
    """The data of a finished training once more, less what it skipped."""
    source = open_data(recipe)
    return source.without(data.verify(source)) if recipe.data.skip_bad else source


def split_data(recipe: Recipe, source: Source) -> dict[str, Split]:
    """The train, val and test splits that a recipe makes of a source; see `opsin.engine.membership`."""
    return divide_for_training(recipe, source)


def _stated_preprocessing(model: ModelSection) -> Mapping[str, Any]:
    """What the published weights that a model starts from expect. Those of a backbone say nothing of the size."""
    if model.weights is not None:
        return registry.find_weights(model.name, model.weights).preprocessing
    if model.backbone_weights is None:
        return {}
    with torch.device("meta"):
        backbone = find_backbone(registry.create_model(model.name, **model.options))
    if backbone is None:
        raise InputError(
            f"{model.name} has no registered backbone inside; set model.weights, or remove model.backbone_weights"
        )
    stated = registry.find_weights(backbone, model.backbone_weights).preprocessing
    return {key: stated[key] for key in ("channels", "mean", "std", "interpolation") if key in stated}


def create_preprocessing(recipe: Recipe, channels: int | None) -> Preprocessing:
    """The preprocessing that a recipe asks for; its unset keys follow from the published weights or the model's input.

    channels: of the data, where neither the recipe nor the weights say it.
    """
    data, model = recipe.data, recipe.model
    given = _stated_preprocessing(model)
    channels = data.channels or given.get("channels") or channels or 3
    if channels != given.get("channels", channels):
        given = {k: v for k, v in given.items() if k not in ("mean", "std")}
    stated = registry.find_model(model.name).input_size
    # ImageNet's statistics, which every published colour model expects; the middle of the range for grey images.
    mean, std = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) if channels == 3 else ((0.5,), (0.5,))
    values: dict[str, Any] = {"size": stated and stated[1:], "mean": mean, "std": std, **given}
    for name in ("size", "fit", "crop_ratio", "interpolation", "mean", "std"):
        if (asked := getattr(data, name)) is not None:
            values[name] = asked
    for name in ("mean", "std"):
        if len(values[name]) != channels:
            raise InputError(
                f"data.{name} has {len(values[name])} values for images of {channels} channels; give {channels}, "
                f"set data.{name}=null for the usual ones, or data.channels={len(values[name])}"
            )
    if values["size"] is None:
        raise InputError(f"{model.name} states no size of its input; set data.size, in pixels")
    if isinstance(values["size"], int):
        values["size"] = (values["size"], values["size"])
    return Preprocessing(**{**values, "channels": channels})
