"""Moving least squares: where every point of the plane goes when a few are moved.

Schaefer, McPhail and Warren 2006, doi:10.1145/1141911.1141920, section 2. For each point v the transformation of one
kind is found that moves the controls p best, where those near v count most, w = 1 / |p - v|^(2 alpha); v goes where
this transformation sends it. The controls themselves go exactly where they are moved.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from opsin.errors import InputError, unknown

Kind: TypeAlias = Literal["similarity", "rigid"]
KINDS = ("similarity", "rigid")
_NEAR = 1e-8  # squared distance, in units of the controls' extent, at which a point is a control


def moving_least_squares(
    points: Tensor, controls: Tensor, moved: Tensor, *, kind: Kind = "similarity", alpha: float = 1.0
) -> Tensor:
    """Where points go when controls are moved: (..., N, 2).

    points: (N, 2) or (..., N, 2). controls, moved: (..., K, 2), K >= 2. kind: "similarity" turns, moves and scales, all
    directions alike (eq. 6); "rigid" does not scale (section 2.3). A point on which nothing pulls, as all controls lie
    in one place, is only moved. To warp an image backwards, reading at what this returns, give the moved points as the
    controls. With the points as complex numbers the best similarity about the weighted means p* and q* is the factor
    sum w conj(p - p*) (q - q*) / sum w |p - p*|^2.
    """
    if kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    if controls.shape != moved.shape or controls.shape[-2] < 2 or controls.shape[-1] != 2 or points.shape[-1] != 2:
        raise InputError(
            f"controls {tuple(controls.shape)} and moved {tuple(moved.shape)} must be (..., K, 2) alike, two or more, "
            f"and points {tuple(points.shape)} (..., N, 2)"
        )
    unit = (controls.amax(dim=-2) - controls.amin(dim=-2)).amax(dim=-1).clamp(min=1e-12)[..., None, None]
    x, y = ((points[..., k, None] - controls[..., None, :, k]) for k in (0, 1))  # (..., N, K), from control to point
    weights = ((x.square() + y.square()) / unit.square() + _NEAR) ** -alpha
    weights = weights / weights.sum(dim=-1, keepdim=True)
    centre, target = weights @ controls, weights @ moved  # (..., N, 2): p* and q*
    p = controls[..., None, :, :] - centre[..., None, :]
    q = moved[..., None, :, :] - target[..., None, :]
    real = (weights * (p * q).sum(dim=-1)).sum(dim=-1)
    turned = (weights * (p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0])).sum(dim=-1)
    if kind == "similarity":
        size = (weights * p.square().sum(dim=-1)).sum(dim=-1)
    else:
        size = torch.hypot(real, turned)
    size = size.clamp(min=torch.finfo(size.dtype).tiny)
    cos, sin = real / size, turned / size
    away = points - centre
    return target + torch.stack(
        [cos * away[..., 0] - sin * away[..., 1], sin * away[..., 0] + cos * away[..., 1]], dim=-1
    )


def border_points(patches: int, height: float, width: float) -> Tensor:
    """2 (patches + 1) fiducial points on the upper border from left to right and then on the lower: (K, 2), as x, y.

    Luo et al. 2020, arXiv:2003.06606, section 3.1: a text in so many patches of equal width.
    """
    x = torch.linspace(0, 1, patches + 1) * width
    return torch.stack([torch.cat([x, x]), torch.cat([torch.zeros_like(x), torch.full_like(x, height)])], dim=1)
