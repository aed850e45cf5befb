"""How near one shape is to another: Chamfer distance, F-score, normal consistency, and the overlap of insides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from opsin.errors import InputError
from opsin.render.conversions import sample_surface, voxelize
from opsin.render.meshes import Mesh


@dataclass(frozen=True)
class ShapeScore:
    """chamfer: mean of the mean distances to the nearest sample in both directions, in units of the shapes.

    chamfer_share: the same over the diagonal of the true shape's box. f_score: harmonic mean of the shares of samples
    of each that lie within `threshold` of the other. normal_consistency: mean of |cos| between the normals there. iou:
    of the insides, None where either has holes. euler_number: of the shape that is measured.
    """

    chamfer: float
    chamfer_share: float
    f_score: float
    normal_consistency: float
    iou: float | None
    euler_number: int

    def to_dict(self) -> dict[str, float | int | None]:
        """Plain values."""
        return dict(vars(self))


def nearest(points: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance (N,) from each point (N, 3) to the nearest of others (M, 3), and which that is (N,)."""
    from scipy.spatial import KDTree

    distance, place = KDTree(others).query(points)
    return np.asarray(distance), np.asarray(place)


def chamfer_distance(points: np.ndarray, others: np.ndarray) -> float:
    """The mean of both directions' mean distance to the nearest point: (N, 3) and (M, 3)."""
    return 0.5 * (float(nearest(points, others)[0].mean()) + float(nearest(others, points)[0].mean()))


def f_score(points: np.ndarray, others: np.ndarray, threshold: float) -> float:
    """2 P R / (P + R) of the shares of points, and of others, within a distance. Tatarchenko et al. 2019."""
    precision = float((nearest(points, others)[0] <= threshold).mean())
    recall = float((nearest(others, points)[0] <= threshold).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def grid_iou(inside: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two insides on one grid, bool; 1 where both are empty. Raises InputError."""
    if inside.shape != other.shape:
        raise InputError(f"insides of {inside.shape} and {other.shape} cells; expected one grid")
    union = int((inside | other).sum())
    return int((inside & other).sum()) / union if union else 1.0


def compare_meshes(
    mesh: Mesh, truth: Mesh, *, samples: int = 100_000, threshold: float | None = None, resolution: int = 128
) -> ShapeScore:
    """How near a mesh is to the true one. threshold: of the F-score, 1 % of the true diagonal if None."""
    points, normals = sample_surface(mesh, samples, seed=0)
    others, other_normals = sample_surface(truth, samples, seed=1)
    there, place = nearest(points, others)
    back, other_place = nearest(others, points)
    limit = 0.01 * truth.diagonal if threshold is None else threshold
    precision, recall = float((there <= limit).mean()), float((back <= limit).mean())
    cosines = np.concatenate([np.abs((normals * other_normals[place]).sum(1)),
                              np.abs((other_normals * normals[other_place]).sum(1))])  # fmt: skip
    closed = not mesh.open_edges() and not truth.open_edges()
    iou = None
    if closed:
        both = np.concatenate([mesh.vertices, truth.vertices])
        pad = 0.02 * truth.diagonal
        box = both.min(0) - pad, both.max(0) + pad
        iou = grid_iou(voxelize(mesh, resolution, box), voxelize(truth, resolution, box))
    chamfer = 0.5 * (float(there.mean()) + float(back.mean()))
    return ShapeScore(
        chamfer=chamfer,
        chamfer_share=chamfer / truth.diagonal,
        f_score=2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        normal_consistency=float(cosines.mean()),
        iou=iou,
        euler_number=mesh.euler_number(),
    )
