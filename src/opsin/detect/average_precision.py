"""Average precision of detections: COCO's by its official evaluation, Pascal VOC's in both its forms.

Boxes are xyxy in continuous pixels. In the truth a label of -1 marks a region to ignore: a prediction there is neither
right nor wrong. It is one for every class, unless `regions` says of which: COCO's crowds and VOC's difficult objects
name a class, and the official tools call predictions of another class false in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from opsin.data.masks import encode_masks, mask_area
from opsin.ops.iou import numpy_ioa, numpy_iou
from opsin.structures import Instances

Array: TypeAlias = NDArray[Any]

RECALLS = np.linspace(0.0, 1.0, 101)  # COCO's
_AREAS = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
_MOST = 100  # instances of a class in an image; COCO looks at no more


@dataclass(frozen=True)
class Objects:
    """The objects of one image as NumPy arrays, boxes in float64. scores: of predictions; ones for truth.

    regions: of each region to ignore the class that it is one for, -1 for every class; anything for objects. order: of
    predictions, their place among those of all images, by which equal scores are ranked; as they come if None.
    """

    boxes: Array  # (N, 4)
    labels: Array  # (N,)
    scores: Array  # (N,)
    areas: Array  # (N,), of the masks where there are some
    regions: Array | None = None  # (N,)
    order: Array | None = None  # (N,)

    @classmethod
    def of(cls, instances: Instances) -> Objects:
        boxes = instances.boxes.detach().cpu().double().numpy().reshape(-1, 4)
        count = len(boxes)
        labels = np.zeros(count, np.int64) if instances.labels is None else instances.labels.cpu().numpy()
        scores = np.ones(count) if instances.scores is None else instances.scores.detach().double().cpu().numpy()
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        if instances.masks is not None:
            areas = instances.masks.flatten(1).sum(dim=1).cpu().numpy().astype(np.float64)
        return cls(boxes, labels, scores, areas)

    def __len__(self) -> int:
        return len(self.boxes)

    def regions_of(self, label: int) -> Array:
        """The places of the regions to ignore for a class."""
        ignored = self.labels == -1
        return np.flatnonzero(ignored if self.regions is None else ignored & np.isin(self.regions, (label, -1)))


@dataclass(frozen=True)
class Ranking:
    """The predictions of one class over all images, the surest first, without those in regions to ignore.

    scores: (N,). right: (N,) bool. image, place: (N,) which prediction it is. truth: (N,) the place of the object it
    found in its image, -1 if none. count: objects there are.
    """

    scores: Array
    right: Array
    image: Array
    place: Array
    truth: Array
    count: int

    def curve(self) -> tuple[Array, Array]:
        """Recall and precision after each prediction."""
        hits = np.cumsum(self.right)
        return hits / max(1, self.count), hits / np.arange(1, len(hits) + 1)


@dataclass(frozen=True)
class CocoPrecision:
    """metrics: map, map_50, map_75, map_small, ..., mar_1, mar_10, mar_100, mar_small, ...; undefined ones are absent.

    per_class: map and map_50 of each class, None for a class without an object.
    """

    metrics: dict[str, float]
    per_class: list[dict[str, float | None]]


@dataclass(frozen=True)
class Shapes:
    """The masks of one image, run-length encoded: of its objects and of its predictions, in their order."""

    truth: list[dict[str, Any]]
    found: list[dict[str, Any]]

    @classmethod
    def of(cls, truth: Tensor, found: Tensor) -> Shapes:
        """Masks (N, H, W) and (M, H, W) bool of an image of one size."""
        return cls(encode_masks(truth), encode_masks(found))


def coco_precision(
    truth: Sequence[Objects],
    found: Sequence[Objects],
    num_classes: int,
    *,
    brief: bool = False,
    shapes: Sequence[Shapes] | None = None,
    ious: Sequence[float] | None = None,
) -> CocoPrecision:
    """COCO's average precision and recall, by faster-coco-eval. brief: map, map_50 and map_75 alone, faster.

    shapes: of each image; an IoU is then that of masks. ious: the thresholds in the place of 0.5 to 0.95; `map` is then
    the mean over them, and each has its own, map_50 that of 0.5.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    images: list[dict[str, Any]] = [{"id": place} for place in range(len(truth))]
    annotations, results = _annotations(truth, found, shapes), _results(found)
    if shapes is not None:
        for image, one in zip(images, shapes, strict=True):
            image["height"], image["width"] = next((m["size"] for m in [*one.truth, *one.found]), (0, 0))
        for result, mask in zip(results, (mask for one in shapes for mask in one.found), strict=True):
            result["segmentation"] = mask
            del result["bbox"]  # or the area would be that of the box
    categories = [{"id": k, "name": str(k)} for k in range(num_classes)]
    official = COCO({"images": images, "categories": categories, "annotations": annotations})
    kind = "bbox" if shapes is None else "segm"
    run = COCOeval_faster(official, official.loadRes(results), kind, print_function=_silent)
    if brief:
        run.params.areaRng, run.params.areaRngLbl, run.params.maxDets = [[0, 1e10]], ["all"], [_MOST]
    named = _set_thresholds(run.params, ious)
    run.evaluate()
    shape = (len(run.params.iouThrs), 101, num_classes, len(run.params.areaRng), len(run.params.maxDets))
    precision = np.asarray(run.eval["precision"]).reshape(shape)  # thresholds, recalls, classes, areas, limits
    recall = np.asarray(run.eval["recall"]).reshape(shape[:1] + shape[2:])
    values = {
        "map": _mean(precision[:, :, :, 0, -1]),
        **{name: _mean(precision[place, :, :, 0, -1]) for name, place in named.items()},
    }
    if not brief:
        values |= {f"map_{name}": _mean(precision[:, :, :, 1 + i, -1]) for i, name in enumerate(_AREAS)}
        values |= {f"mar_{limit}": _mean(recall[:, :, 0, i]) for i, limit in enumerate((1, 10, 100))}
        values |= {f"mar_{name}": _mean(recall[:, :, 1 + i, -1]) for i, name in enumerate(_AREAS)}
    per_class = [
        {"map": _mean(precision[:, :, k, 0, -1])}
        | {name: _mean(precision[place, :, k, 0, -1]) for name, place in named.items() if ious or name == "map_50"}
        for k in range(num_classes)
    ]
    return CocoPrecision({name: value for name, value in values.items() if value is not None}, per_class)


