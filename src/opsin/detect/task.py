"""Training of detectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from opsin import data, registry
from opsin.data import Preprocessing, Source, Split
from opsin.data.joint_training import join
from opsin.data.loading import derive_seed
from opsin.detect import report
from opsin.detect.anchor_fitting import describe_fit, find_anchors, without_auto
from opsin.detect.detector import Detector
from opsin.detect.evaluate import EVALUATED
from opsin.detect.own_network import OwnDetector
from opsin.detect.predict import check_masks, network_of
from opsin.detect.proposals import proposal_recall, recall_figure
from opsin.detect.targets import batch_targets, rescale
from opsin.detect.training import training_stages
from opsin.engine.checkpoint import Facts
from opsin.engine.recipe import Recipe, own_section
from opsin.engine.recipe_data import Say, open_readable
from opsin.engine.report import Section
from opsin.engine.task import Stage, Task
from opsin.errors import InputError
from opsin.structures import Batch, Instances

_BATCHES_OF_A_SIZE = 10  # YOLO9000, sec. 2, multi-scale training
_SIZES = 0x517E  # stands in the place of an index where the seed is that of a choice of size
_SHOWN = 4  # training images whose assignment the report draws


class DetectTask(Task):
    """Trains a Detector. The loss is the detector's own; what it makes of the truth is in its `assign`."""

    predictor: Any  # a DetectPredictor

    def __init__(self, model: Detector, facts: Facts) -> None:
        super().__init__(model, facts)
        self._size: tuple[int, int] | None = None  # of this batch, where it is not that of the preprocessing
        self._largest = False  # whether every batch has the largest of `detect.multi_scale`

    @property
    def detector(self) -> Detector:
        """The model, by its type."""
        return self.model

    @classmethod
    def create_preprocessing(cls, recipe: Recipe, source: Source) -> Preprocessing | None:
        return super().create_preprocessing(without_auto(recipe), source)

    @classmethod
    def complete(cls, recipe: Recipe, source: Source, preprocessing: Preprocessing | None) -> tuple[Recipe, list[str]]:
        """With anchors of the training boxes in the place of `model.anchors: auto`."""
        assert preprocessing is not None
        return find_anchors(recipe, source.splits["train"], preprocessing)

    @classmethod
    def extend(cls, recipe: Recipe, source: Source, say: Say) -> tuple[Source, list[str]]:
        """With the images of `detect.joint`, which say what they show, not where."""
        section = own_section(recipe)
        if section.joint is None:
            return source, []
        try:
            joint = open_readable(recipe, say, section.joint, task=_JOINT, multi_label=section.joint_multi_label)
        except InputError as error:
            raise InputError(f"detect.joint: {error}") from None
        joined, line = join(source, joint, section.joint_ratio, recipe.data.limit)
        return joined, [line]

    @classmethod
    def build(cls, recipe: Recipe, preprocessing: Preprocessing | None, source: Source) -> Task:
        _check_recipe(recipe)
        assert preprocessing is not None
        task = super().build(recipe, preprocessing, source)
        model = task.model
        assert isinstance(model, Detector)
        check_size(model, recipe.model.name, preprocessing.size, "data.size")
        for size in own_section(recipe).multi_scale or []:
            check_size(model, recipe.model.name, _sides(size), "detect.multi_scale")
        if model.needs_masks and "train" in source.splits:
            check_masks(recipe, source.splits["train"])
        return task

    def inputs(self, batch: Batch) -> tuple[Any, ...]:
        """The images at this batch's size, and the proposals of a detector that needs some in its pixels."""
        self._size = self._choose_size(self.batch_index)
        images, *others = self.predictor.inputs(batch)
        if self._size is not None and images.shape[-2:] != self._size:
            images = interpolate(images, self._size, mode="bilinear", antialias=True)
        if others:
            others = [[rescale(boxes, batch, self._size).to(self.device) for boxes in batch["proposals"]]]
        return images, *others

    def targets(self, batch: Batch) -> list[Instances]:
        return batch_targets(batch, self.device, self._size)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        try:
            inputs, targets = self.inputs(batch), self.targets(batch)
            return self.model.loss(self.model(*inputs), targets)
        finally:
            self._size = None

    @torch.no_grad()
    def inspections(self, split: Split) -> list[Section]:
        """Which anchors or cells are matched to the objects of a few training images."""
        if isinstance(self.model, OwnDetector):
            return []
        full = [place for place, one in enumerate(split.kind.instances) if len(one)]
        if not full:
            return []
        chosen = np.unique(np.linspace(0, len(full) - 1, _SHOWN).astype(int))
        places = [full[place] for place in chosen]
        proposals = None if self.predictor.proposer is None else self.predictor.propose(split)
        chosen_split = split.subset(places)
        if proposals is not None:
            chosen_split = chosen_split.with_truth(chosen_split.kind.with_proposals([proposals[i] for i in places]))
        batch = next(iter(data.create_loader(chosen_split, self.preprocessing, batch_size=len(places))))
        targets = batch_targets(batch, self.device)
        found = self.detector.assign(self.model(*self.predictor.inputs(batch)), targets)
        shown = [one.to("cpu") for one in targets]
        sections: list[Section] = [report.assignments(list(batch["image"].cpu()), found, shown, self.classes)]
        if proposals is not None:
            recall = proposal_recall(split.kind.instances, proposals)
            sections.append(recall_figure({str(getattr(self.model, "proposals", "proposals")): recall}))
        return sections

    def take_most_memory(self) -> None:
        self._largest = True

    def describe_settings(self) -> list[str]:
        lines, sizes = [], own_section(self.recipe).multi_scale
        if sizes:
            shown = ", ".join("x".join(map(str, _sides(size))) for size in sizes)
            lines.append(f"multi-scale: another input size every {_BATCHES_OF_A_SIZE} batches, of {shown}")
        suppression = self.detector.selection
        lines.append(
            f"evaluated on predictions of at least {min(EVALUATED, suppression.score_threshold):g}, after "
            f"{suppression.suppression} suppression at an IoU of {suppression.iou_threshold:g}"
        )
        return lines

    def describe_fit(self, split: Split) -> list[str]:
        return describe_fit(self.recipe, self.detector, split, self.preprocessing)

    def stages(self) -> Sequence[Stage]:
        return training_stages(self.detector)

    def _choose_size(self, batch_idx: int) -> tuple[int, int] | None:
        """The input's size of a training batch, the same in every process and after a resume."""
        sizes = own_section(self.recipe).multi_scale
        if not sizes:
            return None
        if self._largest:
            return max(map(_sides, sizes), key=lambda sides: sides[0] * sides[1])
        turn = batch_idx // _BATCHES_OF_A_SIZE
        return _sides(sizes[derive_seed(self.recipe.train.seed, self.current_epoch, turn, _SIZES) % len(sizes)])


