"""The volume integral along rays, as a sum: opacity, transmittance, weights, and what is composited with them.

Max 1995, doi:10.1109/2945.468400; Mildenhall et al. 2020, arXiv:2003.08934, eq. 3. A density sigma that is constant
over a length L lets exp(-sigma L) of the light through; the sum is exact for a density that is constant in pieces.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

END = 1e10  # the length of a ray's last interval, as published: what is left is taken by a last place with any density


@dataclass(frozen=True)
class Composited:
    """What rays see. values: (..., C), as colours; opacity: (...) in [0, 1]; depth: (...), the mean t of the weights
    for rays that meet something, over their opacity; weights: (..., N), which sum up to the opacity.
    """

    values: Tensor
    opacity: Tensor
    depth: Tensor
    weights: Tensor


def interval_lengths(places: Tensor, directions: Tensor | None = None, end: float | Tensor = END) -> Tensor:
    """The length (..., N) from each place of a ray to the next, of the last `end`.

    places: (..., N) in order, in lengths of directions (..., 3), if they are given. end: a length in the same unit as
    places; the last interval of a ray that ends at t_far has t_far minus its last place.
    """
    last = torch.as_tensor(end, dtype=places.dtype, device=places.device).expand(places.shape[:-1])[..., None]
    lengths = torch.cat([places[..., 1:] - places[..., :-1], last], dim=-1)
    return lengths if directions is None else lengths * torch.linalg.vector_norm(directions, dim=-1)[..., None]


def opacities(densities: Tensor, lengths: Tensor) -> Tensor:
    """How much light each interval takes: alpha = 1 - exp(-sigma L), (..., N), exact for small ones too."""
    return -torch.expm1(-densities * lengths)


def transmittances(densities: Tensor, lengths: Tensor) -> Tensor:
    """How much light comes from before each interval to the eye: (..., N), exp of minus the sum up to it; 1 first."""
    depths = densities * lengths
    before = torch.cumsum(depths[..., :-1], dim=-1)
    return torch.exp(-torch.cat([torch.zeros_like(depths[..., :1]), before], dim=-1))


def alpha_weights(alphas: Tensor) -> Tensor:
    """What each of several layers (..., N), the nearest first, adds: alpha_i times prod 1 - alpha_j of those before."""
    through = torch.cumprod(1 - alphas[..., :-1], dim=-1)
    return alphas * torch.cat([torch.ones_like(alphas[..., :1]), through], dim=-1)


def density_weights(densities: Tensor, lengths: Tensor) -> Tensor:
    """What each interval adds to what is seen: (..., N), T_i (1 - exp(-sigma_i L_i))."""
    return transmittances(densities, lengths) * opacities(densities, lengths)


def composite(weights: Tensor, values: Tensor, places: Tensor, background: Tensor | float | None = None) -> Composited:
    """What rays see of values (..., N, C) at places (..., N), the nearest first, by weights (..., N).

    background: a value, (C,) or (..., C), that is seen as far as a ray is not stopped; None for black.
    """
    opacity = weights.sum(-1)
    seen = (weights[..., None] * values).sum(-2)
    if background is not None:
        seen = seen + (1 - opacity)[..., None] * background
    depth = (weights * places).sum(-1) / opacity.clamp(min=torch.finfo(opacity.dtype).eps)
    return Composited(seen, opacity, depth, weights)
