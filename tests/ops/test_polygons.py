"""Polygons: their areas, and those that two share, held against pixels."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.path import Path as MplPath

from opsin.ops.polygons import shared_area, shared_areas, signed_area
from opsin.ops.quads import quad_of_box

PIXELS = (np.argwhere(np.ones((460, 460))) + 0.5) / 2  # middles of half pixels


@pytest.mark.parametrize("turn", [1, -1])
def test_shared_areas_are_those_of_pixels(turn: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        angles = np.sort(rng.uniform(0, 2 * np.pi, (2, 7)))
        shapes = [
            np.stack([np.cos(a), np.sin(a)], 1) * rng.uniform(20, 90, (7, 1)) + 100 + rng.uniform(-20, 20, 2)
            for a in angles
        ]  # stars: seldom convex
        masks = [MplPath(one).contains_points(PIXELS) for one in shapes]
        assert abs(signed_area(shapes[0])) == pytest.approx(masks[0].sum() / 4, rel=0.01, abs=5)
        wanted = (masks[0] & masks[1]).sum() / 4
        assert shared_area(shapes[0][::turn], shapes[1]) == pytest.approx(wanted, rel=0.01, abs=5)
    assert shared_area(quad_of_box((0, 0, 10, 4)), quad_of_box((5, 1, 20, 9))) == pytest.approx(15)
    assert shared_area(quad_of_box((0, 0, 1, 1)), quad_of_box((3, 3, 4, 4))) == 0


def test_a_corner_of_a_square_is_cut_off() -> None:
    diamond = np.array([[2.0, -1], [5, 2], [2, 5], [-1, 2]])
    shared, own, others = shared_areas([quad_of_box((0, 0, 4, 4)), quad_of_box((9, 9, 10, 10))], [diamond])
    assert shared[:, 0].tolist() == pytest.approx([14, 0])  # 16 less four halves
    assert own.tolist() == [16, 1] and others.tolist() == [18]
    assert [one.shape for one in shared_areas([], [diamond])] == [(0, 1), (0,), (1,)]
