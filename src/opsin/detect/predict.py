"""Detectors in use: the objects of an image."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from opsin import registry
from opsin.data import Preprocessing, Source, Split
from opsin.data.coordinates import keep_inside
from opsin.data.masks import encode_masks
from opsin.detect import drawing
from opsin.detect.answers import DetectAnswer
from opsin.detect.detector import Detector, Outputs, Selection, select
from opsin.detect.merge import merge_instances
from opsin.detect.program import LINES, DetectorProgram, decoding_of
from opsin.detect.proposals import Proposer, create_proposer, find_proposals
from opsin.detect.targets import rescale, to_image
from opsin.detect.text_lines import LineRules, decode_lines
from opsin.engine.answers import Answer
from opsin.engine.checkpoint import Facts
from opsin.engine.predict import Predictor, describe_input
from opsin.engine.program import Program
from opsin.engine.recipe import Recipe
from opsin.engine.tiles import Place
from opsin.errors import InputError, printable
from opsin.structures import Batch, Instances

if TYPE_CHECKING:
    from typing_extensions import Self

_UNFITTED = 0.3  # the least score of an answer, where no validation has found a better one


class DetectPredictor(Predictor):
    """Finds objects: boxes in pixels of the image, classes and scores, and masks of a detector with a mask branch."""

    answer_class: ClassVar[type[Answer]] = DetectAnswer

    def __init__(self, model: nn.Module | None, facts: Facts) -> None:
        super().__init__(model, facts)
        self.proposer = find_proposer(self.model)
        self._proposed: list[tuple[Split, list[Tensor]]] = []  # of the splits seen so far

    def run(self, batch: Tensor, originals: Sequence[Tensor]) -> Outputs:
        images = self.normalize(batch)
        if self.proposer is None:
            return self.model(images)
        place, size = self.preprocessing.place_boxes, images.shape[-2:]
        given = [Instances(place(self.proposer(original), original.shape[-2:])) for original in originals]
        return self.model(images, [keep_inside(one, size).boxes for one in given])

    def inputs(self, batch: Batch) -> tuple[Any, ...]:
        images = super().inputs(batch)
        if self.proposer is None:
            return images
        return (*images, [rescale(boxes, batch, None).to(self.device) for boxes in batch["proposals"]])

    def prepare_split(self, split: Split) -> Split:
        """With its proposals, its masks or its polygons, for a detector that takes them."""
        if self.proposer is not None:
            return split.with_truth(split.kind.with_proposals(self.propose(split)))
        if self.model.takes_polygons:
            return split.with_truth(split.kind.with_polygons())
        if not self.model.needs_masks:
            return split
        check_masks(self.recipe, split)
        return split.with_truth(split.kind.with_masks())

    def propose(self, split: Split) -> list[Tensor]:
        """The proposals of a split's images, in pixels of these as read."""
        assert self.proposer is not None
        for known, proposals in self._proposed:
            if known is split:
                return proposals
        proposals = find_proposals(split, self.proposer)
        self._proposed.append((split, proposals))
        return proposals

    @classmethod
    def relabel(cls, recipe: Recipe, source: Source) -> Source:
        """With all classes made one for a detector that knows none."""
        network = network_of(recipe.model.name)
        if not network.class_agnostic:
            return source
        one = [0] * len(source.classes)
        return source.with_splits(
            {
                name: split.with_truth(split.kind.relabel(one, [network.object_name]))
                for name, split in source.splits.items()
            }
        )

    def answers(
        self,
        outputs: Outputs,
        sizes: Sequence[tuple[int, int]],
        originals: Sequence[Tensor],
        *,
        threshold: float | None = None,
        iou_threshold: float | None = None,
        limit: int | None = None,
        **options: Any,
    ) -> list[dict[str, Any]]:
        """Of each image its instances, best first: box (xyxy, its pixels), label, id, score, mask or polygon, if any.

        A mask is {"size": [height, width], "counts": its runs}, as in COCO's files; see `opsin.data.masks`. A polygon
        is a list of corners [x, y]; of a line of text four, from the upper left one on clockwise.

        threshold: the least score; that with the best F1 in validation if None. iou_threshold, limit: of the
        suppression; the detector's own if None.
        """
        selection = self._selection(score_threshold=threshold, iou_threshold=iou_threshold, limit=limit)
        found = self.model.decode(outputs, selection)
        return [
            self._answer_of(to_image(instances, self.preprocessing, size))
            for instances, size in zip(found, sizes, strict=True)
        ]

    def _selection(self, **given: Any) -> Selection:
        fitted = self.model.score_threshold
        changes = {"score_threshold": _UNFITTED if fitted is None else fitted}
        return replace(
            self.model.selection, **{**changes, **{key: value for key, value in given.items() if value is not None}}
        )

    def _answer_of(self, own: Instances) -> dict[str, Any]:
        assert own.labels is not None and own.scores is not None
        rows = zip(own.boxes.tolist(), own.labels.tolist(), own.scores.tolist(), strict=True)
        found: list[dict[str, Any]] = [
            {"label": self.classes[label], "class_id": label, "score": score, "box": [round(v, 2) for v in box]}
            for box, label, score in rows
        ]
        if own.masks is not None:
            found = [one | {"mask": mask} for one, mask in zip(found, encode_masks(own.masks), strict=True)]
        if own.polygons is not None:
            outlines = [[[round(v, 2) for v in corner] for corner in one.tolist()] for one in own.polygons]
            found = [one | {"polygon": polygon} for one, polygon in zip(found, outlines, strict=True)]
        return {"instances": found, "masked": own.masks is not None}

    def without_network(self) -> Self:
        own = super().without_network()
        own.proposer, own._proposed = None, []
        return own

    def merge(
        self,
        answers: Sequence[dict[str, Any]],
        places: Sequence[Place],
        size: tuple[int, int],
        *,
        iou_threshold: float | None = None,
        limit: int | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Each object once, see `opsin.detect.merge`. limit: all are kept if None, each part having had its own."""
        overlap = self._selection(iou_threshold=iou_threshold).iou_threshold
        views = [answer["instances"] for answer in answers]
        merged = merge_instances(views, places, size, iou_threshold=overlap, limit=limit)
        return {"instances": merged, "masked": any(answer.get("masked", False) for answer in answers)}

    def draw(self, image: Tensor, answer: dict[str, Any]) -> Any:
        """The image with boxes, classes and scores."""
        return drawing.annotate(image, answer, self.classes)

    def describe(self, answer: dict[str, Any]) -> str:
        """`2 cat, 1 dog`."""
        counts = Counter(one["label"] for one in answer["instances"])
        return ", ".join(f"{count} {printable(label)}" for label, count in counts.most_common()) or "nothing"

    @classmethod
    def network_of_program(
        cls, run: Callable[[Tensor], Mapping[str, Tensor]], facts: Facts, texts: Mapping[str, Any]
    ) -> nn.Module:
        if facts.preprocessing is None:
            raise ValueError("it lacks preprocessing")
        return DetectorProgram(run, texts, facts.preprocessing, len(facts.classes))

    def programs(self) -> list[Program]:
        model: Detector = self.model
        if model.export_refusal:
            raise InputError(
                f"{self.recipe.model.name} cannot be exported: {model.export_refusal}. Use it by `opsin predict` or "
                "opsin.load, or train a detector of one stage for other runtimes, such as ssd, retinanet or yolov4"
            )
        usage = (
            f"{describe_input(self.preprocessing)}boxes: (batch, places, 4), x1, y1, x2, y2 in pixels of the input. "
            "scores: (batch, places, classes), 0 to 1. Keep what exceeds selection's score_threshold, suppress "
            "duplicates within a class at its iou_threshold, and bring the boxes back to the image."
        )
        selection = dict(vars(model.selection))
        if model.score_threshold is not None:
            selection["score_threshold"] = model.score_threshold
        decoding = decoding_of(model, self.preprocessing)
        if "lines" in decoding:
            usage += " " + LINES
        metadata = {"usage": usage, "selection": json.dumps(selection), "decoding": json.dumps(decoding)}
        units = {"boxes": float(max(self.preprocessing.size))}
        return [Program(Predictions(model, self.preprocessing), list(model.dense_names), metadata, units, self._decode)]

    def _decode(self, outputs: Any) -> list[dict[str, Any]]:
        """The answers of an exported file's outputs, in pixels of the input, as its metadata say it is used."""
        selection, pairs = self._selection(), zip(outputs["boxes"], outputs["scores"], strict=True)
        if (lines := self.model.decoding().get("lines")) is not None:
            found = decode_lines(outputs, LineRules(**lines), selection, self.preprocessing.size)
            return [self._answer_of(one) for one in found]
        return [self._answer_of(select(boxes.float(), scores.float(), selection)) for boxes, scores in pairs]


class Predictions(nn.Module):
    """Normalisation and network: images, uint8 (B, channels, H, W) -> boxes (B, A, 4) and scores (B, A, K)."""

    def __init__(self, model: Detector, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model, self.preprocessing = model, preprocessing

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.model.dense(self.model(self.preprocessing.normalize(images)))


def network_of(name: str) -> type[Detector]:
    """The class of a registered detector."""
    network: Any = registry.find_model(name).network
    return network or Detector


def find_proposer(model: Any) -> Proposer | None:
    """What makes the proposals of a model that needs some, as its option `proposals` names it; None for all others."""
    if not model.needs_proposals:
        return None
    return create_proposer(str(model.proposals), **dict(model.proposal_options))


def check_masks(recipe: Recipe, split: Split) -> None:
    """Raise InputError for a split whose objects have no masks, naming the first image."""
    lacking = split.kind.unmasked()
    if lacking is not None:
        raise InputError(
            f"{recipe.model.name} learns from masks, and {split.name(lacking)} has objects with a box alone; use data "
            "with masks, such as COCO json with segmentations, or model.mask=false"
        )
