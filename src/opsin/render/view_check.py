"""What `opsin data` finds of posed views: poses that are none, that look away, and depths that rays do not fit."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from opsin.data.truth import Problem
from opsin.ops.cameras import pixel_rays, project
from opsin.render.near_far import scene_centre

_GRID = 6  # rays a side of an image, of which each is followed
_DEPTHS = 8  # places along each
_SEEN = 0.05  # of these places must be seen by another view, or nothing ties the depths down
_OUTSIDE = 0.05  # of the known points may lie outside of near and far
_MOST = 40  # views that are compared with each other


class Views(Protocol):
    """What is asked of `opsin.render.posed_views.PosedViews`, which has it in words."""

    @property
    def poses(self) -> np.ndarray: ...
    @property
    def intrinsics(self) -> np.ndarray: ...
    @property
    def sizes(self) -> np.ndarray: ...
    @property
    def near(self) -> float: ...
    @property
    def far(self) -> float: ...
    @property
    def points(self) -> np.ndarray: ...
    @property
    def usable(self) -> np.ndarray: ...
    def __len__(self) -> int: ...


def find_problems(views: Views, training: bool = False) -> list[Problem]:
    """What is wrong with cameras. training: only what makes a training impossible."""
    found = _broken(views)
    if not 0 < views.near < views.far or not np.isfinite(views.far):
        reason = f"near is {views.near:g} and far is {views.far:g}; expected 0 < near < far: give both, --near --far"
        found.append(Problem("near_beyond_far", "", reason))
    if training or found:
        return found
    return [*_away(views), *_unseen(views), *_outside(views)]


def _broken(views: Views) -> list[Problem]:
    found = []
    for i in np.flatnonzero(~views.usable).tolist():
        if not np.isfinite(views.poses[i]).all() or not np.isfinite(views.intrinsics[i]).all():
            reason = "its pose or intrinsics hold numbers that are not finite; remove the frame or find its pose anew"
            found.append(Problem("not_finite", "", reason, index=i))
            continue
        turn = views.poses[i, :3, :3]
        scale = np.linalg.norm(turn, axis=0)
        kind = "mirrors" if np.linalg.det(turn) < 0 else "scales or shears"
        reason = (
            f"its pose {kind} (lengths of the axes {', '.join(f'{one:.4g}' for one in scale)}); expected a rotation"
        )
        found.append(Problem("no_rotation", "", reason, index=i))
    return found


def _away(views: Views) -> list[Problem]:
    """Views in which the scene's centre is behind the camera or outside of the image."""
    centre = scene_centre(views.poses)
    if centre is None:
        return []
    found = []
    for i in range(len(views)):
        pixel, depth = project(
            torch.from_numpy(centre), torch.from_numpy(views.poses[i]), torch.from_numpy(views.intrinsics[i])
        )
        height, width = views.sizes[i]
        outside = not (-0.5 * width <= pixel[0] <= 1.5 * width and -0.5 * height <= pixel[1] <= 1.5 * height)
        if float(depth) <= 0 or outside:
            where = "behind it" if float(depth) <= 0 else "far outside of its image"
            reason = f"it looks elsewhere: the point that most cameras look at lies {where}; are its axes OpenGL's?"
            found.append(Problem("looks_away", "", reason, "warning", i))
    return found


def _unseen(views: Views) -> list[Problem]:
    """Whether what lies along the rays between near and far is seen by other views at all."""
    if len(views) < 2:
        return []
    chosen = np.unique(np.linspace(0, len(views) - 1, min(len(views), _MOST)).astype(int)).tolist()
    share = torch.linspace(0, 1, _DEPTHS, dtype=torch.float64)
    depths = views.near + (views.far - views.near) * share
    seen = []
    for i in chosen:
        pose, intrinsics = (torch.from_numpy(np.asarray(one[i], np.float64)) for one in (views.poses, views.intrinsics))
        height, width = map(int, views.sizes[i])
        steps = (torch.arange(_GRID, dtype=torch.float64) + 0.5) / _GRID
        pixels = torch.cartesian_prod(steps * width, steps * height)
        origins, directions = pixel_rays(pixels, pose, intrinsics)
        points = (origins[:, None] + depths[:, None] * directions[:, None]).reshape(-1, 3)
        by_any = torch.zeros(len(points), dtype=torch.bool)
        for j in chosen:
            if j != i:
                own = (torch.from_numpy(np.asarray(one[j], np.float64)) for one in (views.poses, views.intrinsics))
                place, depth = project(points, *own)
                limit = torch.tensor([views.sizes[j][1], views.sizes[j][0]], dtype=torch.float64)
                by_any |= (depth > 0) & ((place >= 0) & (place < limit)).all(-1)
        seen.append(float(by_any.double().mean()))
    worst = float(np.median(seen))
    if worst >= _SEEN:
        return []
    reason = (
        f"of what lies between near ({views.near:.4g}) and far ({views.far:.4g}) along the rays of a view other views "
        f"see {100 * worst:.1f} %; near, far or the poses are wrong"
    )
    return [Problem("unseen_depths", "", reason, "warning")]


def _outside(views: Views) -> list[Problem]:
    """Known points of the scene that lie outside of near and far in the views that see them."""
    if not len(views.points):
        return []
    points = torch.from_numpy(views.points[:: max(1, len(views.points) // 5000)])
    outside = total = 0
    for i in range(len(views)):
        own = (torch.from_numpy(np.asarray(one[i], np.float64)) for one in (views.poses, views.intrinsics))
        place, depth = project(points, *own)
        limit = torch.tensor([views.sizes[i][1], views.sizes[i][0]], dtype=torch.float64)
        inside = (depth > 0) & ((place >= 0) & (place < limit)).all(-1)
        total += int(inside.sum())
        outside += int((inside & ((depth < views.near) | (depth > views.far))).sum())
    if outside <= _OUTSIDE * total:
        return []
    reason = f"{100 * outside / total:.0f} % of the known points that views see lie outside of near and far; give both"
    return [Problem("points_outside_depths", "", reason, "warning")]
