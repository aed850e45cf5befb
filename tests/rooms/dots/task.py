"""Training of networks that count."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from opsin.engine.recipe import RecipeSection, own_section
from opsin.engine.task import Task, Update
from opsin.structures import Batch


class DotsSection(RecipeSection):
    """head_lr: of a second optimizer, for the last layer alone; one optimizer for all if None."""

    head_lr: float | None = None


class DotsTask(Task):
    """Trains on counts."""

    def targets(self, batch: Batch) -> Tensor:
        return batch["count"]  # type: ignore[typeddict-item]

    def updates(self) -> Sequence[Update]:
        lr = own_section(self.recipe).head_lr
        if lr is None:
            return super().updates()
        return [
            Update("features", self.model.features, self.losses),
            Update("head", self.model.density, self.losses, {"lr": lr}),
        ]
