"""A frozen start: in the first epochs only what an earlier training has not taught is trained."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.nn import Parameter
from torch.optim import Optimizer

from opsin.engine.task import Task
from opsin.errors import InputError
from opsin.nn.capabilities import learned_parts


class FrozenStart(Callback):
    """Holds the learned parts of the model still for the first epochs, then lets everything be trained.

    Held still are weights and batch norms: these use the statistics that they came with and do not move them, so that
    the head learns from the features that the earlier training ended with. Gradients of a random head would spoil them.
    What is held follows from the epoch alone, so a resumed training needs no state.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self._held: list[Parameter] = []  # less what the model itself holds still for good

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._hold(trainer, pl_module)  # a training that is resumed in an epoch does not start it

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._hold(trainer, pl_module)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        for parameter in self._held:
            parameter.grad = None  # the optimizer passes over it, its decay too

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._release(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._release(pl_module)

    def _hold(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch >= self.epochs:
            self._release(pl_module)
            return
        parts = _parts(pl_module)
        self._held = self._held or [p for part in parts for p in part.parameters() if p.requires_grad]
        for part in parts:
            part.eval()
        if trainer.world_size == 1:  # several processes wait for the gradients of all that wanted one at the start
            for parameter in self._held:
                parameter.requires_grad_(False)

    def _release(self, pl_module: LightningModule) -> None:
        if self._held:
            for parameter in self._held:
                parameter.requires_grad_(True)
            for part in _parts(pl_module):
                part.train()
            self._held = []


def describe_frozen_start(task: Task) -> str:
    """What is held still, and for how long, in words. Raises InputError for a model that cannot be."""
    name, epochs = task.recipe.model.name, task.recipe.train.freeze_epochs
    if not learned_parts(task.model):
        raise InputError(f"train.freeze_epochs: {name} does not say what to hold still; set train.freeze_epochs=null")
    if task.stages():
        raise InputError(f"train.freeze_epochs: {name} is trained in stages; set train.freeze_epochs=null")
    held = sum(p.numel() for part in learned_parts(task.model) for p in part.parameters())
    whole = sum(p.numel() for p in task.model.parameters())
    count = "first epoch" if epochs == 1 else f"first {epochs} epochs"
    return f"frozen start: in the {count} {held:,} of {whole:,} parameters stay as they are, batch norms too"


def _parts(pl_module: LightningModule) -> list[Any]:
    assert isinstance(pl_module, Task)
    return learned_parts(pl_module.model)
