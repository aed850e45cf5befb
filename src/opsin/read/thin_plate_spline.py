"""Rectification of bent text: a small network finds points along its borders, and a thin-plate spline straightens it.

Shi, Wang, Lyu, Yao and Bai 2016 (RARE, arXiv:1603.03915), section 3.1, as in Baek et al. 2019 (arXiv:1904.01906): the
upper row of points is read as the upper border of the rectified image, the lower as the lower, by a spatial transformer
(Jaderberg et al. 2015, arXiv:1506.02025). Nothing says where the points should be: the gradient of the reading does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.checks import check_count
from opsin.data.transforms.geometry import spline_weights
from opsin.errors import InputError
from opsin.nn.conv import ConvNormActivation


class ThinPlateSplineRectifier(nn.Module):
    """Images (B, in_channels, H, W) of any size -> (B, in_channels, *size), bent so that they can be read better.

    fiducials: points, half of them along each border. widths: channels of the four convolutions that find them.
    It starts as the identity, each point on its border: the last layer's weights are 0, as in RARE (the port's points
    start on two slanted lines). Coordinates run from -1 to 1 over the whole image, pixel i spanning its share, and what
    is read from outside repeats the border.
    """

    weights: Tensor
    min_size = 16  # three poolings, and more than one place for batch norm

    def __init__(
        self,
        in_channels: int = 1,
        size: tuple[int, int] = (32, 100),
        fiducials: int = 20,
        widths: Sequence[int] = (64, 128, 256, 512),
        hidden: int = 256,
    ) -> None:
        super().__init__()
        check_count("fiducials", fiducials, least=4)
        if fiducials % 2:
            raise InputError(f"fiducials must be even, half of them along each border, got {fiducials}")
        self.size = check_count("height", size[0]), check_count("width", size[1])
        layers: list[nn.Module] = []
        before = in_channels
        for width in widths:
            layers += [ConvNormActivation(before, width, 3), nn.MaxPool2d(2)]
            before = width
        layers[-1] = nn.AdaptiveAvgPool2d(1)
        self.locate = nn.Sequential(*layers, nn.Flatten(), nn.Linear(before, hidden), nn.ReLU(inplace=True))
        self.points = nn.Linear(hidden, 2 * fiducials)
        borders = _borders(fiducials)
        nn.init.zeros_(self.points.weight)
        with torch.no_grad():
            self.points.bias.copy_(borders.flatten())
        # Not saved: it follows from the options.
        self.register_buffer("weights", _weights(self.size, borders).to(self.points.weight.device), persistent=False)

    def fiducials(self, images: Tensor) -> Tensor:
        """Where the borders of the text are: (B, fiducials, 2) as x, y in [-1, 1], the upper row first."""
        return self.points(self.locate(images)).unflatten(1, (-1, 2))

    def forward(self, images: Tensor) -> Tensor:
        # Half precision would round a place along 100 pixels to a quarter of one.
        places = (self.weights.float() @ self.fiducials(images).float()).unflatten(1, self.size)
        return F.grid_sample(images, places.to(images.dtype), padding_mode="border", align_corners=False)


def _borders(fiducials: int) -> Tensor:
    """Points on the upper border and on the lower, from left to right: (fiducials, 2)."""
    with torch.device("cpu"):
        x = torch.linspace(-1, 1, fiducials // 2)
        return torch.cat([torch.stack([x, torch.full_like(x, y)], dim=1) for y in (-1.0, 1.0)])


def _weights(size: tuple[int, int], borders: Tensor) -> Tensor:
    """What each pixel's place is of the places of the points, (H x W, fiducials), row by row."""
    with torch.device("cpu"):
        rows, columns = ((2 * torch.arange(side) + 1) / side - 1 for side in size)
        centres = torch.cartesian_prod(rows, columns).flip(1)
        return spline_weights(centres.double(), borders.double()).float()
