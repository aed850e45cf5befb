"""Maps held against the truth image by image, and what is made of all of them: for a run and for files alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from opsin.errors import unknown
from opsin.segment.borders import border_scores, compare_borders
from opsin.segment.metrics import Array, Counts, Evaluation, confusion_matrix, evaluate
from opsin.segment.regions import compare_regions, region_scores


@dataclass
class Compared:
    """What is kept of an image. loss: of it by itself, where it was evaluated by outputs.

    pixels: what was found of those whose class is known, and what they are, for metrics of the user's own.
    """

    counts: Counts
    borders: Array | None = None
    regions: tuple[float, float] | None = None
    loss: float | None = None
    pixels: tuple[Array, Array] | None = None


class Comparison:
    """Compares maps (H, W) of classes, or where these overlap (K, H, W) of bool.

    borders: compare the borders of classes too. regions: the name of a class whose connected regions are compared too.
    confusion: of all maps so far, see `confusion_matrix`; None where classes overlap. Raises InputError for a class
    that there is not.
    """

    def __init__(
        self, classes: Sequence[str], overlapping: bool, *, borders: bool = False, regions: str | None = None
    ) -> None:
        if regions is not None and regions not in classes:
            raise unknown("class of regions", regions, classes)
        self.classes, self.overlapping, self.borders = classes, overlapping, borders
        self.number = None if regions is None else list(classes).index(regions)
        count = len(classes)
        self.confusion = None if overlapping else np.zeros((count, count + 1), np.int64)

    def compare(self, truth: Array, found: Array) -> Compared:
        """One image. Raises InputError for another size, and for a number that is no class."""
        count = len(self.classes)
        if self.confusion is None:
            counts = Counts.of_masks(truth, found)
        else:
            confusion = confusion_matrix(truth, found, count)
            self.confusion += confusion
            counts = Counts.of(confusion)
        borders = compare_borders(truth, found, count) if self.borders else None
        regions = None if self.number is None else compare_regions(truth, found, self.number)
        return Compared(counts, borders, regions)

    def evaluate(self, images: Sequence[Compared]) -> Evaluation:
        """All metrics of the images that were compared."""
        borders = [one.borders for one in images if one.borders is not None]
        regions = [one.regions for one in images if one.regions is not None]
        return evaluate(
            self.classes,
            [one.counts for one in images],
            self.confusion,
            by_class=border_scores(borders) if borders else {},
            others=region_scores(regions) if regions else {},
        )
