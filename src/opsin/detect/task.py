"""Detection as a task: boxes, classes and scores of the objects in an image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from opsin import data, registry
from opsin.backbones.extraction import find_backbone
from opsin.data import Preprocessing, Source, Split
from opsin.data.coordinates import keep_inside, return_masks
from opsin.data.loading import derive_seed
from opsin.data.masks import encode_masks
from opsin.data.transforms.box_augmentation import create_detection_augmentation, describe_detection_augmentation
from opsin.detect import drawing, report
from opsin.detect.average_precision import Shapes
from opsin.detect.detector import Detector, Outputs
from opsin.detect.metrics import Evaluation, best_threshold, brief_metrics, evaluate
from opsin.detect.proposals import Proposer, create_proposer, find_proposals, proposal_recall, recall_figure
from opsin.detect.stages import run_stages
from opsin.engine.recipe import Recipe
from opsin.engine.report import Section
from opsin.engine.run import RunFolder
from opsin.engine.task import Task
from opsin.errors import InputError, JobError
from opsin.ops import clip_boxes
from opsin.structures import Batch, Instances

if TYPE_CHECKING:
    from opsin.engine.predict import Predictor

_BATCHES_OF_A_SIZE = 10  # YOLO9000, sec. 2, multi-scale training
_SIZES = 0x517E  # stands in the place of an index where the seed is that of a choice of size
_EVALUATED = 0.01  # a lower score adds nothing to average precision that could be seen
_UNFITTED = 0.3  # the least score of an answer, where no validation has found a better one
_SHOWN = 4  # training images whose assignment the report draws


@dataclass
class Image:
    """What one image holds and what was found in it, in its own pixels. shapes: masks, where both have some."""

    index: int
    truth: Instances
    found: Instances
    shapes: Shapes | None = None


@dataclass
class Collected:
    """An evaluator's state: images, and the sum of their losses."""

    images: list[Image]
    loss: float = 0.0


class Detections:
    """Collects what a detector finds in a split and the truth, brought back to pixels of the images as read.

    Masks are kept as runs of pixels alone: a hundred of an image of 800x1344 would take 100 MB.
    """

    def __init__(self, task: DetectTask) -> None:
        self.task = task
        model = task.detector
        self.selection = replace(model.selection, score_threshold=min(_EVALUATED, model.selection.score_threshold))
        self._collected = Collected([])

    def update(self, outputs: Outputs, batch: Batch) -> None:
        _check_numbers(outputs, batch)
        model, preprocessing = self.task.detector, self.task.preprocessing
        device = self.task.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(self.task.recipe.train.seed)  # some losses sample regions: the same, whenever evaluated
            losses = model.loss(outputs, self.task.targets(batch))
        self._collected.loss += sum(float(term.detach()) for term in losses.values()) * len(batch["image"])
        found = model.decode(outputs, self.selection)
        rows = zip(batch["index"].tolist(), batch["size"].tolist(), batch["instances"], found, strict=True)
        for index, size, truth, instances in rows:
            own, theirs, shapes = truth.to("cpu"), to_image(instances, preprocessing, size), None
            if own.masks is not None and theirs.masks is not None:
                shapes = Shapes.of(return_masks(own.masks, preprocessing, size), theirs.masks)
            own = replace(own, boxes=preprocessing.return_boxes(own.boxes, size), masks=None)
            self._collected.images.append(Image(index, own, replace(theirs, masks=None), shapes))

    def state(self) -> Collected:
        return self._collected

    def merge(self, states: Sequence[Collected]) -> None:
        images = [image for state in states for image in state.images]
        self._collected = Collected(images, sum(state.loss for state in states))

    def collected(self) -> tuple[list[Instances], list[Instances]]:
        """Truth and findings, in the order of the split whatever process saw them."""
        ordered = self._ordered()
        return [image.truth for image in ordered], [image.found for image in ordered]

    def shapes(self) -> list[Shapes] | None:
        """The masks of every image, in the same order; None where one has none."""
        shapes = [image.shapes for image in self._ordered() if image.shapes is not None]
        return shapes if shapes and len(shapes) == len(self._collected.images) else None

    def _ordered(self) -> list[Image]:
        return sorted(self._collected.images, key=lambda image: image.index)

    @property
    def loss(self) -> float:
        """The mean training loss of an image."""
        return self._collected.loss / max(1, len(self._collected.images))

    def metrics(self) -> dict[str, float]:
        return {"loss": self.loss, **brief_metrics(*self.collected(), len(self.task.classes))}


