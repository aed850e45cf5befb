"""Where rays meet boxes and spheres, and at which places along them a field is asked.

A ray is an origin and a direction, both (..., 3); t is measured in lengths of the direction, which need not be 1.
Random numbers are given, never drawn here, so that what is computed with them stays a function of its arguments.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SMALLEST = 1e-5  # as published: the weight that every interval has, and the probability below which one is a point


def intersect_box(origins: Tensor, directions: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where rays enter and leave a box from corner `low` to `high` (3,): near, far (...) and whether they meet it.

    By slabs, Kay and Kajiya 1986. near is 0 for an origin inside of the box; what lies behind an origin is not met.
    Both are 0 where the box is missed.
    """
    tiny = torch.finfo(directions.dtype).tiny
    safe = torch.where(directions.abs() < tiny, torch.full_like(directions, tiny), directions)
    first, second = (low - origins) / safe, (high - origins) / safe
    near = torch.minimum(first, second).amax(-1).clamp(min=0)
    far = torch.maximum(first, second).amin(-1)
    met = far > near
    zero = torch.zeros_like(near)
    return torch.where(met, near, zero), torch.where(met, far, zero), met


def intersect_sphere(
    origins: Tensor, directions: Tensor, centre: Tensor, radius: float | Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Where rays enter and leave a sphere: near, far (...) and whether they meet it, as `intersect_box` has them."""
    offset = origins - centre
    a = directions.square().sum(-1)
    half = (offset * directions).sum(-1)
    across = (offset - (half / a)[..., None] * directions).square().sum(-1)  # stable where the sphere is far
    root = a * (radius * radius - across)
    reach = root.clamp(min=0).sqrt()
    near, far = ((-half - reach) / a).clamp(min=0), (-half + reach) / a
    met = (root > 0) & (far > near)
    zero = torch.zeros_like(near)
    return torch.where(met, near, zero), torch.where(met, far, zero), met


def stratified_samples(
    near: Tensor, far: Tensor, count: int, draws: Tensor | None = None, *, in_disparity: bool = False
) -> Tensor:
    """Places (..., count) along rays from near to far (...), one in each of as many intervals.

    Mildenhall et al. 2020, arXiv:2003.08934, eq. 2, as its code has it: the intervals lie around `count` places that
    are evenly spaced from near to far, the first and the last half as long. draws: (..., count) in [0, 1), where in its
    interval each lies; None for the evenly spaced places. in_disparity: evenly spaced in 1 / t.
    """
    steps = torch.linspace(0, 1, count, dtype=near.dtype, device=near.device)
    near, far = near[..., None], far[..., None]
    if in_disparity:
        places = 1 / (1 / near * (1 - steps) + 1 / far * steps)
    else:
        places = near * (1 - steps) + far * steps
    if draws is None:
        return places
    middles = 0.5 * (places[..., 1:] + places[..., :-1])
    low = torch.cat([places[..., :1], middles], dim=-1)
    high = torch.cat([middles, places[..., -1:]], dim=-1)
    return low + (high - low) * draws


def importance_samples(edges: Tensor, weights: Tensor, count: int, draws: Tensor | None = None) -> Tensor:
    """Places (..., count) drawn from a density that is constant between edges (..., N + 1), by weights (..., N).

    By the inverse of its distribution. No gradient goes to edges or weights, as published: arXiv:2003.08934, section
    5.2. draws: (..., count) in [0, 1); None for evenly spaced ones from 0 to 1. The places are in the order of `draws`.
    """
    edges, weights = edges.detach(), weights.detach() + _SMALLEST
    density = weights / weights.sum(-1, keepdim=True)
    steps = torch.cumsum(density, -1)
    steps = torch.cat([torch.zeros_like(steps[..., :1]), steps], dim=-1)
    if draws is None:
        draws = torch.linspace(0, 1, count, dtype=steps.dtype, device=steps.device).expand(*steps.shape[:-1], count)
    draws = draws.contiguous()
    above = torch.searchsorted(steps.contiguous(), draws, right=True)
    low, high = (above - 1).clamp(min=0), above.clamp(max=steps.shape[-1] - 1)
    start, end = steps.gather(-1, low), steps.gather(-1, high)
    span = end - start
    share = (draws - start) / torch.where(span < _SMALLEST, torch.ones_like(span), span)
    first, last = edges.gather(-1, low), edges.gather(-1, high)
    return first + share * (last - first)


def hierarchical_samples(places: Tensor, weights: Tensor, count: int, draws: Tensor | None = None) -> Tensor:
    """Coarse places (..., N) and `count` more where their weights (..., N) are large, in order: (..., N + count).

    As published: the density is constant between the middles of neighbouring places, by the weight of the place there;
    the first and the last weight are not used.
    """
    middles = 0.5 * (places[..., 1:] + places[..., :-1])
    more = importance_samples(middles, weights[..., 1:-1], count, draws)
    return torch.sort(torch.cat([places.detach(), more], dim=-1), dim=-1).values
