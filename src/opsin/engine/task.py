"""What trains: the one training step of every task, `sum(model.loss(model(inputs), targets).values())`."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor, nn

from opsin import data, optim, registry, rooms
from opsin.backbones.extraction import find_backbone
from opsin.data import Preprocessing, Source, Split, create_augmentation, describe_augmentation
from opsin.data.class_balance import BalancedBatches
from opsin.data.loading import derive_seed
from opsin.engine.checkpoint import CRITERION, Facts, as_tensor
from opsin.engine.devices import describe_machine
from opsin.engine.evaluator import Evaluator, create_evaluator
from opsin.engine.own_metrics import monitored
from opsin.engine.predict import Predictor, create_predictor
from opsin.engine.recipe import Recipe
from opsin.engine.recipe_data import Say, create_preprocessing, open_readable, split_data
from opsin.engine.report import Section
from opsin.engine.run import RunFolder
from opsin.errors import InputError, JobError
from opsin.files import atomic
from opsin.nn.capabilities import restore_values, saved_values
from opsin.schemes import find_local, is_named
from opsin.structures import Batch


@dataclass(frozen=True)
class Update:
    """One optimizer's part of a training step: what it moves, and the losses that it lowers.

    module: whose parameters. losses: of a batch, named terms whose sum is minimised. optim: keys of the recipe's optim
    section that differ for it. The first update of a task has the recipe's own settings, mostly.
    """

    name: str
    module: nn.Module
    losses: Callable[[Batch], Mapping[str, Tensor]]
    optim: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """A part of a training in stages. run: is given a `Workplace`, and makes a part of the model's state dict.

    name: of the stage, and of its folder.
    """

    name: str
    run: Callable[[Any], Mapping[str, Tensor]]


class Task(LightningModule, ABC):
    """A model in training. One subclass a task; a plain supervised one says no more than its `targets`.

    The model, its criterion and everything else learnable are submodules, so the optimizer, DDP, EMA and the checkpoint
    see them. `predictor` is the same model in use: it makes the network's input and knows what it needs of a split.
    """

    def __init__(self, model: nn.Module, facts: Facts) -> None:
        super().__init__()
        self.model: Any = model
        self.facts = facts
        self.room = rooms.find_room(facts.recipe.task)
        self.predictor: Predictor = create_predictor(model, facts)
        self.evaluator: Evaluator | None = None
        self.schedules: list[optim.Schedule] = []
        self.epoch_batches = 1  # batches of one process in an epoch
        self.callbacks: Sequence[Callback] = ()  # Lightning's, of who called the training
        self.failed_batch: Path | None = None  # where a batch that broke the training is written
        self.batch_index = 0  # of the training batch under way
        self.last_loss: Tensor | None = None  # of the last training batch, all terms together
        self._sums: dict[str, Tensor | float] = {}
        self._batches = 0
        self._schedule_states: list[dict[str, Any]] | None = None
        self._made_updates: Sequence[Update] | None = None

    # What a task says

    @abstractmethod
    def targets(self, batch: Batch) -> Any:
        """What the model's loss is given, from a batch on the device."""

    @classmethod
    def open(cls, recipe: Recipe, say: Say) -> Source:
        """The data to train on, opened, checked and divided into the splits "train", "val" and "test"."""
        source = open_readable(recipe, say)
        section = recipe.data
        data.check_trainable(source, section.val_fraction, section.test_fraction)
        return cls.divide(recipe, source)

    @classmethod
    def divide(cls, recipe: Recipe, source: Source) -> Source:
        """A source with the splits that the recipe makes of it, as its model sees their truth."""
        predictor: type[Predictor] = rooms.load(rooms.find_room(recipe.task).predicts or "")
        return predictor.relabel(recipe, source.with_splits(split_data(recipe, source)))

    @classmethod
    def create_preprocessing(cls, recipe: Recipe, source: Source) -> Preprocessing | None:
        """How the network's input is made; None for one that takes no images."""
        if source.splits["train"].inputs.key != "image":
            return None
        known = recipe.data.channels or recipe.model.weights
        return create_preprocessing(recipe, None if known else data.find_channels(source.splits["train"]))

    @classmethod
    def complete(cls, recipe: Recipe, source: Source, preprocessing: Preprocessing | None) -> tuple[Recipe, list[str]]:
        """The recipe with what only the data can say in the place of "auto", and what that is, in words."""
        return recipe, []

    @classmethod
    def extend(cls, recipe: Recipe, source: Source, say: Say) -> tuple[Source, list[str]]:
        """The source with what else is trained on, where there is some, and what was done, in words."""
        return source, []

    @classmethod
    def options(cls, recipe: Recipe, preprocessing: Preprocessing | None, source: Source) -> dict[str, Any]:
        """The model's options that follow from the data: of `num_classes` and `in_channels` those that it has."""
        known = registry.find_model(recipe.model.name).options
        found: dict[str, Any] = {"num_classes": len(source.classes)} if source.classes else {}
        found |= {} if preprocessing is None else {"in_channels": preprocessing.channels}
        return {name: value for name, value in found.items() if name in known}

    @classmethod
    def build(cls, recipe: Recipe, preprocessing: Preprocessing | None, source: Source) -> Task:
        """The task with a fresh model for a divided source."""
        facts = Facts(recipe, preprocessing, dict(source.meaning), cls.options(recipe, preprocessing, source))
        return cls(facts.build(), facts)

    def inputs(self, batch: Batch) -> tuple[Any, ...]:
        """What the model's forward is given. Every random draw belongs here: forward is pure."""
        return self.predictor.inputs(batch)

    def seen(self, batch: Batch) -> tuple[tuple[Any, ...], Batch]:
        """What the model's forward is given in training, and the batch with its truth as it then is.

        They differ from `inputs` and the batch where a task changes both, such as by mixing.
        """
        return self.inputs(batch), batch

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """The named loss terms of a batch."""
        return self.model.loss(self.model(*self.inputs(batch)), self.targets(batch))

    def updates(self) -> Sequence[Update]:
        """What a step does, in order: one update of everything unless a task says otherwise.

        With several each has an optimizer and a schedule of its own, and a step takes all of them on one batch.
        """
        own = [name for name, _ in self.named_parameters() if not name.startswith("model.")]
        return [Update("", self if own else self.model, self.losses)]

    def stages(self) -> Sequence[Stage]:
        """How the model is trained, in order; none where one training by gradient does it all."""
        return ()

    def create_augmentation(self) -> Any:
        """What changes training samples at random, for the loader; None if nothing does."""
        return None if self.preprocessing is None else create_augmentation(self.recipe.augment, self.preprocessing)

    def describe_augmentation(self) -> list[str]:
        """A line in plain words for each step of it."""
        return describe_augmentation(self.recipe.augment)

    def order(self, split: Split) -> Callable[[int], Sequence[Any]] | None:
        """Which examples make up the global batches of an epoch, see `opsin.data.create_loader`; None for any.

        With `train.sampling` balanced every class comes equally often, by what the truth says to be one.
        """
        train = self.recipe.train
        if train.sampling == "shuffled":
            return None
        classes = None if split.truth is None else split.truth.strata()
        if classes is None:
            raise InputError(
                f"train.sampling=balanced needs classes, and examples of {self.recipe.task} have none here"
            )
        return BalancedBatches(classes, train.batch_size * self.processes, train.seed)

    def inspections(self, split: Split) -> list[Section]:
        """The report's images of how the training looked at its own split."""
        return []

    def describe_settings(self) -> list[str]:
        """The settings that change a result without showing in a score, in plain words."""
        return []

    def describe_fit(self, split: Split) -> list[str]:
        """What of the training split does not fit the model, in plain words."""
        return []

    def load_backbone(self, weights: str, say: Say) -> None:
        """Fill the classification network inside the model with published weights."""
        name, own = self.recipe.model.name, self.model.state_dict()
        backbone = find_backbone(self.model)
        if backbone is None:
            raise InputError(f"{name} has no registered backbone; remove model.backbone_weights")
        published = registry.find_weights(backbone, weights)
        find_local(weights, fetch=is_named(weights), how=f"--set model.backbone_weights={weights}")
        channels = self.facts.options.get("in_channels", published.preprocessing.get("channels", 3))
        network = registry.create_model(
            backbone, weights=weights, num_classes=published.num_classes, in_channels=channels, say=say
        )
        fresh = self.model.initialize_from(network.state_dict())
        if len(fresh) == len(own):
            raise InputError(f"no tensor of {backbone}:{weights} fits the backbone of {name}")
        filled = len(own) - len(fresh)
        say(f"backbone: {filled} tensors of {backbone}:{weights}, {published.source} ({published.licence})")

    def take_most_memory(self) -> None:
        """Make every step from now on take as much memory as any of the training will: it is tried on a copy."""
        return

    def conclude(self, folder: RunFolder, say: Say) -> None:
        """Look at the finished model before its report is written, such as beside another: nothing here."""
        return

    def create_evaluator(self, **options: Any) -> Evaluator:
        """A fresh evaluator for one pass over a split."""
        return create_evaluator(self.predictor, **options)

    # What all have

    @property
    def recipe(self) -> Recipe:
        return self.facts.recipe

    @property
    def preprocessing(self) -> Any:
        """How images become the network's input: a `Preprocessing`; None where it takes no images."""
        return self.facts.preprocessing

    @property
    def classes(self) -> list[str]:
        return self.facts.classes

    @property
    def monitored(self) -> tuple[str, str]:
        """The validation metric that says which epoch was best, and whether it should rise ("max") or fall ("min")."""
        return monitored(self.recipe)

    @property
    def processes(self) -> int:
        """How many processes train together."""
        return self.trainer.world_size if self._trainer is not None else 1

    @property
    def steps(self) -> int:
        """Training steps done: of several optimizers, Lightning counts each."""
        return self.trainer.global_step // max(1, len(self._updates))

    def steps_after(self, batch_idx: int) -> bool:
        """Whether the optimizers step after a batch; before, they have gradients, which no checkpoint holds.

        Lightning, where there is one optimizer, lets an epoch's last, incomplete accumulation step too.
        """
        return (batch_idx + 1) % self.recipe.train.accumulate == 0 or batch_idx + 1 == self.epoch_batches

    def _shares(self, batch_idx: int) -> int:
        """How many batches make up the optimizer step that a batch belongs to: the epoch's last may have fewer."""
        accumulate = self.recipe.train.accumulate
        return min(accumulate, self.epoch_batches - batch_idx // accumulate * accumulate)

    @property
    def _updates(self) -> Sequence[Update]:
        if self._made_updates is None:
            self._made_updates = self.updates()
            self.automatic_optimization = len(self._made_updates) == 1
        return self._made_updates

    # The step

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        self.batch_index = batch_idx
        first, *others = self._updates
        if not others:
            total, share = self._total(batch, first.losses(batch)), self._shares(batch_idx)
            # Lightning divides by `accumulate`; the epoch's last step may have fewer batches, and weighs as the others.
            return total if share == self.recipe.train.accumulate else total * (self.recipe.train.accumulate / share)
        optimizers: Any = self.optimizers()
        due = self.steps_after(batch_idx)
        whole: dict[str, Tensor] = {}
        for update, optimizer, schedule in zip(self._updates, optimizers, self.schedules, strict=True):
            self.toggle_optimizer(optimizer)
            losses = update.losses(batch)
            total = self._checked_total(batch, losses)
            self.manual_backward(total / self._shares(batch_idx))
            if due:
                if self.recipe.train.clip_norm is not None:
                    self.clip_gradients(optimizer, self.recipe.train.clip_norm, "norm")
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
            self.untoggle_optimizer(optimizer)
            whole |= {f"{update.name}_{name}": term.detach() for name, term in losses.items()}
        self._add(whole, torch.stack(list(whole.values())).sum())
        return None

    def _total(self, batch: Batch, losses: Mapping[str, Tensor]) -> Tensor:
        total = self._checked_total(batch, losses)
        self._add(losses, total)
        return total

    def _checked_total(self, batch: Batch, losses: Mapping[str, Tensor]) -> Tensor:
        total = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):
            raise self._non_finite(batch, losses)
        return total

    def _add(self, losses: Mapping[str, Tensor], total: Tensor) -> None:
        for name, term in (losses if len(losses) > 1 else {}).items():
            self._sums[name] = self._sums.get(name, 0.0) + term.detach()
        self._sums["loss"] = self._sums.get("loss", 0.0) + total.detach()
        self.last_loss = total.detach()
        self._batches += 1

    def train_losses(self) -> dict[str, float]:
        """The mean of each loss term over the epoch so far."""
        return {f"train_{name}": float(total) / max(1, self._batches) for name, total in self._sums.items()}

    def setup(self, stage: str) -> None:
        self._schedule_states = None  # a training in stages fits again and again: what one was resumed with is its own

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # Dropout, mixing and stochastic depth derive from (seed, epoch, batch, rank): resume needs no random state.
        torch.manual_seed(derive_seed(self.recipe.train.seed, self.current_epoch, batch_idx, self.global_rank))

    def on_train_epoch_start(self) -> None:
        self._sums, self._batches = {}, 0

    def on_validation_epoch_start(self) -> None:
        self.evaluator = self.create_evaluator()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        assert self.evaluator is not None
        self.evaluator.update(self.model(*self.predictor.inputs(batch)), batch)

    def on_validation_epoch_end(self) -> None:
        assert self.evaluator is not None
        if self.trainer.world_size > 1:
            states: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(states, self.evaluator.state())
            self.evaluator.merge(states)
        found = self.evaluator.brief()
        found = {**found, **self.evaluator.measure_own(found)}
        metrics = {f"val_{name}": value for name, value in found.items()}
        self.log_dict(metrics, rank_zero_only=False, sync_dist=False, logger=False)
        if self.schedules and not self.trainer.sanity_checking:
            name = self.monitored[0]
            if name not in metrics:
                raise InputError(f"train.monitor is {name}, which was not evaluated; there are {', '.join(metrics)}")
            for schedule in self.schedules:
                schedule.observe(metrics[name])

    # The optimizers

    def create_optimizer(self, steps_per_epoch: int, update: Update) -> tuple[torch.optim.Optimizer, optim.Schedule]:
        """The optimizer and the schedule of an update. Raises InputError for options that they do not have."""
        schedule, train = self.recipe.schedule, self.recipe.train
        settings = type(self.recipe.optim)(**{**self.recipe.optim.model_dump(), **update.optim})
        optimizer = optim.create_optimizer(
            update.module,
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

    def create_optimizers(self, steps_per_epoch: int) -> list[tuple[torch.optim.Optimizer, optim.Schedule]]:
        """The optimizer and the schedule of each update."""
        return [self.create_optimizer(steps_per_epoch, update) for update in self._updates]

    def configure_optimizers(self) -> Any:
        # Lightning lets an epoch's last, incomplete accumulation step too.
        made = self.create_optimizers(-(-self.epoch_batches // self.recipe.train.accumulate))
        self.schedules = [schedule for _, schedule in made]
        return [optimizer for optimizer, _ in made] if len(made) > 1 else made[0][0]

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.schedules[0].step()  # of several, each steps beside its optimizer

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        states = [schedule.state_dict() for schedule in self.schedules]
        checkpoint["opsin"] = {
            "schedule": states[0],
            "schedules": states,
            "sums": {name: torch.as_tensor(total).cpu() for name, total in self._sums.items()},
            "batches": self._batches,
            "position": list(self.trainer.train_dataloader.position),  # type: ignore[union-attr]
            "meaning": self.facts.meaning,
            "values": saved_values(self.model),
            "first_weights": self.facts.first_weights,
            "machine": describe_machine(self.trainer.world_size, self.device),
        }
        if self.facts.members is not None:
            checkpoint["opsin"]["members"] = as_tensor(self.facts.members)

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        state = checkpoint["opsin"]
        self._schedule_states = state.get("schedules", [state["schedule"]])
        self._sums, self._batches = dict(state["sums"]), state["batches"]
        restore_values(self.model, state.get("values", {}))
        self.facts.first_weights = dict(state.get("first_weights", {}))

    def on_train_start(self) -> None:
        if self._schedule_states is not None:
            for schedule, state in zip(self.schedules, self._schedule_states, strict=True):
                schedule.load_state_dict(state)
            self._sums = {name: torch.as_tensor(total).to(self.device) for name, total in self._sums.items()}

    def _non_finite(self, batch: Batch, losses: Mapping[str, Tensor]) -> JobError:
        """Save the batch that made the loss infinite, and say which files were in it."""
        terms = ", ".join(f"{name} = {float(term.detach()):g}" for name, term in losses.items())
        paths = batch.get("path", [])
        shown = ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
        broken = [name for name, p in self.model.named_parameters() if not torch.isfinite(p).all()]
        culprit = f"; the weights were already broken in {broken[0]}" if broken else ""
        culprit += f": lower optim.lr, which is {self.recipe.optim.lr:g}, or set train.clip_norm"
        message = f"the loss is not finite at epoch {self.current_epoch + 1}, step {self.steps}: {terms}{culprit}"
        if self.failed_batch is not None:
            save_batch(self.failed_batch, batch)
            message += f"; the batch was saved to {self.failed_batch}"
        return NonFiniteLossError(f"{message} (files: {shown})")


class NonFiniteLossError(JobError):
    """The loss of a training batch is infinite or not a number."""


def average_state(model: nn.Module) -> dict[str, Tensor]:
    """What a moving average is taken of, and what is saved of a model: its state without the criterion."""
    return {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(CRITERION)}


def save_batch(path: Path, batch: Batch) -> None:
    """Write a batch's tensors and file names to a safetensors file, to be looked at."""
    from safetensors.torch import save_file

    tensors = {k: v.cpu().contiguous() for k, v in batch.items() if isinstance(v, Tensor)}
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata={"paths": json.dumps(batch.get("path", []))})
