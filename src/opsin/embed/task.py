"""Training of embedders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from opsin import registry
from opsin.data import Preprocessing, Source, Split
from opsin.data.identity_batches import IdentityBatches
from opsin.engine.recipe import Recipe, own_section
from opsin.engine.task import Task
from opsin.errors import InputError
from opsin.losses import create_identity_loss
from opsin.structures import Batch


class EmbedTask(Task):
    """Trains an Embedder on identities, by its own criterion or the recipe's."""

    @classmethod
    def options(cls, recipe: Recipe, preprocessing: Preprocessing | None, source: Source) -> dict[str, Any]:
        known = registry.find_model(recipe.model.name).options
        own = {"num_classes": len(source.splits["train"].kind.names)} if "num_classes" in known else {}
        if "size" in known and "size" not in recipe.model.options and preprocessing is not None:
            own["size"] = preprocessing.size[0]
        return {**super().options(recipe, preprocessing, source), **own}

    @classmethod
    def build(cls, recipe: Recipe, preprocessing: Preprocessing | None, source: Source) -> Task:
        if recipe.mixing.mixup or recipe.mixing.cutmix:
            raise InputError("mixing blends two images, which are of no identity then; set mixing.mixup=0")
        if recipe.loss.class_weights is not None:
            raise InputError("loss.class_weights is of classes; identities come equally often, remove it")
        task = super().build(recipe, preprocessing, source)
        assert preprocessing is not None
        model, size = task.model, preprocessing.size
        _check_size(model, recipe.model.name, size)
        if recipe.loss.name is not None:
            model.criterion = create_identity_loss(
                recipe.loss.name,
                num_classes=len(source.splits["train"].kind.names),
                features=model.features,
                **recipe.loss.options,
            )
        elif recipe.loss.options:
            raise InputError("loss has options and no name; set loss.name, or model's options for its own loss")
        return task

    def targets(self, batch: Batch) -> Tensor:
        return batch["identity"]

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        return self.model.loss(self.model(*self.inputs(batch)), self.targets(batch))

    def order(self, split: Split) -> Callable[[int], Sequence[np.ndarray]] | None:
        images = own_section(self.recipe).images_per_identity
        if images is None:
            return None
        train = self.recipe.train
        return IdentityBatches(split.kind.labels, train.batch_size * self.processes, images, train.seed)

    @property
    def processes(self) -> int:
        """How many processes train together."""
        return self.trainer.world_size if self._trainer is not None else 1


def _check_size(model: Any, name: str, size: tuple[int, int]) -> None:
    """Raise InputError for an input that an embedder cannot take, with the one that it can."""
    fixed = (model.fixed_size, model.fixed_size) if model.fixed_size is not None else model.shape
    got, least = f"the recipe gives {size[0]}x{size[1]}", model.min_size
    if fixed is not None and size != fixed:
        key = f"data.size={fixed[0]}" if fixed[0] == fixed[1] else f"data.size=[{fixed[0]},{fixed[1]}]"
        raise InputError(f"{name} takes images of {fixed[0]}x{fixed[1]} only, {got}; set {key}")
    if min(size) < least:
        raise InputError(f"{name} needs images of at least {least}x{least}, {got}; raise data.size")
