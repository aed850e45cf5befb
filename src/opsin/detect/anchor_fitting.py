"""How the boxes of a data set fit a detector's anchors and maps, and anchors found for them: `model.anchors: auto`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opsin import registry
from opsin.data import Preprocessing, Source, Split, UnreadableImage
from opsin.data.source import map_threads
from opsin.detect.detector import Detector
from opsin.detect.targets import usable
from opsin.engine.first_weights import described_recipe
from opsin.engine.recipe import Recipe, load_recipe
from opsin.engine.starting import Start
from opsin.ops import kmeans_anchors, shape_iou
from opsin.structures import Instances

Anchors = Sequence[Sequence[float]]

AUTO = "auto"
_IMAGES = 5_000  # that are looked at, evenly spaced, and boxes that are clustered: enough for a mean, and quick
_BOXES = 20_000
_CLEARLY = 0.1  # of mean IoU, by which other anchors have to fit better to be worth a line


def choose(recipe: Recipe, source: Source, preprocessing: Preprocessing | None, given: Collection[str]) -> Start:
    """For a training begun by flags: anchors of the data, or those that the first weights were trained with."""
    if anchor_default(recipe) is None or "model.anchors" in given or recipe.model.weights is not None:
        return Start()
    if recipe.train.init is None:
        return Start({"model.anchors": AUTO})
    first: Any = described_recipe(recipe.train.init)
    model = first.get("model", {})
    if first and first.get("task") != recipe.task:
        return Start({"model.anchors": AUTO})  # of a classification network, which has none
    if model.get("name") == recipe.model.name and model.get("anchors"):
        return Start({"model.anchors": model["anchors"]}, f"anchors: those of {recipe.train.init}, as its weights")
    return Start()


def anchor_default(recipe: Recipe) -> Anchors | None:
    """The list of anchors that a recipe's model has where none is given; None for one that takes no list."""
    options = registry.find_model(recipe.model.name).options
    default = options["anchors"].default if "anchors" in options else None
    return None if default is None or isinstance(default, str) else default


def without_auto(recipe: Recipe) -> Recipe:
    """The recipe as if it left the anchors to its model, where it leaves them to the data."""
    if recipe.model.options.get("anchors") != AUTO or anchor_default(recipe) is None:
        return recipe
    values = recipe.model_dump()
    del values["model"]["anchors"]
    return load_recipe(values)


def find_anchors(recipe: Recipe, split: Split, preprocessing: Preprocessing) -> tuple[Recipe, list[str]]:
    """The recipe with anchors for a split's boxes in the place of "auto", and what was found, in a line."""
    default = anchor_default(recipe)
    plain = without_auto(recipe)
    if plain is recipe or default is None:
        return recipe, []
    sides, count = box_sides(split, preprocessing), _anchor_count(recipe, default)
    name, size = recipe.model.name, "x".join(map(str, preprocessing.size))
    if len(sides.unique(dim=0)) < count:
        few = f"{len(sides.unique(dim=0))} different sizes of boxes are too few for {count} anchors"
        return plain, [f"anchors: {few}; those of {name} stay"]
    found = fit_anchors(sides, count)
    before, after = mean_best_iou(sides, default), mean_best_iou(sides, found)
    fit = f"mean best IoU {before:.2f} with those of {name}, {after:.2f} with {count} by k-means"
    if after <= before:
        return plain, [f"anchors: {fit}; those of {name} stay"]
    shown = ", ".join(f"{w:g}x{h:g}" for w, h in found)
    line = f"anchors: {fit} on {len(sides):,} training boxes at {size}: {shown}; model.anchors overrides"
    return load_recipe(plain.model_dump(), {"model.anchors": found}), [line]


