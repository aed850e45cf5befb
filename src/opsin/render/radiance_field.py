"""What every radiance field has: rays in, colours, opacities and depths out; the photometric loss."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from opsin.errors import unknown

Outputs: TypeAlias = dict[str, Tensor]
BACKGROUNDS = {"white": 1.0, "black": 0.0}


class RadianceField(nn.Module, ABC):
    """A scene as a network. Subclasses say `forward` and `draw`.

    A ray is a row of 8: origin (3), direction (3) of any length, and near and far in lengths of the direction. Outputs:
    color (R, 3) in [0, 1], opacity (R,), depth (R,) in lengths of the direction, the mean of where light comes from; of
    a network with a coarse pass also `coarse` (R, 3). Where a training asks fewer rays than it was given, outputs are
    of the first ones.
    background: "white" or "black", what is seen where nothing stops a ray.
    """

    def __init__(self, background: str) -> None:
        super().__init__()
        if background not in BACKGROUNDS:
            raise unknown("background", background, BACKGROUNDS)
        self.background = background
        self.cameras: dict[str, Any] = {}  # what travels with the model of those that saw its scene

    def background_color(self, like: Tensor) -> Tensor:
        """(3,): what is seen behind everything."""
        return like.new_full((3,), BACKGROUNDS[self.background])

    @abstractmethod
    def forward(self, rays: Tensor, draws: Mapping[str, Tensor] | None = None) -> Outputs:
        """What rays (R, 8) see. draws: of `draw`, for a training; None for evenly spaced samples and no gradient."""

    @abstractmethod
    def draw(self, count: int, device: torch.device | None = None) -> dict[str, Tensor]:
        """Every random number that forward takes for so many rays."""

    def prepare_step(self, step: int) -> None:
        """Before each step of a training."""

    def loss(self, outputs: Outputs, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The mean squared error of the colours, of each pass. targets: {"color": (R, 3)}."""
        wanted = targets["color"][: len(outputs["color"])]
        names = {"color": "fine" if "coarse" in outputs else "color", "coarse": "coarse"}
        return {name: (outputs[key] - wanted).square().mean() for key, name in names.items() if key in outputs}

    def saved_state(self) -> dict[str, Any]:
        return {"cameras": dict(self.cameras)} if self.cameras else {}

    def restore_state(self, values: Mapping[str, Any]) -> None:
        cameras = dict(values.get("cameras", {}))
        if cameras:
            numbers = [*cameras["intrinsics"], *cameras["centre"], *cameras["up"], *cameras["size"]]
            if not all(math.isfinite(float(value)) for value in numbers):
                raise ValueError("cameras that are not finite")
        self.cameras = cameras

    def decode(self, outputs: Outputs) -> Outputs:
        """Colours within [0, 1], opacities and depths."""
        return {**outputs, "color": outputs["color"].clamp(0, 1)}

    def in_chunks(self, rays: Tensor, size: int) -> Outputs:
        """`forward` without gradient, so many rays at a time."""
        parts = [self(rays[k : k + size]) for k in range(0, len(rays), size)]
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
