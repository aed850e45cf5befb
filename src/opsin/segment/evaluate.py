"""Evaluation of segmenters: every pixel of a split, at the images' own size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from opsin.data import Split
from opsin.data.class_maps import as_labels
from opsin.engine.evaluator import Evaluator, Result
from opsin.engine.predict import Predictor
from opsin.segment.answers import map_of
from opsin.segment.borders import ErrorsByDistance
from opsin.segment.comparison import Compared, Comparison
from opsin.segment.metrics import Array, Evaluation, brief_metrics, is_known
from opsin.segment.predict import map_dtype
from opsin.segment.segmenter import centre
from opsin.structures import Batch

if TYPE_CHECKING:
    from opsin.engine.report import Section

_MEASURED = 200  # images whose errors are looked at by distance from a border, the first ones


class SegmentEvaluator(Evaluator):
    """Counts pixels by their class and the one that they were given.

    A training validates what the network gives at the size of its input. An evaluation compares the answers of
    `predict`, which are of the size of the image, with the mask as it was read; where nothing is resized, both are
    equal. borders: compare the borders of classes too. regions: the name of a class whose connected regions are
    compared too. flip, scale, output_stride: of the predictions, as `predict` takes them.
    """

    takes_answers: ClassVar[bool] = True

    def __init__(
        self,
        predictor: Predictor,
        *,
        borders: bool = False,
        regions: str | None = None,
        flip: bool = False,
        scale: Sequence[float] | None = None,
        output_stride: int | None = None,
    ) -> None:
        super().__init__(predictor)
        views = {"flip": flip, "scale": scale, "output_stride": output_stride}
        self.views = {name: value for name, value in views.items() if value}
        overlapping: bool = predictor.has_network and predictor.model.overlapping
        self.comparison = Comparison(predictor.classes, overlapping, borders=borders, regions=regions)
        self.errors, self.worst = ErrorsByDistance(), WorstMaps()

    def update(self, outputs: Any, batch: Batch) -> None:
        logits, maps = outputs["logits"], batch["class_map"]
        labels = as_labels(maps).to(logits.device)
        # each image by itself, so that the mean is the same however they are divided into batches
        losses = [torch.stack(list(self._terms(outputs, labels, k).values())).sum() for k in range(len(labels))]
        found = logits >= 0 if self.comparison.overlapping else logits.argmax(dim=1).to(map_dtype(logits.shape[1]))
        truth = centre(maps, logits.shape[-2:]).cpu().as_subclass(Tensor)
        pairs = zip(batch["index"].tolist(), truth, found.cpu(), torch.stack(losses).detach().tolist(), strict=True)
        for place, own, theirs, loss in pairs:
            self._keep(place, own.numpy(), theirs.numpy(), loss)

    def _keep(self, place: int, truth: Array, found: Array, loss: float | None = None) -> Compared:
        compared = self.comparison.compare(truth, found)
        pixels = pixels_of(truth, found) if self.own_metrics else None
        self.collect([place], [replace(compared, loss=loss, pixels=pixels)])
        return compared

    def _terms(self, outputs: Mapping[str, Tensor], labels: Tensor, k: int) -> Mapping[str, Tensor]:
        """The loss of the k-th image of a batch."""
        one = slice(k, k + 1)
        return self.predictor.model.loss({key: value[one] for key, value in outputs.items()}, {"labels": labels[one]})

    def answer_options(self) -> dict[str, Any]:
        return self.views

    def update_answers(self, answers: Sequence[Mapping[str, Any]], batch: Batch) -> None:
        for place, own, answer in zip(batch["index"].tolist(), batch["class_map"], answers, strict=True):
            truth, found = own.as_subclass(Tensor).numpy(), map_of(answer)
            self.worst.add(place, self._keep(place, truth, found).counts.miou, found)
            if len(self.parts) <= _MEASURED:
                self.errors.add(truth, found)

    def state(self) -> Any:
        return self.parts, self.comparison.confusion

    def merge(self, states: Sequence[Any]) -> None:
        super().merge([parts for parts, _ in states])
        if not self.comparison.overlapping:
            self.comparison.confusion = np.sum([confusion for _, confusion in states], axis=0)

    def losses(self) -> dict[str, float]:
        """The mean training loss of an image, over those of which anything is known; none where answers were taken."""
        seen = [one.loss for one in self.collected() if one.loss is not None and one.counts.known]
        return {"loss": sum(seen) / len(seen)} if seen else {}

    def compared(self) -> tuple[Tensor, Tensor]:
        """The class found for every pixel whose class is known, (P,) int64, and its true one; as torchmetrics' take it.

        All images in the order of the split, each row by row. Where classes overlap (P, K) of 0 and 1.
        """
        pairs = [one.pixels for one in self.collected() if one.pixels is not None]
        found, truth = (np.concatenate(column) for column in zip(*pairs, strict=True))
        return torch.from_numpy(found.astype(np.int64)), torch.from_numpy(truth.astype(np.int64))

    def brief(self) -> dict[str, float]:
        counts = [one.counts for one in self.collected()]
        return {**self.losses(), **brief_metrics(counts, self.comparison.confusion)}

    def result(self) -> Result:
        evaluation = self.comparison.evaluate(self.collected())
        evidence = Evidence(evaluation, self.worst.maps(), self.errors)
        return Result({**evaluation.metrics, **self.losses()}, evaluation.to_dict(), evidence)

    def sections(self, result: Result, split: Split) -> list[Section]:
        from opsin.segment import report  # drawing takes long to import

        found: Evidence = result.evidence
        return report.sections(
            found.evaluation, split, self.predictor.classes, found.worst, found.errors, self.predictor.facts.meaning
        )


@dataclass
class Evidence:
    """What the report is drawn from. worst: see `WorstMaps.maps`. errors: empty where outputs were evaluated."""

    evaluation: Evaluation
    worst: list[tuple[float, int, Array]]
    errors: ErrorsByDistance


class WorstMaps:
    """The maps of the images that were found worst, by their mIoU, kept for the report: a few, however many come."""

    def __init__(self, limit: int = 12) -> None:
        self.limit = limit
        self._kept: list[tuple[float, int, Array]] = []

    def add(self, place: int, miou: float, found: Array) -> None:
        """Keep the map of an image if it is among the worst. place: in the split."""
        if not np.isnan(miou):
            self._kept = sorted([*self._kept, (miou, place, found)], key=lambda one: one[:2])[: self.limit]

    def maps(self) -> list[tuple[float, int, Array]]:
        """mIoU, place and map of each, the worst first."""
        return self._kept


def pixels_of(truth: Array, found: Array) -> tuple[Array, Array]:
    """What was found of the pixels whose class is known, and what they are: (P,), or (P, K) where classes overlap."""
    if truth.dtype == bool:
        one, other = (values.reshape(len(values), -1).T for values in (found, truth))
        return one, other
    known = is_known(truth)
    return found[known], truth[known]
