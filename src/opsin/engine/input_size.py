"""`data.size: auto`: the size of a network's input by its images, by what they show, and by the network's strides."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from opsin import registry
from opsin.data import Source, Split
from opsin.data.images import UnreadableImage
from opsin.engine.recipe import Recipe, load_recipe
from opsin.errors import InputError
from opsin.nn.capabilities import SizeLimits, size_limits

AUTO = "auto"
CELLS = 2  # of the finest map, that all objects but the smallest tenth are to span
_SMALLEST = 0.1
_MEASURED = 2000  # images that are looked at, evenly spaced over the split
_LARGEST = 2  # times the published size, which is four times its memory and time


def choose_size(recipe: Recipe, source: Source, kind: Any) -> tuple[Recipe, list[str]]:
    """The recipe with a size in the place of "auto", and a line with the reason.

    kind: the task's class. Raises InputError for inputs that are no images.
    """
    if recipe.data.size != AUTO:
        return recipe, []
    split, model = source.splits["train"], recipe.model
    if split.inputs.key != "image":
        raise InputError(f"data.size: auto is for images, {source.name} has none; remove it")
    published = None
    if registry.find_model(model.name).facts is not None or model.weights is not None:
        published = kind.create_preprocessing(load_recipe(recipe.model_dump(), {"data.size": None}), source).size
    options = {key: value for key, value in model.options.items() if value != AUTO}
    with torch.device("meta"):
        limits = size_limits(registry.create_model(model.name, **options))
    images, objects = measure(split)
    if limits.fixed is not None:
        side, reason = limits.fixed, f"{model.name} takes no other"
    elif len(objects) and limits.strides:
        side, reason = size_for_objects(published and max(published), images, objects, limits)
    else:
        side, reason = size_for_images(published and max(published), images, limits, weights=model.weights)
    line = f"data.size: {side}x{side}: {reason}; data.size overrides"
    return load_recipe(recipe.model_dump(), {"data.size": side}), [line]


def measure(split: Split) -> tuple[tuple[int, int], np.ndarray]:
    """The median (height, width) of a split's images, and of each object the root of the share of its image's area."""
    sizes, shares = [], []
    for i in np.unique(np.linspace(0, len(split) - 1, min(len(split), _MEASURED)).astype(int)).tolist():
        try:
            size = split.inputs.size(i)
        except UnreadableImage:
            continue
        if size is None:
            continue
        sizes.append(size)
        boxes = None if split.truth is None else split.truth.extents(i)
        if boxes is not None and len(boxes):
            sides = (boxes[:, 2:] - boxes[:, :2]).double().clamp(min=0).numpy()
            shares.append(np.sqrt(sides.prod(axis=1) / (size[0] * size[1])))
    if not sizes:
        raise InputError("data.size: auto finds no image whose size can be read; give a number")
    height, width = np.median(np.array(sizes), axis=0)
    found = np.concatenate(shares) if shares else np.zeros(0)
    return (round(float(height)), round(float(width))), found[found > 0]


def size_for_objects(
    published: int | None, images: tuple[int, int], objects: np.ndarray, limits: SizeLimits
) -> tuple[int, str]:
    """The side of an input in which small objects span two cells of the finest map, and why.

    That of the images, at most the published one; more where the objects need it, up to the images' own size, or to the
    published one where they are smaller, and to twice that at most.
    """
    own, stride = max(images), min(limits.strides)
    published = published or own
    share = float(np.quantile(objects, _SMALLEST))
    needed = CELLS * stride / share
    side = max(min(published, own), min(needed, max(published, own), _LARGEST * published))
    side = _allowed(side, limits)
    pixels, multiple = side * share, _multiple(limits)
    wanted = f"{CELLS} cells of the finest map, of stride {stride}"
    if pixels >= CELLS * stride:
        fit = f"nine of ten objects span {pixels:.0f} pixels or more in it ({wanted})"
    else:
        fit = f"a tenth of the objects span less than {pixels:.0f} pixels in it, {needed:.0f} would give {wanted}"
    return side, f"{fit}; images are {images[0]}x{images[1]} in the middle; a multiple of {multiple}"


def size_for_images(
    published: int | None, images: tuple[int, int], limits: SizeLimits, *, weights: str | None = None
) -> tuple[int, str]:
    """The published side of an input, or that of the images where they are smaller, and why."""
    own = max(images)
    shown = f"images are {images[0]}x{images[1]} in the middle"
    if published is not None and weights is not None:
        return published, f"what the weights {weights} were trained with; {shown}"
    multiple = _multiple(limits)
    side = _allowed(max(own, CELLS * max(limits.strides, default=1)), limits)
    if published is not None and side >= published:
        return published, f"the published size; {shown}"
    return side, f"{shown}; a multiple of {multiple}, {CELLS} cells of the coarsest map at least"


def _multiple(limits: SizeLimits) -> int:
    """What a side is rounded up to: what the network demands, else its coarsest stride up to 32."""
    usual = [stride for stride in limits.strides if stride <= 32]
    return limits.divisor if limits.divisor > 1 else max(usual, default=1)


def _allowed(side: float, limits: SizeLimits) -> int:
    multiple = _multiple(limits)
    return int(-(-max(side, limits.smallest) // multiple)) * multiple
