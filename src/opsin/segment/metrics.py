"""How good maps of classes are: pixels are counted once, over a whole data set, and every number is made of the counts.

Where each pixel is of one class, that is a confusion matrix. Where classes overlap, each of them is a question of yes
or no for every pixel. Pixels of which nothing is known count nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from opsin.data.class_maps import UNKNOWN
from opsin.errors import InputError

Array = np.ndarray
_NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass
class Counts:
    """Pixels of one image, or of many together, by class; K of each.

    right: that are of the class and were found to be. truth: that are of it. found: that were found to be. known: all
    of which the class is known.
    """

    right: Array
    truth: Array
    found: Array
    known: int

    @classmethod
    def of(cls, confusion: Array) -> Counts:
        """Those of a confusion matrix (K, K + 1), see `confusion_matrix`."""
        found = confusion.sum(axis=0)[: len(confusion)]
        return cls(confusion.diagonal().copy(), confusion.sum(axis=1), found, int(confusion.sum()))

    @classmethod
    def of_masks(cls, truth: Array, found: Array) -> Counts:
        """Those of classes that overlap: masks (K, H, W) bool."""
        places = (1, 2)
        right = (truth & found).sum(axis=places)
        return cls(right, truth.sum(axis=places), found.sum(axis=places), truth[0].size)

    @classmethod
    def total(cls, counts: Sequence[Counts]) -> Counts:
        """Those of several images together."""
        right, truth, found = (
            np.sum([getattr(one, name) for one in counts], axis=0) for name in ("right", "truth", "found")
        )
        return cls(right, truth, found, sum(one.known for one in counts))

    @property
    def iou(self) -> Array:
        """Of each class intersection over union, NaN where the class is neither there nor found."""
        return _ratio(self.right, self.truth + self.found - self.right)

    @property
    def miou(self) -> float:
        """The mean of it over the classes that are there or were found; NaN where none is."""
        return mean_of_known(self.iou)


@dataclass
class Evaluation:
    """What `evaluate` found.

    metrics: values in [0, 1], but distances in pixels and entropies in bits. per_class: class, pixels, found, iou,
    dice, precision, recall, and border_f1 and hausdorff_95 where borders were compared; None where it is undefined.
    confusion: (K, K + 1) int64, see `confusion_matrix`; None where classes overlap. images: of each its mIoU, NaN where
    it has none, in the order of the split.
    """

    metrics: dict[str, float]
    per_class: list[dict[str, Any]]
    confusion: Array | None
    images: list[float] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the metrics as plain values, for JSON. unanswered: of each class, where nothing was found."""
        found: dict[str, Any] = {"images": len(self.images), "per_class": self.per_class, "confusion": None}
        if self.confusion is not None:
            found["confusion"] = self.confusion[:, :-1].tolist()
            if self.confusion[:, -1].any():
                found["unanswered"] = self.confusion[:, -1].tolist()
        return found


def confusion_matrix(truth: Array, found: Array, count: int) -> Array:
    """How often each of `count` classes was taken for each: (K, K + 1) int64, rows are the truth.

    truth, found: maps of one shape, of integers. A pixel whose truth is unknown, 255 of uint8 and below 0 of others, is
    left out; one of which nothing was found is in the last column. Raises InputError for other shapes, and for a number
    that is no class.
    """
    if truth.shape != found.shape:
        raise InputError(f"the map is {_shape(found)}, the truth {_shape(truth)}; expected one size")
    side = count + 2  # classes, unknown, and what is no class
    pairs = _numbered(truth, count, side)
    pairs += _numbered(found, count, 1, pairs.dtype)
    counted = (_count_bytes if pairs.dtype == np.uint8 else np.bincount)(pairs.ravel(), minlength=side * side)
    matrix = counted[: side * side].reshape(side, side)
    for name, values, wrong in (("true", truth, matrix[-1]), ("found", found, matrix[:, -1])):
        if wrong.any():
            outside = values[(values >= count) & (values != UNKNOWN if values.dtype == np.uint8 else values >= 0)]
            raise InputError(f"a map of {name} classes holds {outside.max()}; expected 0 to {count - 1}")
    return matrix[:count, : count + 1].astype(np.int64)


