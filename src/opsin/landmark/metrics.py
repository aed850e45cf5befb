"""How far points are off: the normalised mean error, its cumulative distribution, failures, each point by itself.

An error in pixels says nothing without the size of what the image shows: it is divided by a length of the truth, and
numbers divided by different lengths cannot be compared. So every metric's name ends in its normaliser.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from opsin.data.point_sets import known_points
from opsin.errors import InputError

NORMALIZERS = {
    "inter_ocular": "the distance between the outer corners of the eyes",
    "inter_pupil": "the distance between the pupils, or the means of the points around each eye",
    "box_diagonal": "the diagonal of the box around the true points",
    "box_size": "the square root of the area of the box around the true points",
    "image_diagonal": "the diagonal of the image",
}
ALWAYS = ("box_diagonal", "box_size", "image_diagonal")  # which every set of points has
LIMITS = (0.08, 0.10)  # of a failure, and of the area under the curve
_LEAST = 1e-6  # pixels; a shorter length normalises nothing


@dataclass(frozen=True)
class Compared:
    """One image: what was found and what is true, in its own pixels.

    found, truth: (P, 2), NaN where the truth is not known. spread: (P,), see `opsin.landmark.localizer.Located`, in
    pixels of the input, and scale, how many pixels of the image one of those is. loss: of the image by itself.
    diagonal: of the image.
    """

    found: np.ndarray
    truth: np.ndarray
    visible: np.ndarray
    spread: np.ndarray
    scale: float = 1.0
    loss: float | None = None
    diagonal: float = math.nan

    @property
    def errors(self) -> np.ndarray:
        """(P,): the distance of each point from where it should be, NaN where that is not known."""
        return np.linalg.norm(self.found - self.truth, axis=1)


def lengths(
    truths: np.ndarray, eyes: Mapping[str, Sequence[Sequence[int]]], diagonals: Sequence[float]
) -> dict[str, np.ndarray]:
    """Of each shape of (N, P, 2) the lengths that errors are divided by, (N,) by normaliser; NaN where not known.

    eyes: see `opsin.data.point_sets.PointSet`. diagonals: of the images.
    """
    found: dict[str, np.ndarray] = {}
    for name, (left, right) in eyes.items():
        between = truths[:, list(left)].mean(axis=1) - truths[:, list(right)].mean(axis=1)
        found[name] = np.linalg.norm(between, axis=1)
    known = known_points(truths)
    anywhere: np.ndarray = np.logical_or.reduce(known, axis=1)
    low = np.where(known[..., None], truths, np.inf).min(axis=1, initial=np.inf)
    high = np.where(known[..., None], truths, -np.inf).max(axis=1, initial=-np.inf)
    sides = np.where(anywhere[:, None], np.maximum(high - low, 0.0), np.nan)
    found["box_diagonal"] = np.linalg.norm(sides, axis=1)
    found["box_size"] = np.sqrt(sides.prod(axis=1))
    found["image_diagonal"] = np.asarray(diagonals, np.float64).reshape(-1)
    return {name: np.where(values > _LEAST, values, np.nan) for name, values in found.items()}


def normalized_mean_errors(errors: np.ndarray, length: np.ndarray) -> np.ndarray:
    """NME of each image, (N,): the mean error of its known points over its length. errors: (N, P) with NaN.

    NaN for an image of which no point, or not the length, is known.
    """
    known = ~np.isnan(errors)
    total, count = np.where(known, errors, 0.0).sum(axis=1), known.sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan) / length


def failure_rate(errors: np.ndarray, limit: float) -> float:
    """The share of images whose NME (N,) is above a limit."""
    return float((errors > limit).mean())


def area_under_curve(errors: np.ndarray, limit: float) -> float:
    """Area under the cumulative error distribution from 0 to a limit, over the limit: 1 where nothing is off.

    Exact: the curve rises by 1 / N at every error e, and each adds limit - e; nothing is interpolated. errors: (N,).
    """
    return float(np.maximum(1 - errors / limit, 0.0).mean())


@dataclass
class Evaluation:
    """What comparing a split's images found. nme: of each image by normaliser, NaN where it has none. main: the
    normaliser of curve, failures and single points. per_point: of each point mean, median and 90th percentile of the
    error over the main length, and how often it is known.
    """

    names: Sequence[str]
    main: str
    nme: dict[str, np.ndarray]
    per_point: list[dict[str, Any]]
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def worst(self) -> list[int]:
        """The images by their error, the worst first; those without one are left out."""
        errors = self.nme[self.main]
        return [int(k) for k in np.argsort(-np.nan_to_num(errors, nan=-1.0), kind="stable") if not np.isnan(errors[k])]

    def to_dict(self) -> dict[str, Any]:
        return {"normalizer": self.main, "per_point": self.per_point}


def choose_normalizer(wanted: str | None, known: Sequence[str]) -> str:
    """The normaliser asked for, or the first that the points have. Raises InputError for one that they have not."""
    if wanted is None:
        return next(name for name in NORMALIZERS if name in known)
    if wanted not in NORMALIZERS:
        raise InputError(f"normalizer is {wanted!r}; expected one of {', '.join(NORMALIZERS)}")
    if wanted not in known:
        raise InputError(f"the points do not say {NORMALIZERS[wanted]} ({wanted}); take one of {', '.join(known)}")
    return wanted


def evaluate(
    compared: Sequence[Compared], names: Sequence[str], eyes: Mapping[str, Any], normalizer: str | None = None
) -> Evaluation:
    """Every metric of some images. Images without a known point count for nothing."""
    truths = np.stack([one.truth for one in compared]) if compared else np.zeros((0, len(names), 2))
    errors = np.stack([one.errors for one in compared]) if compared else np.zeros((0, len(names)))
    by_name = lengths(truths, eyes, [one.diagonal for one in compared])
    main = choose_normalizer(normalizer, list(by_name))
    nme = {name: normalized_mean_errors(errors, length) for name, length in by_name.items()}
    metrics = brief_metrics(nme)
    own = nme[main][~np.isnan(nme[main])]
    if len(own):
        for limit in LIMITS:
            metrics[f"auc_{100 * limit:.0f}_{main}"] = area_under_curve(own, limit)
            metrics[f"failure_rate_{100 * limit:.0f}_{main}"] = failure_rate(own, limit)
        hidden = np.stack([~one.visible for one in compared]) & ~np.isnan(errors)
        relative = errors / by_name[main][:, None]
        if hidden.any() and not np.isnan(relative[hidden]).all():
            metrics[f"nme_hidden_{main}"] = float(np.nanmean(relative[hidden]))
    return Evaluation(names, main, nme, _per_point(errors / by_name[main][:, None], names), metrics)


def brief_metrics(nme: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The mean NME over the images that have one, by normaliser."""
    return {f"nme_{name}": float(np.nanmean(own)) for name, own in nme.items() if not np.isnan(own).all()}


def _per_point(relative: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for name, column in zip(names, relative.T, strict=True):
        own = column[~np.isnan(column)]
        row: dict[str, Any] = {"point": name, "images": len(own), "mean": None, "median": None, "p90": None}
        if len(own):
            row |= {"mean": float(own.mean()), "median": float(np.median(own)), "p90": float(np.quantile(own, 0.9))}
        rows.append(row)
    return rows
