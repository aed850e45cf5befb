"""Training of radiance fields: each step takes rays from anywhere in all views."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from opsin import registry
from opsin.data import Preprocessing, Source, Split
from opsin.engine.recipe import Recipe, load_recipe, own_section
from opsin.engine.recipe_data import Say
from opsin.engine.task import Task
from opsin.errors import InputError
from opsin.errors import say as say_line
from opsin.render.camera_paths import known_cameras
from opsin.render.ray_batches import KEY, RAY, OfViews, ray_batches
from opsin.render.shape_network import BoxedShape
from opsin.render.shape_source import KEY as POINTS
from opsin.render.shape_source import PointDraws
from opsin.render.watching import RayWatch
from opsin.structures import Batch


class RenderTask(Task):
    """Trains a `RadianceField` on posed views. An example is the rays of a step; see `opsin.render.ray_batches`."""

    predictor: Any  # a RenderPredictor

    def __init__(self, model: Any, facts: Any) -> None:
        super().__init__(model, facts)
        self._watch = RayWatch(say_line)
        self._rays, self._since = 0, time.monotonic()

    @classmethod
    def create_preprocessing(cls, recipe: Recipe, source: Source) -> Preprocessing | None:
        return None

    @classmethod
    def extend(cls, recipe: Recipe, source: Source, say: Say) -> tuple[Source, list[str]]:
        section: Any = own_section(recipe)
        given = source.splits["train"]
        if isinstance(given.inputs, PointDraws):
            points = replace(given.inputs, size_=section.rays, count=section.epoch_steps)
            truth = replace(given.kind, count=len(points))
            line = f"{len(points.pool):,} points; {section.rays:,} a step, {section.epoch_steps:,} steps an epoch"
            return source.with_splits({**source.splits, "train": Split(points, truth)}), [line]
        train = ray_batches(source.splits["train"], section.rays, section.epoch_steps)
        views = source.splits["train"].kind
        splits = {**source.splits, "train": Split(train, OfViews(views, len(train)))}
        lines = [
            f"{len(source.splits['train'])} views, {len(train.colours):,} rays; near {train.near:.4g}, far "
            f"{train.far:.4g}; {section.rays:,} rays a step, {section.epoch_steps:,} steps an epoch"
        ]
        for name, most in (("val", section.val_views), ("test", section.test_views)):
            if name in splits and most is not None and len(splits[name]) > most:
                splits[name] = spread(splits[name], most)
                lines.append(f"{name}: {most} of {len(source.splits[name])} views are rendered (render.{name}_views)")
        return source.with_splits(splits), lines

    @classmethod
    def complete(cls, recipe: Recipe, source: Source, preprocessing: Preprocessing | None) -> tuple[Recipe, list[str]]:
        if isinstance(source.splits["train"].inputs, PointDraws) and recipe.train.monitor is None:
            return load_recipe(recipe.model_dump(), {"train.monitor": "val_iou"}), []
        return recipe, []

    @classmethod
    def options(cls, recipe: Recipe, preprocessing: Preprocessing | None, source: Source) -> dict[str, Any]:
        known, meaning = registry.find_model(recipe.model.name).options, source.meaning
        found: dict[str, Any] = {"background": meaning.get("background", "white")}
        if "box" in meaning:
            found["box"] = [value for corner in meaning["box"] for value in corner]
        return {name: v for name, v in found.items() if name in known and name not in recipe.model.options}

    @classmethod
    def build(cls, recipe: Recipe, preprocessing: Preprocessing | None, source: Source) -> Task:
        if recipe.mixing.mixup or recipe.mixing.cutmix:
            raise InputError("mixing blends images, and rays are none; set mixing.mixup=0 and mixing.cutmix=0")
        if recipe.augment:
            raise InputError("augment changes images, whose cameras would then be wrong; remove it")
        if recipe.train.batch_size != 1:
            raise InputError(
                f"train.batch_size is {recipe.train.batch_size}; an example is all rays of a step: leave it at 1 and "
                "set render.rays"
            )
        shape = isinstance(source.splits["train"].inputs, PointDraws)
        network = registry.find_model(recipe.model.name).network
        if shape != (network is not None and issubclass(network, BoxedShape)):
            of, able = ("a mesh", "sdf or occupancy") if shape else ("posed views", "nerf or fast_nerf")
            raise InputError(f"{source.name} is {of}, which {recipe.model.name} does not learn; take {able}")
        task = super().build(recipe, preprocessing, source)
        if not shape:
            task.model.cameras = known_cameras(source.splits["train"].kind.views)
        return task

    def inputs(self, batch: Batch) -> tuple[Any, ...]:
        values: Any = batch
        if POINTS in values:
            return (values[POINTS].flatten(0, 1)[:, :3].to(self.device),)
        rays = values[KEY].flatten(0, 1)[:, :RAY].to(self.device)
        return rays, self.model.draw(len(rays), rays.device)

    def targets(self, batch: Batch) -> dict[str, Tensor]:
        values: Any = batch
        if POINTS in values:
            return {"distance": values[POINTS].flatten(0, 1)[:, 3].to(self.device)}
        return {"color": values[KEY].flatten(0, 1)[:, RAY:].to(self.device)}

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        if POINTS in batch:
            return super().losses(batch)
        self.model.prepare_step(self.steps if self._trainer is not None else 0)
        outputs = self.model(*self.inputs(batch))
        self._rays += len(outputs["color"])
        self._watch.look(outputs, self.targets(batch)["color"], self.steps if self._trainer is not None else 0)
        return self.model.loss(outputs, self.targets(batch))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        assert self.evaluator is not None
        self.evaluator.update(self.predictor.outputs(batch), batch)

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self._rays, self._since = 0, time.monotonic()

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        seconds = time.monotonic() - self._since
        if self._rays and seconds > 0:
            say_line(f"{self._rays / seconds:,.0f} rays a second")

    def describe_settings(self) -> list[str]:
        if isinstance(self.model, BoxedShape):
            return []
        return [f"over {self.facts.meaning.get('background', 'white')}; pixels are looked through at their middles"]


def spread(split: Split, most: int) -> Split:
    """So many examples of a split, evenly spread."""
    return split.subset(np.unique(np.linspace(0, len(split) - 1, most).round().astype(np.int64)))
