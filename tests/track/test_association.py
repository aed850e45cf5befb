"""Affinities against torchvision and plain loops, assignments against every permutation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou, distance_box_iou, generalized_box_iou

from opsin.track import affinity, association


def boxes(seed: int, count: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 60, (2, count))
    return np.concatenate([corners, corners + random.uniform(10, 60, (2, count))])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(affinity.iou, box_iou), (affinity.giou, generalized_box_iou), (affinity.diou, distance_box_iou)],
)
def test_overlaps_equal_torchvision(ours, theirs) -> None:  # type: ignore[no-untyped-def]
    tracks, detections = boxes(0, 5), boxes(1, 7)
    tracks[:, 0] = detections[:, 3]  # one the same, one far away
    tracks[:, 1] += 500
    expected = theirs(torch.tensor(tracks.T), torch.tensor(detections.T)).numpy()
    np.testing.assert_allclose(ours(tracks, detections), expected, atol=1e-6)  # theirs adds 1e-7 to what it divides by
    assert ours(tracks, detections[:, :0]).shape == (5, 0)
    assert ours(tracks[:, :0], detections).shape == (0, 7)


def test_centre_distance_is_a_share_of_the_diagonal() -> None:
    track, detection = np.array([[0.0], [0], [30], [40]]), np.array([[30.0], [40], [60], [80]])
    assert affinity.centre_distance(track, detection).item() == pytest.approx(-1.0)


def test_cosine_equals_its_formula() -> None:
    one, other = np.random.default_rng(0).normal(size=(2, 3, 8))
    found = affinity.cosine(one, other)
    for i, j in np.ndindex(3, 3):
        assert found[i, j] == pytest.approx(one[i] @ other[j] / math.hypot(*one[i]) / math.hypot(*other[j]))
    assert affinity.cosine(np.zeros((1, 8)), other).tolist() == [[0.0] * 3]


def test_direction_consistency_worked_by_hand() -> None:
    def box(x: float, y: float) -> list[float]:
        return [x - 1, y - 1, x + 1, y + 1]

    earlier = np.array([box(10, 10)] * 2).T
    detections = np.array([box(20, 10), box(10, 20), box(0, 10), box(20, 20)]).T  # ahead, across, behind, half ahead
    right = np.array([[1.0, 0.0], [0.0, 0.0]])  # the second has not moved
    found = affinity.direction_consistency(earlier, right, detections)
    np.testing.assert_allclose(found, [[0.5, 0.0, -0.5, 0.25], [0.0] * 4], atol=1e-3)


def test_appearance_counts_only_near_by_and_if_alike() -> None:
    overlap, likeness = np.array([[0.6, 0.6, 0.1]]), np.array([[0.9, 0.2, 0.9]])
    found = affinity.overlap_or_appearance(overlap, likeness, overlap >= 0.5, 0.75)
    np.testing.assert_allclose(found, [[0.95, 0.6, 0.1]])


def best_total(matrix: np.ndarray) -> float:
    """The highest sum of any matching of a (N, M) matrix, N <= M, that may leave out what is negative."""
    return max(
        sum(max(matrix[row, column], 0.0) for row, column in enumerate(columns))
        for columns in itertools.permutations(range(matrix.shape[1]), matrix.shape[0])
    )


@pytest.mark.parametrize("seed", range(8))
def test_hungarian_equals_every_permutation(seed: int) -> None:
    matrix = np.random.default_rng(seed).uniform(size=(4, 5))
    least = 0.35
    pairs = association.hungarian(matrix, least)
    assert (matrix[pairs.rows, pairs.columns] > least).all()
    assert (matrix[pairs.rows, pairs.columns] - least).sum() == pytest.approx(best_total(matrix - least))
    flipped = association.hungarian(matrix.T, least)
    assert sorted(zip(flipped.columns, flipped.rows, strict=True)) == list(zip(*pairs, strict=True))


def test_hungarian_would_rather_make_one_good_pair() -> None:
    # Two pairs that barely pass total 0.84, more than the 0.8 of one alone; over the gate they are worth 0.04 to 0.4.
    matrix = np.array([[0.8, 0.42], [0.42, 0.0]])
    assert list(zip(*association.hungarian(matrix, 0.4), strict=True)) == [(0, 0)]


def test_a_gate_after_the_assignment_costs_a_pair() -> None:
    # Alone, 0-0 is the best; the total is higher by 0-1 and 1-0, of which the gate then leaves one.
    matrix = np.array([[0.9, 0.8], [0.85, 0.2], [0.1, 0.0]])
    assert association.hungarian_then_gate(matrix, 0.3).rows.tolist() == [0, 1]
    matrix = np.array([[0.5, 0.45], [0.31, 0.2]])
    pairs = association.hungarian_then_gate(matrix, 0.3)
    assert list(zip(*pairs, strict=True)) == [(0, 1), (1, 0)]
    matrix = np.array([[0.5, 0.45], [0.29, 0.2]])
    pairs = association.hungarian_then_gate(matrix, 0.3)
    assert list(zip(*pairs, strict=True)) == [(0, 1)]  # 0.45 + 0.29 is the most, and 0.29 is rejected


def test_greedy_takes_the_best_first() -> None:
    matrix = np.array([[0.9, 0.8], [0.85, 0.2]])
    assert list(zip(*association.greedy(matrix, 0.3), strict=True)) == [(0, 0)]
    assert list(zip(*association.greedy(matrix, 0.2), strict=True)) == [(0, 0), (1, 1)]


def test_in_a_cascade_the_last_seen_choose_first() -> None:
    matrix = np.array([[0.9, 0.1], [0.6, 0.5], [0.8, 0.7]])
    pairs = association.cascade(matrix, 0.3, np.array([3, 1, 2]), association.hungarian)
    assert list(zip(*pairs, strict=True)) == [(1, 0), (2, 1)]


@pytest.mark.parametrize("rule", [association.hungarian, association.hungarian_then_gate, association.greedy])
def test_nothing_has_no_pairs(rule) -> None:  # type: ignore[no-untyped-def]
    for shape in ((0, 0), (3, 0), (0, 2)):
        assert len(rule(np.zeros(shape), 0.3).rows) == 0
