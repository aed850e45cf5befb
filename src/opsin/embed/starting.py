"""What an embedder's training begins with where its flags leave it open: its batch, its rate and augmentation."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from opsin.data import Preprocessing, Source
from opsin.engine.recipe import Recipe
from opsin.engine.starting import Start, choose_batch, choose_open

_BATCHES = (32, 64, 128)
_TUNED = 3e-4  # the rate of weights that know something; 1e-3 without, the default of the task


def choose(recipe: Recipe, source: Source, preprocessing: Preprocessing | None, given: Collection[str]) -> Start:
    """The keys that the flags left open, for this data. See `opsin.engine.starting`."""
    values: dict[str, Any] = {"train.batch_size": choose_batch(len(source.splits["train"]), _BATCHES)}
    if recipe.train.init is not None or recipe.model.weights or recipe.model.backbone_weights:
        values["optim.lr"] = _TUNED
    side = 32 if preprocessing is None else min(preprocessing.size)
    values["augment"] = [{"random_crop": {"padding": max(1, side // 16)}}]
    return choose_open(values, given)
