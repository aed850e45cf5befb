"""Training of classifiers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opsin import registry
from opsin.backbones.backbone import training_options
from opsin.data import Preprocessing, Source, create_mixing
from opsin.data.transforms.batch_mixing import draw_partners, draw_share, mix_images
from opsin.engine.checkpoint import Facts
from opsin.engine.recipe import Recipe, own_section
from opsin.engine.task import Task
from opsin.errors import InputError
from opsin.losses import create_loss
from opsin.structures import Batch


class ClassifyTask(Task):
    """Trains a Backbone, with its own criterion or the recipe's, on labels that may be mixed."""

    def __init__(self, model: Any, facts: Facts) -> None:
        super().__init__(model, facts)
        mixing = facts.recipe.mixing
        if mixing.by == "losses" and (mixing.cutmix or not mixing.mixup):
            raise InputError("mixing.by=losses is of MixUp alone; set mixing.mixup, and mixing.cutmix=0")
        if mixing.partners == "permutation" and not mixing.mixup:
            raise InputError("mixing.partners=permutation is of MixUp; set mixing.mixup")
        self.mixing = create_mixing(mixing.mixup, mixing.cutmix, len(facts.classes), mixing.partners)

    @classmethod
    def options(cls, recipe: Recipe, preprocessing: Preprocessing | None, source: Source) -> dict[str, Any]:
        known = training_options(registry.find_model(recipe.model.name).options)
        own = {name: value for name, value in known.items() if name not in recipe.model.options}
        return {**super().options(recipe, preprocessing, source), **own}

    @classmethod
    def build(cls, recipe: Recipe, preprocessing: Preprocessing | None, source: Source) -> Task:
        task = super().build(recipe, preprocessing, source)
        assert preprocessing is not None
        _check_size(task.model, recipe.model.name, preprocessing.size)
        task.model.multi_label = own_section(recipe).multi_label
        criterion = _create_criterion(recipe, source.splits["train"].kind.presence, len(source.classes))
        if criterion is not None:
            task.model.criterion = criterion
        return task

    def targets(self, batch: Batch) -> Tensor:
        return batch["label"]

    def seen(self, batch: Batch) -> tuple[tuple[Any, ...], Batch]:
        (images,) = self.inputs(batch)
        if self.mixing is None:
            return (images,), batch
        images, labels = self.mixing(images, batch["label"])
        return (images,), {**batch, "label": labels}  # type: ignore[return-value]

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        if self.mixing is not None and self.recipe.mixing.by == "losses":
            return self._mixed_losses(batch)
        inputs, mixed = self.seen(batch)
        return self.model.loss(self.model(*inputs), self.targets(mixed))

    def _mixed_losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """MixUp as its authors' code has it: the losses of both labels, each with its image's share."""
        (images,), labels = self.inputs(batch), batch["label"]
        share = draw_share(self.recipe.mixing.mixup)
        partners = draw_partners(len(images), self.recipe.mixing.partners).to(labels.device)
        outputs, found = self.model(mix_images(images, share, partners)), dict[str, Tensor]()
        for part, one in ((share, labels), (1 - share, labels[partners])):
            for name, loss in self.model.loss(outputs, one).items():
                found[name] = found.get(name, 0) + part * loss
        return found

    def describe_settings(self) -> list[str]:
        loss = self.recipe.loss
        lines = []
        smoothing = loss.options.get("smoothing", 0.0)
        if smoothing:
            lines.append(f"label smoothing {smoothing:g}: training loss cannot reach zero, val_loss is without it")
        if loss.class_weights is not None:
            weights = "by inverse frequency" if loss.class_weights == "balanced" else f"{loss.class_weights}"
            lines.append(f"classes are weighted {weights} in the training loss")
        if own_section(self.recipe).multi_label:
            lines.append("multi-label: each class is decided by itself, at a probability of one half")
        return lines


_MULTI_LABEL = ("bce", "focal", "sigmoid_cross_entropy")  # losses that evaluate each class by itself


def _create_criterion(recipe: Recipe, labels: np.ndarray, num_classes: int) -> torch.nn.Module | None:
    """The recipe's criterion; None keeps the model's own."""
    loss, multi_label = recipe.loss, own_section(recipe).multi_label
    mixed = recipe.mixing.mixup > 0 or recipe.mixing.cutmix > 0
    if loss.name is None and not (multi_label or mixed or loss.class_weights or loss.options):
        return None
    name = loss.name or ("bce" if multi_label else "cross_entropy")
    own = "." in name  # a dotted path or an object, of which we know nothing
    if not own and (name in _MULTI_LABEL) != multi_label:
        fitting = " or ".join(_MULTI_LABEL) if multi_label else "cross_entropy"
        raise InputError(
            f"loss.name={name} does not fit classify.multi_label={str(multi_label).lower()}; use loss.name={fitting}"
        )
    if loss.class_weights == "median_frequency":
        raise InputError("loss.class_weights=median_frequency is of pixels; use balanced")
    if loss.class_weights is not None and own:
        raise InputError(f"loss.class_weights are of losses by name; give {name} its weights itself")
    if loss.class_weights is not None and multi_label and name != "bce":
        raise InputError(f"loss.class_weights needs loss.name=bce for several labels; {name} takes none")
    options = dict(loss.options)
    if loss.class_weights is not None:
        weights = _balanced(labels, num_classes) if loss.class_weights == "balanced" else loss.class_weights
        if len(weights) != num_classes:
            raise InputError(f"loss.class_weights has {len(weights)} values for {num_classes} classes")
        options["pos_weight" if multi_label else "weight"] = weights
    return create_loss(name, **options)


def _balanced(labels: np.ndarray, num_classes: int) -> list[float]:
    """n / (K * n_k) for one label each; negatives over positives of each class for several."""
    if labels.ndim == 2:
        positives = np.maximum(labels.sum(axis=0), 1)
        return ((len(labels) - labels.sum(axis=0)) / positives).tolist()
    counts = np.bincount(labels[labels >= 0], minlength=num_classes)
    return (counts.sum() / (num_classes * np.maximum(counts, 1))).tolist()


def _check_size(model: torch.nn.Module, name: str, size: tuple[int, int]) -> None:
    fixed, smallest = getattr(model, "fixed_size", None), getattr(model, "min_size", 1)
    if fixed is not None and size != (fixed, fixed):
        raise InputError(
            f"{name} takes {fixed}x{fixed} images only, the recipe gives {size[0]}x{size[1]}; set data.size={fixed}"
        )
    if min(size) < smallest:
        raise InputError(
            f"{name} needs images of at least {smallest}x{smallest}, the recipe gives {size[0]}x{size[1]}; "
            "raise data.size"
        )
