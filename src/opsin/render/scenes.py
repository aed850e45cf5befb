"""Built-in scenes in closed form: spheres, boxes, a constructed solid and a cloud, with exact images and depths.

A ray meets a sphere, a box or a cylinder in one interval, and what is cut out of a solid is cut out of intervals, so
that depth and normal of each pixel are exact. The cloud is a sum of Gaussian densities, whose integral along a ray is
a sum of error functions. z is upwards; everything lies in the cube from -1 to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from opsin.errors import unknown
from opsin.ops.cameras import image_rays
from opsin.ops.rays import intersect_box, intersect_sphere

_LIGHT = (0.48, -0.36, 0.8)  # towards it, of length 1
_AMBIENT, _DIFFUSE, _GLOSS, _POWER = 0.35, 0.55, 0.25, 16
_INF = float("inf")

Hit = tuple[
    Tensor, Tensor, Tensor
]  # depth (N,), infinite where nothing is; normal (N, 3); colour of the surface (N, 3)


@dataclass(frozen=True)
class Ball:
    """A sphere."""

    centre: tuple[float, float, float]
    radius: float
    colour: tuple[float, float, float]

    def hit(self, origins: Tensor, directions: Tensor) -> Hit:
        centre = origins.new_tensor(self.centre)
        near, _, met = intersect_sphere(origins, directions, centre, self.radius)
        points = origins + near[:, None] * directions
        normals = (points - centre) / self.radius
        colours = origins.new_tensor(self.colour).expand_as(points)
        return torch.where(met, near, near.new_tensor(_INF)), normals, colours

    def distance(self, points: Tensor) -> Tensor:
        return torch.linalg.vector_norm(points - points.new_tensor(self.centre), dim=-1) - self.radius


@dataclass(frozen=True)
class Block:
    """A box along the axes, with a pattern of squares."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    colour: tuple[float, float, float]
    square: float = 0.25

    def hit(self, origins: Tensor, directions: Tensor) -> Hit:
        low, high = origins.new_tensor(self.low), origins.new_tensor(self.high)
        near, _, met = intersect_box(origins, directions, low, high)
        points = origins + near[:, None] * directions
        normals = _box_normals(points, low, high)
        odd = (torch.floor((points - 1e-4 * normals) / self.square).sum(-1) % 2)[:, None]
        colours = origins.new_tensor(self.colour) * (1 - 0.45 * odd)
        return torch.where(met, near, near.new_tensor(_INF)), normals, colours

    def distance(self, points: Tensor) -> Tensor:
        low, high = points.new_tensor(self.low), points.new_tensor(self.high)
        off = (points - (low + high) / 2).abs() - (high - low) / 2
        outside = torch.linalg.vector_norm(off.clamp(min=0), dim=-1)
        return outside + off.amax(-1).clamp(max=0)


