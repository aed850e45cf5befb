"""Training on sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from opsin import registry
from opsin.data import Preprocessing, Source, Split
from opsin.engine.devices import accelerator_device, count_processes
from opsin.engine.recipe import Recipe, own_section
from opsin.engine.task import Task
from opsin.errors import InputError
from opsin.sequence.batches import Buckets
from opsin.sequence.terms import Terms
from opsin.sequence.truth import ANSWERS, FORMS, WRITTEN, SequenceTruth
from opsin.structures import Batch

# Options of a network that follow from the data
_OWN = ("source_vocabulary", "target_vocabulary", "vocabulary", "num_classes", "in_channels", "out_channels")


class SequenceTask(Task):
    """Trains a network on sequences, in the terms of its predictor."""

    predictor: Any  # a SequencePredictor

    @classmethod
    def options(cls, recipe: Recipe, preprocessing: Preprocessing | None, source: Source) -> dict[str, Any]:
        entry = registry.find_model(recipe.model.name)
        terms = Terms(source.meaning)
        form = form_of(recipe.model.name)
        if form is not None and form != terms.form:
            able = [name for name in registry.list_models(task=recipe.task) if form_of(name) == terms.form]
            raise InputError(
                f"{source.name} has {FORMS[terms.form]}, and {recipe.model.name} is for {FORMS[form]}; models for it: "
                f"{', '.join(able)}"
            )
        for name in _OWN:
            if name in recipe.model.options:
                raise InputError(f"model.{name} follows from the data; remove it")
        return {name: value for name, value in _from_data(terms).items() if name in entry.options}

    @classmethod
    def build(cls, recipe: Recipe, preprocessing: Preprocessing | None, source: Source) -> Task:
        if recipe.mixing.mixup or recipe.mixing.cutmix:
            raise InputError("mixing blends images, and sequences are none; set mixing.mixup=0 and mixing.cutmix=0")
        if recipe.augment:
            raise InputError("augment changes images, and sequences are none; remove it")
        task = super().build(recipe, preprocessing, source)
        most = getattr(task.model, "max_positions", None)
        if most is not None:
            for key, split in source.splits.items():
                check_lengths(split, Terms(source.meaning), most, recipe.model.name, key)
        return task

    def targets(self, batch: Batch) -> dict[str, Tensor]:
        return self.predictor.targets(batch)

    def order(self, split: Split) -> Callable[[int], Sequence[Any]] | None:
        section: Any = own_section(self.recipe)
        lengths = lengths_of(split)
        if not section.buckets or int(lengths.min()) == int(lengths.max()):
            return None
        train = self.recipe.train
        processes = count_processes(train.devices, accelerator_device(train.accelerator, train.devices))
        return Buckets(lengths, train.batch_size * processes * train.num_nodes, train.seed)

    def describe_settings(self) -> list[str]:
        terms = self.predictor.terms
        if terms.form == "captions":
            height, width = terms.images.size
            written = f"{len(terms.target.symbols):,} {_unit(terms.target.unit)} to write"
            return [f"images of {height}x{width} pixels; vocabulary: {written}"]
        if terms.source is None:
            return [f"series of {terms.channels} numbers a step"]
        parts = [f"{len(terms.source.symbols):,} {_unit(terms.source.unit)} to read"]
        if terms.form == "pairs":
            parts.append(f"{len(terms.target.symbols):,} {_unit(terms.target.unit)} to write")
        return [f"vocabulary: {', '.join(parts)}"]


def form_of(model: str) -> str | None:
    """Which form of sequences a registered network is for; None where it does not say."""
    return ANSWERS.get(getattr(registry.find_model(model).network, "answers_with", ""))


def _from_data(terms: Terms) -> dict[str, Any]:
    """Every option of a network that follows from the data."""
    if terms.form == "captions":
        return {"target_vocabulary": len(terms.target), "in_channels": terms.channels}
    if terms.form == "pairs":
        assert terms.source is not None
        return {"source_vocabulary": len(terms.source), "target_vocabulary": len(terms.target)}
    read: dict[str, Any] = {"vocabulary": None if terms.source is None else len(terms.source)}
    read |= {"in_channels": terms.channels} if terms.channels else {}
    answered = {"out_channels": terms.values} if terms.form == "values" else {"num_classes": len(terms.classes)}
    return {**read, **(answered if terms.form != "language" else {})}


def _unit(unit: str) -> str:
    return "byte pairs" if unit == "bpe" else unit


def lengths_of(split: Split) -> np.ndarray:
    """(N,) int64: of each example what it costs, the characters or steps that are read and written."""
    inputs: Any = split.inputs
    truth: SequenceTruth = split.kind
    return inputs.lengths + (truth.texts.lengths if truth.form in WRITTEN and truth.texts is not None else 0)


def check_lengths(split: Split, terms: Terms, most: int, model: str, key: str) -> None:
    """Raise InputError for the first sequence that is longer than a network's positions.

    One position more is for what begins, and what ends, a text that is written.
    """
    inputs: Any = split.inputs
    truth: SequenceTruth = split.kind
    written = truth.texts if terms.form in WRITTEN else None
    for i in range(len(split)):
        lengths = [int(inputs.lengths[i])]
        if terms.source is not None:
            texts: Any = inputs.strings()
            lengths = [len(terms.source.split(texts[i])) + (terms.form == "language")]
        lengths += [] if written is None else [len(terms.target.split(written[i])) + 1]
        if (length := max(lengths)) > most:
            raise InputError(
                f"{split.name(i)} ({key}) has {length:,} symbols, and {model} takes {most:,} at most; set "
                f"model.max_positions={length} or more, or shorten it"
            )
