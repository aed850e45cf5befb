"""An exported network that finds points, as a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from opsin.landmark.localizer import Localizer, Located, Outputs


class LocalizerProgram(Localizer):
    """A file's program: images, uint8 (B, channels, H, W) -> {"points": (B, P, 2), "spread": (B, P)}."""

    def __init__(self, run: Callable[[Tensor], Mapping[str, Tensor]], num_points: int) -> None:
        super().__init__(num_points, 3)
        self.program = run

    def forward(self, images: Tensor) -> Outputs:
        return dict(self.program(images if images.dtype == torch.uint8 else images.round().to(torch.uint8)))

    def decode(self, outputs: Outputs) -> Located:
        return Located(outputs["points"], outputs["spread"])

    def loss_of_each(self, outputs: Outputs, targets: Mapping[str, Tensor]) -> Tensor:
        raise NotImplementedError("an exported file is not trained")
