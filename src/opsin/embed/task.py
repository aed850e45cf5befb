"""Training of embedders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from opsin import registry
from opsin.data import Preprocessing, Source, Split
from opsin.data.class_balance import BalancedBatches
from opsin.data.identity_batches import IdentityBatches
from opsin.embed.collapse import FOLDER, EmbeddingHistory
from opsin.embed.evaluate import EmbedEvaluator
from opsin.engine.checkpoint import Facts
from opsin.engine.recipe import Recipe, own_section
from opsin.engine.report import Section
from opsin.engine.task import Task
from opsin.errors import InputError
from opsin.losses import create_identity_loss
from opsin.structures import Batch


class EmbedTask(Task):
    """Trains an Embedder on identities, by its own criterion or the recipe's.

    history: how the embeddings lay in each epoch.
    """

    def __init__(self, model: nn.Module, facts: Facts) -> None:
        super().__init__(model, facts)
        self.history = EmbeddingHistory()
        self._last: tuple[Tensor, Tensor] | None = None  # embeddings and identities of the last batch

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
        outputs, labels = self.model(*self.inputs(batch)), self.targets(batch)
        self._last = outputs["embedding"].detach(), labels
        return self.model.loss(outputs, labels)

    def order(self, split: Split) -> Callable[[int], Sequence[np.ndarray]] | None:
        """P x K batches; without, at random, or balanced by identities."""
        images, train = own_section(self.recipe).images_per_identity, self.recipe.train
        if images is None and train.sampling == "balanced":
            return BalancedBatches(split.kind.labels, train.batch_size * self.processes, train.seed)
        if images is None:
            return None
        return IdentityBatches(split.kind.labels, train.batch_size * self.processes, images, train.seed)

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        if not self.trainer.sanity_checking and isinstance(self.evaluator, EmbedEvaluator):
            self._keep(*self.evaluator.compared())

    def on_train_epoch_end(self) -> None:
        """Without a validation split, the last batch of the epoch is looked at."""
        if not self.trainer.enable_validation and self._last is not None:
            embeddings, labels = self._last
            self._keep(self.model.decode({"embedding": embeddings}).cpu(), labels.cpu())

    def _keep(self, embeddings: Tensor, labels: Tensor) -> None:
        if self.failed_batch is not None and self.history.folder is None:
            self.history.folder = self.failed_batch.parent / FOLDER
        margin = getattr(self.model.criterion, "options", {}).get("margin", 0.0)
        epoch, main = self.current_epoch + 1, self.trainer.is_global_zero
        self.history.add(epoch, embeddings, labels, margin if isinstance(margin, float) else 0.0, write=main)

    def inspections(self, split: Split) -> list[Section]:
        self.history.load(self.recipe.train.epochs + 1)
        return self.history.sections()


def _check_size(model: Any, name: str, size: tuple[int, int]) -> None:
    """Raise InputError for an input that an embedder cannot take, with the one that it can."""
    fixed = (model.fixed_size, model.fixed_size) if model.fixed_size is not None else model.shape
    got, least = f"the recipe gives {size[0]}x{size[1]}", model.min_size
    if fixed is not None and size != fixed:
        key = f"data.size={fixed[0]}" if fixed[0] == fixed[1] else f"data.size=[{fixed[0]},{fixed[1]}]"
        raise InputError(f"{name} takes images of {fixed[0]}x{fixed[1]} only, {got}; set {key}")
    if min(size) < least:
        raise InputError(f"{name} needs images of at least {least}x{least}, {got}; raise data.size")
