"""A radiance field that learns in minutes on a processor: factored grids, a small network, empty space skipped.

The grids are TensoRF's (Chen et al. 2022, arXiv:2203.09517, section 4), the density's activation and start are those of
DVGO (Sun et al. 2022, arXiv:2111.11215, section 4.1), what is skipped is by Müller et al. 2022, arXiv:2201.05989. What
differs: resolutions do not grow, and rays go by the occupancy of a box from the first step on.

A step of a training, for each ray: equal steps through the box, of which a look-up leaves those in cells that hold
something; their densities without gradient; those that light reaches (`reach`) with gradient; the colour of those that
add to what is seen (`visible`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.checks import check_count
from opsin.ops.positional_encoding import encode_positions, encoded_size
from opsin.registry import register
from opsin.render.factored_field import FactoredGrid, Places
from opsin.render.occupancy_grid import OccupancyGrid, Steps
from opsin.render.radiance_field import Outputs, RadianceField
from opsin.render.ragged import ragged_weights, segment_sums

_LOOK_EVERY = 16  # steps of a training between looks at the occupancy
_DIRECTIONS = 2  # frequencies of the direction
_CHUNK = 2048  # rays that are rendered at once


@register("fast_nerf", task="render")
class FastNeRF(RadianceField):
    """rays (R, 8) -> what they see, see `RadianceField`. box: x, y, z of its low corner, then of its high one.

    resolution: of planes and lines. density_components, color_components: numbers of each of the three products.
    hidden: of the colour's network. steps: through the longest side of the box. cells: of the occupancy, each side.
    samples: places that a step of a training asks at most, so that the first steps, to which nothing is empty, take
    fewer rays. reach, visible: see the first lines. fog: weight of the mean opacity of rays in
    the loss: what looks like the background costs nothing else, and would stay in the air, where each ray pays for it.
    start: opacity of a step at the beginning: nearly none, since fog of the background's colour is never punished, and
    above `visible`, so that colours are learned from the first step on.
    """

    def __init__(
        self,
        *,
        box: Sequence[float] = (-1.5, -1.5, -1.5, 1.5, 1.5, 1.5),
        resolution: int = 128,
        density_components: int = 16,
        color_components: int = 16,
        hidden: int = 64,
        steps: int = 160,
        cells: int = 64,
        samples: int = 1 << 16,
        background: str = "white",
        reach: float = 1e-3,
        visible: float = 1e-4,
        fog: float = 1e-3,
        gain: float = 20.0,
        start: float = 2e-4,
    ) -> None:
        super().__init__(background)
        for name in ("resolution", "density_components", "color_components", "hidden", "steps", "cells", "samples"):
            check_count(name, locals()[name], 2 if name in ("resolution", "cells") else 1)
        low, high = torch.tensor(list(box)).float().view(2, 3)
        self.grid = OccupancyGrid(low, high, cells, steps)
        self.density = FactoredGrid(resolution, density_components, gain)
        self.features = FactoredGrid(resolution, color_components, gain)
        inner = 3 * color_components + encoded_size(3, _DIRECTIONS)
        last = nn.Linear(hidden, 3)
        self.color = nn.Sequential(nn.Linear(inner, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), last)
        nn.init.zeros_(last.bias)
        self.samples, self.reach, self.visible, self.fog = samples, reach, visible, fog
        self.shift = math.log(math.expm1(-math.log1p(-start)))  # softplus of it makes the opacity of a step `start`

    # The field

    def _inside(self, points: Tensor) -> Tensor:
        return (points - self.grid.low) / (self.grid.high - self.grid.low)

    def optical(self, at: Places) -> Tensor:
        """(N,): density times the length of a step."""
        return F.softplus(self.density.products(at).sum(dim=(0, 2)) + self.shift)

    def densities(self, points: Tensor) -> Tensor:
        """(N,) a unit of length, at points (N, 3) of the box."""
        return self.optical(Places(self._inside(points), self.density.resolution)) / self.grid.step

    def colors(self, at: Places, directions: Tensor) -> Tensor:
        """(N, 3) in [0, 1]. directions: (N, E), encoded."""
        found = self.features.products(at).transpose(0, 1).flatten(1)
        return torch.sigmoid(self.color(torch.cat([found, directions], dim=1)))

    # What rays see

    def draw(self, count: int, device: torch.device | None = None) -> dict[str, Tensor]:
        return {"jitter": torch.rand(count, device=device)}

    def forward(self, rays: Tensor, draws: Mapping[str, Tensor] | None = None) -> Outputs:
        if draws is None and len(rays) > _CHUNK:
            return self.in_chunks(rays, _CHUNK)
        if draws is not None:  # of more rays than these `samples` would leave most out again
            rays = rays[: max(1, int(2 * self.samples / (max(self.grid.share, 1e-4) * self.grid.steps)))]
        origins, along, near, far = rays[:, :3], rays[:, 3:6], rays[:, 6], rays[:, 7]
        length = torch.linalg.vector_norm(along, dim=-1)
        directions = along / length[:, None]
        jitter = 0.5 if draws is None else draws["jitter"][: len(rays)]
        steps = self.grid.march(origins, directions, near * length, far * length, jitter)
        count = len(rays)
        if draws is not None:
            count, steps = self._limited(steps, count)
        outputs = self._composite(origins, directions, steps, count)
        outputs["depth"] = outputs["depth"] / length[:count]
        return outputs

    def _limited(self, steps: Steps, count: int) -> tuple[int, Steps]:
        """The first rays, as many as have no more than `samples` places together; one at least."""
        if len(steps.ray) <= self.samples:
            return count, steps
        count = max(1, int(steps.ray[self.samples]))
        kept = steps.ray < count
        return count, Steps(steps.ray[kept], steps.t[kept])

    def _composite(self, origins: Tensor, directions: Tensor, steps: Steps, count: int) -> Outputs:
        ray, t = steps
        points = self._inside(origins.index_select(0, ray) + directions.index_select(0, ray) * t[:, None])
        at = Places(points, self.density.resolution)
        with torch.no_grad():
            optical = self.optical(at)
            weight, through = ragged_weights(optical, ray)
            lit = torch.nonzero(through > self.reach)[:, 0]
        if torch.is_grad_enabled():
            ray, t, at = ray[lit], t[lit], at.select(lit)
            weight, _ = ragged_weights(self.optical(at), ray)
            seen = torch.nonzero(weight.detach() > self.visible)[:, 0]
        else:
            seen = torch.nonzero((weight > self.visible) & (through > self.reach))[:, 0]
        encoded = encode_positions(directions, _DIRECTIONS)
        colors = self.colors(at.select(seen), encoded.index_select(0, ray[seen]))
        shown = weight[seen]
        total = segment_sums(shown[:, None] * colors, ray[seen], count)
        sums = segment_sums(torch.stack([weight, weight * t], dim=1), ray, count)
        opacity = sums[:, 0]
        color = total + (1 - opacity)[:, None] * self.background_color(total)
        depth = sums[:, 1] / opacity.clamp(min=1e-6)
        return {"color": color, "opacity": opacity, "depth": depth}

    def loss(self, outputs: Outputs, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = super().loss(outputs, targets)
        if self.fog:
            found["fog"] = outputs["opacity"].mean() * self.fog
        return found

    @torch.no_grad()
    def prepare_step(self, step: int) -> None:
        """Before a step of a training: look at the occupancy, now and then."""
        if step % _LOOK_EVERY:
            return
        total = self.grid.resolution**3
        device = self.grid.highest.device
        anywhere = torch.randint(total, (total // 8,), device=device)
        filled = torch.nonzero(self.grid.filled)[:, 0]
        cells = torch.unique(torch.cat([anywhere, filled]))
        self.grid.look(self.densities, cells, torch.rand(len(cells), 3, device=device))
