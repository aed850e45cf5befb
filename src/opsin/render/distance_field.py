"""Shapes as functions: signed distance fields and occupancy fields, and how rays meet them.

DeepSDF, Park et al. 2019, arXiv:1901.05103: a network learns the distance to a surface. Occupancy networks, Mescheder
et al. 2019, arXiv:1812.03828: whether a place is inside. IGR, Gropp et al. 2020, arXiv:2002.10099: from points of the
surface alone, since a distance has a gradient of length 1 everywhere. The first weights make a ball: Atzmon and Lipman
2020, arXiv:1911.10414, section 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.checks import check_count
from opsin.errors import unknown
from opsin.ops.positional_encoding import encode_positions, encoded_size

KINDS = ("distance", "occupancy")
_SHARP = 100.0  # of the softplus between layers, as published: nearly a ReLU, and smooth


class ShapeField(nn.Module):
    """Points (N, 3) -> (N,): the signed distance, negative inside, or the logit of being inside.

    kind: of `KINDS`. frequencies: of the encoding; 0 is the point alone, as IGR has it. The encoding's waves begin with
    weights of zero, so that the field begins as a ball of `radius`.
    """

    def __init__(
        self,
        kind: Literal["distance", "occupancy"] = "distance",
        *,
        depth: int = 4,
        width: int = 128,
        frequencies: int = 5,
        radius: float = 0.5,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise unknown("kind", kind, KINDS)
        check_count("depth", depth)
        check_count("width", width, 2)
        self.kind, self.frequencies = kind, frequencies
        inner = encoded_size(3, frequencies)
        self.layers = nn.ModuleList(nn.Linear(inner if k == 0 else width, width) for k in range(depth))
        self.last = nn.Linear(width, 1)
        for k, layer in enumerate(self.layers):
            nn.init.normal_(layer.weight, std=math.sqrt(2 / width))  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
            if k == 0:
                nn.init.zeros_(layer.weight[:, 3:])  # type: ignore[index]
        nn.init.normal_(self.last.weight, mean=math.sqrt(math.pi / width), std=1e-6)
        nn.init.constant_(self.last.bias, -radius)
        if kind == "occupancy":
            with torch.no_grad():
                self.last.weight.mul_(-10)
                self.last.bias.mul_(-10)

    def forward(self, points: Tensor) -> Tensor:
        x = encode_positions(points, self.frequencies) if self.frequencies else points
        for layer in self.layers:
            x = F.softplus(layer(x), beta=_SHARP)
        return self.last(x)[..., 0]

    def surface_values(self, points: Tensor) -> Tensor:
        """(N,), positive inside, 0 at the surface."""
        return -self(points) if self.kind == "distance" else self(points)

    def loss(self, outputs: Tensor, targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """Against true signed distances (N,): their absolute error, or cross-entropy of being inside.

        targets: {"distance": (N,)}.
        """
        true = targets["distance"]
        if self.kind == "distance":
            return {"distance": (outputs - true).abs().mean()}
        return {"inside": F.binary_cross_entropy_with_logits(outputs, (true < 0).to(outputs.dtype))}


def field_gradient(field: Callable[[Tensor], Tensor], points: Tensor, *, create_graph: bool = False) -> Tensor:
    """The gradient (N, 3) of a field at points (N, 3)."""
    with torch.enable_grad():
        given = points.detach().requires_grad_()
        return torch.autograd.grad(field(given).sum(), given, create_graph=create_graph)[0]


def eikonal_losses(
    field: Callable[[Tensor], Tensor], surface: Tensor, normals: Tensor | None, anywhere: Tensor
) -> dict[str, Tensor]:
    """IGR's terms, unweighed: "surface", where the field is to be 0, "normal", how far its gradient there is from the
    normals, and "eikonal", how far the gradient's length is from 1, squared, at points `anywhere`.

    surface, normals, anywhere: (N, 3). As published they are summed with weights 1, 1 and 0.1. arXiv:2002.10099, eq. 2.
    """
    found = {"surface": field(surface).abs().mean()}
    if normals is not None:
        slope = field_gradient(field, surface, create_graph=True)
        found["normal"] = torch.linalg.vector_norm(slope - normals, dim=-1).mean()
    length = torch.linalg.vector_norm(field_gradient(field, anywhere, create_graph=True), dim=-1)
    found["eikonal"] = (length - 1).square().mean()
    return found


@torch.no_grad()
def trace_spheres(
    distance: Callable[[Tensor], Tensor],
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    *,
    steps: int = 64,
    close: float = 1e-3,
) -> tuple[Tensor, Tensor]:
    """Where rays meet a surface: t (R,) and whether they do (R,). Hart 1996: each step is as long as the distance.

    directions: (R, 3), of length 1. close: the distance that counts as met. A learned distance that is too long may
    step over a thin wall; where a step ends inside, its negative distance leads back.
    """
    t = near.clone()
    met = torch.zeros_like(t, dtype=torch.bool)
    alive = torch.nonzero(far > near)[:, 0]
    for _ in range(steps):
        if not len(alive):
            break
        found = distance(origins[alive] + t[alive, None] * directions[alive])
        t[alive] += torch.where(found.abs() < close, torch.zeros_like(found), found)
        met[alive] = found.abs() < close
        alive = alive[(found.abs() >= close) & (t[alive] < far[alive])]
    return t, met


@torch.no_grad()
def first_crossings(
    values: Callable[[Tensor], Tensor],
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    *,
    steps: int = 64,
    halvings: int = 10,
) -> tuple[Tensor, Tensor]:
    """Where along rays a field is first positive, for one that says no distance: t (R,) and whether it is.

    Asked at `steps` even places of each ray, and where the sign changes between two of them, in their middle, as often
    as `halvings`. What is thinner than a step may be missed. Niemeyer et al. 2020, arXiv:1912.07372, section 3.2, who
    take secants in the place of middles.
    """
    low, high, met = near.clone(), near.clone(), torch.zeros_like(near, dtype=torch.bool)
    alive = torch.nonzero(far > near)[:, 0]
    for step in range(steps + 1):
        if not len(alive):
            break
        t = near[alive] + (far - near)[alive] * (step / steps)
        inside = values(origins[alive] + t[:, None] * directions[alive]) > 0
        high[alive] = t
        met[alive] = inside
        low[alive[~inside]] = t[~inside]
        alive = alive[~inside]
    found = torch.nonzero(met)[:, 0]
    for _ in range(halvings):
        middle = (low[found] + high[found]) / 2
        inside = values(origins[found] + middle[:, None] * directions[found]) > 0
        high[found] = torch.where(inside, middle, high[found])
        low[found] = torch.where(inside, low[found], middle)
    return high, met
