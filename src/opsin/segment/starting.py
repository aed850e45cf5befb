"""What a segmenter's training begins with where its flags leave it open: augmentation, the batch and the rate.

Images are mirrored, where that makes no other class, and made larger and smaller; a batch is as small as it takes to
step often where images are few.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from opsin.data import Preprocessing, Source
from opsin.engine.recipe import Recipe
from opsin.engine.starting import Start, choose_batch, choose_open, have_sides

_BATCHES = (2, 4, 8, 16)
_TUNED = 3e-4  # the rate with an encoder that knows something, and without one 1e-3, the default of the task
_SCALE = (0.75, 1.33)


def choose(recipe: Recipe, source: Source, preprocessing: Preprocessing | None, given: Collection[str]) -> Start:
    """The keys that the flags left open, for this data. See `opsin.engine.starting`."""
    values: dict[str, Any] = {"train.batch_size": choose_batch(len(source.splits["train"]), _BATCHES)}
    steps: list[dict[str, dict[str, Any]]] = [{"scale_jitter": {"scale": list(_SCALE)}}]
    characters = any(len(name) == 1 and name.isalnum() for name in source.classes)
    mirrors = not characters and not have_sides(source.classes)
    steps += [{"random_horizontal_flip": {}}] if mirrors else []
    values["augment"] = steps
    tuned = bool(recipe.model.weights or recipe.train.init or recipe.model.options.get("backbone_weights"))
    if tuned or recipe.model.backbone_weights:
        values["optim.lr"] = _TUNED
    return choose_open(values, given)
