"""From cameras alone: where the scene is that they look at, and between which depths it lies."""

from __future__ import annotations

import numpy as np

_SPREAD = 20.0  # degrees between two views from which on their axes say where they meet
_BOUNDS = (0.001, 0.999)  # of the depths of known points, what is left out on either side: outliers
_MARGIN = 0.1  # of a depth, added to either side


def scene_centre(poses: np.ndarray) -> np.ndarray | None:
    """The point (3,) that is nearest to the axes of cameras (N, 4, 4), by least squares, if it lies before most.

    None where all look in about one direction, or apart: their axes do not say.
    """
    axes, eyes = -poses[:, :3, 2], poses[:, :3, 3]
    if len(poses) < 2 or np.degrees(np.arccos(np.clip((axes @ axes.T).min(), -1, 1))) < _SPREAD:
        return None
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]  # what of a vector is across each axis
    total = across.sum(0)
    if np.linalg.cond(total) > 1e6:
        return None
    centre = np.linalg.solve(total, (across @ eyes[:, :, None])[..., 0].sum(0))
    before = ((centre - eyes) * axes).sum(1) > 0
    return centre if before.mean() > 0.5 else None


def find_near_far(poses: np.ndarray, points: np.ndarray | None = None) -> tuple[float, float] | None:
    """Depths between which a scene lies, for cameras (N, 4, 4); points: (P, 3) of it that are known.

    By the depths of the points, less one in a thousand on either side, with a margin of a tenth. Without points, half
    and one and a half times the median distance from where the axes meet, which for the published Blender scenes is
    their 2 and 6; None where the axes do not meet.
    """
    axes, eyes = -poses[:, :3, 2], poses[:, :3, 3]
    if points is not None and len(points):
        chosen = points[:: max(1, len(points) // 20_000)]
        depths = ((chosen[None] - eyes[:, None]) * axes[:, None]).sum(-1)
        depths = depths[depths > 0]
        if len(depths):
            low, high = np.quantile(depths, _BOUNDS)
            return float(low * (1 - _MARGIN)), float(high * (1 + _MARGIN))
    centre = scene_centre(poses)
    if centre is None:
        return None
    distance = float(np.median(np.linalg.norm(eyes - centre, axis=1)))
    return (0.5 * distance, 1.5 * distance) if distance > 0 else None
