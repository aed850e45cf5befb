"""Training of networks that find named points."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opsin import registry
from opsin.data import Preprocessing, Source, Split
from opsin.data.named_points import NamedPoints, pairs_of
from opsin.data.point_sets import check_flip, mean_shape
from opsin.engine.recipe import Recipe, own_section
from opsin.engine.task import Task
from opsin.errors import InputError, printable
from opsin.landmark.criterion import create_criterion
from opsin.landmark.localizer import Localizer
from opsin.landmark.metrics import ALWAYS, choose_normalizer
from opsin.landmark.mirrored import WithFlipPairs
from opsin.landmark.poses import BalancedOrder, bins_of, poses_of
from opsin.structures import Batch


class LandmarkTask(Task):
    """Trains a Localizer on named points."""

    predictor: Any  # a LandmarkPredictor

    @classmethod
    def options(cls, recipe: Recipe, preprocessing: Preprocessing | None, source: Source) -> dict[str, Any]:
        own = {"num_points": len(source.meaning["points"])}
        known = registry.find_model(recipe.model.name).options
        found = {name: value for name, value in own.items() if name in known and name not in recipe.model.options}
        return {**super().options(recipe, preprocessing, source), **found}

    @classmethod
    def build(cls, recipe: Recipe, preprocessing: Preprocessing | None, source: Source) -> Task:
        if recipe.mixing.mixup or recipe.mixing.cutmix:
            raise InputError("mixing blends labels of whole images, which points have none of; set mixing.mixup=0")
        truth: NamedPoints = source.splits["train"].kind
        assert preprocessing is not None
        if own_section(recipe).flip_pairs is not None and truth.flip is not None:
            check_flip(truth.flip, mean_shape(truth.points), truth.names)
        for key in ("train", "val"):
            if key in source.splits and not source.splits[key].kind.known.any():
                raise InputError(
                    f"{source.name}: {key} has no image with a point; give it some, or divide the data anew"
                )
        choose_normalizer(own_section(recipe).normalizer, [*truth.eyes, *ALWAYS])
        task = super().build(recipe, preprocessing, source)
        model = task.model
        if not isinstance(model, Localizer):
            raise InputError(f"{recipe.model.name} finds no points; `opsin models --task landmark` lists what does")
        _check_size(model, recipe, preprocessing, source)
        criterion = create_criterion(recipe)
        if criterion is not None:
            model.criterion = criterion
        shape = mean_in_input(source, preprocessing)
        if shape is not None:
            model.start_at(shape)
        return task

    def create_augmentation(self) -> Any:
        own = super().create_augmentation()
        if own is None:
            return None
        if getattr(own, "partners", 0):
            raise InputError("augment mixes several images, and each has its points; leave mosaic and mixup out")
        flip = self.facts.meaning.get("flip")
        return WithFlipPairs(own, self.preprocessing, None if flip is None else tuple(flip))

    def order(self, split: Split) -> Callable[[int], Sequence[Any]] | None:
        count = own_section(self.recipe).balance_poses
        if count is None:
            return None
        truth: NamedPoints = split.kind
        processes = self._trainer.world_size if self._trainer is not None else 1
        size = self.recipe.train.batch_size * processes
        return BalancedOrder(bins_of(poses_of(truth.points), count), size, self.recipe.train.seed)

    def targets(self, batch: Batch) -> dict[str, Tensor]:
        values: Any = batch
        return {"points": values["points"].to(self.device), "visible": values["visible"].to(self.device)}

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        return self.model.loss(self.model(*self.inputs(batch)), self.targets(batch))

    def describe_settings(self) -> list[str]:
        names, flip = self.facts.meaning["points"], self.facts.meaning.get("flip")
        main = choose_normalizer(own_section(self.recipe).normalizer, self.predictor.normalizers)
        if flip is None:
            return [f"errors are divided by {main}", "which points change places in a mirror image is not known"]
        pairs = ", ".join(f"{printable(one)}-{printable(other)}" for one, other in pairs_of(flip, names)) or "none"
        return [f"errors are divided by {main}", f"points that change places in a mirror image: {pairs}"]


def _check_size(model: Localizer, recipe: Recipe, preprocessing: Preprocessing, source: Source) -> None:
    """Raise InputError for an input, or a number of points, that a network cannot take."""
    name, size, count = recipe.model.name, preprocessing.size, len(source.meaning["points"])
    if model.num_points != count:
        raise InputError(f"model.num_points is {model.num_points}, and the data has {count} points; leave it out")
    if model.fixed_size is not None and size != (model.fixed_size, model.fixed_size):
        raise InputError(f"{name} takes images of {model.fixed_size}x{model.fixed_size}; leave data.size out")
    if size[0] % model.divisor or size[1] % model.divisor or min(size) < model.min_size:
        raise InputError(
            f"{name} takes sides that are multiples of {model.divisor}, from {model.min_size} on; data.size gives "
            f"{size[0]}x{size[1]}"
        )


def mean_in_input(source: Source, preprocessing: Preprocessing, most: int = 2000) -> Tensor | None:
    """The mean place of each point of the training images, in shares of the input's sides, (P, 2).

    Points that are known nowhere are in the middle. None where the sizes of images cannot be read. most: images that
    are looked at, evenly over the split.
    """
    split = source.splits["train"]
    truth: NamedPoints = split.kind
    total, count = np.zeros(truth.points.shape[1:]), np.zeros((len(truth.names), 1))
    for i in np.unique(np.linspace(0, len(split) - 1, min(most, len(split))).astype(int)).tolist():
        try:
            size = split.inputs.size(i)
        except InputError:
            continue
        if size is None:
            return None
        scale_x, scale_y, shift_x, shift_y = preprocessing.transform(*size)
        height, width = preprocessing.size
        places = truth.points[i] * (scale_x, scale_y) + (shift_x, shift_y)
        known = truth.known[i][:, None]
        total += np.where(known, places / (width, height), 0.0)
        count += known
    return torch.from_numpy(np.where(count > 0, total / np.maximum(count, 1), 0.5)).float()
