"""What of a data set a detector can never learn: the objects that none of its anchors or cells is matched to.

The detector's own `assign` decides, on the objects as training gives them to it: two of YOLO's in one cell, one that is
thinner than a pixel of the input, or one that no anchor overlaps enough. k-means tells which anchors would fit better.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import flop_registry

from opsin import registry
from opsin.data import Problem, Source
from opsin.data.source import map_threads
from opsin.detect.anchor_fitting import find_anchors, mean_best_iou, place, without_auto
from opsin.detect.detector import Detector, Outputs
from opsin.detect.targets import usable
from opsin.detect.task import DetectTask
from opsin.engine.recipe import Recipe, list_recipes, load_recipe
from opsin.engine.recipe_data import create_preprocessing
from opsin.errors import InputError
from opsin.ops import kmeans_anchors
from opsin.structures import Instances

# What detectors call the sizes and shapes of their anchors.
_KNOBS = ("anchors", "scales", "fractions", "anchor_scale", "octaves", "ratios", "aspects")
_CLUSTERS = 9  # as in YOLOv3


@dataclass
class Matches:
    """How a data set's objects and a detector's places fit.

    size: (height, width) of the input. places: the anchors or cells there. objects, unmatched: of each class, all of
    them and those without a match; problems: the latter, one by one. settings: keys of the recipe that change what is
    matched. clusters: widths and heights in pixels of the input of anchors that k-means finds for the training objects,
    as many as the detector lists, else 9; none for a detector without anchors. cluster_iou: of each object with the
    nearest of them on one centre, on average; anchor_iou: with the anchors that the detector lists, if it does.
    """

    model: str
    size: tuple[int, int]
    places: int
    objects: dict[str, int]
    unmatched: dict[str, int]
    settings: list[str]
    clusters: list[tuple[int, int]] = field(default_factory=list)
    cluster_iou: float = 0.0
    anchor_iou: float | None = None
    problems: list[Problem] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the problems."""
        return {key: value for key, value in asdict(self).items() if key != "problems"}

    def draw(self) -> None:
        """Nothing: it is all in the words."""

    def render(self) -> str:
        """The matches as plain text, a few lines; the data check lists the problems."""
        height, width = self.size
        lost, total = sum(self.unmatched.values()), sum(self.objects.values())
        answered = f"no match for {lost:,} of {total:,} objects" if lost else f"a match for each of {total:,} objects"
        lines = [f"{self.model} at {height}x{width}: {self.places:,} anchors or cells, {answered}"]
        named = {name: count for name, count in self.unmatched.items() if count}
        widest = max(map(len, named), default=0)
        lines += [f"  {name:<{widest}}  {count:,} of {self.objects[name]:,}" for name, count in named.items()]
        if self.clusters:
            found = f"{len(self.clusters)} shapes by k-means have a mean IoU of {self.cluster_iou:.2f} with the objects"
            own = f", its own {self.anchor_iou:.2f}" if self.anchor_iou is not None else ""
            lines += [f"  {found}{own}:", f"    {', '.join(f'{w}x{h}' for w, h in self.clusters)}"]
        if lost:
            lines.append(f"  what may help: {', '.join([*self.settings, 'another model'])}")
        if self.anchor_iou is not None and self.anchor_iou < self.cluster_iou:
            lines.append(f"  to take them: --set 'model.anchors={[list(pair) for pair in self.clusters]}'")
        return "\n".join(lines)


def match_named(source: Source, data: str, model: str, settings: Mapping[str, Any]) -> Matches:
    """`find_unmatched` of a detector by name, or of a recipe by name or file. data: what the source was opened from.

    settings: keys of the recipe to change. Raises InputError for a source without boxes, too.
    """
    if source.task != "detect":
        raise InputError(f"--model matches boxes with a detector, and {data} was opened to {source.task}; leave it out")
    named = model.endswith((".yaml", ".yml")) or model in list_recipes()
    given: Any = model if named else {"model": {"name": model}}
    return find_unmatched(source, load_recipe(given, {**settings, "task": "detect", "data.source": data}))


