"""The networks `sdf` and `occupancy`: a shape field within the box of its mesh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from opsin.registry import register
from opsin.render.distance_field import ShapeField


class BoxedShape(nn.Module):
    """Points (N, 3) of the world -> (N,): the signed distance in units of the world, or the logit of being inside.

    box: x, y, z of its low corner, then of its high one; the field sees it as a cube from -1 to 1. depth, width,
    frequencies: see `ShapeField`.
    """

    kind: str = "distance"

    def __init__(
        self,
        *,
        box: Sequence[float] = (-1.0, -1.0, -1.0, 1.0, 1.0, 1.0),
        depth: int = 4,
        width: int = 128,
        frequencies: int = 5,
    ) -> None:
        super().__init__()
        self.middle: Tensor
        low, high = torch.tensor(list(box), dtype=torch.float32).view(2, 3)
        self.register_buffer("middle", (low + high) / 2, persistent=False)
        self.reach = float((high - low).max()) / 2
        self.field = ShapeField(self.kind, depth=depth, width=width, frequencies=frequencies)  # type: ignore[arg-type]

    def forward(self, points: Tensor) -> Tensor:
        found = self.field((points - self.middle) / self.reach)
        return found * self.reach if self.kind == "distance" else found

    def surface_values(self, points: Tensor) -> Tensor:
        """(N,), positive inside, 0 at the surface."""
        return -self(points) if self.kind == "distance" else self(points)

    def loss(self, outputs: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `ShapeField.loss`; distances in units of half of the box. targets: {"distance": (N,)}."""
        if self.kind == "distance":
            return self.field.loss(outputs / self.reach, {"distance": targets["distance"] / self.reach})
        return self.field.loss(outputs, dict(targets))

    def decode(self, outputs: Tensor) -> Tensor:
        """Whether each point is inside, (N,) bool."""
        return outputs < 0 if self.kind == "distance" else outputs > 0

    def example(self, batch: int, size: Any = None) -> Tensor:
        """Points of the box, all in its middle."""
        return torch.zeros(batch, 3)


@register("sdf", task="render")
class SignedDistanceField(BoxedShape):
    """A signed distance field, DeepSDF's for one shape: arXiv:1901.05103."""


@register("occupancy", task="render")
class OccupancyField(BoxedShape):
    """An occupancy field, of occupancy networks for one shape: arXiv:1812.03828."""

    kind = "occupancy"
