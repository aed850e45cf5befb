"""Evaluation of detectors: what they find in a split, held against its objects in pixels of the images as read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from opsin.data import Split
from opsin.data.coordinates import return_masks
from opsin.data.masks import decode_mask
from opsin.detect.average_precision import Shapes
from opsin.detect.detector import Outputs
from opsin.detect.metrics import Evaluation, brief_metrics, check_protocol, evaluate, find_threshold
from opsin.detect.targets import batch_targets, return_polygons, to_image
from opsin.detect.text_hmean import text_metrics
from opsin.detect.text_lines import LineRules
from opsin.detect.truncated_svd import Decomposed, parse_ranks, replace_layers
from opsin.engine.evaluator import Evaluator, Result
from opsin.engine.predict import Predictor
from opsin.errors import InputError, JobError
from opsin.structures import Batch, Instances

if TYPE_CHECKING:
    from opsin.engine.report import Section

EVALUATED = 0.01  # a lower score adds nothing to average precision that could be seen


@dataclass
class Found:
    """What one image holds and what was found in it, in its own pixels. shapes: masks, where both have some."""

    truth: Instances
    found: Instances
    shapes: Shapes | None = None


class DetectEvaluator(Evaluator):
    """Collects what a detector finds in a split and the truth, brought back to pixels of the images as read.

    Masks are kept as runs of pixels alone: a hundred of an image of 800x1344 would take 100 MB.
    truncated_svd: ranks of fc6 and fc7 of a Fast R-CNN, "1024,256"; the detector is evaluated with them decomposed.
    iou, protocol: thresholds, and whose average precision, see `opsin.detect.metrics.evaluate`; protocol "icdar" adds
    `opsin.detect.text_hmean.text_metrics`, which detectors of text have anyway. unrefined: lines of a CTPN end where
    their columns end.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        truncated_svd: str | None = None,
        iou: Sequence[float] | None = None,
        protocol: str | None = None,
        unrefined: bool = False,
    ) -> None:
        super().__init__(predictor)
        self.iou = iou
        self.rule: Literal["coco", "voc", "icdar"] | None = check_protocol(protocol, iou)
        self.decomposed: Decomposed | None = None
        if truncated_svd is not None:
            self.decomposed = replace_layers(predictor, parse_ranks(truncated_svd))
        model = predictor.model
        self.selection = replace(model.selection, score_threshold=min(EVALUATED, model.selection.score_threshold))
        self.decoding = unrefined_rules(model) if unrefined else {}
        self.of_text = protocol == "icdar" or (protocol is None and model.takes_polygons)
        self._loss: float | None = 0.0  # the sum over images; None of answers, which have none

    def update(self, outputs: Outputs, batch: Batch) -> None:
        _check_numbers(outputs, batch)
        model, preprocessing, device = self.predictor.model, self.predictor.preprocessing, self.predictor.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            # Some losses sample regions: the same, whenever they are evaluated.
            torch.manual_seed(self.predictor.recipe.train.seed)
            losses = model.loss(outputs, batch_targets(batch, device))
        assert self._loss is not None
        self._loss += sum(float(term.detach()) for term in losses.values()) * len(batch["image"])
        found = model.decode(outputs, self.selection, **self.decoding)
        for index, size, truth, instances in zip(
            batch["index"].tolist(), batch["size"].tolist(), batch["instances"], found, strict=True
        ):
            own, theirs, shapes = truth.to("cpu"), to_image(instances, preprocessing, size), None
            if own.masks is not None and theirs.masks is not None:
                shapes = Shapes.of(return_masks(own.masks, preprocessing, size), theirs.masks)
            polygons = return_polygons(own.polygons, preprocessing, size)
            own = replace(own, boxes=preprocessing.return_boxes(own.boxes, size), masks=None, polygons=polygons)
            self.collect([index], [Found(own, replace(theirs, masks=None), shapes)])

    def answer_options(self) -> dict[str, Any]:
        return {"score_threshold": self.selection.score_threshold}

    def update_answers(self, answers: Sequence[Mapping[str, Any]], batch: Batch) -> None:
        self._loss = None
        classes = {name: label for label, name in enumerate(self.predictor.classes)}
        for index, truth, answer in zip(batch["index"].tolist(), batch["instances"], answers, strict=True):
            own, theirs, shapes = truth.to("cpu"), as_instances(answer["instances"], classes), None
            if own.masks is not None and theirs.masks is not None:
                shapes = Shapes.of(own.masks, theirs.masks)
            self.collect([index], [Found(replace(own, masks=None), replace(theirs, masks=None), shapes)])

    def state(self) -> Any:
        return self.parts, self._loss

    def merge(self, states: Sequence[Any]) -> None:
        super().merge([parts for parts, _ in states])
        self._loss = sum(loss for _, loss in states)

    def gathered(self) -> tuple[list[Instances], list[Instances]]:
        """Truth and findings, in the order of the split whatever process saw them."""
        ordered = self.collected()
        return [one.truth for one in ordered], [one.found for one in ordered]

    def shapes(self) -> list[Shapes] | None:
        """The masks of every image, in the same order; None where one has none."""
        shapes = [one.shapes for one in self.collected() if one.shapes is not None]
        return shapes if shapes and len(shapes) == len(self.parts) else None

    @property
    def loss(self) -> float:
        """The mean training loss of an image."""
        return (self._loss or 0.0) / max(1, len(self.parts))

    def brief(self) -> dict[str, float]:
        return {"loss": self.loss, **brief_metrics(*self.gathered(), len(self.predictor.classes))}

    def compared(self) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
        """Of each image dicts of boxes (n, 4) x1 y1 x2 y2 in its pixels, scores and labels; and of boxes and labels.

        As torchmetrics' detection metrics take them. Regions to ignore are left out of the truth.
        """
        truth, found = self.gathered()
        known = [one[_labels(one) >= 0] for one in truth]
        return (
            [{"boxes": one.boxes, "scores": _scores(one), "labels": _labels(one)} for one in found],
            [{"boxes": one.boxes, "labels": _labels(one)} for one in known],
        )

    def calibrate(self) -> None:
        """The score threshold with the best F1 becomes the one that prediction uses."""
        self.predictor.model.score_threshold = find_threshold(*self.gathered(), len(self.predictor.classes))

    @contextmanager
    def previewing(self) -> Iterator[None]:
        model = self.predictor.model
        before = model.score_threshold
        self.calibrate()
        try:
            yield
        finally:
            model.score_threshold = before

    def result(self) -> Result:
        threshold = self.predictor.model.score_threshold
        evaluation = evaluate(
            *self.gathered(),
            self.predictor.classes,
            threshold=threshold,
            shapes=self.shapes(),
            protocol=self.rule,
            ious=self.iou,
        )
        if self.of_text:
            evaluation.metrics |= text_metrics(*self.gathered(), evaluation.threshold)
        metrics = {**evaluation.metrics, **({} if self._loss is None else {"loss": self.loss})}
        addition = None if self.decomposed is None else self.decomposed.measured(metrics)
        return Result(metrics, evaluation.to_dict(), evaluation, addition)

    def sections(self, result: Result, split: Split) -> list[Section]:
        from opsin.detect import report  # drawing takes long to import

        evaluation: Evaluation = result.evidence
        return report.sections(evaluation, split)


