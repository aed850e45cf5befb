"""The criterion of a segmenter's training, by a recipe and the data: which loss, and what each class weighs in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from opsin import objects
from opsin.data import Source, Split
from opsin.engine.recipe import Recipe
from opsin.errors import InputError
from opsin.losses import create_pixel_loss

_WEIGHTED = ("cross_entropy", "focal", "sigmoid_focal")  # losses that classes have weights in


def create_criterion(recipe: Recipe, source: Source) -> nn.Module | None:
    """The recipe's criterion for a divided source; None keeps the model's own.

    class_weights: a number a class, "balanced" or "median_frequency", see `class_weights`; in a weighted sum they are
    those of each loss that takes some. Raises InputError for what does not fit.
    """
    section = recipe.loss
    if section.name is None and section.class_weights is None and not section.options:
        return None
    name, options = section.name or "cross_entropy", dict(section.options)
    if section.class_weights is not None:
        _check_weighted(name, options)
        weights = section.class_weights
        if isinstance(weights, str):
            if source.meaning.get("overlapping"):
                raise InputError(
                    f"loss.class_weights={weights} is for classes of which a pixel has one; where they overlap take "
                    "loss.name=dice or focal, or give a number for each"
                )
            weights = class_weights(weights, source.splits["train"])
        if len(weights) != len(source.classes):
            raise InputError(f"loss.class_weights has {len(weights)} values for {len(source.classes)} classes")
        options = _with_weights(name, options, list(weights))
    return create_pixel_loss(name, **options)


def class_weights(rule: str, split: Split) -> list[float]:
    """A weight for each class by the pixels of a training split; 0 for one that it does not have.

    "balanced": all pixels / (classes that are there * pixels of the class), so that each class weighs the same.
    "median_frequency": how frequent a class is among the pixels of the images that have it, the median over the
    classes divided by that of the class; Eigen and Fergus 2015, arXiv:1411.4734, section 6.3.
    """
    counts = split.kind.counts[:, : len(split.kind.classes)].astype(np.float64)  # (N, K), pixels
    totals = counts.sum(axis=0)
    there = totals > 0
    if not there.any():
        raise InputError("loss.class_weights cannot be found: of no pixel of the training images is the class known")
    if rule == "balanced":
        return np.divide(totals.sum(), there.sum() * totals, out=np.zeros_like(totals), where=there).tolist()
    shown = ((counts > 0) * counts.sum(axis=1, keepdims=True)).sum(axis=0)
    frequency = np.divide(totals, shown, out=np.zeros_like(totals), where=there)
    median = np.median(frequency[there])
    return np.divide(median, frequency, out=np.zeros_like(totals), where=there).tolist()


def _check_weighted(name: str, options: Mapping[str, Any]) -> None:
    if "." in name or objects.is_object(name):
        raise InputError(
            f"loss.class_weights are of losses by name; give {objects.short_name(name)} its weights itself"
        )
    criteria = options.get("criteria") if name == "weighted_sum" else {name: None}
    if isinstance(criteria, Mapping) and not set(criteria) & set(_WEIGHTED):
        raise InputError(
            f"loss.class_weights needs one of the losses {', '.join(_WEIGHTED)}; {' and '.join(criteria)} take none"
        )


def _with_weights(name: str, options: dict[str, Any], weights: list[float]) -> dict[str, Any]:
    if name != "weighted_sum":
        return {**options, "weight": weights}
    criteria = {
        key: {**(own or {}), "weight": weights} if key in _WEIGHTED else own
        for key, own in options.get("criteria", {}).items()
    }
    return {**options, "criteria": criteria}
