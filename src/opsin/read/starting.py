"""What a recognizer's training begins with where its flags leave it open: its alphabet, its batch and its rate."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from opsin.data import Preprocessing, Source
from opsin.engine.recipe import Recipe
from opsin.engine.starting import Start, choose_batch, choose_open

_BATCHES = (8, 16, 32, 64)
_TUNED = 3e-4  # the rate of weights that know something; 1e-3 without, the default of the task


def choose(recipe: Recipe, source: Source, preprocessing: Preprocessing | None, given: Collection[str]) -> Start:
    """The keys that the flags left open, for this data. See `opsin.engine.starting`."""
    values: dict[str, Any] = {"train.batch_size": choose_batch(len(source.splits["train"]), _BATCHES)}
    if recipe.train.init is not None or recipe.model.weights or recipe.model.backbone_weights:
        values["optim.lr"] = _TUNED
    values["augment"] = [
        {"random_affine": {"degrees": 3, "shear": [-10, 10]}},
        {"color_jitter": {"brightness": 0.3, "contrast": 0.3}},
    ]
    return choose_open(values, given)