def find_unmatched(source: Source, recipe: Recipe) -> Matches:
    """Lay out the places of a recipe's detector at its input size, and assign every object of a source to them.

    Objects of images that cannot be read do not count. Raises InputError for what the detector refuses.
    """
    statistics = recipe.data.mean or recipe.data.std  # say the channels, which change no place
    preprocessing = create_preprocessing(without_auto(recipe), len(statistics) if statistics else None)
    if (learned_from := source.splits.get("train", source.splits.get("all"))) is not None:
        recipe, _ = find_anchors(recipe, learned_from, preprocessing)
    model: Any = DetectTask.build(recipe, preprocessing, source).model.eval()
    size = preprocessing.size
    outputs = blank_outputs(model, torch.zeros(1, model.in_channels, *size))
    places = model.assign(outputs, [Instances(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))])[0].boxes
    counts, lost, problems, learned = Counter[str](), Counter[str](), [], []
    for key, split in source.splits.items():
        placed = map_threads(partial(place, split, preprocessing), range(len(split)))
        found = map_threads(partial(_unmatched, model, outputs, size), placed)
        for index, (one, missing) in enumerate(zip(placed, found, strict=True)):
            names = [source.classes[label] if label >= 0 else "" for label in one.labels.tolist()]
            counts.update(name for name in names if name)
            lost.update(names[number] for number in missing)
            for number, why in missing.items():
                reason = f"object {number + 1}, a {names[number]} of {why}"
                problems.append(Problem("unmatchable", split.name(index), reason, "warning"))
        if key in ("train", "all"):
            learned = [usable(one[one.labels >= 0], size).boxes for one in placed]
    sides = torch.cat([boxes[:, 2:] - boxes[:, :2] for boxes in learned] or [torch.zeros(0, 2)])
    knobs = _knobs(recipe)
    settings = [f"model.{name}" for name in knobs] + ([] if model.fixed_size else ["data.size"])
    matches = Matches(
        recipe.model.name,
        size,
        len(places),
        {name: counts[name] for name in source.classes},
        {name: lost[name] for name in source.classes},
        settings,
        problems=problems,
    )
    return replace(matches, **_cluster(sides, knobs.get("anchors"))) if knobs and len(sides) else matches


@torch.no_grad()
def blank_outputs(model: Detector, images: Tensor) -> Outputs:
    """What a detector in eval gives where every product is zero: its anchors and shapes for the cost of these."""
    with _NoProducts():
        return model(images)


class _NoProducts(TorchDispatchMode):
    """Whatever multiplies and adds, as a convolution does, gives zeros of its shape instead."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        if func._overloadpacket not in flop_registry:
            return func(*args, **(kwargs or {}))
        blank: Any = tree_map_only(Tensor, partial(torch.empty_like, device="meta"), (args, kwargs or {}))
        return tree_map_only(Tensor, partial(torch.zeros_like, device="cpu"), func(*blank[0], **blank[1]))


def _unmatched(model: Detector, outputs: Outputs, size: tuple[int, int], one: Instances) -> dict[int, str]:
    """The objects of an image that no anchor or cell is matched to: size in the input, and why, by their numbers."""
    assert one.labels is not None
    learned = usable(replace(one, ids=torch.arange(len(one))), size)
    assert learned.ids is not None
    places = {number: place for place, number in enumerate(learned.ids.tolist())}
    answered = set(_answered(model, outputs, learned))
    found = {}
    for number in (one.labels >= 0).nonzero()[:, 0].tolist():
        place = places.get(number)
        if place in answered:
            continue
        width, height = (one.boxes[number, 2:] - one.boxes[number, :2]).tolist()
        if place is None:
            why = "has less than one within the input, down or across: training leaves it out"
        elif _answered(model, outputs, learned[place : place + 1]):
            why = "has no anchor or cell to itself: all that could be matched to it are matched to others"
        else:
            why = "overlaps no anchor enough"
        found[number] = f"{width:.3g}x{height:.3g} input pixels, {why}"
    return found


def _answered(model: Detector, outputs: Outputs, instances: Instances) -> list[int]:
    matched = model.assign(outputs, [instances])[0].matched
    return matched[matched >= 0].unique().tolist()


def _knobs(recipe: Recipe) -> dict[str, Any]:
    """The options of the recipe's model that shape its anchors, with their values."""
    options = registry.find_model(recipe.model.name).options
    given = {name: recipe.model.options.get(name, options[name].default) for name in _KNOBS if name in options}
    return {name: value for name, value in given.items() if not isinstance(value, str)}  # a way of laying them out


def _cluster(sides: Tensor, anchors: Sequence[Sequence[float]] | None) -> dict[str, Any]:
    """The last fields of `Matches`, of the sides (N, 2) of objects and a detector's list of anchors."""
    found = kmeans_anchors(sides, min(len(anchors) if anchors else _CLUSTERS, len(sides.unique(dim=0))))
    clusters = [(max(1, round(w)), max(1, round(h))) for w, h in found.sizes.tolist()]
    own = mean_best_iou(sides, anchors) if anchors else None
    return {"clusters": clusters, "cluster_iou": mean_best_iou(sides, clusters), "anchor_iou": own}
