"""The surface of a field as a mesh: marching cubes on a grid of its values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opsin.checks import check_count
from opsin.errors import InputError
from opsin.render.meshes import Mesh, write_mesh

_ENDINGS = (".ply", ".obj", ".stl")
_MOST = 512  # places of a side
_CHUNK = 1 << 16


@torch.no_grad()
def grid_values(field: Callable[[Tensor], Tensor], box: Any, resolution: int) -> np.ndarray:
    """A field's values (resolution, resolution, resolution) at even places of a box, its faces among them.

    field: of points (N, 3), (N,). box: two corners.
    """
    low, high = (torch.tensor([float(value) for value in corner]) for corner in box)
    lines = [torch.linspace(float(a), float(b), resolution) for a, b in zip(low, high, strict=True)]
    points = torch.stack(torch.meshgrid(*lines, indexing="ij"), dim=-1).view(-1, 3)
    parts = [field(points[k : k + _CHUNK]).float().cpu() for k in range(0, len(points), _CHUNK)]
    return torch.cat(parts).view(resolution, resolution, resolution).numpy()


def surface(values: np.ndarray, box: Any, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) and faces (F, 3) where a grid of a box has a level, by marching cubes of scikit-image.

    Raises InputError for a level that no value reaches, and where scikit-image is missing.
    """
    try:
        from skimage.measure import marching_cubes
    except ImportError as error:
        raise InputError(f"a mesh needs scikit-image: pip install 'opsin[render]' ({error})") from None
    if not values.min() < level < values.max():
        raise InputError(
            f"no surface: the field's values go from {values.min():.4g} to {values.max():.4g}, and level is {level:g}"
        )
    low, high = (np.array(corner, float) for corner in box)
    step = (high - low) / (np.array(values.shape) - 1)
    vertices, faces, _, _ = marching_cubes(values, level, spacing=tuple(step))
    return vertices + low, faces.astype(np.int64)


def write_density_mesh(model: Any, box: Any, path: Path, resolution: int, level: float | None) -> dict[str, Any]:
    """Write where a radiance field's density is `level`, and say so: {"mesh", "vertices", "faces", "level"}.

    level: half of the light of a cell of the grid is taken there, if None.
    """
    check_count("resolution", resolution, 8)
    if resolution > _MOST:
        raise InputError(f"resolution is {resolution}; expected at most {_MOST}")
    if path.suffix.lower() not in _ENDINGS:
        raise InputError(f"mesh is {str(path)!r}; expected a file that ends in {', '.join(_ENDINGS)}")
    device = next(model.parameters()).device
    own = getattr(model, "surface_values", None)
    if own is None:
        side = max(float(b) - float(a) for a, b in zip(*box, strict=True)) / resolution
        level = float(np.log(2) / side) if level is None else level
    field = own or model.densities
    values = grid_values(lambda points: field(points.to(device)), box, resolution)
    vertices, faces = surface(values, box, 0.0 if level is None else level)
    write_mesh(path, Mesh(vertices, faces))
    return {"mesh": str(path), "vertices": len(vertices), "faces": len(faces), "level": level or 0.0}
