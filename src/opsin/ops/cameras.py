"""Cameras: from points to pixels and back, their axes, lens distortion, normalised device coordinates, and paths.

A pose is a matrix (4, 4), or (3, 4), from the camera to the world: its first three columns are the camera's axes, its
last is where the camera stands. Axes are OpenGL's, as in Blender's files: x to the right, y up, and the camera looks
along -z. OpenCV and COLMAP have y down and look along +z; `change_axes` turns one into the other.

Intrinsics are (4,): fx, fy, cx, cy in pixels. A pixel (column u, row v) covers [u, u + 1) x [v, v + 1), so that its
middle is at + 0.5 and the middle of an image is at (W / 2, H / 2). Distortion is (4,): k1, k2, p1, p2 of Brown 1966 as
OpenCV and COLMAP have it, on coordinates with y down.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from opsin.errors import InputError

PIXEL_CENTRE = 0.5  # what is added to a pixel's column and row; 0 in the code published with NeRF
_STEPS = 10  # of Newton's method, which gains more digits than there are within 5 for any lens that sees its own image


def change_axes(poses: Tensor) -> Tensor:
    """Poses (..., 3 or 4, 4) with OpenCV's axes from OpenGL's, or the other way: y and z are turned about."""
    return poses * poses.new_tensor([1.0, -1.0, -1.0, 1.0])


def focal_length(angle: float, pixels: int) -> float:
    """Pixels between the lens and an image of so many pixels that spans an angle in radians."""
    return 0.5 * pixels / math.tan(0.5 * angle)


def look_at(eyes: Tensor, target: Tensor, up: Tensor) -> Tensor:
    """Poses (..., 4, 4) of cameras at `eyes` (..., 3) that look at `target` with `up` upwards.

    Raises InputError for a camera at its target, or that looks along `up`.
    """
    eyes, target, up = (torch.as_tensor(one, dtype=eyes.dtype) for one in (eyes, target, up))
    back = eyes - target
    right = torch.linalg.cross(up.expand_as(back), back, dim=-1)
    lengths = torch.linalg.vector_norm(right, dim=-1, keepdim=True)
    if not (lengths > 1e-9 * up.norm() * back.norm(dim=-1, keepdim=True)).all():
        raise InputError("a camera stands at its target or looks along the upward direction; move it, or give another")
    back = back / torch.linalg.vector_norm(back, dim=-1, keepdim=True)
    right = right / lengths
    columns = torch.stack([right, torch.linalg.cross(back, right, dim=-1), back, eyes], dim=-1)
    last = columns.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*columns.shape[:-2], 1, 4)
    return torch.cat([columns, last], dim=-2)


def distort(points: Tensor, distortion: Tensor) -> Tensor:
    """Where a lens puts points (..., 2) of the plane at distance 1, y down. distortion: (..., 4) as k1, k2, p1, p2.

    x' = x (1 + k1 r^2 + k2 r^4) + 2 p1 x y + p2 (r^2 + 2 x^2), and y' likewise with p1 and p2 exchanged.
    """
    x, y = points.unbind(-1)
    k1, k2, p1, p2 = distortion.unbind(-1)
    square = x * x + y * y
    radial = 1 + square * (k1 + square * k2)
    return torch.stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (square + 2 * x * x),
            y * radial + 2 * p2 * x * y + p1 * (square + 2 * y * y),
        ],
        dim=-1,
    )


def undistort(points: Tensor, distortion: Tensor) -> Tensor:
    """The inverse of `distort`, by Newton's method: (..., 2).

    Far outside of the image a lens may fold, so that there is none; what is returned there is finite and of no use.
    """
    found = points
    k1, k2, p1, p2 = distortion.unbind(-1)
    for _ in range(_STEPS):
        x, y = found.unbind(-1)
        square = x * x + y * y
        radial, slope = 1 + square * (k1 + square * k2), 2 * k1 + 4 * k2 * square
        xx = radial + slope * x * x + 2 * p1 * y + 6 * p2 * x
        yy = radial + slope * y * y + 2 * p2 * x + 6 * p1 * y
        xy = slope * x * y + 2 * p1 * x + 2 * p2 * y
        determinant = xx * yy - xy * xy
        determinant = torch.where(determinant.abs() < 1e-6, torch.full_like(determinant, 1e-6), determinant)
        off_x, off_y = (distort(found, distortion) - points).unbind(-1)
        step = torch.stack([(yy * off_x - xy * off_y) / determinant, (xx * off_y - xy * off_x) / determinant], dim=-1)
        found = found - step.clamp(-1, 1)
    return found


def project(
    points: Tensor, pose: Tensor, intrinsics: Tensor, distortion: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Where a camera sees points (..., 3): pixels (..., 2) as x, y, and depths (...) along its axis.

    Where a depth is not above 0 the point lies behind the camera, and its pixel means nothing.
    """
    inside = (points - pose[..., :3, 3]) @ pose[..., :3, :3]  # R^T (p - t), as rows
    depths = -inside[..., 2]
    plane = torch.stack([inside[..., 0], -inside[..., 1]], dim=-1) / depths[..., None]
    if distortion is not None:
        plane = distort(plane, distortion)
    return plane * intrinsics[..., :2] + intrinsics[..., 2:], depths


