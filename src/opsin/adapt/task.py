"""Training of classifiers on labelled domains and an unlabelled one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.adapt import report
from opsin.adapt.batches import DomainBatches
from opsin.adapt.collecting import collect
from opsin.adapt.domains import Domains
from opsin.adapt.evaluate import AdaptEvaluator
from opsin.adapt.features import count_features, look, rows_of, seen_in
from opsin.adapt.method import Method
from opsin.adapt.methods import create_method, find_method
from opsin.adapt.opening import open_domains
from opsin.adapt.recipe import AdaptSection
from opsin.adapt.steps import stages_of
from opsin.backbones.backbone import logits_of
from opsin.data import Preprocessing, Source, Split
from opsin.engine.checkpoint import Facts
from opsin.engine.recipe import Recipe, own_section
from opsin.engine.recipe_data import Say
from opsin.engine.report import Section
from opsin.engine.run import RunFolder
from opsin.engine.task import Stage, Task, Update
from opsin.errors import InputError, printable
from opsin.structures import Batch

_MOST = 1000  # training images of the sources whose features dev compares with the target's


class AdaptTask(Task):
    """Trains a Backbone on the sources alone, then as the method says, and holds both against each other.

    method: that of the stage under way. domains: the data with what no training is given.
    """

    def __init__(self, model: nn.Module, facts: Facts) -> None:
        super().__init__(model, facts)
        section = self.section
        features, classes = count_features(model), len(facts.classes)
        self.chosen = create_method(section.method, features, classes, 1 + len(section.sources), **section.options)
        self.chosen.prepare(model)
        self.method: Method = self.chosen
        self.weight = self.method.weight if section.weight is None else section.weight
        self.domains: Domains | None = None
        self.comparison: report.Comparison | None = None
        self.first: dict[str, Tensor] = {}  # weights before any training

    @property
    def section(self) -> AdaptSection:
        """The recipe's own part."""
        return own_section(self.recipe)

    # The data

    @classmethod
    def open(cls, recipe: Recipe, say: Say) -> Source:
        section: AdaptSection = own_section(recipe)
        kind = find_method(section.method)
        if kind.adapts and section.target is None:
            raise InputError(
                f"{section.method} adapts to a target, and there is none; give --target, or take a method of "
                "generalisation: opsin adapt --list"
            )
        if kind.needs_labels and section.target_labels == 0:
            raise InputError(
                f"{section.method} learns from labels of some target images; set adapt.target_labels to how many of a "
                "class, or take a method without"
            )
        if kind.family == "generalisation" and section.target_labels != 0:
            raise InputError(
                f"{section.method} learns from no target, which is what it is for; leave adapt.target_labels at 0"
            )
        if section.target is not None and section.target in (recipe.data.source, *section.sources):
            raise InputError(f"{section.target} is a source and the target too; give two domains")
        return open_domains(recipe, say)

    @classmethod
    def complete(cls, recipe: Recipe, source: Source, preprocessing: Preprocessing | None) -> tuple[Recipe, list[str]]:
        """The keys that the selection of an epoch means, and what is to be said of the domains."""
        section: AdaptSection = own_section(recipe)
        assert isinstance(source, Domains)
        lines = [*source.notes, *_describe_sizes(source, preprocessing)]
        if section.selection in ("entropy", "dev", "snd") and (not source.target or "val" not in source.splits):
            raise InputError(
                f"adapt.selection={section.selection} looks at a target's validation images, and there are none; "
                "give --target and data.val_fraction above 0, or take last"
            )
        train = recipe.train.model_copy()
        train.keep = "last" if section.selection == "last" else "best"
        names = {"source": "val_accuracy", "entropy": "val_entropy", "dev": "val_dev", "snd": "val_snd"}
        if (name := names.get(section.selection)) is not None:
            if recipe.train.monitor not in (None, name):
                raise InputError(
                    f"train.monitor={recipe.train.monitor} and adapt.selection={section.selection} both choose the "
                    "epoch; leave one of them out"
                )
            train.monitor = name
        return recipe.model_copy(update={"train": train}), lines

    @classmethod
    def build(cls, recipe: Recipe, preprocessing: Preprocessing | None, source: Source) -> Task:
        if recipe.mixing.mixup or recipe.mixing.cutmix:
            raise InputError("mixing blends images of two domains; set mixing.mixup=0 and mixing.cutmix=0")
        task = super().build(recipe, preprocessing, source)
        assert isinstance(task, AdaptTask) and isinstance(source, Domains)
        task.domains = source
        task.order(
            source.splits["train"]
        )  # refuses a domain smaller than its part of a batch, before anything is written
        return task

    def order(self, split: Split) -> Callable[[int], Sequence[np.ndarray]]:
        """Half of each batch of the sources, half of the target; without a method that adapts, the first half alone."""
        train, truth = self.recipe.train, split.kind
        if train.sampling != "shuffled":
            raise InputError("train.sampling=balanced knows nothing of domains, which come in turn; set it to shuffled")
        size = train.batch_size * self.processes
        return DomainBatches(
            truth.domains, truth.labels >= 0, size, train.seed, target=self.method.adapts and self.method.mixes
        )

    # The step

    def targets(self, batch: Batch) -> Tensor:
        return batch["label"]

    @property
    def progress(self) -> float:
        """How much of the stage's training is done, in [0, 1]."""
        train = self.recipe.train
        steps = train.max_steps or -(-self.epoch_batches // train.accumulate) * train.epochs
        return min(1.0, self.steps / max(1, steps))

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        with self.method.acting(self.model):
            features, outputs = look(self.model, *self.inputs(batch))
        seen = seen_in(features, outputs, batch, self.progress)
        terms = {} if self.method.replaces else dict(self.classify(outputs, batch))
        added = {name: self.weight * term for name, term in self.method.losses(seen).items()}
        return _named(terms) | added if added else terms

    def classify(self, outputs: Any, batch: Batch) -> Mapping[str, Tensor]:
        """The classification loss of the images whose class is known, by their weights where they have some."""
        fields: Any = batch
        known = fields["label"] >= 0
        rows, labels = rows_of(outputs, known), fields["label"][known]
        if "weight" not in fields:
            return self.model.loss(rows, labels)
        losses = F.cross_entropy(logits_of(rows).float(), labels, reduction="none")
        return {"loss": (fields["weight"][known] * losses).mean()}

    def updates(self) -> Sequence[Update]:
        own = self.method.updates(self)
        if own is not None:
            return own
        alone = not any(True for _ in self.method.parameters())
        return [Update("", self.model, self.losses)] if alone else super().updates()

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self.method.hold(self.model)

    # Validation

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        if self.section.selection != "dev" or self.domains is None:
            return
        train = self.domains.splits["train"]
        source = np.flatnonzero(train.kind.domains >= 0)
        places = source[np.unique(np.linspace(0, len(source) - 1, min(_MOST, len(source))).astype(np.int64))]
        size, workers = self.recipe.train.batch_size, self.recipe.train.workers
        assert isinstance(self.evaluator, AdaptEvaluator)
        self.evaluator.train = collect(self.predictor, train.subset(places), size, workers)[0]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        assert self.evaluator is not None
        features, outputs = look(self.model, *self.predictor.inputs(batch))
        self.evaluator.update({"logits": logits_of(outputs), "features": features}, batch)

    # The stages

    def stages(self) -> Sequence[Stage]:
        self.first = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        return stages_of(self)

    def take(self, method: Method) -> None:
        """Train by a method from now on, and with its optimizers."""
        self.method = method.to(next(self.model.parameters()).device)
        self._made_updates = None

    # What is said of it

    def conclude(self, folder: RunFolder, say: Say) -> None:
        assert self.domains is not None
        self.comparison = report.compare(self, self.domains, folder)
        for line in self.comparison.lines():
            say(printable(line))

    def inspections(self, split: Split) -> list[Section]:
        return [] if self.comparison is None else self.comparison.sections()

    def describe_settings(self) -> list[str]:
        section = self.section
        chosen = {
            "last": "the last epoch is kept",
            "source": "the epoch with the best accuracy on the sources' validation images is kept",
        }.get(section.selection, f"the epoch with the best {section.selection} on the target's images is kept")
        labels = {0: "none of its labels is used", "all": "all of its labels are used"}.get(
            section.target_labels, f"the labels of {section.target_labels} of its images a class are used"
        )
        target = "" if section.target is None else f" to {section.target}: {labels}"
        return [f"{section.method}{target}; {chosen}"]


_FITS = {"squash": "stretched", "crop": "cut to fill it", "pad": "shrunk, never enlarged, and set in the middle"}


def _describe_sizes(source: Domains, preprocessing: Preprocessing | None) -> list[str]:
    """How the first image of each domain becomes the input, where domains have images of several sizes."""
    split = source.splits["train"]
    found: dict[str, str] = {}
    for k in np.unique(split.kind.domains).tolist():
        size = split.inputs.size(int(np.flatnonzero(split.kind.domains == k)[0]))
        name = source.target if k < 0 else str(source.names[k])
        found[name] = "?" if size is None else f"{size[0]}x{size[1]}"
    if preprocessing is None or len(set(found.values())) < 2:
        return []
    shown = ", ".join(f"{name} {size}" for name, size in found.items())
    height, width = preprocessing.size
    return [printable(f"sizes differ: {shown}; all become {height}x{width}, {_FITS[preprocessing.fit]} (data.fit)")]


def _named(terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Terms of the classification loss beside others: `loss` is all of them together."""
    return {"classification" if name == "loss" else name: term for name, term in terms.items()}