class DetectTask(Task):
    """Trains a Detector. The loss is the detector's own; what it makes of the truth is in its `assign`."""

    monitor: ClassVar[str] = "val_map"
    monitor_mode: ClassVar[str] = "max"
    # What trains any of the detectors on some hundred images; the papers' long schedules are in the recipes.
    defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "optim": {"name": "adamw", "lr": 0.001, "weight_decay": 0.0001},
        "schedule": {"name": "cosine", "warmup_epochs": 1.0},
        "train": {"epochs": 50, "batch_size": 16, "clip_norm": 10.0},
    }

    def __init__(self, model: Detector, recipe: Recipe, preprocessing: Preprocessing, classes: list[str]) -> None:
        super().__init__(model, recipe, preprocessing, classes)
        self._size: tuple[int, int] | None = None  # of this batch, where it is not that of the preprocessing
        self._proposer = find_proposer(model)
        self._proposed: list[tuple[Split, list[Tensor]]] = []  # of the splits seen so far

    @property
    def detector(self) -> Detector:
        """The model, by its type."""
        return self.model  # type: ignore[return-value]

    @classmethod
    def build(cls, recipe: Recipe, preprocessing: Preprocessing, source: Source, labels: np.ndarray) -> DetectTask:
        _check_recipe(recipe)
        model = registry.create_model(
            recipe.model.name,
            num_classes=len(source.classes),
            in_channels=preprocessing.channels,
            **recipe.model.options,
        )
        assert isinstance(model, Detector)
        check_size(model, recipe.model.name, preprocessing.size, "data.size")
        for size in recipe.train.multi_scale or []:
            check_size(model, recipe.model.name, _sides(size), "train.multi_scale")
        if model.needs_masks and "train" in source.splits:
            _check_masks(recipe, source.splits["train"])
        return cls(model, recipe, preprocessing, source.classes)

    @classmethod
    def arrange(cls, recipe: Recipe, source: Source) -> Source:
        """With all classes made one, "object", for a detector that knows none."""
        if not _says(recipe.model.name, "class_agnostic"):
            return source
        one = [0] * len(source.classes)
        splits = {name: split.relabel(one, 1) for name, split in source.splits.items()}
        return replace(source, classes=["object"], splits=splits)

    def images(self, batch: Batch) -> Tensor:
        images = super().images(batch)
        if self._size is None or images.shape[-2:] == self._size:
            return images
        return interpolate(images, self._size, mode="bilinear", antialias=True)

    def targets(self, batch: Batch) -> list[Instances]:
        """The objects of each image in pixels of this batch's input; see `usable` for those left out.

        An image of which it is known only what it shows has boxes of NaN.
        """
        size = self._size or batch["image"].shape[-2:]
        placed = [usable(self._resize(one, batch), size) for one in batch["instances"]]
        shown = batch.get("somewhere", [None] * len(placed))
        pairs = zip(placed, shown, strict=True)
        return [(one if labels is None else Instances.somewhere(labels)).to(self.device) for one, labels in pairs]

    def outputs(self, images: Tensor, batch: Batch) -> Outputs:
        if self._proposer is None:
            return self.model(images)
        return self.model(images, [self._rescale(boxes, batch).to(self.device) for boxes in batch["proposals"]])

    def loader_options(self, split: Split) -> dict[str, Any]:
        if self._proposer is not None:
            return {"proposals": self._propose(split)}
        if not self.detector.needs_masks:
            return {}
        _check_masks(self.recipe, split)
        return {"masks": True}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self._size = self._choose_size(batch_idx)
        try:
            return super().training_step(batch, batch_idx)
        finally:
            self._size = None

    def create_augmentation(self) -> Any:
        return create_detection_augmentation(self.recipe.augment, self.preprocessing)

    def describe_augmentation(self) -> list[str]:
        return describe_detection_augmentation(self.recipe.augment)

    def create_evaluator(self) -> Detections:
        return Detections(self)

    def calibrate(self, evaluator: Detections) -> None:
        """The score threshold with the best F1 becomes the one that prediction uses."""
        evaluation = evaluate(*evaluator.collected(), self.classes)
        self.model.score_threshold = best_threshold(evaluation.f1, evaluation.rankings)  # type: ignore[assignment]

    def evaluate(self, evaluator: Detections) -> tuple[dict[str, float], Evaluation]:
        threshold = getattr(self.model, "score_threshold", None)
        evaluation = evaluate(*evaluator.collected(), self.classes, threshold=threshold, shapes=evaluator.shapes())
        return {**evaluation.metrics, "loss": evaluator.loss}, evaluation

    def details(self, evaluation: Evaluation) -> dict[str, Any]:
        return evaluation.to_dict()

    def sections(self, evaluation: Evaluation, split: Split) -> list[Section]:
        return report.sections(evaluation, split)

    @torch.no_grad()
    def inspections(self, split: Split) -> list[Section]:
        """Which anchors or cells answer for the objects of a few training images."""
        full = [place for place, one in enumerate(split.instances or []) if len(one)]
        if not full:
            return []
        chosen = np.unique(np.linspace(0, len(full) - 1, _SHOWN).astype(int))
        places = [full[place] for place in chosen]
        proposals = None if self._proposer is None else self._propose(split)
        shares = None if proposals is None else [proposals[place] for place in places]
        loader = data.create_loader(split.subset(places), self.preprocessing, batch_size=len(places), proposals=shares)
        batch = next(iter(loader))
        batch["image"] = batch["image"].to(self.device)
        targets = self.targets(batch)
        found = self.detector.assign(self.outputs(self.images(batch), batch), targets)
        shown = [one.to("cpu") for one in targets]
        sections: list[Section] = [report.assignments(list(batch["image"].cpu()), found, shown, self.classes)]
        if proposals is not None and split.instances is not None:
            recall = proposal_recall(split.instances, proposals)
            sections.append(recall_figure({str(getattr(self.model, "proposals", "proposals")): recall}))
        return sections

    def choices(self) -> list[str]:
        lines, sizes = [], self.recipe.train.multi_scale
        if sizes:
            told = ", ".join("x".join(map(str, _sides(size))) for size in sizes)
            lines.append(f"multi-scale: another input size every {_BATCHES_OF_A_SIZE} batches, of {told}")
        suppression = self.detector.selection
        lines.append(
            f"evaluated on predictions of at least {min(_EVALUATED, suppression.score_threshold):g}, after "
            f"{suppression.suppression} suppression at an IoU of {suppression.iou_threshold:g}"
        )
        return lines

    def train_stages(
        self, splits: Mapping[str, Split], folder: RunFolder, fit: Any, say: Callable[[str], None]
    ) -> bool:
        stages = self.detector.stages()
        if stages:
            run_stages(stages, self, splits, folder, fit, say)
        return bool(stages)

    def load_backbone(self, weights: str, say: Callable[[str], None]) -> None:
        name = find_backbone(self.model)
        if name is None:
            raise InputError(f"{self.recipe.model.name} has no registered backbone; remove model.backbone_weights")
        published = registry.find_weights(name, weights)
        network = registry.create_model(
            name,
            weights=weights,
            num_classes=published.num_classes,
            in_channels=self.preprocessing.channels,
            say=say,
        )
        own = self.model.state_dict()
        fresh = self.detector.initialize_from(network.state_dict())
        if len(fresh) == len(own):
            raise InputError(f"no tensor of {name}:{weights} fits the backbone of {self.recipe.model.name}")
        say(f"backbone: {len(own) - len(fresh)} tensors of {name}:{weights}, {published.source} ({published.licence})")

    @staticmethod
    def look(predictor: Predictor, images: Tensor, originals: Sequence[Tensor]) -> Outputs:
        proposer = find_proposer(predictor.model)
        if proposer is None:
            return predictor.model(images)
        place, size = predictor.preprocessing.place_boxes, images.shape[-2:]
        given = [Instances(place(proposer(original), original.shape[-2:])) for original in originals]
        return predictor.model(images, [keep_inside(one, size).boxes for one in given])

    @staticmethod
    def answers(
        predictor: Predictor,
        outputs: Outputs,
        sizes: Sequence[tuple[int, int]],
        *,
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """Of each image its instances, best first: box in its pixels, xyxy, label and score; mask where there is one.

        A mask is {"size": [height, width], "counts": its runs}, as in COCO's files; see `opsin.data.masks`.

        score_threshold: the least score; that with the best F1 in validation if None. iou_threshold, limit: of the
        suppression; the detector's own if None.
        """
        model = predictor.model
        assert isinstance(model, Detector)
        fitted = getattr(model, "score_threshold", _UNFITTED)
        given = {"iou_threshold": iou_threshold, "limit": limit}
        changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        changes["score_threshold"] = fitted if score_threshold is None else score_threshold
        found = model.decode(outputs, replace(model.selection, **changes))
        answers = []
        for instances, size in zip(found, sizes, strict=True):
            own = to_image(instances, predictor.preprocessing, size)
            assert own.labels is not None and own.scores is not None
            rows = zip(own.boxes.tolist(), own.labels.tolist(), own.scores.tolist(), strict=True)
            told: list[dict[str, Any]] = [
                {"label": predictor.classes[label], "score": score, "box": [round(v, 2) for v in box]}
                for box, label, score in rows
            ]
            if own.masks is not None:
                told = [one | {"mask": mask} for one, mask in zip(told, encode_masks(own.masks), strict=True)]
            answers.append({"instances": told})
        return answers

    @staticmethod
    def annotate(image: Tensor, answer: dict[str, Any], classes: list[str]) -> Any:
        """The image with boxes, classes and scores, a PIL image."""
        return drawing.annotate(image, answer, classes)

    @staticmethod
    def describe(answer: dict[str, Any]) -> str:
        """`2 cat, 1 dog`."""
        counts = Counter(one["label"] for one in answer["instances"])
        return ", ".join(f"{count} {label}" for label, count in counts.most_common()) or "nothing"

    def _propose(self, split: Split) -> list[Tensor]:
        """The proposals of a split's images, in pixels of these as read."""
        assert self._proposer is not None
        for known, proposals in self._proposed:
            if known is split:
                return proposals
        proposals = find_proposals(split, self._proposer)
        self._proposed.append((split, proposals))
        return proposals

    def _rescale(self, boxes: Tensor, batch: Batch) -> Tensor:
        """Boxes in pixels of a batch's images, in those of this batch's input."""
        height, width = batch["image"].shape[-2:]
        rows, columns = self._size or (height, width)
        return boxes * boxes.new_tensor([columns / width, rows / height] * 2)

    def _resize(self, instances: Instances, batch: Batch) -> Instances:
        """Instances in pixels of a batch's images, in those of this batch's input: their boxes and masks."""
        masks = instances.masks
        if masks is not None and self._size is not None and masks.shape[-2:] != self._size:
            masks = _resize_masks(masks, self._size)
        return replace(instances, boxes=self._rescale(instances.boxes, batch), masks=masks)

    def _choose_size(self, batch_idx: int) -> tuple[int, int] | None:
        """The input's size of a training batch, the same in every process and after a resume."""
        sizes = self.recipe.train.multi_scale
        if not sizes:
            return None
        turn = batch_idx // _BATCHES_OF_A_SIZE
        return _sides(sizes[derive_seed(self.recipe.train.seed, self.current_epoch, turn, _SIZES) % len(sizes)])


def find_proposer(model: nn.Module) -> Proposer | None:
    """What makes the proposals of a model that needs some, as its option `proposals` names it; None for all others."""
    if not getattr(model, "needs_proposals", False):
        return None
    return create_proposer(str(model.proposals), **dict(model.proposal_options))  # type: ignore[arg-type]


def _resize_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks (N, H, W) bool at another size: each pixel is that of the old ones in which its middle lies."""
    if not len(masks):
        return masks.new_zeros(0, *size)
    return interpolate(masks[:, None].to(torch.uint8), size, mode="nearest-exact")[:, 0].bool()


def usable(instances: Instances, size: Sequence[int]) -> Instances:
    """The objects that can be learned from, of an input of (height, width): boxes cut at its border.

    Left out are those whose box is then narrower or lower than one pixel of the input, or not a number: no anchor can
    match them, and their logarithms are not finite.
    """
    boxes = clip_boxes(instances.boxes, size)
    kept = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(dim=1)
    return replace(instances, boxes=boxes)[kept]


def to_image(instances: Instances, preprocessing: Preprocessing, size: Sequence[int]) -> Instances:
    """Instances in pixels of the network's input, as those of an image of (height, width), on the CPU.

    Boxes are cut at its border; those amid the black around a padded image are left out.
    """
    instances = instances.to("cpu")
    boxes = clip_boxes(preprocessing.return_boxes(instances.boxes.float(), size), size)
    masks = None if instances.masks is None else return_masks(instances.masks, preprocessing, size)
    return replace(instances, boxes=boxes, masks=masks)[(boxes[:, 2:] > boxes[:, :2]).all(dim=1)]


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


def _check_masks(recipe: Recipe, split: Split) -> None:
    lacking = split.unmasked()
    if lacking is not None:
        raise InputError(
            f"{recipe.model.name} learns from masks, and {split.name(lacking)} has objects with a box alone; use data "
            "with masks, such as COCO json with segmentations, or model.mask=false"
        )


def _says(name: str, what: str) -> bool:
    """A property of a detector, such as "learns_somewhere", as the class has it that its builder returns."""
    return getattr(get_type_hints(registry.find_model(name).builder).get("return"), what, False)


def _check_recipe(recipe: Recipe) -> None:
    """Refuse what belongs to classifiers, or to other detectors."""
    mixing, loss = recipe.mixing, recipe.loss
    if mixing.mixup or mixing.cutmix:
        raise InputError("mixing blends labels, which boxes have none of; detectors have mosaic and mixup in augment")
    if loss.name is not None or loss.class_weights is not None or loss.options:
        raise InputError(f"the loss of {recipe.model.name} is its own; its options are keys of model, not of loss")
    if recipe.data.joint is not None and not _says(recipe.model.name, "learns_somewhere"):
        able = [name for name in registry.list_models(task="detect") if _says(name, "learns_somewhere")]
        raise InputError(
            f"data.joint gives images without boxes, which {recipe.model.name} cannot learn from; "
            f"these can: {', '.join(able)}"
        )


def _check_numbers(outputs: Outputs, batch: Batch) -> None:
    for name, tensor in outputs.items():
        if tensor.is_floating_point() and torch.isnan(tensor).any():
            paths = ", ".join(batch.get("path", [])[:3])
            raise JobError(
                f"the detector's {name} are not numbers: its weights have diverged; lower optim.lr or set "
                f"train.clip_norm (files: {paths})"
            )


def _sides(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
