"""How near a learned shape is to its mesh: intersection over union, and the distance of their surfaces."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.spatial import KDTree

from opsin.errors import InputError
from opsin.render.density_mesh import grid_values, surface
from opsin.render.signed_distance import surface_samples

_SAMPLES = 100_000
_RESOLUTION = 128


def surface_distance(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray], count: int = _SAMPLES
) -> float:
    """The Chamfer distance of two meshes: the mean of both directions, over `count` samples of each surface."""
    random = np.random.RandomState(0)
    one, other = (surface_samples(*mesh, count, random)[0] for mesh in (first, second))
    there, back = KDTree(other).query(one)[0].mean(), KDTree(one).query(other)[0].mean()
    return float(there + back) / 2


def euler_number(faces: np.ndarray) -> int:
    """Vertices - edges + faces, of the vertices that faces (F, 3) have: 2 for each ball, 0 for each ring."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    return len(np.unique(faces)) - len(np.unique(edges, axis=0)) + len(faces)


def measure_surface(model: Any, truth: Any, resolution: int = _RESOLUTION) -> dict[str, float]:
    """{"chamfer": as a share of the mesh's diagonal, "euler": of the learned surface, "euler_true"}; {} if it has none.

    truth: an `OfShape`.
    """
    try:
        vertices, faces = surface(grid_values(model.surface_values, truth.box, resolution), truth.box, 0.0)
    except InputError:
        return {}
    distance = surface_distance((vertices, faces), (truth.vertices, truth.faces))
    return {
        "chamfer": distance / truth.diagonal,
        "euler": float(euler_number(faces)),
        "euler_true": float(euler_number(truth.faces)),
    }
