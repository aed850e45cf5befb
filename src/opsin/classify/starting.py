"""What a classifier's training begins with where its flags leave it open: from scratch, or from weights that know.

From weights the rate is low, and where there are few images the head alone is trained first. Augmentation follows the
size of the input, whether images are coloured, and whether the names of the classes allow to mirror them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from opsin.data import Preprocessing, Source
from opsin.engine.recipe import Recipe
from opsin.engine.starting import Start, choose_batch, have_sides

_FEW = 2000  # training images below which fine-tuning begins with a frozen backbone
_SMALL = 64  # pixels; larger inputs are of photographs, which are cropped and enlarged rather than shifted
_BATCHES = (16, 32, 64)
# Rates with weights to start from, and without. Adam's kind, whose steps are as long as the rate, and the rest.
_ADAPTIVE = {True: 5e-4, False: 2e-3}
_PLAIN = {True: 0.01, False: 0.05}
_ADAPTIVE_NAMES = ("adam", "adamw", "nadam", "radam", "ranger", "rmsprop")
_OPTIM_KEYS = ("optim.name", "optim.lr", "optim.weight_decay", "optim.decay_norm_and_bias", "optim.layer_decay")


def choose(recipe: Recipe, source: Source, preprocessing: Preprocessing | None, given: Collection[str]) -> Start:
    """The keys that the flags left open, for this data. See `opsin.engine.starting`."""
    tuned = recipe.model.weights is not None or recipe.train.init is not None
    images, epochs = len(source.splits["train"]), recipe.train.epochs
    values = _optimizer(recipe, given, tuned)
    warmup = min(1.0, epochs / 10)
    if recipe.schedule.name == "cosine":
        values["schedule.warmup_epochs"] = warmup
    values["train.batch_size"] = choose_batch(images, _BATCHES)
    if preprocessing is not None:
        values["augment"] = _augmentation(preprocessing, source.classes, tuned)
    if tuned and images < _FEW and epochs > 1:
        values["train.freeze_epochs"] = max(1, epochs // 10)
    values = {key: value for key, value in values.items() if key not in given}
    return Start(values, _describe(values, tuned)) if values else Start()


def _optimizer(recipe: Recipe, given: Collection[str], tuned: bool) -> dict[str, Any]:
    """AdamW, which trains networks with and without norms; of an optimizer that is given, its rate."""
    other = [key for key in given if key.startswith("optim.") and key not in _OPTIM_KEYS]
    name = recipe.optim.name
    if "optim.name" not in given and not other:  # an option belongs to the optimizer that it was given for
        name = "adamw"
    own = name.rpartition(".")[2].rstrip(">").lower()  # of a class by its path
    rate = (_ADAPTIVE if own in _ADAPTIVE_NAMES or "adam" in own else _PLAIN)[tuned]
    if name != "adamw" or other:
        return {"optim.lr": rate}
    return {"optim.name": name, "optim.lr": rate, "optim.weight_decay": 0.05, "optim.decay_norm_and_bias": False}


def _augmentation(preprocessing: Preprocessing, classes: Sequence[str], tuned: bool) -> list[dict[str, dict[str, Any]]]:
    """Small shifts of small images, crops of large ones; mirrored where that makes no other class."""
    side, grey = min(preprocessing.size), preprocessing.channels == 1
    # Grey ones are often of characters, garments or scans: set in the middle, and with a left and a right.
    crop: dict[str, dict[str, Any]] = {"random_crop": {"padding": max(1, side // (16 if grey else 8))}}
    if side > _SMALL:
        crop = {"random_resized_crop": {"scale": [0.5 if tuned else 0.25, 1.0]}}
    return [crop] if grey or not _mirrors(classes) else [crop, {"random_horizontal_flip": {}}]


def _mirrors(classes: Sequence[str]) -> bool:
    """Whether a mirrored image is still one of its class: not of characters, nor of what has a side in its name."""
    characters = bool(classes) and all(len(name) == 1 for name in classes)
    return not characters and not have_sides(classes)


def _describe(values: dict[str, Any], tuned: bool) -> str:
    """The choices in one line."""
    parts = ["AdamW"] if values.get("optim.name") == "adamw" else []
    for key, word in (("optim.lr", "lr"), ("optim.weight_decay", "weight decay")):
        parts += [f"{word} {values[key]:g}"] if key in values else []
    if warmup := values.get("schedule.warmup_epochs"):
        parts.append(f"warm-up {warmup:g} epoch")
    if "train.batch_size" in values:
        parts.append(f"batches of {values['train.batch_size']}")
    if steps := values.get("augment"):
        parts.append("augment " + " + ".join(name for step in steps for name in step))
    if frozen := values.get("train.freeze_epochs"):
        parts.append(f"only the head in the first {'epoch' if frozen == 1 else f'{frozen} epochs'}")
    title = "fine-tuning" if tuned else "training from scratch"
    return f"{title}: {', '.join(parts)}; a recipe or --set overrides"