_JOINT = "classify"  # what the joint images are opened for: they have a class, and no boxes


def check_size(model: Detector, name: str, size: tuple[int, int], key: str) -> None:
    """Raise InputError for an input size that the detector refuses. key: of the recipe, that gave it."""
    fixed, divisor = model.fixed_size, model.divisor
    shown = f"{size[0]}x{size[1]}"
    if fixed is not None and size != (fixed, fixed):
        raise InputError(f"{name} takes {fixed}x{fixed} images only, {key} gives {shown}; set {key}={fixed}")
    if size[0] % divisor or size[1] % divisor:
        near = [max(divisor, round(side / divisor) * divisor) for side in size]
        raise InputError(
            f"{name} takes sides that are multiples of {divisor}, {key} gives {shown}; "
            f"{near[0]}x{near[1]} is the nearest"
        )


def _check_recipe(recipe: Recipe) -> None:
    """Refuse what belongs to classifiers, or to other detectors."""
    mixing, loss = recipe.mixing, recipe.loss
    if mixing.mixup or mixing.cutmix:
        raise InputError("mixing blends labels, which boxes have none of; detectors have mosaic and mixup in augment")
    if loss.name is not None or loss.class_weights is not None or loss.options:
        raise InputError(f"the loss of {recipe.model.name} is its own; its options are keys of model, not of loss")
    if own_section(recipe).joint is not None and not network_of(recipe.model.name).learns_somewhere:
        able = [name for name in registry.list_models(task=recipe.task) if network_of(name).learns_somewhere]
        raise InputError(
            f"detect.joint gives images without boxes, which {recipe.model.name} cannot learn from; "
            f"these can: {', '.join(able)}"
        )


def _sides(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
