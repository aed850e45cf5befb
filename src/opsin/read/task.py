"""Training of recognizers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from opsin import data, registry
from opsin.data import Preprocessing, Source, Split
from opsin.engine.checkpoint import Facts
from opsin.engine.recipe import Recipe, own_section
from opsin.engine.report import Section
from opsin.engine.task import Task, Update
from opsin.errors import InputError, say
from opsin.read.agent_drawing import learned_moves
from opsin.read.alphabet import Alphabet
from opsin.read.blanks import BlankWatch
from opsin.read.evaluate import ReadEvaluator
from opsin.read.fit import describe_misfits, find_misfits
from opsin.read.learned_augmentation import LearnedAugmentation
from opsin.read.metrics import mean_loss
from opsin.read.recognizer import Outputs, Recognizer
from opsin.structures import Batch


class ReadTask(Task):
    """Trains a Recognizer on texts, in the labels of its alphabet.

    learned: bends training images, and is taught beside the recognizer; None where the recipe asks for none.
    """

    predictor: Any  # a ReadPredictor

    def __init__(self, model: nn.Module, facts: Facts) -> None:
        super().__init__(model, facts)
        self._blanks = BlankWatch()
        section: Any = own_section(facts.recipe)
        self.learned: LearnedAugmentation | None = None
        self._outputs: Outputs = {}  # of the batch under way, which the agent is taught by
        if section.learn_to_augment:
            self.learned = LearnedAugmentation(
                self.model.in_channels, patches=section.augment_patches, radius=section.augment_radius
            )

    @classmethod
    def options(cls, recipe: Recipe, preprocessing: Preprocessing | None, source: Source) -> dict[str, Any]:
        entry = registry.find_model(recipe.model.name)
        specials = getattr(entry.network, "specials", Recognizer.specials)
        alphabet = Alphabet.from_meaning(source.meaning)
        own = {"num_classes": len(alphabet) + specials}
        return {**super().options(recipe, preprocessing, source), **own}

    @classmethod
    def build(cls, recipe: Recipe, preprocessing: Preprocessing | None, source: Source) -> Task:
        if recipe.mixing.mixup or recipe.mixing.cutmix:
            raise InputError("mixing blends labels of whole images, which texts have none of; set mixing.mixup=0")
        task = super().build(recipe, preprocessing, source)
        model, size = task.model, task.preprocessing.size
        least = model.min_size
        if size[0] < least[0] or size[1] < least[1]:
            raise InputError(
                f"{recipe.model.name} takes images of at least {least[0]}x{least[1]} (height x width), data.size gives "
                f"{size[0]}x{size[1]}; raise it"
            )
        return task

    @classmethod
    def extend(cls, recipe: Recipe, source: Source, say: Any) -> tuple[Source, list[str]]:
        """The source less the training texts that the model cannot learn, and which these are."""
        with torch.device("meta"):
            preprocessing = cls.create_preprocessing(recipe, source)
            assert preprocessing is not None
            options = {**cls.options(recipe, preprocessing, source), **recipe.model.options}
            model: Any = registry.create_model(recipe.model.name, **options)
        train = source.splits["train"]
        found = find_misfits(train.kind, Alphabet.from_meaning(source.meaning), model, preprocessing.size)
        lines = describe_misfits(found, train)
        if len(found.fitting) == 0:
            raise InputError(f"{source.name}: no training text can be learned: {'; '.join(lines)}")
        if len(found.fitting) < len(train):
            source = source.with_splits({**source.splits, "train": train.subset(found.fitting)})
        return source, lines

    def inputs(self, batch: Batch) -> tuple[Any, ...]:
        inputs = super().inputs(batch)
        return inputs if self.learned is None else (self.learned(inputs[0]), *inputs[1:])

    def updates(self) -> Sequence[Update]:
        if self.learned is None:
            return super().updates()
        section: Any = own_section(self.recipe)
        own = {} if section.agent_lr is None else {"lr": section.agent_lr}
        return [
            Update("reader", self.model, self._reader_losses),
            Update("agent", self.learned, self._agent_losses, own),
        ]

    def _reader_losses(self, batch: Batch) -> Mapping[str, Tensor]:
        outputs = self.model(*self.inputs(batch))
        self._outputs = {name: value.detach() for name, value in outputs.items()}
        return self.model.loss(outputs, self.targets(batch))

    def _agent_losses(self, batch: Batch) -> Mapping[str, Tensor]:
        assert self.learned is not None
        outputs, self._outputs = self._outputs, {}
        return self.learned.loss(self.model, outputs, self.targets(batch))

    def inspections(self, split: Split) -> list[Section]:
        """What the agent has learned, where there is one."""
        if self.learned is None:
            return []
        count = min(len(split), 12)
        batch = next(iter(data.create_loader(split.subset(range(count)), self.preprocessing, batch_size=count)))
        return [learned_moves(self.learned, batch["image"], self.predictor.inputs(batch)[0])]

    def targets(self, batch: Batch) -> dict[str, Tensor]:
        labels, lengths = self.predictor.alphabet.labels(batch["text"])
        return {"labels": labels.to(self.device), "lengths": lengths}

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        evaluator = self.evaluator
        if self.trainer.sanity_checking or not self.trainer.is_global_zero or not isinstance(evaluator, ReadEvaluator):
            return
        line = self._blanks.observe(evaluator.empty_share(), mean_loss(evaluator.collected()), self.steps)
        if line is not None:
            say(line)

    def describe_settings(self) -> list[str]:
        alphabet: Alphabet = self.predictor.alphabet
        return [alphabet_in_words(alphabet)]


def alphabet_in_words(alphabet: Alphabet) -> str:
    """How texts are read and compared, in a line."""
    shown = alphabet.characters if len(alphabet) <= 100 else f"{alphabet.characters[:40]}..."
    parts = [f"{len(alphabet)} characters: {shown}"]
    parts += ["upper and lower case are one"] if alphabet.fold_case else []
    parts += ["all others are left out of texts"] if alphabet.only else []
    return "; ".join(parts)
