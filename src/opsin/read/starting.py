"""What a recognizer's training begins with where its flags leave it open: its alphabet, its batch and its rate."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from opsin.data import Preprocessing, Source
from opsin.engine.recipe import Recipe
from opsin.engine.starting import Start, choose_batch

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
    values = {key: value for key, value in values.items() if key not in given}
    return Start(values, _describe(values)) if values else Start()


def _describe(values: dict[str, Any]) -> str:
    """The choices in one line."""
    parts = [f"lr {values['optim.lr']:g}"] if "optim.lr" in values else []
    if "train.batch_size" in values:
        parts.append(f"batches of {values['train.batch_size']}")
    if steps := values.get("augment"):
        parts.append("augment " + " + ".join(name for step in steps for name in step))
    return f"training: {', '.join(parts)}; a recipe or --set overrides"
