"""Evaluation of a file of detections, of whatever tool, against a split, equal to the official tools."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from opsin.data import Source, Split
from opsin.data.images import UnreadableImage
from opsin.data.source import listed
from opsin.data.stated_boxes import StatedBoxes
from opsin.detect.average_precision import Array, Objects
from opsin.detect.detection_files import Detections, read_detections
from opsin.detect.metrics import check_protocol, evaluate
from opsin.detect.text_hmean import text_metrics
from opsin.engine.evaluator import Result
from opsin.engine.image_names import ImageNames
from opsin.errors import InputError, say
from opsin.structures import Instances

_SURE = 3  # boxes, from which on all of them being odd in the same way is no accident


def score(
    path: Path, source: Source, split: str, *, iou: Sequence[float] | None = None, protocol: str | None = None
) -> Result:
    """What a file of detections is worth on a split of a source. The rules are those of `opsin.detect.metrics`.

    The truth is taken as its files state it, see `StatedBoxes`: crowds and difficult objects are ignored for their own
    class alone, COCO's areas are those of its file. iou, protocol: as of `evaluate`. Raises InputError for a file that
    is none, for images and classes that the data does not have, and for boxes in other coordinates.
    """
    chosen, classes = source.splits[split], source.classes
    rule = check_protocol(protocol, iou)
    stems = [PurePosixPath(chosen.name(i)).stem for i in range(len(chosen))]
    found = read_detections(path, stems, classes)
    keys = {name: one.kind.stated.keys for name, one in source.splits.items() if _stated(one) is not None}
    names = ImageNames(source, split, keys)
    rows = zip(found.images, found.places, strict=True)
    places = np.array([-1 if (at := names.find(image, place)) is None else at for image, place in rows], np.int64)
    for image, place in found.empty.items():
        names.find(image, place)
    names.check(path, "detections")
    labels = _labels(found, source, _stated(chosen), path)
    boxes = _boxes(found, chosen, places, path)
    truth = _truth(chosen)
    if not any((one.labels >= 0).any() for one in truth):
        raise InputError(f"the {split} split of {source.name} has no object that counts: there is nothing to find")
    kept = (places >= 0) & (labels >= 0)
    scores = np.array(found.scores, np.float64)
    low, high = _range(scores)
    objects = _predictions((scores - low) / (high - low), boxes, labels, places, np.flatnonzero(kept), len(chosen))
    order = _official_order(_stated(chosen), len(chosen))
    evaluation = evaluate([truth[i] for i in order], [objects[i] for i in order], classes, protocol=rule, ious=iou)
    if rule == "icdar":
        lines, own = ([_as_instances(one) for one in part] for part in (evaluation.truth, evaluation.found))
        evaluation.metrics |= text_metrics(lines, own, evaluation.threshold)
    details = evaluation.to_dict() | {"score_threshold": low + evaluation.threshold * (high - low)}
    unread = f", {found.unread} images that the tool could not read" if found.unread else ""
    silent = len(chosen) - len(np.unique(places[kept]))
    said = f"; {int(kept.sum()):,} detections ({found.form}), {silent:,} images without any{unread}"
    return Result(evaluation.metrics, details, evaluation, data=said)


def _stated(split: Split) -> StatedBoxes | None:
    return split.kind.stated


def _official_order(stated: StatedBoxes | None, count: int) -> list[int]:
    """Images by rising id, in which COCO's tool ranks equal scores."""
    keys = [] if stated is None else [key for key in stated.keys if isinstance(key, int)]
    if len(keys) != count:
        return list(range(count))
    return np.argsort(np.array(keys), kind="stable").tolist()


def _truth(split: Split) -> list[Objects]:
    stated = _stated(split)
    if stated is None:
        return [Objects.of(one) for one in split.kind.instances]
    found = []
    for i in range(len(split)):
        rows = stated.rows(i)
        labels, ignored = stated.labels[rows], stated.ignored[rows]
        counted = np.where(ignored, -1, labels)
        found.append(Objects(stated.boxes[rows], counted, np.ones(len(labels)), stated.areas[rows], labels))
    return found


def _predictions(scores: Array, boxes: Array, labels: Array, places: Array, kept: Array, count: int) -> list[Objects]:
    """Those of each image, in the order of the file. kept: the rows that count."""
    kept = kept[np.argsort(places[kept], kind="stable")]
    bounds = np.searchsorted(places[kept], np.arange(count + 1))
    found = []
    for first, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        rows = kept[first:end]
        sides = boxes[rows, 2:] - boxes[rows, :2]
        found.append(Objects(boxes[rows], labels[rows], scores[rows], sides.prod(axis=1), order=rows))
    return found


def _as_instances(one: Objects) -> Instances:
    boxes, labels, scores = (torch.as_tensor(np.asarray(values)) for values in (one.boxes, one.labels, one.scores))
    return Instances(boxes, labels, scores)


def _range(scores: Array) -> tuple[float, float]:
    """What is 0 and what is 1 of scores: precision and recall are looked at along a threshold from 0 to 1."""
    if not len(scores) or (scores.min() >= 0 and scores.max() <= 1):
        return 0.0, 1.0
    low, high = float(scores.min()), float(scores.max())
    return (low, high) if high > low else (low - 1.0, high)