def pixel_rays(
    pixels: Tensor, pose: Tensor, intrinsics: Tensor, distortion: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The rays through places (..., 2) of an image, as x, y in pixels: origins and directions (..., 3).

    pose (..., 3 or 4, 4), intrinsics (..., 4) and distortion (..., 4) may be one camera's or one of each ray. A
    direction goes one unit along the camera's axis, as published: its length is not 1, and what is measured along it is
    depth. `project` of origin + t direction is the place that was given, at depth t.
    """
    plane = (pixels - intrinsics[..., 2:]) / intrinsics[..., :2]
    if distortion is not None:
        plane = undistort(plane, distortion)
    inside = torch.stack([plane[..., 0], -plane[..., 1], -torch.ones_like(plane[..., 0])], dim=-1)
    directions = (pose[..., :3, :3] * inside[..., None, :]).sum(-1)
    return pose[..., :3, 3].expand_as(directions), directions


def image_rays(
    size: tuple[int, int],
    pose: Tensor,
    intrinsics: Tensor,
    distortion: Tensor | None = None,
    *,
    centre: float = PIXEL_CENTRE,
) -> tuple[Tensor, Tensor]:
    """The rays of all pixels of an image of (height, width): origins and directions (H, W, 3), see `pixel_rays`.

    centre: 0.5 through the middle of each pixel; 0 through its upper left corner, as the code published with NeRF.
    """
    rows, columns = (torch.arange(n, dtype=pose.dtype, device=pose.device) + centre for n in size)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return pixel_rays(torch.stack([x, y], dim=-1), pose, intrinsics, distortion)


def ndc_rays(
    origins: Tensor, directions: Tensor, focal: float, size: tuple[int, int], near: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Rays in normalised device coordinates: origins on the near plane at z = -1, infinity at z = 1 and t = 1.

    Mildenhall et al. 2020, arXiv:2003.08934, appendix C. For scenes before a camera that looks along -z of the world,
    with the principal point in the middle. size: (height, width) in pixels, as `focal`. The far plane is at infinity:
    a depth of z is at t = 1 - near / z.
    """
    start = origins - ((near + origins[..., 2]) / directions[..., 2])[..., None] * directions
    across, along = 2 * focal / size[1], 2 * focal / size[0]
    x, y, z = start.unbind(-1)
    dx, dy, dz = directions.unbind(-1)
    moved = torch.stack([-across * x / z, -along * y / z, 1 + 2 * near / z], dim=-1)
    turned = torch.stack(
        [-across * (dx / dz - x / z), -along * (dy / dz - y / z), (-2 * near / z).expand_as(dz)], dim=-1
    )
    return moved, turned


def orbit(
    count: int, radius: float, elevation: float = 30.0, centre: tuple[float, float, float] = (0.0, 0.0, 0.0),
    up: tuple[float, float, float] = (0.0, 0.0, 1.0),
) -> Tensor:  # fmt: skip
    """Poses (count, 4, 4) of cameras on a circle about `up`, all looking at its middle. elevation: degrees above it."""
    axis = torch.tensor(up, dtype=torch.float64)
    axis = axis / axis.norm()
    first = torch.linalg.cross(axis, torch.eye(3, dtype=torch.float64)[int(axis.abs().argmin())], dim=0)
    first = first / first.norm()
    second = torch.linalg.cross(axis, first, dim=0)
    angles = torch.arange(count, dtype=torch.float64) * (2 * math.pi / count)
    height = math.radians(elevation)
    flat = torch.cos(angles)[:, None] * first + torch.sin(angles)[:, None] * second
    middle = torch.tensor(centre, dtype=torch.float64)
    eyes = middle + radius * (math.cos(height) * flat + math.sin(height) * axis)
    return look_at(eyes, middle, axis).float()


def spiral(pose: Tensor, radii: tuple[float, float, float], focus: float, count: int, turns: int = 2) -> Tensor:
    """Poses (count, 4, 4) about one, on a spiral along its axes, all looking at the point `focus` before it.

    As NeRF shows scenes that are seen from the front. radii: how far they go to the right, up and back.
    """
    angles = torch.arange(count, dtype=pose.dtype) * (2 * math.pi * turns / count)
    offsets = torch.stack([torch.cos(angles), -torch.sin(angles), -torch.sin(0.5 * angles)], dim=-1)
    eyes = pose[:3, 3] + (offsets * pose.new_tensor(radii)) @ pose[:3, :3].T
    return look_at(eyes, pose[:3, 3] - focus * pose[:3, 2], pose[:3, 1])
