"""How well borders of classes are met: what the area of large regions hides.

A border is where a pixel and one beside, above or below it are of different classes, both known; the pixels on both
sides belong to it, each to that of its own class. The edge of an image is none, since its classes go on beyond.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from opsin.segment.metrics import Array, is_known, mean_of_known

TOLERANCE = 0.0075  # of an image's diagonal: Csurka et al. 2013
FARTHEST = 64  # pixels: farther from a border all are counted together


def compare_borders(truth: Array, found: Array, count: int) -> Array:
    """(2, K): boundary F1 of each class in an image, and its Hausdorff distance; NaN where undefined.

    truth, found: maps (H, W) of classes, or (K, H, W) of bool. Of a class precision is the share of its border, as it
    was found, that lies within a tolerance of the true one, recall the share of the true one within that of the found
    one; F1 is their harmonic mean, 0 where one of the two borders is empty, undefined where both are. Csurka et al.
    2013, "What is a good evaluation measure for semantic segmentation?"; the tolerance is 0.75 % of the image's
    diagonal, and at least one pixel. The Hausdorff distance is that in pixels within which 95 % of each border lie of
    the other, the larger of both directions; undefined where one is empty.
    """
    scores = np.full((2, count), np.nan)
    reach = max(1.0, TOLERANCE * float(np.hypot(*truth.shape[-2:])))
    own, theirs = _borders(truth, truth), _borders(found, truth)
    for k in range(count):
        one, other = _of_class(own, truth, k), _of_class(theirs, found, k)
        if not one.any() and not other.any():
            continue
        scores[0, k] = 0.0
        if not one.any() or not other.any():
            continue
        missed, strayed = _nearest(one, other), _nearest(other, one)
        precision, recall = float((strayed <= reach).mean()), float((missed <= reach).mean())
        if precision + recall:
            scores[0, k] = 2 * precision * recall / (precision + recall)
        scores[1, k] = max(np.percentile(missed, 95), np.percentile(strayed, 95))
    return scores


def border_scores(images: Sequence[Array]) -> dict[str, Array]:
    """`border_f1` and `hausdorff_95` of each class, (K,): the means over images of `compare_borders`."""
    rows = np.stack(images)
    means = [[mean_of_known(column) for column in rows[:, which].T] for which in (0, 1)]
    return {"border_f1": np.array(means[0]), "hausdorff_95": np.array(means[1])}


class ErrorsByDistance:
    """How often pixels are wrong, by how far they are from where the truth changes. Unknown pixels change it too."""

    def __init__(self) -> None:
        self.pixels, self.wrong = np.zeros(FARTHEST + 1, np.int64), np.zeros(FARTHEST + 1, np.int64)

    def add(self, truth: Array, found: Array) -> None:
        """Count the pixels of two maps (H, W) of classes, or (K, H, W) of bool, by whole pixels of distance."""
        changes = _changes(truth)
        border: Array = np.any(changes, axis=0) if truth.ndim > 2 else changes
        known = np.ones(border.shape, bool) if truth.ndim > 2 else is_known(truth)
        wrong = (truth != found).any(axis=0) if truth.ndim > 2 else truth != found
        reach = _distances(border) if border.any() else np.full(border.shape, float(FARTHEST))
        places = np.minimum(reach, FARTHEST).astype(np.int64)
        self.pixels += np.bincount(places[known], minlength=FARTHEST + 1)
        self.wrong += np.bincount(places[known & wrong], minlength=FARTHEST + 1)


def _borders(values: Array, truth: Array) -> Array:
    """Where a map changes between two pixels that are known, in it and in the truth; bool of the map's shape."""
    if values.ndim > 2:
        return _changes(values)
    return _changes(values, is_known(values) & is_known(truth))


def _of_class(borders: Array, values: Array, k: int) -> Array:
    """The border pixels of a class, within it."""
    return borders[k] & values[k] if values.ndim > 2 else borders & (values == k)


def _changes(values: Array, known: Array | None = None) -> Array:
    """Where a pixel differs from one beside, above or below it; both `known`, where that is given."""
    found = np.zeros(values.shape, bool)
    after, before = slice(1, None), slice(None, -1)
    for first, second in (((..., after, slice(None)), (..., before, slice(None))), ((..., after), (..., before))):
        apart = values[first] != values[second]
        if known is not None:
            apart &= known[first] & known[second]
        found[first] |= apart
        found[second] |= apart
    return found


def _nearest(one: Array, other: Array) -> Array:
    """Of each pixel of a border the distance to the nearest of another, (P,), by the pixels of the borders alone."""
    return KDTree(np.argwhere(other)).query(np.argwhere(one))[0]


def _distances(border: Array) -> Array:
    """Of each pixel the distance to the nearest of a border, which has some."""
    found: Array = ndimage.distance_transform_edt(~border)  # type: ignore[assignment]
    return found
