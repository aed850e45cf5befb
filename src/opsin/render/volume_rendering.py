"""Images of volumes: rays marched through a grid with a transfer function, or their largest or mean value.

Levoy 1988, doi:10.1109/38.511. Values between the grid's are trilinear. Each ray takes the middles of steps of one
length from where it enters the box; the density of the transfer function is constant along a step, and what it hides is
what `opsin.ops.compositing` says. Of a ray that has less than `_DARK` of its light left, and of cells in which the
transfer function is empty, nothing more is asked, which changes an image by less than 2e-6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from opsin.errors import InputError, unknown
from opsin.ops.cameras import image_rays
from opsin.ops.rays import intersect_box
from opsin.render.transfer import Transfer
from opsin.render.volumes import Volume

Mode = Literal["composite", "maximum", "average"]
MODES = ("composite", "maximum", "average")
_DARK = 1e-6
_AT_ONCE = 16  # steps of all rays that are taken together
_BLOCK = 4  # cells a side of a block that is known to be empty or not
_AMBIENT = 0.35  # of the light where a surface is seen from its side; the rest comes from the camera


@dataclass(frozen=True, eq=False)
class VolumeImage:
    """values: (H, W, 3) colours, or (H, W) the largest or mean value of each ray. opacity: (H, W); 1 of those.

    asked: how many places of the volume were looked up.
    """

    values: Tensor
    opacity: Tensor
    asked: int


def sample_grid(values: Tensor, points: Tensor) -> Tensor:
    """Trilinear values (N,) or (N, C) of a grid (X, Y, Z) or (C, X, Y, Z) at places (N, 3) in cells, 0 at the first.

    Beyond the middles of the outermost cells it is as in these.
    """
    grid = values if values.ndim == 4 else values[None]
    sizes = points.new_tensor([max(n - 1, 1) for n in grid.shape[1:]])
    unit = (points / sizes * 2 - 1).flip(-1)  # grid_sample has the last axis first
    found = F.grid_sample(
        grid[None], unit[None, None, None], mode="bilinear", padding_mode="border", align_corners=True
    )
    found = found[0, :, 0, 0]
    return found[0] if values.ndim == 3 else found.T


def slopes(volume: Volume) -> Tensor:
    """Central differences of the values, per unit of length: (3, X, Y, Z); one-sided at the borders."""
    return torch.stack(torch.gradient(volume.values, spacing=list(volume.spacing)))


def render_volume(
    volume: Volume,
    transfer: Transfer,
    pose: Tensor,
    intrinsics: Tensor,
    size: tuple[int, int],
    *,
    step: float | None = None,
    shading: bool = False,
    mode: Mode = "composite",
    background: float = 0.0,
) -> VolumeImage:
    """An image of (height, width). Gradients go to the volume's values and to the transfer function.

    step: length of a step, the smallest side of a cell if None. shading: by the slope of the values, light from the
    camera. mode: "composite" by the transfer function; "maximum" or "average" of the values along each ray, which take
    no transfer function. background: grey in [0, 1] behind it all. Raises InputError.
    """
    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    step = min(volume.spacing) if step is None else step
    if not step > 0:
        raise InputError(f"step is {step}; expected a length above 0, such as {min(volume.spacing):g}")
    origins, directions = (one.reshape(-1, 3) for one in image_rays(size, pose.float(), intrinsics.float()))
    directions = directions / torch.linalg.vector_norm(directions, dim=-1, keepdim=True)
    low, high = volume.box
    near, far, met = intersect_box(origins, directions, low, high)
    rays = torch.nonzero(met)[:, 0]
    marched = _Rays(
        origins[rays], directions[rays], near[rays], ((far - near)[rays] / step).round().long().clamp(min=1)
    )
    if mode == "composite":
        return _composite(volume, transfer, marched, rays, size, step, shading, background)
    return _project(volume, marched, rays, size, step, mode)


@dataclass(frozen=True, eq=False)
class _Rays:
    """origins, directions: (R, 3). near: (R,). counts: (R,) of steps."""

    origins: Tensor
    directions: Tensor
    near: Tensor
    counts: Tensor

    def points(self, rays: Tensor, steps: Tensor, step: float, volume: Volume) -> Tensor:
        """Places (N, 3) in cells of the middle of a step of each ray."""
        t = self.near[rays] + (steps + 0.5) * step
        low = volume.box[0]
        inside = self.origins[rays] + t[:, None] * self.directions[rays] - low
        return inside / inside.new_tensor(volume.spacing) - 0.5


def _composite(
    volume: Volume, transfer: Transfer, marched: _Rays, rays: Tensor, size: tuple[int, int], step: float,
    shading: bool, background: float,
) -> VolumeImage:  # fmt: skip
    occupied = _occupied(volume.values.detach(), transfer.least())
    gradients = slopes(volume) if shading else None
    count = len(rays)
    colour, depth = volume.values.new_zeros(count, 3), volume.values.new_zeros(count)  # depth: the optical one so far
    alive, asked = torch.arange(count), 0
    last = int(marched.counts.max()) if count else 0
    for first in range(0, last, _AT_ONCE):
        alive = alive[(marched.counts[alive] > first) & (depth.detach()[alive] < -_log(_DARK))]
        if not len(alive):
            break
        steps = torch.arange(first, min(first + _AT_ONCE, last))
        own, at = alive.repeat_interleave(len(steps)), steps.repeat(len(alive))
        points = marched.points(own, at, step, volume)
        keep = torch.nonzero((at < marched.counts[own]) & _look_up(occupied, points))[:, 0]
        points, place = points[keep], keep
        asked += len(keep)
        colours, densities = transfer(sample_grid(volume.values, points))
        if gradients is not None:
            colours = colours * _light(gradients, points, marched.directions[own[keep]], densities.detach())[:, None]
        taus = depth.new_zeros(len(own)).index_put((place,), densities * step).view(len(alive), -1)
        before = torch.cumsum(taus, -1) - taus + depth[alive, None]
        weights = (torch.exp(-before) * -torch.expm1(-taus)).flatten()[place]
        colour = colour.index_add(0, own[keep], weights[:, None] * colours)
        depth = depth.index_add(0, alive, taus.sum(-1))
    opacity = -torch.expm1(-depth)
    seen = colour + (1 - opacity)[:, None] * background
    image = volume.values.new_full((size[0] * size[1], 3), background).index_copy(0, rays, seen)
    alpha = volume.values.new_zeros(size[0] * size[1]).index_copy(0, rays, opacity)
    return VolumeImage(image.reshape(*size, 3), alpha.reshape(size), asked)


def _log(value: float) -> float:
    return float(torch.log(torch.tensor(value)))


def _light(gradients: Tensor, points: Tensor, directions: Tensor, densities: Tensor) -> Tensor:
    """How much of the camera's light comes back: (N,) in [0, 1]; 1 where nothing is dense or has no slope."""
    dense = torch.nonzero(densities > 0)[:, 0]
    slope = sample_grid(gradients, points[dense])
    length = torch.linalg.vector_norm(slope, dim=-1)
    cosine = (slope * directions[dense]).sum(-1).abs() / length.clamp(min=1e-6)
    light = torch.where(length > 1e-6, _AMBIENT + (1 - _AMBIENT) * cosine, torch.ones_like(cosine))
    return torch.ones_like(densities).index_copy(0, dense, light)


