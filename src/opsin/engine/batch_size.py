"""`train.batch_size: auto`: as much of the recipe's batch at once as fits into memory, the rest by accumulation.

The optimizer sees the batch that the recipe has without it, so that its rate and schedule stay right; batch norm sees
the smaller one. What is tried is what a training does, forward, backward and the optimizer's step by Lightning's
trainer, on a copy of the task and the example with the most objects: of the training itself nothing is touched.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Trainer
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from opsin.data import Split, create_loader
from opsin.engine.devices import accelerator_device
from opsin.engine.memory import Memory, memory_of
from opsin.engine.recipe import load_recipe
from opsin.engine.task import Task
from opsin.errors import InputError

MARGIN = 0.9  # of the memory that is there: the rest is for what steps differ in, fragments, and the average's weights
_LOOKED_AT = 2000  # examples whose objects are counted, evenly spaced over the split
_RATE = 1e-9  # of the steps that are tried, so that they break no weights


def find_batch_size(task: Task, split: Split, memory: Memory | None = None) -> tuple[dict[str, int], str]:
    """The keys of the recipe that train its batch within the memory there is, and a line that says so.

    split: prepared, to train on. Raises InputError where not even one example fits, and for trainings whose memory a
    probe in one process says nothing of.
    """
    train, name = task.recipe.train, task.recipe.model.name
    if task.stages():
        raise InputError(f"train.batch_size: auto: {name} is trained in stages; give a number")
    if train.strategy != "auto" and "ddp" not in train.strategy:
        raise InputError(
            f"train.batch_size: auto tries one device, which strategy {train.strategy} shares; give a number"
        )
    memory = memory or memory_of(accelerator_device(train.accelerator, train.devices))
    whole = train.batch_size * train.accumulate
    probe = Probe(task, split, memory)
    sizes = [size for size in range(1, whole + 1) if whole % size == 0]
    chosen = largest(sizes[1:], probe.fits) or (1 if probe.fits(1) else None)  # batch norm may refuse a single one
    if chosen is None:
        raise InputError(
            f"train.batch_size: auto: not one example fits into the {_gigabytes(MARGIN * probe.available)} that "
            f"{name} may take here; lower data.size, or take a smaller model"
        )
    values = {"train.batch_size": chosen, "train.accumulate": whole // chosen}
    return values, _describe(task, chosen, whole, probe)


def largest(sizes: Sequence[int], fits: Callable[[int], bool]) -> int | None:
    """The largest of ascending sizes that fits, by doubling, then bisecting; None if none does.

    fits: true up to some size, and false above.
    """
    low, high, step = -1, len(sizes), 0  # places: the last that is known to fit, the first that is known not to
    while step < len(sizes) and high == len(sizes):
        if fits(sizes[step]):
            low = step
            double = 2 * sizes[step]
            step = next((place for place in range(step + 1, len(sizes)) if sizes[place] >= double), len(sizes))
            if step == len(sizes) and low < len(sizes) - 1:
                step = len(sizes) - 1
        else:
            high = step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(sizes[middle]) else (low, middle)
    return sizes[low] if low >= 0 else None


class Probe:
    """Tries batches of a size on a copy of the task. bytes: what each takes, tried or foreseen; None for too much.

    Where work that takes too much would end the process, and on a CPU every try takes long, two sizes are tried, and
    the line through them tells of others: one that takes half of what there is, or less, is not tried.
    """

    def __init__(self, task: Task, split: Split, memory: Memory) -> None:
        self.task, self.memory = task, memory
        self.available = memory.available()
        self.bytes: dict[int, int | None] = {}
        self._tried: list[tuple[int, int]] = []  # sizes and bytes, ascending
        self.fullest = split.subset([fullest(split)])

    def fits(self, size: int) -> bool:
        """Whether a training in batches of this size takes no more than the margin leaves."""
        limit = MARGIN * self.available
        if self.memory.forecast and self._tried and size > self._tried[-1][0]:
            foreseen = self._foresee(size)
            if foreseen > limit:
                return False
            if len(self._tried) > 1 and foreseen < limit / 2:
                self.bytes[size] = foreseen
                return True
        with untouched_randomness():
            taken = self.memory.measure(lambda: self._steps(size))
        if taken is not None:
            taken += self._gradients(size)
            self._tried = sorted([*self._tried, (size, taken)])
        self.bytes[size] = taken
        return taken is not None and taken <= limit

    def _foresee(self, size: int) -> int:
        """Bytes of a larger batch than was tried: on the line through the last two, or in proportion to the one."""
        count, taken = self._tried[-1]
        if len(self._tried) == 1:
            return taken * size // count
        before, less = self._tried[-2]
        return taken + max(0, taken - less) * (size - count) // (count - before)

    def _gradients(self, size: int) -> int:
        """Bytes of the gradients that are kept from batch to batch where they are accumulated."""
        train = self.task.recipe.train
        accumulated = train.batch_size * train.accumulate > size
        return sum(p.numel() * p.element_size() for p in self.task.parameters() if p.requires_grad and accumulated)

    def _steps(self, size: int) -> None:
        """Two steps as a training takes them: the second has the optimizer's state."""
        probed = copied(self.task, {"optim.lr": _RATE, "train.accumulate": 1})
        probed.take_most_memory()
        split = self.fullest.subset(np.zeros(size, np.int64))
        batch = next(iter(create_train_batches(probed, split, size)))
        batches = [batch] * 2
        probed.epoch_batches = len(batches)
        trainer = create_probe_trainer(probed, max_epochs=1)
        # As a loader: Lightning takes a list for a list of loaders.
        trainer.fit(probed, DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch))  # type: ignore[arg-type]


