"""Fields as programs for other runtimes: what they say at places; who runs them walks the rays."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from opsin.engine.program import Program
from opsin.errors import InputError
from opsin.render.nerf import NeRF
from opsin.render.radiance_mlp import RadianceMLP
from opsin.render.shape_network import BoxedShape


class RadianceProgram(nn.Module):
    """Places and unit directions (B, 6) -> {"density": (B,), "color": (B, 3)}."""

    def __init__(self, network: RadianceMLP) -> None:
        super().__init__()
        self.network = network

    def forward(self, points: Tensor) -> dict[str, Tensor]:
        density, color = self.network(points[:, :3], points[:, 3:])
        return {"density": density, "color": color}


class ShapeProgram(nn.Module):
    """Places (B, 3) -> {"value": (B,)}."""

    def __init__(self, network: BoxedShape) -> None:
        super().__init__()
        self.network = network

    def forward(self, points: Tensor) -> dict[str, Tensor]:
        return {"value": self.network(points)}


def field_inputs(points: Tensor, model: nn.Module) -> Tensor:
    """Places (B, 3) as a model's program takes them: of a radiance field with directions, (B, 6)."""
    if isinstance(model, BoxedShape):
        return points
    return torch.cat([points, nn.functional.normalize(points + 1e-3, dim=1)], dim=1)


def field_program(model: Any) -> Program:
    """The program of a field. Raises InputError for one that is no network."""
    if isinstance(model, BoxedShape):
        distances = model.kind == "distance"
        what = "signed distances, negative inside" if distances else "logits of being inside"
        return Program(
            ShapeProgram(model), ["value"], {"usage": f"value: {what}, at points (batch, 3)."}, name="points"
        )
    if isinstance(model, NeRF):
        usage = (
            "points: (batch, 6), a place and the unit direction that it is seen along; density: (batch,), for a unit "
            "of length; color: (batch, 3), red, green and blue in [0, 1]."
        )
        network = model.coarse if model.fine is None else model.fine
        return Program(RadianceProgram(network), ["density", "color"], {"usage": usage}, name="points")
    raise InputError("the fast field is tables that are looked up, which no file format holds; write its mesh instead")