def _labels(one: Instances) -> Tensor:
    return torch.zeros(len(one), dtype=torch.int64) if one.labels is None else one.labels


def _scores(one: Instances) -> Tensor:
    return torch.zeros(len(one)) if one.scores is None else one.scores


def as_instances(found: Sequence[Mapping[str, Any]], classes: Mapping[str, int]) -> Instances:
    """What an answer says, {"box", "label", "score"} and perhaps "mask" or "polygon" each, as tensors.

    classes: name -> label.
    """
    boxes = torch.tensor([one["box"] for one in found], dtype=torch.float32).reshape(-1, 4)
    labels = torch.tensor([classes[one["label"]] for one in found], dtype=torch.int64)
    scores = torch.tensor([one["score"] for one in found], dtype=torch.float32)
    masks = torch.stack([decode_mask(one["mask"]) for one in found]) if found and "mask" in found[0] else None
    outlined = bool(found) and all("polygon" in one for one in found)
    polygons = [torch.tensor(one["polygon"], dtype=torch.float32) for one in found] if outlined else None
    return Instances(boxes, labels, scores, masks, polygons=polygons)


def unrefined_rules(model: Any) -> dict[str, Any]:
    """Options of `decode` that leave the ends of lines where their columns end."""
    lines = model.decoding().get("lines")
    if lines is None:
        raise InputError("unrefined is of ctpn, whose strips say where a line ends; other detectors have none")
    return {"rules": LineRules(**{**lines, "refined": False})}


def _check_numbers(outputs: Outputs, batch: Batch) -> None:
    for name, tensor in outputs.items():
        if tensor.is_floating_point() and torch.isnan(tensor).any():
            paths = ", ".join(batch.get("path", [])[:3])
            raise JobError(
                f"the detector's {name} are not numbers: its weights have diverged; lower optim.lr or set "
                f"train.clip_norm (files: {paths})"
            )