def create_train_batches(task: Task, split: Split, size: int) -> Any:
    """A loader of the batches that a task is trained on, in this process."""
    augmentation, seed = task.create_augmentation(), task.recipe.train.seed
    return create_loader(
        split, task.preprocessing, batch_size=size, training=True, augmentation=augmentation, seed=seed
    )


def create_probe_trainer(task: Task, *, max_epochs: int, callbacks: Sequence[Any] = ()) -> Trainer:
    """A trainer that computes as the recipe's does, on one device, and leaves nothing behind."""
    train = task.recipe.train
    plain = task.automatic_optimization
    return Trainer(
        accelerator=train.accelerator,
        devices=train.devices[:1] if isinstance(train.devices, list) else 1,
        precision=train.precision,  # type: ignore[arg-type]
        max_epochs=max_epochs,
        accumulate_grad_batches=train.accumulate if plain else 1,
        gradient_clip_val=train.clip_norm if plain else None,
        deterministic=train.deterministic,
        callbacks=list(callbacks),
        logger=False,
        plugins=[LightningEnvironment()],  # of a cluster's, its processes would be waited for
        limit_val_batches=0,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def copied(task: Task, settings: dict[str, Any]) -> Task:
    """A copy of a task in training mode, by a recipe with other settings; its tensors are its own."""
    made, task._made_updates = (
        task._made_updates,
        None,
    )  # they may hold functions of this task, which a copy would share
    twin = copy.deepcopy(task)
    task._made_updates = made
    recipe = load_recipe(task.recipe.model_dump(), settings)
    twin.facts = twin.predictor.facts = replace(twin.facts, recipe=recipe)
    twin.failed_batch = None
    _ = twin._updates
    return twin.train()


def fullest(split: Split) -> int:
    """The place of the example with the most objects; the first where the truth knows of none."""
    if split.truth is None:
        return 0
    places = np.unique(np.linspace(0, len(split) - 1, min(len(split), _LOOKED_AT)).astype(int)).tolist()
    counts = [0 if (boxes := split.truth.extents(place)) is None else len(boxes) for place in places]
    return places[int(np.argmax(counts))]


@contextmanager
def untouched_randomness() -> Iterator[None]:
    """Leaves every generator of random numbers as it was: torch's on all devices, NumPy's and Python's."""
    import random

    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _describe(task: Task, chosen: int, whole: int, probe: Probe) -> str:
    taken = probe.bytes[chosen]
    memory = f"{_gigabytes(taken or 0)} of the {_gigabytes(probe.available)} there are"
    line = f"batches of {chosen}: {memory}"
    if chosen == whole:
        return f"{line}; train.batch_size overrides"
    line += f", accumulated over {whole // chosen} to the recipe's {whole}"
    if any(isinstance(module, _BatchNorm) for module in task.model.modules()):
        line += f"; batch norm sees {chosen} images, not {whole}"
    return f"{line}; train.batch_size overrides"


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"
