"""Views of shapes against closed forms: where rays of a camera meet a ball, whatever says where the ball is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from opsin.ops.cameras import project
from opsin.render.camera_paths import path_cameras
from opsin.render.distance_field import first_crossings
from opsin.render.shape_network import BoxedShape
from opsin.render.shape_views import render_shape, shape_cameras

_LOW, _HIGH = [-1.0, 0.0, 1.0], [1.0, 2.0, 3.0]
_RADIUS = 0.7


class Ball(BoxedShape):
    """A ball in the middle of its box."""

    def __init__(self, kind: str) -> None:
        super().__init__(box=[*_LOW, *_HIGH], depth=1, width=2)
        self.kind = kind

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        distance = (points - self.middle).norm(dim=1) - _RADIUS
        return distance if self.kind == "distance" else -9 * distance


@pytest.mark.parametrize("kind", ["distance", "occupancy"])
def test_a_ball_is_seen_where_it_is(kind: str) -> None:
    cameras = path_cameras("orbit", *shape_cameras(_LOW, _HIGH), 3, 24)
    pose, (fx, fy, cx, cy) = cameras.poses[1].double().numpy(), cameras.intrinsics.tolist()
    with torch.inference_mode():  # as within a prediction
        found = render_shape(Ball(kind), cameras.poses[1], cameras.intrinsics, cameras.size)
    centre, hits = np.array([0.0, 1, 2]), 0
    for row in range(24):
        for column in range(24):
            way = pose[:3, :3] @ [(column + 0.5 - cx) / fx, -(row + 0.5 - cy) / fy, -1]
            offset = pose[:3, 3] - centre
            a, b, c = way @ way, 2 * offset @ way, offset @ offset - _RADIUS**2
            root = b * b - 4 * a * c
            assert bool(found["opacity"][row, column]) == (root > 0)
            if root <= 0:
                assert found["color"][row, column].tolist() == [1, 1, 1] and found["depth"][row, column].isnan()
                continue
            t = (-b - root**0.5) / (2 * a)
            normal = (offset + t * way) / _RADIUS
            light = 0.25 + 0.75 * abs(normal @ way) / a**0.5
            hits += 1
            if light > 0.5:  # at the rim a small error of depth is a large one of the normal
                assert float(found["depth"][row, column]) == pytest.approx(t, abs=2e-3)
                np.testing.assert_allclose(found["normals"][row, column], normal, atol=4e-3)
                np.testing.assert_allclose(
                    found["color"][row, column], np.multiply((0.75, 0.75, 0.78), light), atol=4e-3
                )
    assert hits > 60


def test_the_first_change_is_found_or_none() -> None:
    origins = torch.tensor([[0.0, 0, 0], [0.0, 0, 0], [2.5, 0, 0], [0.0, 5, 0]])
    along = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0], [1.0, 0, 0], [1.0, 0, 0]])

    def slabs(points: torch.Tensor) -> torch.Tensor:  # from 2.3 to 3 and from 6 to 7, where y is small
        x, y = points[:, 0], points[:, 1]
        return torch.where((((x > 2.3) & (x < 3)) | ((x > 6) & (x < 7))) & (y < 1), 1.0, -1.0)

    t, met = first_crossings(slabs, origins, along, torch.zeros(4), torch.full((4,), 10.0), steps=20, halvings=12)
    assert met.tolist() == [True, False, True, False]
    assert float(t[0]) == pytest.approx(2.3, abs=2e-4) and float(t[2]) == 0


@pytest.mark.parametrize("path", ["orbit", "spiral"])
def test_cameras_see_the_whole_mesh(path: str) -> None:
    low, high = [-0.4, -3.4, 0.6], [4.4, 1.4, 5.4]  # about a mesh as large as the corners
    cameras = path_cameras(path, *shape_cameras(low, high), 5, None)
    corners = torch.tensor([[x, y, z] for x in (0.0, 4) for y in (-3.0, 1) for z in (1.0, 5)])
    for pose in cameras.poses:
        pixels, depths = project(corners, pose, cameras.intrinsics)
        assert bool((depths > 0).all()) and bool((pixels > 0).all()) and bool((pixels < 200).all())
        assert float(pose[1, 1]) > 0.5  # y is upwards
