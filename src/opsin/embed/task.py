"""Training of embedders."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from opsin import registry
from opsin.data import Preprocessing, Source, Split
from opsin.data.class_balance import BalancedBatches
from opsin.data.identities import Identities
from opsin.data.identity_batches import IdentityBatches
from opsin.data.identity_trials import ListedPairs, OneShotRuns
from opsin.embed.collapse import FOLDER, EmbeddingHistory
from opsin.embed.evaluate import EmbedEvaluator
from opsin.engine.checkpoint import Facts
from opsin.engine.recipe import Recipe, own_section
from opsin.engine.report import Section
from opsin.engine.task import Task
from opsin.errors import InputError, JobError
from opsin.losses import create_identity_loss
from opsin.losses.identities import IdentityLoss
from opsin.losses.prototypical import PrototypicalLoss
from opsin.structures import Batch


class EmbedTask(Task):
    """Trains an Embedder on identities, by its own criterion or the recipe's.

    history: how the embeddings lay in each epoch.
    """

    def __init__(self, model: nn.Module, facts: Facts) -> None:
        super().__init__(model, facts)
        self.history = EmbeddingHistory()
        self._last: tuple[Tensor, Tensor] | None = None  # embeddings and identities of the last batch
        self._compared_batches = self._idle_batches = 0  # of the first epoch, and those that hold nothing to compare

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
        if model.classifier is None and (split := source.splits.get("val")) is not None:
            _check_comparable(split)
        return task

    def targets(self, batch: Batch) -> Tensor:
        return batch["identity"]

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        outputs, labels = self.model(*self.inputs(batch)), self.targets(batch)
        self._last = outputs["embedding"].detach(), labels
        if self.current_epoch == 0 and self.processes == 1 and self.training and _compares(self.model, outputs):
            known = labels[labels >= 0]
            found = len(known.unique())
            self._compared_batches, self._idle_batches = (
                self._compared_batches + 1,
                self._idle_batches + (found < 2 or found == len(known)),
            )
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
        """Refuse batches that taught nothing. Without a validation split, the last batch of the epoch is looked at."""
        self._check_batches()
        if not self.trainer.enable_validation and self._last is not None:
            embeddings, labels = self._last
            self._keep(self.model.decode({"embedding": embeddings}).cpu(), labels.cpu())

    def _check_batches(self) -> None:
        """After the first epoch: raise JobError if no batch of it held a triplet, warn if some held none."""
        batches, idle = self._compared_batches, self._idle_batches
        self._compared_batches = self._idle_batches = 0
        larger = f"a train.batch_size larger than {self.recipe.train.batch_size}"
        apart = own_section(self.recipe).images_per_identity is None  # nothing puts images of an identity together
        remedy = f"set embed.images_per_identity=4, or {larger}" if apart else f"set {larger}"
        if batches and idle == batches:
            raise JobError(
                f"none of the epoch's {batches:,} batches held two images of an identity and one of another, so that "
                f"nothing was learned; {remedy}"
            )
        if idle:
            warnings.warn(
                f"{idle:,} of the first epoch's {batches:,} batches held no two images of an identity and one of "
                f"another, and taught nothing; {remedy}",
                stacklevel=2,
            )

    def _keep(self, embeddings: Tensor, labels: Tensor) -> None:
        if self.failed_batch is not None and self.history.folder is None:
            self.history.folder = self.failed_batch.parent / FOLDER
        margin = getattr(self.model.criterion, "options", {}).get("margin", 0.0)
        epoch, main = self.current_epoch + 1, self.trainer.is_global_zero
        self.history.add(epoch, embeddings, labels, margin if isinstance(margin, float) else 0.0, write=main)

    def inspections(self, split: Split) -> list[Section]:
        self.history.load(self.recipe.train.epochs + 1)
        return self.history.sections()


def _compares(model: Any, outputs: Mapping[str, Tensor]) -> bool:
    """Whether a batch teaches only by its images of the same and of other identities."""
    criterion = model.criterion
    return isinstance(criterion, IdentityLoss | PrototypicalLoss) or (criterion is None and "logits" not in outputs)


def _check_comparable(split: Split) -> None:
    """Raise InputError for a validation split in which no two images can be compared."""
    if not isinstance(split.truth, Identities) or isinstance(split.truth, ListedPairs | OneShotRuns):
        return
    labels = np.asarray(split.truth.labels)
    counts = np.unique(labels[labels >= 0], return_counts=True)[1]
    if len(counts) < 2 or counts.max() < 2:
        raise InputError(
            f"the validation split cannot be evaluated: its {len(split):,} images are of {len(counts):,} identities, "
            "and two of an identity and one of another are needed; give it more (data.val_fraction, or folders train "
            "and val), or leave it out: data.val_fraction=0"
        )


def _check_size(model: Any, name: str, size: tuple[int, int]) -> None:
    """Raise InputError for an input that an embedder cannot take, with the one that it can."""
    fixed = (model.fixed_size, model.fixed_size) if model.fixed_size is not None else model.shape
    got, least = f"the recipe gives {size[0]}x{size[1]}", model.min_size
    if fixed is not None and size != fixed:
        key = f"data.size={fixed[0]}" if fixed[0] == fixed[1] else f"data.size=[{fixed[0]},{fixed[1]}]"
        raise InputError(f"{name} takes images of {fixed[0]}x{fixed[1]} only, {got}; set {key}")
    if min(size) < least:
        raise InputError(f"{name} needs images of at least {least}x{least}, {got}; raise data.size")
