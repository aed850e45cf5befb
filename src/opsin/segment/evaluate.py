"""Evaluation of segmenters: every pixel of a split, at the images' own size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from opsin.data import Split
from opsin.data.class_maps import as_labels
from opsin.engine.answers import Answer
from opsin.engine.evaluator import Evaluator, Result
from opsin.engine.predict import Predictor
from opsin.errors import unknown
from opsin.segment.borders import ErrorsByDistance, border_scores, compare_borders
from opsin.segment.metrics import Array, Counts, Evaluation, brief_metrics, confusion_matrix, evaluate
from opsin.segment.regions import compare_regions, region_scores
from opsin.segment.segmenter import centre
from opsin.structures import Batch

if TYPE_CHECKING:
    from opsin.engine.report import Section

_MEASURED = 200  # images whose errors are looked at by distance from a border, the first ones


@dataclass
class Seen:
    """What is kept of an image. loss: of it by itself, where it was evaluated by outputs."""

    counts: Counts
    loss: float | None = None
    borders: Array | None = None
    regions: tuple[float, float] | None = None


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
        count = len(predictor.classes)
        self.overlapping: bool = predictor.has_network and predictor.model.overlapping
        self.confusion = np.zeros((count, count + 1), np.int64)
        self.borders = borders
        self.regions = None if regions is None else find_class(regions, predictor.classes)
        self.errors, self.worst = ErrorsByDistance(), WorstMaps()

    def update(self, outputs: Any, batch: Batch) -> None:
        logits, maps = outputs["logits"], batch["class_map"]
        labels = as_labels(maps).to(logits.device)
        # each image by itself, so that the mean is the same however they are divided into batches
        losses = [torch.stack(list(self._terms(outputs, labels, k).values())).sum() for k in range(len(labels))]
        found = logits >= 0 if self.overlapping else logits.argmax(dim=1).to(_narrow(logits.shape[1]))
        truth = centre(maps, logits.shape[-2:]).cpu().as_subclass(Tensor)
        pairs = [values.numpy() for values in truth], [values.numpy() for values in found.cpu()]
        self._count(batch["index"].tolist(), *pairs, torch.stack(losses).detach().tolist())

    def _terms(self, outputs: Mapping[str, Tensor], labels: Tensor, k: int) -> Mapping[str, Tensor]:
        """The loss of the k-th image of a batch."""
        one = slice(k, k + 1)
        return self.predictor.model.loss({key: value[one] for key, value in outputs.items()}, {"labels": labels[one]})

    def answer_options(self) -> dict[str, Any]:
        return self.views

    def update_answers(self, answers: Sequence[Mapping[str, Any]], batch: Batch) -> None:
        for place, own, answer in zip(batch["index"].tolist(), batch["class_map"], answers, strict=True):
            truth, found = own.as_subclass(Tensor).numpy(), map_of(answer)
            self._count([place], [truth], [found])
            self.worst.add(place, self.parts[-1][1].counts.miou, found)
            if len(self.parts) <= _MEASURED:
                self.errors.add(truth, found)

    def _count(
        self,
        places: Sequence[int],
        truth: Sequence[Array],
        found: Sequence[Array],
        losses: Sequence[float | None] | None = None,
    ) -> None:
        for place, own, theirs, loss in zip(places, truth, found, losses or [None] * len(places), strict=True):
            if self.overlapping:
                counts = Counts.of_masks(own, theirs)
            else:
                confusion = confusion_matrix(own, theirs, len(self.confusion))
                self.confusion += confusion
                counts = Counts.of(confusion)
            borders = compare_borders(own, theirs, len(self.confusion)) if self.borders else None
            regions = None if self.regions is None else compare_regions(own, theirs, self.regions)
            self.collect([place], [Seen(counts, loss, borders, regions)])

    def state(self) -> Any:
        return self.parts, self.confusion

    def merge(self, states: Sequence[Any]) -> None:
        super().merge([parts for parts, _ in states])
        self.confusion = np.sum([confusion for _, confusion in states], axis=0)

    def counts(self) -> list[Counts]:
        """The pixels of each image, in the order of the split whatever process saw them."""
        return [one.counts for one in self.collected()]

    def losses(self) -> dict[str, float]:
        """The mean training loss of an image, over those of which anything is known; none where answers were taken."""
        seen = [one.loss for one in self.collected() if one.loss is not None and one.counts.known]
        return {"loss": sum(seen) / len(seen)} if seen else {}

    def brief(self) -> dict[str, float]:
        return {**self.losses(), **brief_metrics(self.counts(), None if self.overlapping else self.confusion)}

    def result(self) -> Result:
        seen: list[Seen] = self.collected()
        borders = [one.borders for one in seen if one.borders is not None]
        regions = [one.regions for one in seen if one.regions is not None]
        evaluation = evaluate(
            self.predictor.classes,
            [one.counts for one in seen],
            None if self.overlapping else self.confusion,
            by_class=border_scores(borders) if borders else {},
            others=region_scores(regions) if regions else {},
        )
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


def find_class(name: str, classes: Sequence[str]) -> int:
    """The number of a class by its name. Raises InputError, with the nearest ones, for one that there is not."""
    if name not in classes:
        raise unknown("class of regions", name, classes)
    return list(classes).index(name)


def map_of(answer: Mapping[str, Any]) -> Array:
    """The map of an answer, whether it is in the dict or kept beside it."""
    return answer.value("class_map") if isinstance(answer, Answer) else answer["class_map"]


def _narrow(count: int) -> torch.dtype:
    return torch.uint8 if count < 256 else torch.int16
