"""The one training step of every task: `sum(model.loss(model(images), targets).values())`."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from opsin import optim, registry
from opsin.backbones.extraction import find_backbone
from opsin.data import (
    Preprocessing,
    Source,
    Split,
    create_augmentation,
    create_mixing,
    describe_augmentation,
    divide,
    stratified,
)
from opsin.data.loading import derive_seed
from opsin.engine.recipe import ModelSection, Recipe
from opsin.engine.report import Section
from opsin.engine.run import RunFolder
from opsin.errors import InputError, JobError, unknown
from opsin.files import atomic
from opsin.structures import Batch

if TYPE_CHECKING:
    from opsin.engine.predict import Predictor


class Evaluator(Protocol):
    """Collects outputs and truth batch by batch, then evaluates them. One class a task."""

    def update(self, outputs: Any, batch: Batch) -> None:
        """Take one batch."""
        ...

    def state(self) -> Any:
        """What was collected, picklable, to be sent to another process."""
        ...

    def merge(self, states: Sequence[Any]) -> None:
        """Replace what was collected by that of all processes together."""
        ...

    def metrics(self) -> dict[str, float]:
        """The few numbers worth a column in every epoch; `loss` among them."""
        ...


class Task(LightningModule, ABC):
    """A model in training: its recipe, its data's classes, its preprocessing. One subclass a task room.

    The model, its criterion and everything else learnable are submodules, so the optimizer, DDP, EMA and the checkpoint
    see them.
    """

    monitor: ClassVar[str]  # the validation metric that says which epoch was best
    monitor_mode: ClassVar[str]  # "max" or "min"
    defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # section -> keys of a recipe that differ for this task

    def __init__(self, model: nn.Module, recipe: Recipe, preprocessing: Preprocessing, classes: list[str]) -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe
        self.preprocessing = preprocessing
        self.classes = classes
        self.mixing = create_mixing(recipe.mixing.mixup, recipe.mixing.cutmix, len(classes))
        self.schedule: optim.Schedule | None = None
        self.evaluator: Evaluator | None = None
        self.epoch_batches = 1  # batches of one process in an epoch
        self.failed_batch: Path | None = None  # where a batch that broke the training is written
        self._sums: dict[str, Tensor | float] = {}
        self._batches = 0
        self._schedule_state: dict[str, Any] | None = None

    # What a task room says

    @classmethod
    @abstractmethod
    def build(cls, recipe: Recipe, preprocessing: Preprocessing, source: Source, labels: Any) -> Task:
        """The task with a fresh model for a data source. labels: those of the training split."""

    @classmethod
    def arrange(cls, recipe: Recipe, source: Source) -> Source:
        """A divided source as the recipe's model is to see it, in training and evaluation."""
        return source

    @abstractmethod
    def targets(self, batch: Batch) -> Any:
        """What the model's loss is given, from a batch on the device."""

    @abstractmethod
    def create_evaluator(self) -> Evaluator:
        """A fresh evaluator for one pass over a split."""

    @staticmethod
    @abstractmethod
    def answers(predictor: Predictor, outputs: Any, sizes: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
        """Plain values of what the network says of each image. A task's keyword-only parameters are its options.

        sizes: (height, width) of the images as they were given.
        """

    @staticmethod
    @abstractmethod
    def annotate(image: Tensor, answer: dict[str, Any], classes: list[str]) -> Any:
        """An image, uint8 (C, H, W), with its answer drawn on it, as a PIL image."""

    @staticmethod
    @abstractmethod
    def describe(answer: dict[str, Any]) -> str:
        """An answer in a few words, for a line on a terminal."""

    def calibrate(self, evaluator: Any) -> None:
        """Fit what is fitted after training on validation data, if anything."""

    @abstractmethod
    def evaluate(self, evaluator: Any) -> tuple[dict[str, float], Any]:
        """Every metric of a split, and the evaluation behind them for `sections` and `details`."""

    def details(self, evaluation: Any) -> dict[str, Any]:
        """What an evaluation writes beside its metrics, as plain JSON values."""
        return {}

    def sections(self, evaluation: Any, split: Any) -> list[Section]:
        """The report's images and tables for one evaluated split."""
        return []

    def inspections(self, split: Split) -> list[Section]:
        """The report's images of how the training looked at its own split."""
        return []

    @staticmethod
    def look(predictor: Predictor, images: Tensor, originals: Sequence[Tensor]) -> Any:
        """What a model in use makes of its input. images: uint8 (C, H, W), as they were given."""
        return predictor.model(images)

    def create_augmentation(self) -> Any:
        """What changes training samples at random, for the loader; None if nothing does."""
        return create_augmentation(self.recipe.augment, self.preprocessing)

    def describe_augmentation(self) -> list[str]:
        """A line in plain words for each step of it."""
        return describe_augmentation(self.recipe.augment)

    def loader_options(self, split: Split) -> dict[str, Any]:
        """What the loader of a split is to give beside images and truth: keywords of `data.create_loader`."""
        return {}

    def train_stages(
        self, splits: Mapping[str, Split], folder: RunFolder, fit: Any, say: Callable[[str], None]
    ) -> bool:
        """Train a model that is made in stages; False leaves it to one training by gradient, which `fit` does."""
        return False

    def load_backbone(self, weights: str, say: Callable[[str], None]) -> None:
        """Fill the classification network inside the model with published weights."""
        raise InputError(f"{self.recipe.model.name} has no backbone to load model.backbone_weights into")

    def choices(self) -> list[str]:
        """The settings that change a result without showing in a score, in plain words."""
        return []

    @property
    def monitored(self) -> tuple[str, str]:
        """The validation metric that says which epoch was best, and whether it should rise ("max") or fall ("min")."""
        named = self.recipe.train.monitor
        if named is None:
            return self.monitor, self.monitor_mode
        falling = named.removeprefix("val_") in ("loss", "nll", "ece", "cer", "wer")
        return named, "min" if falling else "max"

    # The step

    def images(self, batch: Batch) -> Tensor:
        """The network's input: normalised, in the module's precision and memory format."""
        dtype = self.dtype if isinstance(self.dtype, torch.dtype) else torch.float32
        images = self.preprocessing.normalize(batch["image"], dtype)
        return images.to(memory_format=torch.channels_last) if self.recipe.train.channels_last else images

    def outputs(self, images: Tensor, batch: Batch) -> Any:
        """What the model makes of its input; batch: for a model that is given more than images."""
        return self.model(images)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, targets = self.images(batch), self.targets(batch)
        if self.mixing is not None:
            images, targets = self.mixing(images, targets)
        losses = self.model.loss(self.outputs(images, batch), targets)  # type: ignore[operator]
        total = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):
            raise self._non_finite(batch, losses)
        for name, term in (losses if len(losses) > 1 else {}).items():
            self._sums[name] = self._sums.get(name, 0.0) + term.detach()
        self._sums["loss"] = self._sums.get("loss", 0.0) + total.detach()
        self._batches += 1
        return total

    def train_losses(self) -> dict[str, float]:
        """The mean of each loss term over the epoch so far."""
        return {f"train_{name}": float(total) / max(1, self._batches) for name, total in self._sums.items()}

    def setup(self, stage: str) -> None:
        self._schedule_state = None  # a training in stages fits again and again: what one was resumed with is its own

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # Dropout, mixing and stochastic depth derive from (seed, epoch, batch, rank): resume needs no random state.
        torch.manual_seed(derive_seed(self.recipe.train.seed, self.current_epoch, batch_idx, self.global_rank))

    def on_train_epoch_start(self) -> None:
        self._sums, self._batches = {}, 0

    def on_validation_epoch_start(self) -> None:
        self.evaluator = self.create_evaluator()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        assert self.evaluator is not None
        self.evaluator.update(self.outputs(self.images(batch), batch), batch)

    def on_validation_epoch_end(self) -> None:
        assert self.evaluator is not None
        if self.trainer.world_size > 1:
            states: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(states, self.evaluator.state())
            self.evaluator.merge(states)
        metrics = {f"val_{name}": value for name, value in self.evaluator.metrics().items()}
        self.log_dict(metrics, rank_zero_only=False, sync_dist=False, logger=False)
        if self.schedule is not None and not self.trainer.sanity_checking:
            name = self.monitored[0]
            if name not in metrics:
                raise unknown("train.monitor", name, metrics)
            self.schedule.observe(metrics[name])

    # The optimizer

    def create_optimizer(self, steps_per_epoch: int) -> tuple[torch.optim.Optimizer, optim.Schedule]:
        """The recipe's optimizer and schedule. Raises InputError for options that they do not have."""
        settings, schedule, train = self.recipe.optim, self.recipe.schedule, self.recipe.train
        optimizer = optim.create_optimizer(
            self.model,
            settings.name,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            decay_norm_and_bias=settings.decay_norm_and_bias,
            **settings.options,
        )
        options = schedule.options
        if schedule.name == "plateau":
            options.setdefault("mode", self.monitored[1])
        steps = min(steps_per_epoch * train.epochs, train.max_steps or steps_per_epoch * train.epochs)
        return optimizer, optim.create_schedule(
            optimizer,
            schedule.name,
            steps=steps,
            steps_per_epoch=steps_per_epoch,
            warmup_epochs=schedule.warmup_epochs,
            **options,
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        # Lightning lets an epoch's last, incomplete accumulation step too.
        optimizer, self.schedule = self.create_optimizer(-(-self.epoch_batches // self.recipe.train.accumulate))
        return optimizer

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        assert self.schedule is not None
        self.schedule.step()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        assert self.schedule is not None
        checkpoint["opsin"] = {
            "schedule": self.schedule.state_dict(),
            "sums": {name: torch.as_tensor(total).cpu() for name, total in self._sums.items()},
            "batches": self._batches,
            "position": list(self.trainer.train_dataloader.position),  # type: ignore[union-attr]
            "classes": self.classes,
        }

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        state = checkpoint["opsin"]
        self._schedule_state = state["schedule"]
        self._sums, self._batches = dict(state["sums"]), state["batches"]

    def on_train_start(self) -> None:
        if self._schedule_state is not None and self.schedule is not None:
            self.schedule.load_state_dict(self._schedule_state)
            self._sums = {name: torch.as_tensor(total).to(self.device) for name, total in self._sums.items()}

    def _non_finite(self, batch: Batch, losses: Mapping[str, Tensor]) -> JobError:
        """Save the batch that made the loss infinite, and say which files were in it."""
        terms = ", ".join(f"{name} = {float(term.detach()):g}" for name, term in losses.items())
        paths = batch.get("path", [])
        shown = ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
        broken = [name for name, p in self.model.named_parameters() if not torch.isfinite(p).all()]
        culprit = (
            f"; the weights were already broken in {broken[0]}: lower optim.lr or set train.clip_norm" if broken else ""
        )
        message = f"the loss is not finite at epoch {self.current_epoch + 1}, step {self.global_step}: {terms}{culprit}"
        if self.failed_batch is not None:
            save_batch(self.failed_batch, batch)
            message += f"; the batch was saved to {self.failed_batch}"
        return JobError(f"{message} (files: {shown})")


def save_batch(path: Path, batch: Batch) -> None:
    """Write a batch's tensors and file names to a safetensors file, to be looked at."""
    from safetensors.torch import save_file

    tensors = {k: v.cpu().contiguous() for k, v in batch.items() if isinstance(v, Tensor)}
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata={"paths": json.dumps(batch.get("path", []))})


def split_data(recipe: Recipe, source: Source) -> dict[str, Split]:
    """The train, val and test splits that a recipe makes of a source."""
    section = recipe.data
    splits = divide(
        source, val_fraction=section.val_fraction, test_fraction=section.test_fraction, seed=section.split_seed
    )
    if section.limit is None:
        return splits
    return {name: split.subset(stratified(split.labels, section.limit)) for name, split in splits.items()}


def _stated_preprocessing(model: ModelSection) -> Mapping[str, Any]:
    """What the published weights that a model starts from expect. Those of a backbone say nothing of the size."""
    if model.weights is not None:
        return registry.find_weights(model.name, model.weights).preprocessing
    if model.backbone_weights is None:
        return {}
    with torch.device("meta"):
        backbone = find_backbone(registry.create_model(model.name, **model.options))
    if backbone is None:
        raise InputError(f"{model.name} has no registered backbone; remove model.backbone_weights")
    stated = registry.find_weights(backbone, model.backbone_weights).preprocessing
    return {key: stated[key] for key in ("channels", "mean", "std", "interpolation") if key in stated}


def create_preprocessing(recipe: Recipe, channels: int | None) -> Preprocessing:
    """The preprocessing that a recipe asks for; its unset keys follow from the published weights or the model's input.

    channels: of the data, where neither the recipe nor the weights say it.
    """
    data, model = recipe.data, recipe.model
    given = _stated_preprocessing(model)
    channels = data.channels or given.get("channels") or channels or 3
    if channels != given.get("channels", channels):
        given = {k: v for k, v in given.items() if k not in ("mean", "std")}
    height, width = registry.find_model(model.name).published.input[1:]
    # ImageNet's statistics, which every published colour model expects; the middle of the range for grey images.
    mean, std = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) if channels == 3 else ((0.5,), (0.5,))
    values: dict[str, Any] = {"size": (height, width), "mean": mean, "std": std, **given}
    for name in ("size", "fit", "crop_ratio", "interpolation", "mean", "std"):
        if (asked := getattr(data, name)) is not None:
            values[name] = asked
    for name in ("mean", "std"):
        if len(values[name]) != channels:
            raise InputError(
                f"data.{name} has {len(values[name])} values for images of {channels} channels; give {channels}, "
                f"set data.{name}=null for the usual ones, or data.channels={len(values[name])}"
            )
    if isinstance(values["size"], int):
        values["size"] = (values["size"], values["size"])
    return Preprocessing(**{**values, "channels": channels})
