"""How good a detector is: one evaluation of what it found against the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from opsin.detect.average_precision import (
    Array,
    CocoPrecision,
    Objects,
    Ranking,
    Shapes,
    average_precision,
    coco_precision,
    percent,
    rank,
)
from opsin.detect.error_budget import KINDS, Budget, error_budget
from opsin.errors import InputError, JobError, unknown
from opsin.structures import Instances

CONFIDENCES = np.linspace(0.0, 1.0, 1001)


@dataclass
class Evaluation:
    """What `evaluate` found. Images are named by their place, predictions and objects by theirs in the image.

    metrics: values in [0, 1]. per_class: class, objects, found, precision, recall, f1, map, map_50, voc_map,
    voc_map_11; None where a class has no object. threshold: the least score behind found, precision, recall and f1.
    rankings: of each class at IoU 0.5. f1: (K, 1001), of each class at each of `CONFIDENCES`.
    """

    metrics: dict[str, float]
    per_class: list[dict[str, Any]]
    threshold: float
    rankings: list[Ranking]
    f1: Array
    budget: Budget
    truth: list[Objects]
    found: list[Objects]
    classes: list[str]

    @property
    def objects(self) -> int:
        """Objects there are, without regions to ignore."""
        return sum(ranking.count for ranking in self.rankings)

    def outcomes(self) -> list[Outcome]:
        """Of each image what was right, wrong and missed among predictions of at least the threshold."""
        outcomes = [Outcome([], [], []) for _ in self.truth]
        taken: set[tuple[int, int]] = set()
        for ranking in self.rankings:
            for row in np.flatnonzero(ranking.scores >= self.threshold):
                image, place = int(ranking.image[row]), int(ranking.place[row])
                (outcomes[image].right if ranking.right[row] else outcomes[image].wrong).append(place)
                taken.add((image, int(ranking.truth[row])))
        for image, objects in enumerate(self.truth):
            real = np.flatnonzero(objects.labels >= 0).tolist()
            outcomes[image].missed.extend(place for place in real if (image, place) not in taken)
        return outcomes

    def to_dict(self) -> dict[str, Any]:
        """Everything but the boxes as plain values, for JSON."""
        return {
            "images": len(self.truth),
            "pictures": len(self.truth),  # the earlier key, for a release
            "objects": self.objects,
            "score_threshold": self.threshold,
            "per_class": self.per_class,
            "errors": {k: {"count": self.budget.counts[k], "cost": self.budget.costs[k]} for k in KINDS},
        }


@dataclass(frozen=True)
class Outcome:
    """One image. right, wrong: places of predictions. missed: places of objects."""

    right: list[int]
    wrong: list[int]
    missed: list[int]


def evaluate(
    truth: Sequence[Instances | Objects],
    found: Sequence[Instances | Objects],
    classes: list[str],
    *,
    threshold: float | None = None,
    shapes: Sequence[Shapes] | None = None,
    protocol: Literal["coco", "voc", "icdar"] | None = None,
    ious: Sequence[float] | None = None,
) -> Evaluation:
    """Compare what was found in each image with its objects.

    truth: boxes and labels, -1 for regions to ignore. found: boxes, labels and scores. threshold: the least score for
    precision, recall and F1; None takes that with the best mean F1. Average precision needs none: it ranks all.
    shapes: masks of both, for COCO's precision of masks: `mask_map`, `mask_map_50`, ... protocol: whose average
    precision; both if None. ious: thresholds in the place of COCO's 0.5 to 0.95 and VOC's 0.5: `map` and `voc_map` are
    means over them then, and each has its own, as `map_50`.

    metrics: COCO's `map` (mean over IoU 0.5 to 0.95), `map_50`, `map_75`, of small, medium and large objects, and mean
    recalls `mar_1`, `mar_10`, `mar_100`, ...; VOC's `voc_map` and `voc_map_11` at IoU 0.5; `precision`, `recall` and
    `f1` at IoU 0.5, averaged over the classes; what each kind of error costs of `map_50`, as `cost_class`, ... Classes
    without an object are left out of every average. A metric that is undefined, since there are no such objects, is
    absent, but for `map` and `map_50`, which are then 0.
    Raises JobError where boxes or scores are not finite.
    """
    objects, predictions = _as_objects(truth), _as_objects(found)
    check_finite(predictions)
    official = CocoPrecision({}, [{} for _ in classes])
    if protocol != "voc":
        official = coco_precision(objects, predictions, len(classes), ious=ious)
    rankings = rank(objects, predictions, len(classes))
    f1 = np.stack([_f1(ranking) for ranking in rankings])
    if threshold is None:
        threshold = best_threshold(f1, rankings)
    by_voc = [] if protocol == "coco" else _voc_precision(objects, predictions, len(classes), ious or (0.5,))
    per_class = _per_class(classes, official, by_voc, rankings, threshold)
    budget = error_budget(objects, predictions, rankings)
    always = {} if protocol == "voc" else {"map": 0.0} if ious else {"map": 0.0, "map_50": 0.0}
    metrics = always | official.metrics
    if shapes is not None:
        masks = coco_precision(objects, predictions, len(classes), shapes=shapes).metrics
        metrics |= {f"mask_{name}": value for name, value in masks.items() if name.startswith("map")}
    for name in ("f1", "precision", "recall", *(by_voc[0] if by_voc else ())):
        known = [row[name] for row in per_class if row[name] is not None]
        if known:
            metrics[name] = float(np.mean(known))
    metrics |= {f"cost_{kind}": cost for kind, cost in budget.costs.items()}
    return Evaluation(metrics, per_class, threshold, rankings, f1, budget, objects, predictions, classes)


def check_protocol(protocol: str | None, ious: Sequence[float] | None) -> Literal["coco", "voc", "icdar"] | None:
    """A protocol by its name; "icdar" asks for both average precisions and for more.

    Raises InputError for an unknown one, and for thresholds that are none or given twice.
    """
    if protocol not in ("coco", "voc", "icdar", None):
        raise unknown("protocol", protocol, ("coco", "voc", "icdar"))
    for iou in ious or ():
        if not 0 < iou <= 1:
            raise InputError(f"iou is {iou:g}; expected a number above 0 and at most 1")
    if ious and len(set(ious)) < len(ious):
        raise InputError(f"iou names a threshold twice: {', '.join(f'{iou:g}' for iou in ious)}")
    return protocol


def brief_metrics(truth: Sequence[Instances], found: Sequence[Instances], num_classes: int) -> dict[str, float]:
    """`map`, `map_50` and `map_75` alone, for every epoch; 0 where there are no objects."""
    objects, predictions = _as_objects(truth), _as_objects(found)
    check_finite(predictions)
    metrics = coco_precision(objects, predictions, num_classes, brief=True).metrics
    return {name: metrics.get(name, 0.0) for name in ("map", "map_50", "map_75")}


def check_finite(found: Sequence[Objects]) -> None:
    """Raise JobError where a box or a score is not a number."""
    for image, objects in enumerate(found):
        if not (np.isfinite(objects.boxes).all() and np.isfinite(objects.scores).all()):
            raise JobError(
                f"the detector gave a box or a score that is not finite in image {image} of the split: "
                "its weights have diverged; lower optim.lr or set train.clip_norm"
            )


def find_threshold(truth: Sequence[Instances], found: Sequence[Instances], num_classes: int) -> float:
    """The score from which on predictions have the best mean F1, as `evaluate` chooses it, without all else.

    Raises JobError where boxes or scores are not finite.
    """
    objects, predictions = _as_objects(truth), _as_objects(found)
    check_finite(predictions)
    rankings = rank(objects, predictions, num_classes)
    return best_threshold(np.stack([_f1(ranking) for ranking in rankings]), rankings)


def best_threshold(f1: Array, rankings: Sequence[Ranking]) -> float:
    """The score from which on predictions have the best F1, averaged over the classes. f1: (K, 1001).

    Of a range of equally good ones it is the middle, which serves other images best.
    """
    known = [row for row, ranking in zip(f1, rankings, strict=True) if ranking.count]
    if not known:
        return 0.5
    mean = np.mean(known, axis=0)
    first = int(mean.argmax())
    if mean[first] == 0:
        return 0.5
    last = first
    while last + 1 < len(mean) and mean[last + 1] == mean[first]:
        last += 1
    return float(CONFIDENCES[(first + last) // 2])


def _as_objects(instances: Sequence[Instances | Objects]) -> list[Objects]:
    return [one if isinstance(one, Objects) else Objects.of(one) for one in instances]


def _f1(ranking: Ranking) -> Array:
    """F1 of a class, were only predictions of at least each of `CONFIDENCES` made: 2 hits / (predictions + objects)."""
    kept = np.searchsorted(-ranking.scores, -CONFIDENCES, side="right")
    hits = np.append(0, np.cumsum(ranking.right))[kept]
    return 2 * hits / np.maximum(1, kept + ranking.count)


def _voc_precision(
    truth: Sequence[Objects], found: Sequence[Objects], num_classes: int, ious: Sequence[float]
) -> list[dict[str, float | None]]:
    """Of each class VOC's precisions, the means over the thresholds, and where there are several those of each."""
    forms: dict[str, Literal["voc", "voc_11"]] = {"": "voc", "_11": "voc_11"}
    rows: list[dict[str, float | None]] = [{} for _ in range(num_classes)]
    by_iou = [rank(truth, found, num_classes, rule="voc", iou=iou) for iou in ious]
    for form, kind in forms.items():
        for label, row in enumerate(rows):
            rankings = [one[label] for one in by_iou]
            values = [average_precision(one.right, one.count, kind) for one in rankings]
            known = [value for value in values if value is not None]
            row[f"voc_map{form}"] = float(np.mean(known)) if known else None
            if len(ious) > 1:
                row |= {f"voc_map{form}_{percent(iou)}": value for iou, value in zip(ious, values, strict=True)}
    return rows


def _per_class(
    classes: list[str],
    official: CocoPrecision,
    by_voc: Sequence[dict[str, float | None]],
    rankings: Sequence[Ranking],
    threshold: float,
) -> list[dict[str, Any]]:
    rows = []
    for label, (name, ranking) in enumerate(zip(classes, rankings, strict=True)):
        chosen = ranking.scores >= threshold
        hits, predicted, count = int(ranking.right[chosen].sum()), int(chosen.sum()), ranking.count
        row: dict[str, Any] = {"class": name, "objects": count, "found": predicted}
        precisions = official.per_class[label] | (by_voc[label] if by_voc else {})
        row |= dict.fromkeys(("precision", "recall", "f1", *precisions))
        if count:
            row |= {"precision": hits / max(1, predicted), "recall": hits / count, "f1": 2 * hits / (predicted + count)}
            row |= precisions
        rows.append(row)
    return rows
