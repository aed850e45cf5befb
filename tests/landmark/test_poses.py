"""Poses: shapes that are turned more come later, whatever their size, place and tilt; rare ones come as often."""

from __future__ import annotations

import numpy as np

from opsin.landmark.poses import BalancedOrder, align, bins_of, poses_of

FACE = np.array([[-3.0, 0, 1], [-1, 0, 2], [1, 0, 2], [3, 0, 1], [0, 2, 4], [-2, 5, 1.5], [2, 5, 1.5], [0, 8, 1]])


def turned(angle: float, random: np.random.Generator) -> np.ndarray:
    """The face seen from the side by an angle, tilted, scaled and moved at random."""
    x = FACE[:, 0] * np.cos(angle) + FACE[:, 2] * np.sin(angle)
    tilt = random.uniform(-0.4, 0.4)
    turn = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
    return np.stack([x, FACE[:, 1]], axis=1) @ turn * random.uniform(5, 20) + random.uniform(-90, 90, 2)


def test_aligning_undoes_place_size_and_tilt() -> None:
    random = np.random.default_rng(0)
    mean = FACE[:, :2] - FACE[:, :2].mean(axis=0)
    for _ in range(3):
        assert np.allclose(align(turned(0.0, random), mean), mean)


def test_the_first_component_is_the_turn_of_the_head() -> None:
    random = np.random.default_rng(1)
    angles = random.uniform(-0.9, 0.9, 120)
    shapes = np.stack([turned(angle, random) for angle in angles])
    assert abs(np.corrcoef(poses_of(shapes), angles)[0, 1]) > 0.98
    shapes[::4, 3] = np.nan
    assert abs(np.corrcoef(poses_of(shapes), angles)[0, 1]) > 0.9


def test_rare_bins_are_filled_up_and_every_example_comes() -> None:
    bins = bins_of(np.array([0.0, 0.1, 0.1, 0.2, 0.2, 0.25, 0.9, 1.0]), 2)
    assert bins.tolist() == [0] * 6 + [1] * 2
    order = BalancedOrder(bins, 4, 0)
    epoch = order(0)
    places = np.concatenate(epoch)
    assert [len(batch) for batch in epoch] == [4, 4, 4] and set(places.tolist()) == set(range(8))
    assert (bins[places] == 1).sum() == 6
    assert all((one == other).all() for one, other in zip(epoch, order(0), strict=True))
    assert any((one != other).any() for one, other in zip(epoch, order(1), strict=True))
    lonely = BalancedOrder(np.array([0] * 100 + [1]), 10, 0)
    assert lonely.wanted == 100 and len(lonely(3)) == 20
