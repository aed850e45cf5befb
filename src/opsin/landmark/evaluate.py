"""Evaluation of networks that find named points: how far they are off, in the pixels of each image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from opsin.data import Split
from opsin.data.drawing import save_image
from opsin.data.point_sets import known_points
from opsin.engine.evaluator import Evaluator, Result
from opsin.engine.predict import Predictor
from opsin.engine.recipe import own_section
from opsin.landmark.metrics import Compared, Evaluation, brief_metrics, evaluate, lengths, normalized_mean_errors
from opsin.landmark.sensitivity import describe_shifts, measure
from opsin.structures import Batch

if TYPE_CHECKING:
    from opsin.engine.report import Section


class LandmarkEvaluator(Evaluator):
    """Compares points in the pixels of each image as it was read.

    flip: of the predictions, as `predict` takes it. normalizer: of the curve, the failures and the single points; the
    recipe's if None. boxes: a file into which is drawn how errors grow where the box is shifted or
    scaled.
    """

    predictor: Any  # a LandmarkPredictor

    def __init__(
        self, predictor: Predictor, *, flip: bool = False, normalizer: str | None = None, boxes: str | None = None
    ) -> None:
        super().__init__(predictor)
        self.boxes = boxes
        self._split: Split | None = None
        self.flip = bool(flip)
        self.normalizer = normalizer or own_section(predictor.recipe).normalizer

    def begin(self, split: Split) -> None:
        self._split = split

    def update(self, outputs: Any, batch: Batch) -> None:
        values: Any = batch
        found = self.predictor.locate(outputs, self.flip)
        points, spread = found.points.double().cpu().numpy(), found.spread.float().cpu().numpy()
        losses = self._losses(outputs, values)
        for k, place in enumerate(values["index"].tolist()):
            size = values["size"][k].tolist()
            mine, scale = self.predictor.in_image(points[k], size)
            truth, _ = self.predictor.in_image(values["points"][k].double().cpu().numpy(), size)
            visible = values["visible"][k].cpu().numpy()
            self.collect([place], [Compared(mine, truth, visible, spread[k], scale, losses[k], math.hypot(*size))])

    def _losses(self, outputs: Mapping[str, Tensor], batch: Any) -> list[float | None]:
        """Of each image by itself, so that the mean is the same however they are divided into batches."""
        own = {name: value for name, value in outputs.items() if name != "images"}
        wanted = batch["points"].to(self.predictor.device)
        known = (~wanted.isnan().any(dim=2)).any(dim=1).tolist()
        terms = self.predictor.model.loss_of_each(own, {"points": wanted}).detach().tolist()
        return [term if there else None for term, there in zip(terms, known, strict=True)]

    def losses(self) -> dict[str, float]:
        """The mean training loss of an image, over those of which a point is known."""
        seen = [one.loss for one in self.collected() if one.loss is not None]
        return {"loss": sum(seen) / len(seen)} if seen else {}

    def compared(self) -> tuple[Tensor, Tensor]:
        """The points found and the true ones, (M, 2) each, of all images in turn, without those that are not known."""
        pairs = [(one.found[known], one.truth[known]) for one in self.collected() if (known := _known(one)).any()]
        found, truth = (np.concatenate(column) for column in zip(*pairs, strict=True))
        return torch.from_numpy(found).float(), torch.from_numpy(truth).float()

    @property
    def _eyes(self) -> Mapping[str, Any]:
        return self.predictor.facts.meaning.get("eyes") or {}

    def brief(self) -> dict[str, float]:
        found: list[Compared] = self.collected()
        if not found:
            return {}
        errors, truths = np.stack([one.errors for one in found]), np.stack([one.truth for one in found])
        by_name = lengths(truths, self._eyes, [one.diagonal for one in found])
        nme = {name: normalized_mean_errors(errors, length) for name, length in by_name.items()}
        return {**self.losses(), **brief_metrics(nme)}

    def result(self) -> Result:
        found: list[Compared] = self.collected()
        evaluation = evaluate(found, self.predictor.names, self._eyes, self.normalizer)
        details, shifted = evaluation.to_dict(), None
        if self.boxes and self._split is not None and len(evaluation.worst):
            shifted = ShiftedBoxes(
                measure(self.predictor, self._split, self.normalizer, self._eyes), evaluation.metrics
            )
            details["boxes"] = shifted.found
            shifted.draw(Path(self.boxes))
        evidence = Evidence(evaluation, found)
        return Result({**evaluation.metrics, **self.losses()}, details, evidence, shifted)

    def calibrate(self) -> None:
        """Fit the error that is to be expected of each point, where the spread is 1: the mean of error over spread."""
        self.predictor.model.expected_error = self.fit_errors()

    def fit_errors(self) -> Tensor | None:
        """(P,), in pixels of the input; of a point that no image knows, the mean of all. None without any."""
        found: list[Compared] = self.collected()
        if not found or not any(_known(one).any() for one in found):
            return None
        ratios = np.stack([one.errors / one.scale / np.maximum(one.spread, 1e-6) for one in found])
        known = ~np.isnan(ratios)
        whole = float(ratios[known].mean())
        total, count = np.where(known, ratios, 0).sum(axis=0), known.sum(axis=0)
        return torch.from_numpy(np.where(count > 0, total / np.maximum(count, 1), whole)).float()

    def sections(self, result: Result, split: Split) -> list[Section]:
        from opsin.landmark import report  # drawing takes long to import

        return report.sections(result.evidence, split, self.predictor)


@dataclass
class Evidence:
    """What the report is drawn from."""

    evaluation: Evaluation
    compared: list[Compared]


@dataclass
class ShiftedBoxes:
    """How errors grow where boxes are shifted and scaled, for a terminal and as a figure. metrics: of all else."""

    found: dict[str, Any]
    metrics: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        return {**self.metrics, "boxes": self.found}

    def describe(self) -> str:
        return describe_shifts(self.found)

    def draw(self, file: Path) -> None:
        from opsin.engine import charts
        from opsin.landmark.report import draw_boxes

        save_image(charts.image(draw_boxes(self.found), 7.0, 3.4), file)


def _known(one: Compared) -> np.ndarray:
    return known_points(one.truth)
