"""Borders against a plain version pixel by pixel, regions against scikit-image, both by scenes worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from skimage import metrics as reference

from opsin.segment.borders import ErrorsByDistance, border_scores, compare_borders
from opsin.segment.metrics import mean_of_known
from opsin.segment.regions import adapted_rand_error, compare_regions, label, region_scores, variation_of_information

Array = np.ndarray
Pixel = tuple[int, int]


def blobs(seed: int, size: tuple[int, int] = (20, 26), count: int = 3) -> Array:
    """Patches of classes."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, count, (size[0] // 4 + 1, size[1] // 4 + 1))
    return np.kron(coarse, np.ones((4, 4), int))[: size[0], : size[1]].astype(np.uint8)


def noisy(values: Array, seed: int, count: int = 3, share: float = 0.1) -> Array:
    random = np.random.default_rng(seed)
    return np.where(random.random(values.shape) < share, random.integers(0, count, values.shape), values).astype(
        np.uint8
    )


def plain_border(values: Array, truth: Array, k: int) -> list[Pixel]:
    height, width = values.shape
    found = []
    for y in range(height):
        for x in range(width):
            if values[y, x] != k or truth[y, x] == 255:
                continue
            beside = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            if any(
                0 <= i < height and 0 <= j < width and values[i, j] not in (k, 255) and truth[i, j] != 255
                for i, j in beside
            ):
                found.append((y, x))
    return found


def plain_scores(truth: Array, found: Array, k: int) -> tuple[float, float]:
    one, other = plain_border(truth, truth, k), plain_border(found, truth, k)
    if not one and not other:
        return math.nan, math.nan
    if not one or not other:
        return 0.0, math.nan
    missed, strayed = ([min(math.dist(p, q) for q in b) for p in a] for a, b in ((one, other), (other, one)))
    reach = max(1.0, 0.0075 * math.hypot(*truth.shape))
    recall, precision = (sum(d <= reach for d in distances) / len(distances) for distances in (missed, strayed))
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return f1, max(float(np.percentile(missed, 95)), float(np.percentile(strayed, 95)))


def test_borders_equal_a_plain_version() -> None:
    rows, expected = [], []
    for seed in range(4):
        truth = blobs(seed)
        found = noisy(np.roll(truth, seed, axis=1), seed)
        truth[np.random.default_rng(seed).random(truth.shape) < 0.05] = 255
        found[0, :3] = 255
        rows.append(compare_borders(truth, found, 4))
        expected.append([plain_scores(truth, found, k) for k in range(4)])
    for place, name in enumerate(("border_f1", "hausdorff_95")):
        table = np.array(expected)[:, :, place]
        means = [np.nanmean(column) if not np.isnan(column).all() else math.nan for column in table.T]
        assert border_scores(rows)[name] == pytest.approx(means, nan_ok=True)


def test_a_border_that_moved_by_three_pixels() -> None:
    truth, found = np.zeros((2, 40, 40), np.uint8)
    truth[:, 20:], found[:, 23:] = 1, 1
    assert compare_borders(truth, found, 2).tolist() == [[0, 0], [3, 3]]  # 0.75 % of the diagonal is 0.4 pixels
    found[:, 21:] = 1
    assert compare_borders(truth, found, 2).tolist() == [[1, 1], [1, 1]]


def test_the_edge_of_an_image_and_of_what_is_known_is_no_border() -> None:
    truth = np.zeros((10, 10), np.uint8)
    assert np.isnan(compare_borders(truth, truth, 2)).all()
    truth[5:] = 255
    assert np.isnan(compare_borders(truth, np.zeros_like(truth), 2)).all()


def test_a_class_that_was_not_found_has_no_border_there() -> None:
    truth = np.zeros((10, 10), np.uint8)
    truth[4:6, 4:6] = 1
    f1, hausdorff = compare_borders(truth, np.zeros_like(truth), 2)
    assert f1.tolist() == [0, 0] and np.isnan(hausdorff).all()


def test_borders_of_classes_that_overlap_are_those_of_each() -> None:
    truth, found = blobs(1), noisy(blobs(1), 2)
    one, other = (values[None] == np.arange(3)[:, None, None] for values in (truth, found))
    assert compare_borders(one, other, 3) == pytest.approx(compare_borders(truth, found, 3), nan_ok=True)


def test_errors_by_distance() -> None:
    truth, found = np.zeros((2, 6, 12), np.uint8)
    truth[:, 6:] = 1
    found[:, 5:] = 1  # the pixels beside the border, on the left
    found[0, 0], truth[1, 1] = 1, 255
    errors = ErrorsByDistance()
    errors.add(truth, found)
    assert errors.pixels.sum() == 71 and errors.wrong.sum() == 7
    assert errors.wrong[0] == 6  # all right beside the border
    assert errors.pixels[0] == 12 + 4  # both sides of the border, and around the unknown pixel


def test_errors_by_distance_without_a_border() -> None:
    errors = ErrorsByDistance()
    errors.add(np.zeros((3, 4), np.uint8), np.zeros((3, 4), np.uint8))
    assert errors.pixels[-1] == 12


@pytest.mark.parametrize("seed", range(4))
def test_regions_equal_scikit_image(seed: int) -> None:
    truth, found = (label(noisy(blobs(seed), seed + other, share=0.05) == 1) for other in (0, 9))
    expected, _, _ = reference.adapted_rand_error(truth, found)
    assert adapted_rand_error(truth, found) == pytest.approx(expected)
    split, merged = reference.variation_of_information(truth, found, ignore_labels=[0])
    assert variation_of_information(truth, found) == pytest.approx(split + merged)


def test_two_cells_that_were_merged() -> None:
    truth = np.ones((4, 9), np.uint8)
    truth[:, 4] = 0
    assert compare_regions(truth, truth, 1) == (0.0, 0.0)
    rand, information = compare_regions(truth, np.ones_like(truth), 1)
    # 2 regions of 16 pixels in one of 32: precision (2 * 16 * 15) / (32 * 31), recall 1
    precision = 480 / 992
    assert rand == pytest.approx(1 - 2 * precision / (1 + precision))
    assert information == pytest.approx(1.0)
    assert region_scores([(rand, 1.0), (np.nan, np.nan), (0.0, 0.5)]) == {
        "adapted_rand_error": pytest.approx(rand / 2),
        "variation_of_information": pytest.approx(0.75),
    }


def test_no_region_is_undefined() -> None:
    found = compare_regions(np.zeros((4, 4), np.uint8), np.ones((4, 4), np.uint8), 1)
    assert np.isnan(found).all()
    assert np.isnan(mean_of_known(np.array(found)))
