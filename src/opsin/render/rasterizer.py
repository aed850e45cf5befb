"""Images of meshes and of points through a z-buffer: of all that covers a pixel's middle, the nearest is seen.

Catmull 1974. All pairs of a triangle and a pixel of its box are made at once and the nearest of each pixel is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from opsin.ops.cameras import project
from opsin.render.meshes import Mesh, face_normals

GREY = (0.75, 0.75, 0.78)  # of what has no colour
AMBIENT = 0.25  # light on a face that the camera sees from its edge; 1 on one that looks at it
_NEAREST = 1e-6  # depth before which nothing is drawn: a triangle that reaches behind it is left out
_PAIRS = 4_000_000  # of a triangle and a pixel, taken at once


@dataclass(frozen=True, eq=False)
class Drawn:
    """colours: (H, W, 3) float32 in [0, 1]. depth: (H, W) along the camera's axis, infinite where nothing is.

    faces: (H, W) int64, the triangle or point that is seen, -1 for none.
    """

    colours: np.ndarray
    depth: np.ndarray
    faces: np.ndarray


def rasterize(mesh: Mesh, pose: Tensor, intrinsics: Tensor, size: tuple[int, int], background: float = 1.0) -> Drawn:
    """An image of (height, width) of a mesh, lit from the camera; depth and colours are correct in perspective."""
    points = torch.from_numpy(mesh.vertices)
    pixels, depths = (one.numpy() for one in project(points, pose.double(), intrinsics.double()))
    faces = np.flatnonzero((depths[mesh.faces] > _NEAREST).all(1))
    depth, seen = np.full(size[0] * size[1], np.inf), np.full(size[0] * size[1], -1)
    shares = np.zeros((size[0] * size[1], 3))
    for own, place, middle in _pairs(pixels[mesh.faces[faces]], size):
        face = faces[own]
        inside, barycentric = _barycentric(pixels[mesh.faces[face]], middle)
        weights = barycentric[inside] / depths[mesh.faces[face[inside]]]
        found = 1 / weights.sum(1)
        _keep_nearest(place[inside], found, face[inside], weights * found[:, None], depth, seen, shares)
    hit = seen >= 0
    colours = np.full((len(seen), 3), background)
    chosen = mesh.faces[seen[hit]]
    vertex = np.broadcast_to(np.array(GREY), mesh.vertices.shape) if mesh.colours is None else mesh.colours
    eye = pose[:3, 3].double().numpy()
    normals = face_normals(mesh)[seen[hit]]
    towards = eye - (mesh.vertices[chosen] * shares[hit][..., None]).sum(1)
    cosine = np.abs((normals * towards).sum(1)) / np.maximum(np.linalg.norm(towards, axis=1), 1e-300)
    light = AMBIENT + (1 - AMBIENT) * cosine
    colours[hit] = (vertex[chosen] * shares[hit][..., None]).sum(1) * light[:, None]
    return Drawn(colours.reshape(*size, 3).astype(np.float32), depth.reshape(size), seen.reshape(size))


def splat(
    mesh: Mesh, pose: Tensor, intrinsics: Tensor, size: tuple[int, int], radius: float | None = None,
    background: float = 1.0,
) -> Drawn:  # fmt: skip
    """An image of points, each a disc that faces the camera. radius: in space; by the density of the points if None."""
    points = mesh.vertices
    if radius is None:
        radius = float(np.linalg.norm(points.max(0) - points.min(0))) / max(2.0, len(points) ** 0.5)
    pixels, depths = (one.numpy() for one in project(torch.from_numpy(points), pose.double(), intrinsics.double()))
    chosen = np.flatnonzero(depths > _NEAREST)
    reach = np.maximum(radius * float(intrinsics[0]) / depths[chosen], 0.5)
    corners = np.stack([pixels[chosen] - reach[:, None], pixels[chosen] + reach[:, None]], axis=1)
    depth, seen = np.full(size[0] * size[1], np.inf), np.full(size[0] * size[1], -1)
    for own, place, middle in _pairs(corners, size):
        point = chosen[own]
        inside = np.linalg.norm(middle - pixels[point], axis=1) <= reach[own]
        _keep_nearest(place[inside], depths[point[inside]], point[inside], None, depth, seen, None)
    colours = np.full((len(seen), 3), background)
    hit = seen >= 0
    own = np.broadcast_to(np.array(GREY), points.shape) if mesh.colours is None else mesh.colours
    near, far = (depth[hit].min(), depth[hit].max()) if hit.any() else (0.0, 1.0)
    fade = 1 - (0.5 * (depth[hit] - near) / max(far - near, 1e-300) if mesh.colours is None else 0 * depth[hit])
    colours[hit] = own[seen[hit]] * fade[:, None]
    return Drawn(colours.reshape(*size, 3).astype(np.float32), depth.reshape(size), seen.reshape(size))


def _pairs(corners: np.ndarray, size: tuple[int, int]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of shapes with corners (N, K, 2): which, the place of a pixel (row W + column) and its middle, for each pixel
    whose middle is in the box around a shape; in portions.
    """
    height, width = size
    limit = np.array([width, height])
    low = np.clip(np.ceil(corners.min(1) - 0.5), 0, limit).astype(np.int64)
    high = np.clip(np.floor(corners.max(1) - 0.5) + 1, 0, limit).astype(np.int64)
    sides = np.maximum(high - low, 0)
    counts = sides[:, 0] * sides[:, 1]
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        stop = max(start + 1, int(np.searchsorted(ends, (ends[start - 1] if start else 0) + _PAIRS, side="right")))
        own = np.repeat(np.arange(start, stop), counts[start:stop])
        within = np.arange(len(own)) - np.repeat(ends[start:stop] - counts[start:stop] - (ends[start] - counts[start]),
                                                 counts[start:stop])  # fmt: skip
        column = low[own, 0] + within % np.maximum(sides[own, 0], 1)
        row = low[own, 1] + within // np.maximum(sides[own, 0], 1)
        yield own, row * width + column, np.stack([column + 0.5, row + 0.5], axis=-1)
        start = stop


def _barycentric(corners: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which points (N, 2) lie in their triangles (N, 3, 2), the borders too, and their shares of the corners (N, 3)."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]

    def cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]

    area = cross(b - a, c - a)
    shares = np.stack([cross(b - points, c - points), cross(c - points, a - points), cross(a - points, b - points)], -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = shares / area[:, None]
    return (np.abs(area) > 1e-12) & (shares >= 0).all(1), shares


def _keep_nearest(
    place: np.ndarray, found: np.ndarray, face: np.ndarray, own: np.ndarray | None,
    depth: np.ndarray, seen: np.ndarray, shares: np.ndarray | None,
) -> None:  # fmt: skip
    """Enter what is nearer than what is there; of several of a pixel the nearest."""
    order = np.lexsort((found, place))
    first = order[np.flatnonzero(np.diff(place[order], prepend=-1))]
    better = first[found[first] < depth[place[first]]]
    depth[place[better]], seen[place[better]] = found[better], face[better]
    if shares is not None and own is not None:
        shares[place[better]] = own[better]
