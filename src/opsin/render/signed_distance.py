"""The signed distance of points to a closed mesh.

The nearest point of a triangle by the seven regions of its plane: Ericson 2004, section 5.1.5. The sign by the normal
of what the nearest point lies on, of a face, an edge or a vertex, where those of edges are the mean of their faces' and
those of vertices are weighed by the faces' angles: Bærentzen and Aanæs 2005, by whom the sign is then always right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from opsin.errors import InputError

_SAMPLES = 30  # points of the surface for each face, on the mean, of which the nearest say which faces are looked at
_NEAREST = 4  # of them
_CHUNK = 1 << 15


@dataclass(frozen=True)
class SurfaceNormals:
    """Normals of a closed mesh: of faces (F, 3), of each face's edges (F, 3, 3) and vertices (F, 3, 3).

    The edges of a face are those from corner 0 to 1, 1 to 2 and 2 to 0.
    """

    faces: np.ndarray
    edges: np.ndarray
    corners: np.ndarray


def open_edges(faces: np.ndarray) -> int:
    """How many edges of faces (F, 3) do not belong to exactly two faces: 0 of a closed mesh."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    return int((np.unique(edges, axis=0, return_counts=True)[1] != 2).sum())


def surface_normals(vertices: np.ndarray, faces: np.ndarray) -> SurfaceNormals:
    """Normals for the sign of distances. Raises InputError for a mesh with holes, of which no inside is defined."""
    if not len(faces):
        raise InputError("the mesh has no faces; expected a closed surface")
    if holes := open_edges(faces):
        raise InputError(
            f"the mesh has {holes:,} edges that do not belong to two faces: it has holes, and what is inside of it is "
            "not defined; close them first"
        )
    corners = vertices[faces]
    sides = np.roll(corners, -1, axis=1) - corners
    flat = _unit(np.cross(sides[:, 0], -sides[:, 2]))
    ends = np.sort(np.stack([faces, np.roll(faces, -1, axis=1)], axis=-1), axis=-1).reshape(-1, 2)
    _, edge = np.unique(ends, axis=0, return_inverse=True)
    sums = np.zeros((edge.max() + 1, 3))
    np.add.at(sums, edge.reshape(-1), np.repeat(flat, 3, axis=0))
    cosines = (_unit(sides) * -_unit(np.roll(sides, 1, axis=1))).sum(-1)
    angles = np.arccos(np.clip(cosines, -1, 1))
    weighed = np.zeros_like(vertices)
    np.add.at(weighed, faces.reshape(-1), (flat[:, None] * angles[..., None]).reshape(-1, 3))
    return SurfaceNormals(flat, _unit(sums)[edge.reshape(-1)].reshape(-1, 3, 3), _unit(weighed)[faces])


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-30)


def surface_samples(
    vertices: np.ndarray, faces: np.ndarray, count: int, random: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Points (count, 3) evenly on a surface, and the face (count,) of each."""
    corners = vertices[faces]
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    total = np.cumsum(areas)
    if not total[-1] > 0:
        raise InputError("the mesh has no area; expected a surface")
    face = np.minimum(np.searchsorted(total, random.rand(count) * total[-1], side="right"), len(faces) - 1)
    root, share = np.sqrt(random.rand(count, 1)), random.rand(count, 1)
    a, b, c = (corners[face, k] for k in range(3))
    return (1 - root) * a + root * (1 - share) * b + root * share * c, face


class MeshDistance:
    """Signed distances to a closed mesh, negative inside. vertices: (V, 3). faces: (F, 3) int, outwards when positive.

    Exact to the faces that are looked at, which are those of the nearest of dense samples of the surface: where two
    faces are about equally far, it may be that of the one that is a little further.
    """

    def __init__(self, vertices: np.ndarray, faces: np.ndarray, seed: int = 0) -> None:
        self.vertices, self.faces = np.asarray(vertices, np.float64), np.asarray(faces, np.int64)
        self.normals = surface_normals(self.vertices, self.faces)
        count = max(20_000, _SAMPLES * len(self.faces))
        samples, face = surface_samples(self.vertices, self.faces, count, np.random.RandomState(seed))
        middles = self.vertices[self.faces].mean(1)  # of the smallest faces too
        self._tree, self._face = (
            KDTree(np.concatenate([samples, middles])),
            np.concatenate([face, np.arange(len(self.faces))]),
        )

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Distances (N,) of points (N, 3)."""
        given = np.asarray(points, np.float64)
        parts = [self._distances(given[k : k + _CHUNK]) for k in range(0, len(given), _CHUNK)]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _distances(self, points: np.ndarray) -> np.ndarray:
        nearest: np.ndarray = np.asarray(self._tree.query(points, k=_NEAREST)[1])
        best, signed = np.full(len(points), np.inf), np.zeros(len(points))
        for k in range(_NEAREST):
            face = self._face[nearest[:, k]]
            offset, normal = nearest_on_triangles(points, self.vertices[self.faces[face]], face, self.normals)
            length = np.linalg.norm(offset, axis=1)
            nearer = length < best
            side = np.where((offset * normal).sum(1) < 0, -1.0, 1.0)
            best, signed = np.where(nearer, length, best), np.where(nearer, side * length, signed)
        return signed


def nearest_on_triangles(
    points: np.ndarray, corners: np.ndarray, face: np.ndarray, normals: SurfaceNormals
) -> tuple[np.ndarray, np.ndarray]:
    """From the nearest place of each point's triangle (N, 3, 3) to the point (N, 3), and the normal there (N, 3)."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    ab, ac, ap = b - a, c - a, points - a
    d00, d01, d11 = (ab * ab).sum(1), (ab * ac).sum(1), (ac * ac).sum(1)
    d20, d21 = (ap * ab).sum(1), (ap * ac).sum(1)
    below = np.maximum(d00 * d11 - d01 * d01, 1e-300)
    v, w = (d11 * d20 - d01 * d21) / below, (d00 * d21 - d01 * d20) / below
    inside = (v >= 0) & (w >= 0) & (v + w <= 1)
    place, normal = a + v[:, None] * ab + w[:, None] * ac, normals.faces[face]
    best = np.where(inside, 0.0, np.inf)
    for k, (first, second) in enumerate(((a, b), (b, c), (c, a))):
        along = second - first
        share = ((points - first) * along).sum(1) / np.maximum((along * along).sum(1), 1e-300)
        clipped = np.clip(share, 0, 1)
        own = first + clipped[:, None] * along
        away = ((points - own) ** 2).sum(1)
        at = np.where(
            (clipped <= 0)[:, None],
            normals.corners[face, k],
            np.where((clipped >= 1)[:, None], normals.corners[face, (k + 1) % 3], normals.edges[face, k]),
        )
        nearer = ~inside & (away < best)
        best = np.where(nearer, away, best)
        place, normal = np.where(nearer[:, None], own, place), np.where(nearer[:, None], at, normal)
    return points - place, normal