def _set_thresholds(params: Any, ious: Sequence[float] | None) -> dict[str, int]:
    """Give the official tool its thresholds; the metrics of one alone, with its place among them."""
    if ious is None:
        return {"map_50": 0, "map_75": 5}
    params.iouThrs = np.array(ious, np.float64)
    return {f"map_{percent(iou)}": place for place, iou in enumerate(ious)}


def percent(iou: float) -> str:
    """An IoU as it stands in the name of a metric: 0.5 as "50", 0.625 as "62.5"."""
    return f"{round(100 * iou, 6):g}"


def rank(
    truth: Sequence[Objects],
    found: Sequence[Objects],
    num_classes: int,
    *,
    rule: Literal["coco", "voc"] = "coco",
    iou: float = 0.5,
) -> list[Ranking]:
    """The predictions of each class, each held against the truth at an IoU of 0.5, or of `iou`.

    rule "coco": the surest prediction first takes the object that it overlaps most of those not yet taken; a region to
    ignore counts by the share of the prediction within it; 100 predictions of a class in an image. rule "voc": a
    prediction is held against the object that it overlaps most, and is wrong where that is taken already; no limit.
    """
    counts = np.zeros(num_classes, np.int64)
    for objects in truth:
        counts += np.bincount(objects.labels[objects.labels >= 0], minlength=num_classes)
    rows: list[list[_Rows]] = [[] for _ in range(num_classes)]
    for image, (objects, predictions) in enumerate(zip(truth, found, strict=True)):
        for label in np.unique(predictions.labels).tolist():
            rows[label].append(_rank_in_image(image, objects, predictions, label, rule, iou))
    return [_ranking(own, count) for own, count in zip(rows, counts.tolist(), strict=True)]


# The predictions of a class in one image, or of several: scores, image, place, truth, order among equal scores.
_Rows: TypeAlias = tuple[Array, Array, Array, Array, Array]


def _rank_in_image(image: int, objects: Objects, predictions: Objects, label: int, rule: str, iou: float) -> _Rows:
    mine, regions = np.flatnonzero(objects.labels == label), objects.regions_of(label)
    places = np.flatnonzero(predictions.labels == label)
    places = places[np.argsort(-predictions.scores[places], kind="stable")]
    places = places[:_MOST] if rule == "coco" else places
    match = _match_coco if rule == "coco" else _match_voc
    taken = match(predictions.boxes[places], objects.boxes[mine], objects.boxes[regions], iou)
    kept = taken != -2
    which = np.full(len(places), -1)
    which[taken >= 0] = mine[taken[taken >= 0]]
    order = np.zeros(len(places), np.int64)
    if rule == "voc" and predictions.order is not None:  # VOC ranks equal scores as the file has them, COCO by image
        order = predictions.order[places]
    return predictions.scores[places][kept], np.full(int(kept.sum()), image), places[kept], which[kept], order[kept]