def evaluate(
    classes: Sequence[str],
    counts: Sequence[Counts],
    confusion: Array | None,
    *,
    by_class: Mapping[str, Array] = _NONE,
    others: Mapping[str, float] = _NONE,
) -> Evaluation:
    """All metrics of a data set.

    counts: of each image. confusion: of all together; None where classes overlap. by_class: further numbers of each
    class, (K,), whose mean is a metric, as `opsin.segment.borders` has them; others: further metrics. NaN is undefined.

    `miou` is the mean IoU over the classes that are there or were found, `miou_all_classes` that over all, where one
    that is neither counts as 0, `miou_per_image` the mean over images of each image's own `miou`. `dice` is over the
    classes of `miou`, `mean_accuracy` over those that are there; `frequency_weighted_iou` weighs classes by their
    pixels. `pixel_accuracy` is the share of right pixels; of classes that overlap, of right decisions.
    A metric that is undefined is absent. Raises InputError where there is no pixel to evaluate.
    """
    whole = Counts.total(counts) if confusion is None else Counts.of(confusion)
    if not counts or not whole.known:
        raise InputError("there is nothing to evaluate: of no pixel of the split is the class known")
    iou, images = whole.iou, [one.miou for one in counts]
    dice = _ratio(2 * whole.right, whole.truth + whole.found)
    recall, precision = _ratio(whole.right, whole.truth), _ratio(whole.right, whole.found)
    metrics = {
        "miou": whole.miou,
        "pixel_accuracy": _accuracy(whole, overlapping=confusion is None),
        "mean_accuracy": mean_of_known(recall),
        "dice": mean_of_known(dice),
        "frequency_weighted_iou": float(np.nansum(whole.truth * iou) / max(1, whole.truth.sum())),
        "miou_all_classes": float(np.nan_to_num(iou).mean()),
        "miou_per_image": mean_of_known(np.array(images)),
    }
    if not whole.truth.any():
        del metrics["frequency_weighted_iou"]
    shares = {"iou": iou, "dice": dice, "precision": precision, "recall": recall}
    metrics |= {name: mean_of_known(values) for name, values in by_class.items()} | dict(others)
    metrics = {name: value for name, value in metrics.items() if not np.isnan(value)}
    rows = [
        {"class": name, "pixels": int(whole.truth[k]), "found": int(whole.found[k])}
        | {key: None if np.isnan(values[k]) else float(values[k]) for key, values in {**shares, **by_class}.items()}
        for k, name in enumerate(classes)
    ]
    return Evaluation(metrics, rows, confusion, images)


def brief_metrics(counts: Sequence[Counts], confusion: Array | None) -> dict[str, float]:
    """The two of them that every epoch shows."""
    whole = Counts.total(counts) if confusion is None else Counts.of(confusion)
    if not whole.known:
        raise InputError("there is nothing to evaluate: of no pixel of the split is the class known")
    found = {"miou": whole.miou, "pixel_accuracy": _accuracy(whole, overlapping=confusion is None)}
    return {name: value for name, value in found.items() if not np.isnan(value)}


def _accuracy(whole: Counts, *, overlapping: bool) -> float:
    if not overlapping:
        return float(whole.right.sum() / whole.known)
    wrong = (whole.truth + whole.found - 2 * whole.right).sum()
    return float(1 - wrong / (whole.known * len(whole.truth)))


def _numbered(values: Array, count: int, step: int, dtype: Any = None) -> Array:
    """The classes of a map as multiples of `step`: then those of unknown pixels, then of what is no class."""
    if values.dtype == np.uint8:
        narrow = np.uint8 if count <= 14 else np.uint16 if count <= 254 else np.int64  # all pairs are below its largest
        table = np.full(256, (count + 1) * step, dtype or narrow)
        table[: min(count, 256)] = np.arange(min(count, 256)) * step
        table[UNKNOWN] = count * step
        return table[values]
    numbers = values.astype(np.int64)
    numbers = np.where(numbers < 0, count, np.where(numbers < count, numbers, count + 1))
    return (numbers * step).astype(dtype or np.int64)


def _count_bytes(values: Array, minlength: int) -> Array:
    """How often each of 256 values is in an array (N,) of uint8; of two neighbours at once, which is twice as fast."""
    even = values[: values.size // 2 * 2]
    pairs = np.bincount(even.view(np.uint16), minlength=1 << 16).reshape(256, 256)
    found = pairs.sum(axis=0) + pairs.sum(axis=1)
    if values.size % 2:
        found[values[-1]] += 1
    return found


def _ratio(part: Array, whole: Array) -> Array:
    """part / whole as float64, NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)


def is_known(values: Array) -> Array:
    """Where the class of a pixel is known, of a map (H, W): bool."""
    return values != UNKNOWN if values.dtype == np.uint8 else values >= 0


def mean_of_known(values: Array) -> float:
    """The mean over what is not NaN; NaN where all is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _shape(values: Array) -> str:
    return "x".join(map(str, values.shape))
