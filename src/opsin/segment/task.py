"""Training of segmenters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from opsin import registry
from opsin.backbones.backbone import training_options
from opsin.data import Preprocessing, Source, Split
from opsin.data.class_maps import as_labels
from opsin.engine.recipe import Recipe, own_section
from opsin.engine.task import Stage, Task
from opsin.errors import InputError, unknown
from opsin.segment.border_weights import WithBorderWeights
from opsin.segment.criterion import create_criterion
from opsin.segment.fcn import FCN
from opsin.segment.segmenter import Segmenter
from opsin.segment.staged import staged
from opsin.structures import Batch


class SegmentTask(Task):
    """Trains a Segmenter on maps of classes, by its own criterion or the recipe's."""

    predictor: Any  # a SegmentPredictor

    @classmethod
    def options(cls, recipe: Recipe, preprocessing: Preprocessing | None, source: Source) -> dict[str, Any]:
        known = training_options(registry.find_model(recipe.model.name).options)
        own = {name: value for name, value in known.items() if name not in recipe.model.options}
        return {**super().options(recipe, preprocessing, source), **own}

    @classmethod
    def build(cls, recipe: Recipe, preprocessing: Preprocessing | None, source: Source) -> Task:
        _check_recipe(recipe)
        task = super().build(recipe, preprocessing, source)
        model = task.model
        assert isinstance(model, Segmenter) and preprocessing is not None
        check_size(model, recipe.model.name, preprocessing.size)
        model.overlapping = bool(source.meaning.get("overlapping", False))
        criterion = create_criterion(recipe, source)
        if criterion is not None:
            model.criterion = criterion
        return task

    def create_augmentation(self) -> Any:
        own, section = super().create_augmentation(), own_section(self.recipe)
        if section.border_weights is None:
            return own
        background = find_background(section.background, self.classes)
        return WithBorderWeights(own, self.preprocessing, background, section.border_weights, section.border_sigma)

    def targets(self, batch: Batch) -> dict[str, Tensor]:
        found = {"labels": as_labels(batch["class_map"]).to(self.device)}
        weights = batch.get("pixel_weights")
        return found if weights is None else {**found, "weights": weights.to(self.device)}

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        # A network without padding is given no more than the image here: it learns from the middle.
        return self.model.loss(self.model(*self.inputs(batch)), self.targets(batch))

    def stages(self) -> Sequence[Stage]:
        return staged(self.model) if own_section(self.recipe).staged else ()

    def describe_fit(self, split: Split) -> list[str]:
        return self.model.size_warnings(self.preprocessing.size)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        assert self.evaluator is not None
        self.evaluator.update(self.predictor.outputs(batch), batch)


def check_size(model: Segmenter, name: str, size: tuple[int, int]) -> None:
    """Raise InputError for an input that a segmenter cannot train on, with the nearest one that it can."""
    shown = f"{size[0]}x{size[1]}"
    try:
        found = model.output_size(size)
    except InputError as error:
        raise InputError(f"data.size gives {shown}: {error}") from None
    if size[0] % model.divisor or size[1] % model.divisor:
        near = [max(model.divisor, round(side / model.divisor) * model.divisor) for side in size]
        raise InputError(
            f"{name} takes sides that are multiples of {model.divisor}, data.size gives {shown}; "
            f"{near[0]}x{near[1]} is the nearest"
        )
    if min(found) < 1 or min(size) < model.min_size:
        raise InputError(f"{name} answers on none of the pixels of {shown}; raise data.size")


def _check_recipe(recipe: Recipe) -> None:
    """Refuse what belongs to classifiers."""
    if own_section(recipe).staged and registry.find_model(recipe.model.name).network is not FCN:
        raise InputError(f"segment.staged trains the skips of an FCN in turn, and {recipe.model.name} is none")
    if recipe.mixing.mixup or recipe.mixing.cutmix:
        raise InputError("mixing blends labels of whole images, which pixels have none of; set mixing.mixup=0")


def find_background(name: str | None, classes: Sequence[str]) -> int:
    """The class that is between things: the one of this name, or the first. Raises InputError for an unknown one."""
    if name is None:
        return 0
    if name not in classes:
        raise unknown("class for segment.background", name, classes)
    return list(classes).index(name)
