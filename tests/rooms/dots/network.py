"""A network that counts: a map of how much of a dot lies at each pixel, summed."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from opsin.registry import Published, register


class DotsNet(nn.Module):
    """(B, C, H, W) -> counts (B,)."""

    def __init__(self, *, in_channels: int = 1) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(in_channels, 8, 3, padding=1), nn.ReLU())
        self.density = nn.Conv2d(8, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.density(self.features(images)).mean(dim=(1, 2, 3)) * 100

    def loss(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """How far the counts are off, smooth L1."""
        return {"count": F.smooth_l1_loss(outputs, targets)}


register("dots_net", task="dots", published=Published("none", 2026, (1, 32, 32), 89))(DotsNet)