def _labels(found: Detections, source: Source, stated: StatedBoxes | None, path: Path) -> Array:
    """The class of each row, -1 for one that the truth does not have, which a line says."""
    classes = {name: label for label, name in enumerate(source.classes)}
    known: dict[int | str, int] = {}
    numbers = False
    for key in dict.fromkeys(found.classes):
        name = found.names.get(key, str(key)).strip()
        if found.names or not isinstance(key, int):
            known[key] = classes.get(name, -1)
        elif stated is not None and stated.class_keys and not found.numbered:
            known[key] = stated.class_keys.get(key, -1)
        elif name in classes:
            known[key] = classes[name]
        elif found.numbered:
            known[key], numbers = (key if 0 <= key < len(classes) else -1), True
        else:
            raise InputError(
                f"{path} names categories by the ids of a COCO json, such as {key}, which {source.name} has not; give "
                f"that json as --data, or names as category_id: {listed(source.classes)}"
            )
    missing = Counter(key for key in found.classes if known[key] < 0)
    if missing and len(missing) == len(known):
        given = listed([_shown(found, one) for one in missing])
        raise InputError(
            f"{path} has none of the classes of {source.name}: it has {given}, the data {listed(source.classes)}"
        )
    if missing:
        count, of = sum(missing.values()), listed([_shown(found, one) for one in missing])
        say(f"{count:,} detections of classes that the truth does not have are left out: {of}")
    if numbers and source.format != "YOLO txt":
        order = ", ".join(f"{label} {name}" for label, name in enumerate(source.classes[:10]))
        say(f"class numbers are taken as places among the classes of {source.name}: {order}")
    return np.array([known[key] for key in found.classes], np.int64)


def _shown(found: Detections, key: int | str) -> str:
    return found.names.get(key, str(key))


def _boxes(found: Detections, split: Split, places: Array, path: Path) -> Array:
    """xyxy in pixels, (N, 4) float64. Raises InputError where they surely are something else."""
    boxes = np.array(found.boxes, np.float64).reshape(-1, 4)
    by_image = np.full((len(split) + 1, 2), np.nan)  # width, height; the last for -1
    for place in np.unique(places[places >= 0]).tolist():
        size = _size(split, place)
        if size is not None:
            by_image[place] = size[::-1]
        elif found.relative:
            raise InputError(
                f"{path} gives shares of images, and the size of {split.name(place)} is not known; the image itself, "
                "or its size in the data, must be there"
            )
    sizes = by_image[places]
    if found.relative:
        return boxes * np.nan_to_num(np.tile(sizes, 2))
    own, sizes = boxes[places >= 0], sizes[places >= 0]
    _check_pixels(own, sizes, found, path)
    return boxes


def _size(split: Split, place: int) -> tuple[int, int] | None:
    stated = _stated(split)
    if stated is not None and stated.sizes[place] is not None:
        return stated.sizes[place]
    try:
        return split.inputs.size(place)
    except UnreadableImage:
        return None


def _check_pixels(boxes: Array, sizes: Array, found: Detections, path: Path) -> None:
    """Raise InputError for shares, and for corners and sides taken for each other, where that is beyond doubt."""
    if not len(boxes):
        return
    if boxes.min() > -0.2 and boxes.max() < 1.2 and (boxes % 1).any():
        raise InputError(
            f"{path}: all boxes lie between {boxes.min():.3g} and {boxes.max():.3g}: they are shares of the image's "
            "sides, and pixels are expected; multiply them by its width and height"
        )
    sides = boxes[:, 2:] - boxes[:, :2]
    turned = (sides < 0).any(axis=1)
    if not found.sided and len(boxes) >= _SURE and turned.sum() > len(boxes) / 2:
        raise InputError(
            f"{path}: {turned.sum():,} of {len(boxes):,} boxes end before they begin: they are x, y, width, height, "
            "and x1, y1, x2, y2 are expected; name the columns so, or convert them"
        )
    known = np.isfinite(sizes).all(axis=1)
    if not known.any():
        return
    boxes, sides, sizes, given = boxes[known], sides[known], sizes[known], boxes[known].copy()
    given[:, 2:] = sides  # as the file has them, if it has sides
    far = (boxes[:, 2:] > 1.1 * sizes).any(axis=1)
    corners = ((given[:, 2:] > given[:, :2]) & (given[:, 2:] <= sizes + 1)).all(axis=1)
    if found.sided and len(boxes) >= _SURE and corners.all() and far.sum() > len(boxes) / 4:
        raise InputError(
            f"{path}: as x, y, width, height {far.sum():,} of {len(boxes):,} boxes reach far out of their images, as "
            "x1, y1, x2, y2 none does; convert them: a COCO bbox is x, y, width, height"
        )
    outside = ((boxes[:, :2] >= sizes) | (boxes[:, 2:] <= 0)).any(axis=1)
    if outside.sum() > len(boxes) / 4:
        say(
            f"{outside.sum():,} of {len(boxes):,} boxes lie outside of their images: are they in pixels of another "
            "size, such as the network's input?"
        )