def describe_fit(recipe: Recipe, model: Detector, split: Split, preprocessing: Preprocessing) -> list[str]:
    """What of a training split's boxes does not fit a detector, in plain words; nothing for most."""
    sides, lines = box_sides(split, preprocessing), []
    if not len(sides):
        return []
    anchors: Any = recipe.model.options.get("anchors") or anchor_default(recipe)
    if anchor_default(recipe) is not None and len(sides.unique(dim=0)) >= len(anchors):
        own, better = mean_best_iou(sides, anchors), mean_best_iou(sides, fit_anchors(sides, len(anchors)))
        if own + _CLEARLY < better:
            lines.append(
                f"the anchors fit the training boxes with a mean best IoU of {own:.2f}, k-means would with "
                f"{better:.2f}: --set model.anchors=auto"
            )
    if not model.strides:  # it looks at regions, one by one
        return lines
    stride, means = min(model.strides), sides.prod(dim=1).sqrt()
    share = (means < stride).float().mean().item()
    if share > 0.5:
        size = preprocessing.size
        larger = [-(-side * stride / means.median().item() // model.divisor) * model.divisor for side in size]
        advice = f"data.size=[{larger[0]:.0f}, {larger[1]:.0f}] brings half of them above it"
        if model.fixed_size is not None:
            advice = "take a model of a larger input or of finer maps"
        lines.append(
            f"{100 * share:.0f} % of the training boxes are smaller than {stride}x{stride} pixels, a cell of the "
            f"finest map of {recipe.model.name}, at an input of {size[0]}x{size[1]}: {advice}"
        )
    return lines


def place(split: Split, preprocessing: Preprocessing, index: int) -> Instances:
    """An image's objects in pixels of the input, none of an image that cannot be read."""
    one: Instances = split.kind.at(index)
    if not len(one):
        return one
    try:
        size = split.inputs.size(index)
    except UnreadableImage:
        return one[:0]
    assert size is not None
    return replace(one, boxes=preprocessing.place_boxes(one.boxes, size))


def box_sides(split: Split, preprocessing: Preprocessing) -> Tensor:
    """Widths and heights (N, 2) of a split's objects in pixels of the input; of some of them, where there are many."""
    step = -(-len(split) // _IMAGES)
    chosen = split.subset(np.arange(0, len(split), step)) if step > 1 else split
    placed: list[Instances] = map_threads(partial(place, chosen, preprocessing), range(len(chosen)))
    learned = [usable(_labelled(one), preprocessing.size).boxes for one in placed]
    boxes = torch.cat([torch.zeros(0, 4), *learned])
    boxes = boxes[:: max(1, -(-len(boxes) // _BOXES))]
    return boxes[:, 2:] - boxes[:, :2]


def fit_anchors(sides: Tensor, count: int) -> list[list[float]]:
    """Anchors by k-means, to a tenth of a pixel, by rising area. Those of the same sides are found once."""
    return [list(pair) for pair in _fit(sides.numpy().tobytes(), count)]


@lru_cache(maxsize=4)
def _fit(sides: bytes, count: int) -> tuple[tuple[float, ...], ...]:
    given = torch.frombuffer(bytearray(sides), dtype=torch.float32).view(-1, 2)
    return tuple(
        tuple(max(0.1, round(side, 1)) for side in pair) for pair in kmeans_anchors(given, count).sizes.tolist()
    )


def mean_best_iou(sides: Tensor, anchors: Anchors) -> float:
    """Of each object, by its sides, with the anchor of the most alike shape, on average."""
    return shape_iou(sides, torch.tensor(anchors, dtype=torch.float32)).amax(dim=1).mean().item()


def _labelled(one: Instances) -> Instances:
    return one if one.labels is None else one[one.labels >= 0]


def _anchor_count(recipe: Recipe, default: Anchors) -> int:
    """As many as the model has; for other strides than its own, as many at each."""
    options = registry.find_model(recipe.model.name).options
    own = options["strides"].default if "strides" in options else None
    strides = recipe.model.options.get("strides", own)
    return len(default) if not own or not strides else len(default) // len(own) * len(strides)
