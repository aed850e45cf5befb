"""From one representation to another: surfaces of grids, points on surfaces, cells inside of them.

What each loses is measured by `opsin.render.shape_metrics`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from opsin.errors import InputError
from opsin.render.meshes import Mesh, check_closed, face_normals

_OFF = (np.sqrt(2) - 1) * 1e-7  # of a cell, by which columns are moved, so that none goes through an edge


def marching_cubes(values: np.ndarray, box: tuple[np.ndarray, np.ndarray], level: float = 0.0) -> Mesh:
    """The surface where values (X, Y, Z), at the corners of a grid that fills a box, are `level`.

    Lewiner et al. 2003 by scikit-image, which the extra `render` brings. Faces turn outwards where values rise inwards
    less than outwards, as signed distances do. Raises InputError where no value is on either side of the level.
    """
    try:
        from skimage.measure import marching_cubes as find_surface
    except ImportError:
        raise InputError("surfaces need scikit-image: pip install opsin[render]") from None
    low, high = (np.asarray(corner, np.float64) for corner in box)
    if not float(values.min()) < level < float(values.max()):
        raise InputError(
            f"there is no surface at {level:g}: the values go from {float(values.min()):g} to {float(values.max()):g}"
        )
    steps = (high - low) / (np.array(values.shape) - 1)
    vertices, faces, _, _ = find_surface(np.asarray(values, np.float32), level, gradient_direction="descent")
    return Mesh(low + vertices.astype(np.float64) * steps, faces.astype(np.int64))


def sample_surface(mesh: Mesh, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points spread evenly over a mesh and the normals there, (count, 3) each. Raises InputError without any area."""
    corners = mesh.corners
    areas = 0.5 * np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    if not areas.sum() > 0:
        raise InputError(f"a mesh of {len(mesh.faces)} faces without any area has no surface to sample")
    draws = np.random.default_rng(seed)
    chosen = draws.choice(len(areas), count, p=areas / areas.sum())
    root, along = np.sqrt(draws.random(count)), draws.random(count)
    shares = np.stack([1 - root, root * (1 - along), root * along], axis=-1)  # even over a triangle, Turk 1990
    return (corners[chosen] * shares[..., None]).sum(1), face_normals(mesh)[chosen]


def voxelize(mesh: Mesh, resolution: int, box: tuple[np.ndarray, np.ndarray], name: str = "the mesh") -> np.ndarray:
    """Whether the middle of each cell of a box lies inside of a closed mesh: (R, R, R) bool, over x, y, z.

    By how often the surface is crossed on the way upwards along z. Raises InputError for a mesh with holes.
    """
    check_closed(mesh, name)
    low, high = (np.asarray(corner, np.float64) for corner in box)
    cell = (high - low) / resolution
    corners = (mesh.corners - low) / cell - 0.5 + _OFF * np.array([1.0, np.e, 0.0])  # middles at whole numbers
    crossings = np.zeros((resolution, resolution, resolution + 1), np.int32)
    for own, x, y in _columns(corners, resolution):
        a, b, c = corners[own, 0], corners[own, 1], corners[own, 2]
        area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
        first = (b[:, 0] - x) * (c[:, 1] - y) - (b[:, 1] - y) * (c[:, 0] - x)
        second = (c[:, 0] - x) * (a[:, 1] - y) - (c[:, 1] - y) * (a[:, 0] - x)
        third = area - first - second
        inside = (area != 0) & (
            ((first >= 0) & (second >= 0) & (third >= 0)) | ((first <= 0) & (second <= 0) & (third <= 0))
        )
        own, x, y = own[inside], x[inside], y[inside]
        height = (first * a[:, 2] + second * b[:, 2] + third * c[:, 2])[inside] / area[inside]
        place = np.clip(np.ceil(height), 0, resolution).astype(np.int64)
        np.add.at(crossings, (x, y, place), 1)
    return (np.cumsum(crossings, axis=2)[:, :, :resolution] % 2).astype(bool)


def _columns(corners: np.ndarray, resolution: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of triangles (F, 3, 3): which, x and y of each whole column in the box around it."""
    low = np.clip(np.ceil(corners[:, :, :2].min(1)), 0, resolution).astype(np.int64)
    high = np.clip(np.floor(corners[:, :, :2].max(1)) + 1, 0, resolution).astype(np.int64)
    sides = np.maximum(high - low, 0)
    counts = sides[:, 0] * sides[:, 1]
    for start in range(0, len(counts), 20_000):
        part = slice(start, start + 20_000)
        own = np.repeat(np.arange(len(counts))[part], counts[part])
        ends = np.cumsum(counts[part])
        within = np.arange(len(own)) - np.repeat(ends - counts[part], counts[part])
        width = np.maximum(sides[own, 1], 1)
        yield own, low[own, 0] + within // width, low[own, 1] + within % width
