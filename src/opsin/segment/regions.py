"""How well the connected regions of a class are kept apart: of cells whether two were merged, or one was split.

Two pixels are connected where one is beside, above or below the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage, sparse

from opsin.segment.metrics import Array, mean_of_known


def compare_regions(truth: Array, found: Array, number: int) -> tuple[float, float]:
    """The adapted Rand error of the regions of a class in an image, and their variation of information.

    truth, found: maps (H, W) of classes, or (K, H, W) of bool; number: the class.
    """
    one, other = (label(values[number] if values.ndim > 2 else values == number) for values in (truth, found))
    return adapted_rand_error(one, other), variation_of_information(one, other)


def region_scores(images: Sequence[tuple[float, float]]) -> dict[str, float]:
    """The means over images of `compare_regions`."""
    rand, information = (mean_of_known(np.array(column)) for column in zip(*images, strict=True))
    return {"adapted_rand_error": rand, "variation_of_information": information}


def label(mask: Array) -> Array:
    """The connected regions of a mask by their numbers, from 1; 0 elsewhere."""
    found: Array = ndimage.label(mask)[0]  # type: ignore[index]
    return found


def adapted_rand_error(truth: Array, found: Array) -> float:
    """1 - F1 of the pairs of pixels that are of one region. truth, found: labels; where the truth is 0 is left out.

    Arganda-Carreras et al. 2015, "Crowdsourcing the creation of image segmentation algorithms for connectomics". Equal
    to skimage.metrics.adapted_rand_error (tested). NaN where no two pixels of the truth are of one region.
    """
    both, own, theirs = _overlaps(truth, found)
    same, in_truth, in_found = (float((sizes * (sizes - 1)).sum()) for sizes in (both, own, theirs))
    return 1 - 2 * same / (in_truth + in_found) if in_truth else float("nan")


def variation_of_information(truth: Array, found: Array) -> float:
    """H(found | truth) + H(truth | found) in bits. truth, found: labels; where the truth is 0 is left out.

    Meilă 2003, "Comparing clusterings by the variation of information". Equal to the sum of what
    skimage.metrics.variation_of_information gives with ignore_labels=[0] (tested). NaN where there is no region.
    """
    both, own, theirs = _overlaps(truth, found)
    whole = both.sum()
    if not whole:
        return float("nan")
    joint, first, second = (float(-(p * np.log2(p)).sum()) for p in (both / whole, own / whole, theirs / whole))
    return max(0.0, 2 * joint - first - second)


def _overlaps(truth: Array, found: Array) -> tuple[Array, Array, Array]:
    """Pixels of each pair of regions that meet, of each true one, and of each that was found; all above 0."""
    inside = truth > 0
    own, theirs = truth[inside], found[inside]
    table = sparse.coo_array((np.ones(len(own)), (own, theirs))).tocsr() if len(own) else sparse.csr_array((1, 1))
    sums = (np.asarray(table.sum(axis=axis)).ravel() for axis in (1, 0))
    first, second = (values[values > 0] for values in sums)
    return table.data, first, second