def _occupied(values: Tensor, least: float) -> Tensor:
    """Blocks (X', Y', Z') bool of cells with values above `least`, with the neighbours that are interpolated with."""
    largest = F.max_pool3d(values[None, None], _BLOCK, _BLOCK, ceil_mode=True)
    return F.max_pool3d(largest, 3, 1, padding=1)[0, 0] > least


def _look_up(blocks: Tensor, points: Tensor) -> Tensor:
    place = (points * (1 / _BLOCK)).floor().long()
    x, y, z = (place[:, k].clamp(0, blocks.shape[k] - 1) for k in range(3))
    return blocks.flatten()[(x * blocks.shape[1] + y) * blocks.shape[2] + z]


def _project(
    volume: Volume, marched: _Rays, rays: Tensor, size: tuple[int, int], step: float, mode: str
) -> VolumeImage:
    count, asked = len(rays), 0
    lowest = float(volume.values.detach().min())
    found = volume.values.new_full((count,), lowest if mode == "maximum" else 0.0)
    last = int(marched.counts.max()) if count else 0
    for first in range(0, last, _AT_ONCE):
        alive = torch.nonzero(marched.counts > first)[:, 0]
        steps = torch.arange(first, min(first + _AT_ONCE, last))
        own, at = alive.repeat_interleave(len(steps)), steps.repeat(len(alive))
        inside = (at < marched.counts[own]).view(len(alive), -1)
        values = sample_grid(volume.values, marched.points(own, at, step, volume)).view(len(alive), -1)
        asked += int(inside.sum())
        if mode == "maximum":
            largest = torch.where(inside, values, values.new_tensor(lowest)).amax(-1)
            found = found.index_copy(0, alive, torch.maximum(found[alive], largest))
        else:
            found = found.index_add(0, alive, (values * inside).sum(-1))
    if mode == "average":
        found = found / marched.counts
    image = volume.values.new_full((size[0] * size[1],), lowest).index_copy(0, rays, found)
    seen = volume.values.new_zeros(size[0] * size[1]).index_fill(0, rays, 1.0)
    return VolumeImage(image.reshape(size), seen.reshape(size), asked)
