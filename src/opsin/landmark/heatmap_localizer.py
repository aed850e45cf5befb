"""What networks with heat maps share: how they are taught, and how points are read from them.

Two ways to learn. "heatmaps": each map is to be a Gaussian around its point, by a loss of every cell, such as adaptive
Wing (Wang, Bo and Fuxin 2019, arXiv:1904.07399), whose weights map lets the cells around a point count 11 times as much
as the background; read by the mean place around the largest cell. "points": the softmax of a map is a distribution, its
mean is the point, and a loss of coordinates, such as Wing, teaches that (Nibali et al. 2018, arXiv:1801.07372), along
with the divergence from a Gaussian, which keeps the map of one peak: Kullback-Leibler's here, whose slope does not fade
where the two are far apart; the paper found Jensen-Shannon's a little better in the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from opsin.checks import check_number
from opsin.errors import unknown
from opsin.landmark.localizer import Localizer, Located, Outputs, loss_of_points
from opsin.losses import create_loss
from opsin.ops.heatmaps import (
    draw_gaussians,
    local_argmax,
    map_divergence,
    normalize_maps,
    soft_argmax,
)

Learns: TypeAlias = Literal["heatmaps", "points"]

_WEIGHT, _NEAR = 10.0, 0.2  # of the weights map: Wang et al. 2019, section 4.3


class HeatmapLocalizer(Localizer):
    """{"heatmaps": (B, S, P, H / stride, W / stride)}, S maps of each point, of which the last is the answer.

    learns: see above. sigma: of the Gaussians, in cells. divergence: what that from a Gaussian counts beside a loss of
    coordinates in pixels.
    """

    stride: int = 4

    def __init__(
        self,
        num_points: int,
        in_channels: int,
        *,
        learns: Learns = "points",
        sigma: float = 1.5,
        divergence: float = 10.0,
    ) -> None:
        super().__init__(num_points, in_channels)
        if learns not in ("heatmaps", "points"):
            raise unknown("learns", str(learns), ("heatmaps", "points"))
        self.learns: Learns = learns
        self.sigma = check_number("sigma", sigma, above=True)
        self.divergence = check_number("divergence", divergence)
        self.criterion = create_loss("adaptive_wing" if learns == "heatmaps" else "wing", reduction="none")

    def decode(self, outputs: Outputs) -> Located:
        maps = outputs["heatmaps"][:, -1].float()
        if self.learns == "heatmaps":
            places, spread = local_argmax(maps, 2 * self.sigma)
        else:
            places, spread = soft_argmax(maps)
        return Located(places * self.stride, spread * self.stride)

    def loss_of_each(self, outputs: Outputs, targets: Mapping[str, Tensor]) -> Tensor:
        maps, points = outputs["heatmaps"].float(), targets["points"].float()
        if self.learns == "heatmaps":
            return self._map_loss(maps, points)
        return self._point_loss(maps, points)

    def _inside(self, maps: Tensor, points: Tensor) -> Tensor:
        """(B, P) bool: which points are known and lie in the input."""
        limit = points.new_tensor([maps.shape[-1], maps.shape[-2]]) * self.stride
        return ((points >= 0) & (points < limit)).all(dim=2)

    def _map_loss(self, maps: Tensor, points: Tensor) -> Tensor:
        """The mean over the cells of all maps whose point is known; a point outside of the input has an empty map."""
        known = ~points.isnan().any(dim=2)
        wanted = draw_gaussians(points / self.stride, (maps.shape[-2], maps.shape[-1]), self.sigma)
        near = (F.max_pool2d(wanted, 3, 1, 1) >= _NEAR).to(wanted)
        terms = self.criterion(maps, wanted[:, None].expand_as(maps)) * (1 + _WEIGHT * near[:, None])
        each = terms.mean(dim=(-2, -1)).sum(dim=1) * known
        return each.sum(dim=1) / known.sum(dim=1).clamp(min=1)

    def _point_loss(self, maps: Tensor, points: Tensor) -> Tensor:
        """That of the coordinates, in pixels, and the divergence, over the points inside of the input."""
        inside = self._inside(maps, points)
        wanted = torch.where(inside[..., None], points, torch.nan)
        places, _ = soft_argmax(maps)
        own = [loss_of_points(self.criterion, places[:, k] * self.stride, wanted) for k in range(maps.shape[1])]
        if self.divergence:
            drawn = draw_gaussians(wanted / self.stride, (maps.shape[-2], maps.shape[-1]), self.sigma)
            apart = map_divergence(maps, normalize_maps(drawn)[:, None].expand_as(maps)).sum(dim=1) * inside
            own.append(self.divergence * apart.sum(dim=1) / inside.sum(dim=1).clamp(min=1))
        return torch.stack(own).sum(dim=0)