def _ranking(rows: Sequence[_Rows], count: int) -> Ranking:
    if not rows:
        nothing = np.zeros(0, np.int64)
        return Ranking(np.zeros(0), np.zeros(0, bool), nothing, nothing, nothing, count)
    scores, images, places, which, given = (np.concatenate(column) for column in zip(*rows, strict=True))
    order = np.lexsort((given, -scores))  # stable
    return Ranking(scores[order], which[order] >= 0, images[order], places[order], which[order], count)


def average_precision(right: Array, count: int, form: Literal["coco", "voc", "voc_11"] = "coco") -> float | None:
    """Average precision of a ranking: right, (N,) bool, the surest first, of which `count` could be right.

    "coco": the mean over 101 recalls of the best precision at that recall or a higher one. "voc_11": over 11 recalls,
    as in VOC until 2009. "voc": the area below that staircase, every point of it, as in VOC since 2010. None where
    there is nothing to be found.
    """
    if count == 0:
        return None
    hits = np.cumsum(right)
    recall, precision = hits / count, hits / np.arange(1, len(hits) + 1)
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)  # 0 beyond the highest recall
    if form == "voc":
        steps = np.diff(recall, prepend=0.0)
        return float((steps * best[:-1]).sum())
    # A quotient of whole numbers and k / 10 are the same floating-point number where they are equal.
    levels = RECALLS if form == "coco" else np.arange(11) / 10
    return float(best[np.searchsorted(recall, levels, side="left")].mean())


def _match_coco(boxes: Array, objects: Array, regions: Array, iou: float) -> Array:
    """The object that each prediction takes, -1 for none, -2 in a region to ignore. boxes: the surest first."""
    taken = np.full(len(boxes), -1)
    free = np.ones(len(objects), bool)
    ious = numpy_iou(boxes, objects)
    inside = numpy_ioa(boxes, regions).max(axis=1, initial=0.0)
    for place, row in enumerate(ious):
        shown = np.where(free, row, -1.0)
        best = len(shown) - 1 - int(shown[::-1].argmax()) if len(shown) else -1  # of equal ones COCO takes the last
        if best >= 0 and shown[best] >= iou:
            taken[place], free[best] = best, False
        elif inside[place] >= iou:
            taken[place] = -2
    return taken


def _match_voc(boxes: Array, objects: Array, regions: Array, iou: float) -> Array:
    """As `_match_coco`, by the rule of VOC's development kit."""
    taken = np.full(len(boxes), -1)
    free = np.ones(len(objects), bool)
    ious = numpy_iou(boxes, np.concatenate([objects, regions]))
    for place, row in enumerate(ious):
        best = int(row.argmax()) if len(row) else -1
        if best < 0 or row[best] < iou:
            continue
        if best >= len(objects):
            taken[place] = -2
        elif free[best]:
            taken[place], free[best] = best, False
    return taken


def _annotations(
    truth: Sequence[Objects], found: Sequence[Objects], shapes: Sequence[Shapes] | None
) -> list[dict[str, Any]]:
    """COCO's annotations; a region to ignore for every class is a crowd of each that is predicted in its image."""
    rows: list[dict[str, Any]] = []
    for image, (objects, predictions) in enumerate(zip(truth, found, strict=True)):
        classes = np.unique(predictions.labels).tolist()
        boxes, areas = _xywh(objects.boxes), objects.areas.tolist()
        regions = [-1] * len(objects) if objects.regions is None else objects.regions.tolist()
        for place, (box, label, area) in enumerate(zip(boxes, objects.labels.tolist(), areas, strict=True)):
            for category in [max(label, regions[place])] if max(label, regions[place]) >= 0 else classes:
                row = {
                    "id": len(rows) + 1,
                    "image_id": image,
                    "category_id": category,
                    "bbox": box,
                    "area": area,
                    "iscrowd": int(label < 0),
                }
                if shapes is not None:
                    mask = shapes[image].truth[place]
                    row |= {"segmentation": mask, "area": mask_area(mask)}
                rows.append(row)
    return rows


def _results(found: Sequence[Objects]) -> list[dict[str, Any]]:
    return [
        {"image_id": image, "category_id": label, "bbox": box, "score": score, "segmentation": []}
        for image, objects in enumerate(found)
        for box, label, score in zip(
            _xywh(objects.boxes), objects.labels.tolist(), objects.scores.tolist(), strict=True
        )
    ]


def _xywh(boxes: Array) -> list[list[float]]:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).tolist()


def _mean(values: Array) -> float | None:
    """The mean of what is defined; COCO's -1 says that there was nothing to find."""
    known = values[values > -1]
    return float(known.mean()) if known.size else None


def _silent(*args: Any) -> None:
    """faster-coco-eval reports its steps; nobody asked."""
