"""A scene as a dense grid of densities and colours, learned from images without any network.

As the coarse stage of DVGO (Sun et al. 2022, arXiv:2111.11215, sections 4.1 and 5.1): densities are interpolated
first and activated after, alpha = 1 - (1 + exp(s + b))^(-step), with b such that an empty grid is nearly clear; colours
do not depend on the direction. Neighbours are held together by total variation (Rudin et al. 1992), as in Plenoxels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.checks import check_count, check_number
from opsin.ops.compositing import composite, density_weights
from opsin.ops.rays import intersect_box
from opsin.registry import register
from opsin.render.radiance_field import Outputs, RadianceField

_CHUNK = 4096  # rays that are rendered at once
_CLEAR = 1e-4  # opacity of a cell at the start, section 4.1: "alpha^(init)"; larger ones find bad minima


@register("voxel_grid", task="render")
class VoxelGrid(RadianceField):
    """rays (R, 8) -> what they see, see `RadianceField`. box: x, y, z of its low corner, then of its high one.

    resolution: cells of each side. samples: places of each ray in the box. tv: weight of the total variation in the
    loss, 0 for none.
    """

    def __init__(
        self,
        *,
        box: Sequence[float] = (-1.5, -1.5, -1.5, 1.5, 1.5, 1.5),
        resolution: int = 64,
        samples: int = 128,
        tv: float = 1e-4,
        background: str = "white",
    ) -> None:
        super().__init__(background)
        check_count("resolution", resolution, 2)
        self.samples, self.tv = check_count("samples", samples, 1), check_number("tv", tv)
        corners = torch.tensor(list(box), dtype=torch.float32).view(2, 3)
        self.register_buffer("corners", corners, persistent=False)
        self.density = nn.Parameter(torch.zeros(1, 1, resolution, resolution, resolution))
        self.colour = nn.Parameter(torch.zeros(1, 3, resolution, resolution, resolution))
        self.cell = float((corners[1] - corners[0]).max()) / resolution
        self.shift = math.log(math.expm1(-math.log1p(-_CLEAR)))  # softplus of it makes a cell's opacity `_CLEAR`

    def _look_up(self, grid: Tensor, points: Tensor) -> Tensor:
        """(N, C) of points (N, 3): trilinear between the middles of cells."""
        low, high = self.corners  # type: ignore[misc]
        unit = ((points - low) / (high - low) * 2 - 1).flip(-1)  # grid_sample has the last axis first
        found = F.grid_sample(grid, unit[None, None, None], padding_mode="border", align_corners=False)
        return found[0, :, 0, 0].T

    def densities(self, points: Tensor) -> Tensor:
        """(N,) a unit of length, at points (N, 3)."""
        return F.softplus(self._look_up(self.density, points)[:, 0] + self.shift) / self.cell

    def draw(self, count: int, device: torch.device | None = None) -> dict[str, Tensor]:
        return {"jitter": torch.rand(count, 1, device=device)}

    def forward(self, rays: Tensor, draws: Mapping[str, Tensor] | None = None) -> Outputs:
        if draws is None and len(rays) > _CHUNK:
            return self.in_chunks(rays, _CHUNK)
        origins, along, near, far = rays[:, :3], rays[:, 3:6], rays[:, 6], rays[:, 7]
        low, high = self.corners  # type: ignore[misc]
        enter, leave, met = intersect_box(origins, along, low, high)
        first, last = torch.maximum(enter, near), torch.minimum(leave, far)
        gap = (last - first).clamp(min=0) * met / self.samples
        offset = 0.5 if draws is None else draws["jitter"]
        places = first[:, None] + (torch.arange(self.samples, device=rays.device) + offset) * gap[:, None]
        points = (origins[:, None] + places[..., None] * along[:, None]).flatten(0, 1)
        densities = self.densities(points).view(len(rays), -1)
        colours = torch.sigmoid(self._look_up(self.colour, points)).view(len(rays), -1, 3)
        lengths = (gap * torch.linalg.vector_norm(along, dim=-1))[:, None].expand_as(densities)
        weights = density_weights(densities, lengths)
        seen = composite(weights, colours, places, self.background_color(colours))
        return {"color": seen.values, "opacity": seen.opacity, "depth": seen.depth}

    def loss(self, outputs: Outputs, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = super().loss(outputs, targets)
        if self.tv:
            found["tv"] = self.tv * (total_variation(self.density) + total_variation(self.colour))
        return found


def total_variation(grid: Tensor) -> Tensor:
    """The mean squared difference of neighbours along the three axes of a grid (1, C, X, Y, Z), added up."""
    return sum((grid.diff(dim=axis).square().mean() for axis in (2, 3, 4)), start=grid.new_zeros(()))
