"""Stacked hourglass: maps shrink until one cell sees the whole image, grow again, and see what was there at each size.

Newell, Yang and Deng 2016, arXiv:1603.06937. The idea: where a joint is says something of where the next one is, so a
network should look at all scales at once and, having said where things are, look again: hourglasses stand one behind
the other, each with maps of its own that are taught too.

Residual modules are of the pre-activated bottleneck kind, 3x3 convolutions alone beside 1x1 ones; a level's skip has
one of its own; what grows does so by the nearest cell; everything is at a quarter of the input. hourglass8 is the
paper's, for images of 256x256; hourglass_small is one hourglass of a quarter of its width for 128x128, which a
processor can train.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.checks import check_count
from opsin.landmark.heatmap_localizer import HeatmapLocalizer, Learns
from opsin.landmark.localizer import Outputs
from opsin.registry import Published, register


class Residual(nn.Module):
    """x + the bottleneck of x: 1x1 to half the channels, 3x3, 1x1, each behind batch norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.bottleneck = nn.Sequential(
            nn.BatchNorm2d(in_channels), nn.ReLU(), nn.Conv2d(in_channels, half, 1),
            nn.BatchNorm2d(half), nn.ReLU(), nn.Conv2d(half, half, 3, padding=1),
            nn.BatchNorm2d(half), nn.ReLU(), nn.Conv2d(half, out_channels, 1),
        )  # fmt: skip
        self.skip = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.bottleneck(x)


class Hourglass(nn.Module):
    """Halved `depth` times and doubled again, (B, channels, H, W) as it came; H and W multiples of 2^depth."""

    def __init__(self, depth: int, channels: int) -> None:
        super().__init__()
        self.skip, self.down, self.up = (Residual(channels, channels) for _ in range(3))
        self.inner = Hourglass(depth - 1, channels) if depth > 1 else Residual(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        low = self.up(self.inner(self.down(F.max_pool2d(x, 2))))
        return self.skip(x) + F.interpolate(low, scale_factor=2.0, mode="nearest")


class StackedHourglass(HeatmapLocalizer):
    """`stacks` hourglasses of `channels` at a quarter of the input, each with maps of the points.

    depth: how often each halves, 4 in the paper. learns, sigma, divergence: see `HeatmapLocalizer`; the paper learns
    maps, by their squared error.
    """

    def __init__(
        self,
        *,
        num_points: int = 16,
        in_channels: int = 3,
        stacks: int = 8,
        channels: int = 256,
        depth: int = 4,
        learns: Learns = "heatmaps",
        sigma: float = 1.0,
        divergence: float = 10.0,
    ) -> None:
        super().__init__(num_points, in_channels, learns=learns, sigma=sigma, divergence=divergence)
        for name, value, least in (("stacks", stacks, 1), ("channels", channels, 8), ("depth", depth, 1)):
            check_count(name, value, least)
        self.divisor = self.min_size = 4 << depth
        half = channels // 2
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, channels // 4, 7, 2, 3), nn.BatchNorm2d(channels // 4), nn.ReLU(inplace=True),
            Residual(channels // 4, half), nn.MaxPool2d(2), Residual(half, half), Residual(half, channels),
        )  # fmt: skip
        self.hourglasses = nn.ModuleList(Hourglass(depth, channels) for _ in range(stacks))
        self.features = nn.ModuleList(
            nn.Sequential(
                Residual(channels, channels), nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels), nn.ReLU()
            )
            for _ in range(stacks)
        )  # fmt: skip
        self.predict = nn.ModuleList(nn.Conv2d(channels, num_points, 1) for _ in range(stacks))
        self.features_back = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(stacks - 1))
        self.maps_back = nn.ModuleList(nn.Conv2d(num_points, channels, 1) for _ in range(stacks - 1))

    def forward(self, images: Tensor) -> Outputs:
        self.check_images(images)
        x, found = self.stem(images), []
        for place, hourglass in enumerate(self.hourglasses):
            features = self.features[place](hourglass(x))
            found.append(self.predict[place](features))
            if place + 1 < len(self.hourglasses):
                x = x + self.features_back[place](features) + self.maps_back[place](found[-1])
        return {"heatmaps": torch.stack(found, dim=1)}


@register(
    "hourglass8",
    task="landmark",
    network=StackedHourglass,
    published=Published(
        "arXiv:1603.06937",
        2016,
        (3, 256, 256),
        25_434_112,
        metrics={"MPII PCKh@0.5": 90.9, "FLIC PCK@0.2 elbow": 99.0},
        idea="maps shrink and grow again, eight times, each time with a say on where the points are",
        source="counted here by the paper's section 3, for the 16 joints of MPII; the paper gives no count",
    ),
)
def hourglass8(**options: Any) -> StackedHourglass:
    return StackedHourglass(**options)


@register(
    "hourglass_small",
    task="landmark",
    network=StackedHourglass,
    published=Published(
        "arXiv:1603.06937",
        2016,
        (3, 128, 128),
        224_868,
        idea="one hourglass of 64 channels, which a processor trains; the mean of a map is the point",
        source="counted here, for the 68 points of 300-W; the size is opsin's",
    ),
)
def hourglass_small(**options: Any) -> StackedHourglass:
    given: dict[str, Any] = {"num_points": 68, "stacks": 1, "channels": 64, "learns": "points", "sigma": 1.5, **options}
    return StackedHourglass(**given)
