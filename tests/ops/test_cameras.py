"""Cameras: held equal to OpenCV's and to cases worked by hand."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch

from opsin.errors import InputError
from opsin.ops import cameras

LENS = torch.tensor([-0.21, 0.05, 0.003, -0.002], dtype=torch.float64)
INTRINSICS = torch.tensor([310.0, 290.0, 161.5, 118.25], dtype=torch.float64)


def a_pose() -> torch.Tensor:
    eye = torch.tensor([2.0, -3.0, 1.5], dtype=torch.float64)
    return cameras.look_at(eye, torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.0, 0.0, 1.0]))


def test_projection_with_distortion_is_that_of_opencv() -> None:
    points = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (40, 3)))
    pose = a_pose()
    world_to_camera = torch.linalg.inv(cameras.change_axes(pose)).numpy()  # OpenCV's axes
    rotation, _ = cv2.Rodrigues(world_to_camera[:3, :3])
    fx, fy, cx, cy = INTRINSICS.tolist()
    matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    expected, _ = cv2.projectPoints(points.numpy(), rotation, world_to_camera[:3, 3], matrix, LENS.numpy())
    pixels, depths = cameras.project(points, pose, INTRINSICS, LENS)
    np.testing.assert_allclose(pixels.numpy(), expected[:, 0], atol=1e-9)
    np.testing.assert_allclose(depths.numpy(), (points.numpy() @ world_to_camera[2, :3] + world_to_camera[2, 3]))


@pytest.mark.parametrize("lens", [None, LENS])
def test_a_ray_goes_through_the_pixel_it_was_made_of(lens: torch.Tensor | None) -> None:
    pixels = torch.rand(50, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 240
    origins, directions = cameras.pixel_rays(pixels, a_pose(), INTRINSICS, lens)
    for depth in (0.5, 7.0):
        back, depths = cameras.project(origins + depth * directions, a_pose(), INTRINSICS, lens)
        torch.testing.assert_close(back, pixels, atol=1e-8, rtol=0)
        torch.testing.assert_close(depths, torch.full((50,), depth, dtype=torch.float64))


def test_axes_are_opengl_and_the_pixel_centre_is_switched() -> None:
    pose, intrinsics = torch.eye(4), torch.tensor([2.0, 2.0, 2.0, 1.0])  # 4 x 2 pixels
    origins, directions = cameras.image_rays((2, 4), pose, intrinsics)
    assert origins.shape == directions.shape == (2, 4, 3) and not origins.any()
    # the upper left pixel looks to the left, up, and along -z
    torch.testing.assert_close(directions[0, 0], torch.tensor([-0.75, 0.25, -1.0]))
    torch.testing.assert_close(directions[1, 3], torch.tensor([0.75, -0.25, -1.0]))
    _, corner = cameras.image_rays((2, 4), pose, intrinsics, centre=0.0)
    torch.testing.assert_close(corner[0, 0], torch.tensor([-1.0, 0.5, -1.0]))
    torch.testing.assert_close(cameras.change_axes(cameras.change_axes(a_pose())), a_pose())
    torch.testing.assert_close(cameras.change_axes(pose), torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0])))


def test_undistortion_is_that_of_opencv() -> None:
    points = torch.from_numpy(np.random.default_rng(2).uniform(-0.5, 0.5, (30, 2)))
    found = cameras.undistort(cameras.distort(points, LENS), LENS)
    torch.testing.assert_close(found, points, atol=1e-12, rtol=0)
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 200, 1e-14)
    plain = cv2.undistortPoints(points.numpy()[:, None], np.eye(3), LENS.numpy(), criteria=criteria)
    np.testing.assert_allclose(cameras.undistort(points, LENS).numpy(), plain[:, 0], atol=1e-9)


def test_look_at_by_hand_and_what_has_no_direction() -> None:
    eye, up = torch.tensor([0.0, -4.0, 0.0]), torch.tensor([0.0, 0.0, 1.0])
    expected = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, -4], [0, 1, 0, 0], [0, 0, 0, 1]])
    torch.testing.assert_close(cameras.look_at(eye, torch.zeros(3), up), expected)
    for target, upward in ((eye, up), (torch.zeros(3), torch.tensor([0.0, 1.0, 0.0]))):
        with pytest.raises(InputError, match="stands at its target or looks along the upward direction"):
            cameras.look_at(eye, target, upward)


def test_normalised_device_coordinates_are_the_projection_of_appendix_c() -> None:
    """The projected ray passes where the projections of the ray's own points are; infinity is at t = 1."""
    generator = torch.Generator().manual_seed(3)
    pixels = torch.rand(20, 2, generator=generator, dtype=torch.float64) * torch.tensor([320.0, 240.0])
    focal, size, near = 300.0, (240, 320), 1.2
    intrinsics = torch.tensor([focal, focal, 160.0, 120.0], dtype=torch.float64)
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, 3] = torch.tensor([0.1, -0.2, 0.3])
    origins, directions = cameras.pixel_rays(pixels, pose, intrinsics)
    moved, turned = cameras.ndc_rays(origins, directions, focal, size, near)
    torch.testing.assert_close(moved[:, 2], torch.full((20,), -1.0, dtype=torch.float64))
    torch.testing.assert_close(moved[:, 2] + turned[:, 2], torch.full((20,), 1.0, dtype=torch.float64))
    for t in (2.0, 9.0):
        point = origins + t * directions
        x, y, z = point.unbind(-1)
        projected = torch.stack([-2 * focal / 320 * x / z, -2 * focal / 240 * y / z, 1 + 2 * near / z], dim=-1)
        share = 1 - near / -z  # of the ray in the new coordinates
        torch.testing.assert_close(moved + share[:, None] * turned, projected)


def test_paths_look_at_the_middle_from_their_distance() -> None:
    poses = cameras.orbit(8, 4.0, 30.0, centre=(1.0, 2.0, 3.0))
    middle = torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close((poses[:, :3, 3] - middle).norm(dim=-1), torch.full((8,), 4.0))
    torch.testing.assert_close(poses[:, :3, 3] - 4.0 * poses[:, :3, 2], middle.expand(8, 3))
    torch.testing.assert_close(poses[:, 2, 3], torch.full((8,), 3.0 + 4.0 * math.sin(math.radians(30))))
    torch.testing.assert_close(poses.double().det(), torch.ones(8, dtype=torch.float64))
    along = cameras.spiral(a_pose(), (0.3, 0.2, 0.1), 3.0, 12)
    focus = a_pose()[:3, 3] - 3.0 * a_pose()[:3, 2]
    toward = focus - along[:, :3, 3]
    torch.testing.assert_close(toward / toward.norm(dim=-1, keepdim=True), -along[:, :3, 2])
    assert cameras.focal_length(math.pi / 2, 100) == pytest.approx(50)