@dataclass(frozen=True)
class Solid:
    """A box rounded by a sphere, with a cylinder along each axis cut out: the classic of constructed solids.

    half: of the box; radius: of the sphere; bore: of the cylinders.
    """

    half: float = 0.75
    radius: float = 0.98
    bore: float = 0.42

    def hit(self, origins: Tensor, directions: Tensor) -> Hit:
        zero, corner = origins.new_zeros(3), origins.new_full((3,), self.half)
        box_near, box_far, in_box = intersect_box(origins, directions, -corner, corner)
        ball_near, ball_far, in_ball = intersect_sphere(origins, directions, zero, self.radius)
        t, end = torch.maximum(box_near, ball_near), torch.minimum(box_far, ball_far)
        kind = torch.where(box_near >= ball_near, 0, 1)  # which surface is met: the box, the sphere, or a bore
        bores = [self._bore(origins, directions, axis) for axis in range(3)]
        for _ in range(3):  # out of one bore a ray may come into another
            for axis, (enter, leave) in enumerate(bores):
                inside = (t >= enter - 1e-9) & (t < leave)
                t, kind = torch.where(inside, leave, t), torch.where(inside, 2 + axis, kind)
        met = in_box & in_ball & (t < end)
        points = origins + t[:, None] * directions
        normals = _box_normals(points, -corner, corner)
        normals = torch.where((kind == 1)[:, None], points / self.radius, normals)
        for axis in range(3):
            inward = -points.index_fill(1, torch.tensor([axis], device=points.device), 0.0) / self.bore
            normals = torch.where((kind == 2 + axis)[:, None], inward, normals)
        table = origins.new_tensor([[0.85, 0.3, 0.25], [0.9, 0.75, 0.3], *[[0.25, 0.5, 0.85]] * 3])
        return torch.where(met, t, t.new_tensor(_INF)), normals, table[kind]

    def _bore(self, origins: Tensor, directions: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """Where rays enter and leave the endless cylinder along an axis; an empty interval where they miss it."""
        keep = [k for k in range(3) if k != axis]
        start, way = origins[:, keep], directions[:, keep]
        a = way.square().sum(-1).clamp(min=1e-30)
        half = (start * way).sum(-1)
        root = half * half - a * (start.square().sum(-1) - self.bore**2)
        reach = root.clamp(min=0).sqrt()
        none = root.new_tensor(-_INF)
        met = root > 0
        return torch.where(met, (-half - reach) / a, -none), torch.where(met, (-half + reach) / a, none)

    def distance(self, points: Tensor) -> Tensor:
        """Negative inside and positive outside; near the surface the distance, elsewhere at most that."""
        corner = (self.half,) * 3
        box = Block((-self.half,) * 3, corner, (0, 0, 0)).distance(points)  # type: ignore[arg-type]
        whole = torch.maximum(box, torch.linalg.vector_norm(points, dim=-1) - self.radius)
        for axis in range(3):
            keep = [k for k in range(3) if k != axis]
            whole = torch.maximum(whole, self.bore - torch.linalg.vector_norm(points[..., keep], dim=-1))
        return whole


def _box_normals(points: Tensor, low: Tensor, high: Tensor) -> Tensor:
    off = (points - (low + high) / 2) / ((high - low) / 2)
    axis = off.abs().argmax(-1)
    return torch.nn.functional.one_hot(axis, 3).to(points.dtype) * off.sign()


@dataclass(frozen=True)
class Cloud:
    """Gaussian densities of one colour. blobs: of each the centre, its standard deviation and its highest density."""

    blobs: tuple[tuple[float, float, float, float, float], ...]
    colour: tuple[float, float, float]

    def density(self, points: Tensor) -> Tensor:
        """(...) of points (..., 3)."""
        total = torch.zeros_like(points[..., 0])
        for x, y, z, width, height in self.blobs:
            square = (points - points.new_tensor([x, y, z])).square().sum(-1)
            total = total + height * torch.exp(-0.5 * square / width**2)
        return total

    def optical_depth(self, origins: Tensor, directions: Tensor, t: Tensor) -> Tensor:
        """The integral of the density from the origin to t, exact: (N,)."""
        length = torch.linalg.vector_norm(directions, dim=-1)
        unit, total = directions / length[:, None], torch.zeros_like(t)
        for x, y, z, width, height in self.blobs:
            offset = origins - origins.new_tensor([x, y, z])
            along = (offset * unit).sum(-1)
            across = (offset - along[:, None] * unit).square().sum(-1)
            scale = height * torch.exp(-0.5 * across / width**2) * width * (torch.pi / 2) ** 0.5
            root = width * 2**0.5
            total = total + scale * (torch.erf((t * length + along) / root) - torch.erf(along / root))
        return total


SHAPES: Mapping[str, tuple[Ball | Block | Solid, ...]] = {
    "spheres": (
        Ball((0.0, 0.0, -0.1), 0.55, (0.85, 0.25, 0.2)),
        Ball((0.62, 0.3, 0.2), 0.33, (0.2, 0.65, 0.3)),
        Ball((-0.5, -0.45, 0.35), 0.3, (0.25, 0.4, 0.9)),
    ),
    "boxes": (
        Block((-0.9, -0.9, -0.75), (0.9, 0.9, -0.55), (0.8, 0.8, 0.75)),
        Block((-0.6, -0.5, -0.55), (0.1, 0.2, 0.35), (0.9, 0.55, 0.2)),
        Block((0.25, 0.0, -0.55), (0.7, 0.6, 0.05), (0.3, 0.6, 0.85)),
    ),
    "csg": (Solid(),),
}
CLOUD = Cloud(
    (
        (0.0, 0.0, 0.0, 0.28, 5.0),
        (0.45, 0.2, 0.1, 0.2, 6.0),
        (-0.35, -0.3, 0.2, 0.22, 4.0),
        (0.1, -0.4, -0.2, 0.18, 5.0),
    ),
    (0.85, 0.6, 0.45),
)
SCENES = (*SHAPES, "cloud")


def scene_distance(name: str) -> Callable[[Tensor], Tensor]:
    """The signed distance of a scene's shapes, a function of points (..., 3), negative inside.

    Exact outside of spheres and boxes; of "csg" never more than the distance. Raises InputError for the cloud, which
    has no surface, and for unknown names.
    """
    if name not in SHAPES:
        raise unknown("scene with a surface", name, SHAPES)
    shapes = SHAPES[name]
    return lambda points: torch.stack([shape.distance(points) for shape in shapes]).amin(0)


def trace(
    name: str, origins: Tensor, directions: Tensor, *, with_depth: bool = True
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What rays (N, 3) see of a scene: colour (N, 3) in [0, 1], opacity (N,), depth (N,) and normal (N, 3).

    Depth is t; depth and normal are NaN where nothing is. Of the cloud the depth is where half of the light is left,
    and the normal is against the density's slope there; with_depth: whether these two are wanted of it.
    """
    if name not in SCENES:
        raise unknown("scene", name, SCENES)
    if name == "cloud":
        return _trace_cloud(origins, directions, with_depth)
    depth = origins.new_full((len(origins),), _INF)
    normal, surface = torch.zeros_like(origins), torch.zeros_like(origins)
    for shape in SHAPES[name]:
        own, normals, colours = shape.hit(origins, directions)
        closer = own < depth
        depth = torch.where(closer, own, depth)
        normal = torch.where(closer[:, None], normals, normal)
        surface = torch.where(closer[:, None], colours, surface)
    met = depth.isfinite()
    light = origins.new_tensor(_LIGHT)
    view = -directions / torch.linalg.vector_norm(directions, dim=-1, keepdim=True)
    cosine = normal @ light
    mirrored = 2 * cosine[:, None] * normal - light
    gloss = (mirrored * view).sum(-1).clamp(min=0) ** _POWER * (cosine > 0)
    colour = surface * (_AMBIENT + _DIFFUSE * cosine.clamp(min=0))[:, None] + _GLOSS * gloss[:, None]
    nothing = depth.new_tensor(float("nan"))
    colour = torch.where(met[:, None], colour.clamp(0, 1), torch.zeros_like(colour))
    return colour, met.to(depth.dtype), torch.where(met, depth, nothing), torch.where(met[:, None], normal, nothing)


def _trace_cloud(origins: Tensor, directions: Tensor, with_depth: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    low = torch.zeros_like(origins[:, 0])
    high = torch.full_like(low, 100.0) / torch.linalg.vector_norm(directions, dim=-1)
    whole = CLOUD.optical_depth(origins, directions, high)
    half = float(np.log(2))
    reached = whole > half if with_depth else torch.zeros_like(whole, dtype=torch.bool)
    for _ in range(60 if with_depth else 0):  # bisection, down to what float64 resolves
        middle = 0.5 * (low + high)
        below = CLOUD.optical_depth(origins, directions, middle) < half
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    nothing = low.new_tensor(float("nan"))
    points = origins + high[:, None] * directions
    slope = torch.zeros_like(points)
    for x, y, z, width, height in CLOUD.blobs:
        offset = points - points.new_tensor([x, y, z])
        weight = height * torch.exp(-0.5 * offset.square().sum(-1) / width**2) / width**2
        slope = slope + weight[:, None] * offset
    normal = slope / torch.linalg.vector_norm(slope, dim=-1, keepdim=True).clamp(min=1e-30)
    opacity = -torch.expm1(-whole)
    colour = opacity[:, None] * origins.new_tensor(CLOUD.colour)
    return colour, opacity, torch.where(reached, high, nothing), torch.where(reached[:, None], normal, nothing)


def render_scene(
    name: str,
    size: tuple[int, int],
    pose: np.ndarray,
    intrinsics: np.ndarray,
    background: float = 1.0,
    *,
    with_depth: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """A view of a scene: colours (H, W, 3) in [0, 1], depths (H, W) and normals (H, W, 3), float32; see `trace`.

    One ray through the middle of each pixel, so that edges are not smoothed and depths are exact.
    """
    own = torch.tensor(np.asarray(pose, np.float64)), torch.tensor(np.asarray(intrinsics, np.float64))
    origins, directions = (one.reshape(-1, 3) for one in image_rays(size, *own))
    colour, opacity, depth, normal = trace(name, origins, directions, with_depth=with_depth)
    seen = colour + (1 - opacity)[:, None] * background
    return seen.reshape(*size, 3).float(), depth.reshape(size).float(), normal.reshape(*size, 3).float()
