"""Cameras along a path, for views that nobody took: an orbit, a spiral, or those of a file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opsin.errors import InputError
from opsin.ops.cameras import orbit, spiral

PATHS = ("orbit", "spiral")
_LARGEST = 1 << 26  # bytes of a file of poses
_MOST = 10_000  # poses


@dataclass(frozen=True)
class Cameras:
    """poses: (N, 4, 4) float32. intrinsics: (4,), of all, in pixels of images of size (height, width)."""

    poses: Tensor
    intrinsics: Tensor
    size: tuple[int, int]


def known_cameras(truth: Any) -> dict[str, Any]:
    """What of a split's cameras travels with a model, plain JSON: enough to look at its scene again.

    The intrinsics and size of the first view, the middle pose, the mean distance and elevation about the scene's
    centre.
    """
    low, high = (np.asarray(corner, float) for corner in truth.box)
    centre = (low + high) / 2
    poses = np.asarray(truth.poses, float)
    offsets = poses[:, :3, 3] - centre
    radius = float(np.median(np.linalg.norm(offsets, axis=1)))
    up = _unit(poses[:, :3, 1].mean(0))
    height = float(np.median(offsets @ up)) / max(radius, 1e-9)
    middle = int(np.argmin(np.linalg.norm(poses[:, :3, 3] - poses[:, :3, 3].mean(0), axis=1)))
    return {
        "size": [int(n) for n in truth.sizes[0]],
        "intrinsics": [float(v) for v in truth.intrinsics[0]],
        "centre": centre.tolist(),
        "up": [round(float(v), 6) for v in up],
        "radius": radius,
        "elevation": math.degrees(math.asin(max(-0.95, min(0.95, height)))),
        "middle": poses[middle].tolist(),
        "spread": [float(v) for v in np.abs(offsets - offsets.mean(0)).max(0)],
    }


def _unit(vector: np.ndarray) -> np.ndarray:
    length = float(np.linalg.norm(vector))
    if length < 1e-6:
        return np.array([0.0, 0.0, 1.0])
    nearest = np.round(vector / length)  # an axis of the world, where the cameras' own is near to one
    return nearest if abs(nearest).sum() == 1 and float(vector @ nearest) / length > 0.8 else vector / length


def path_cameras(path: str, known: Mapping[str, Any], near: float, far: float, count: int, side: int | None) -> Cameras:
    """The cameras of `--path`. known: of `known_cameras`. side: pixels of the longer side; as trained if None.

    Raises InputError for a file that has no poses.
    """
    size, scale = _scaled(known["size"], side)
    intrinsics = torch.tensor(known["intrinsics"], dtype=torch.float32) * scale
    if path == "orbit":
        centre, up = tuple(map(float, known["centre"])), tuple(map(float, known["up"]))
        poses = orbit(count, float(known["radius"]), float(known["elevation"]), centre, up)  # type: ignore[arg-type]
    elif path == "spiral":
        middle = torch.tensor(known["middle"], dtype=torch.float32)
        reach = [0.5 * float(v) for v in known["spread"]]
        radius = max(max(reach), 0.02 * (near + far))
        poses = spiral(middle, (radius, radius, 0.2 * radius), 2 / (1 / max(near, 1e-3) + 1 / far), count)
    else:
        return _read_poses(Path(path), intrinsics, size)
    return Cameras(poses.float(), intrinsics, size)


def _scaled(size: Any, side: int | None) -> tuple[tuple[int, int], float]:
    height, width = map(int, size)
    scale = 1.0 if side is None else side / max(height, width)
    return (max(1, round(height * scale)), max(1, round(width * scale))), scale


def _read_poses(path: Path, intrinsics: Tensor, size: tuple[int, int]) -> Cameras:
    """Poses of a JSON file: a list of 4x4 matrices, or Blender's frames with transform_matrix."""
    if not path.is_file():
        raise InputError(f"path is {str(path)!r}; expected {', '.join(PATHS)} or a JSON file of poses")
    if path.stat().st_size > _LARGEST:
        raise InputError(f"{path} has {path.stat().st_size:,} bytes; a file of poses has {_LARGEST:,} at most")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        frames = content["frames"] if isinstance(content, dict) else content
        rows = [one["transform_matrix"] if isinstance(one, dict) else one for one in frames]
        poses = torch.tensor(rows, dtype=torch.float32)
    except (ValueError, KeyError, TypeError, RecursionError, UnicodeDecodeError):
        raise InputError(f"{path} holds no poses; expected a JSON list of 4x4 matrices, camera to world") from None
    if poses.ndim != 3 or poses.shape[1:] not in ((4, 4), (3, 4)) or not 1 <= len(poses) <= _MOST:
        raise InputError(f"{path} holds {tuple(poses.shape)} numbers; expected 1 to {_MOST:,} matrices of 4x4")
    if not bool(torch.isfinite(poses).all()):
        raise InputError(f"{path} has a pose that is not finite; remove it")
    return Cameras(poses[:, :3], intrinsics, size)
