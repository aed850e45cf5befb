"""Heat maps of points: drawn from places, and places read from them.

Places are in cells of the map, in continuous coordinates: cell i spans [i, i + 1) and its middle is i + 0.5. In pixels
of an input whose map has a stride of s they are s times as large, without any shift.
"""

from __future__ import annotations

import torch
from torch import Tensor


def draw_gaussians(points: Tensor, size: tuple[int, int], sigma: float = 1.5) -> Tensor:
    """exp(-d^2 / 2 sigma^2) of the distance d of every cell's middle from a point: (..., H, W), 1 at the peak.

    points: (..., 2), x and y in cells. Of a point that is NaN, all is 0. sigma: in cells.
    """
    rows, columns = (torch.arange(side, device=points.device, dtype=points.dtype) + 0.5 for side in size)
    across = torch.exp(-((columns - points[..., :1]) ** 2) / (2 * sigma**2))
    down = torch.exp(-((rows - points[..., 1:]) ** 2) / (2 * sigma**2))
    return (down[..., :, None] * across[..., None, :]).nan_to_num(0.0)


def normalize_maps(maps: Tensor) -> Tensor:
    """Maps (..., H, W) that sum to 1: what is negative counts as 0; one without anything is the same everywhere."""
    positive = maps.clamp(min=0) + 1e-12
    return positive / positive.sum(dim=(-2, -1), keepdim=True)


def expected_places(shares: Tensor) -> tuple[Tensor, Tensor]:
    """The mean place (..., 2) of maps (..., H, W) that sum to 1, x and y in cells, and how far they scatter, (...).

    The differentiable soft-argmax. Scatter: the root of the mean squared distance from the mean, over both axes.
    """
    rows, columns = (
        torch.arange(side, device=shares.device, dtype=shares.dtype) + 0.5
        for side in (shares.shape[-2], shares.shape[-1])
    )
    across, down = shares.sum(dim=-2), shares.sum(dim=-1)
    x, y = (across * columns).sum(dim=-1), (down * rows).sum(dim=-1)
    spread = (across * (columns - x[..., None]) ** 2).sum(dim=-1) + (down * (rows - y[..., None]) ** 2).sum(dim=-1)
    return torch.stack([x, y], dim=-1), spread.clamp(min=1e-12).sqrt()


def soft_argmax(logits: Tensor) -> tuple[Tensor, Tensor]:
    """`expected_places` of the softmax over all cells of maps (..., H, W).

    Nibali et al. 2018, arXiv:1801.07372 (DSNT); Sun et al. 2017, arXiv:1711.08229 (integral regression).
    """
    return expected_places(logits.flatten(-2).softmax(dim=-1).unflatten(-1, logits.shape[-2:]))


def local_argmax(maps: Tensor, radius: float = 3.0) -> tuple[Tensor, Tensor]:
    """`expected_places` of what is within `radius` cells of the largest value of maps (..., H, W), the rest left out.

    For maps that were learned as such: far from the peak their values are small, but many. What is less than a tenth
    of the peak is left out too.
    """
    height, width = maps.shape[-2:]
    flat = maps.flatten(-2)
    peak, place = flat.max(dim=-1, keepdim=True)
    rows = torch.arange(height, device=maps.device)[:, None].expand(height, width).flatten()
    columns = torch.arange(width, device=maps.device).expand(height, width).flatten()
    off = (columns - place % width) ** 2 + (rows - torch.div(place, width, rounding_mode="floor")) ** 2
    near = torch.where(off <= radius**2, (flat - 0.1 * peak).clamp(min=0), torch.zeros_like(flat))
    near = torch.where(off == 0, near.clamp(min=1e-6), near)  # of a map without a peak, its first cell
    return expected_places((near / near.sum(dim=-1, keepdim=True)).unflatten(-1, (height, width)))


def map_divergence(logits: Tensor, wanted: Tensor) -> Tensor:
    """The Kullback-Leibler divergence of the softmax of maps (..., H, W) from maps that sum to 1, in nats: (...).

    Its slope is the difference of the two, wherever they lie: it does not fade where they do not overlap.
    """
    found = logits.flatten(-2).log_softmax(dim=-1)
    wanted = wanted.flatten(-2)
    return (torch.special.xlogy(wanted, wanted) - wanted * found).sum(dim=-1)
