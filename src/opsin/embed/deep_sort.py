"""DeepSORT's re-identification network: what a tracker knows people by after they were hidden.

Wojke, Bewley and Paulus 2017, arXiv:1703.07402, table 1; trained as in Wojke and Bewley 2018, arXiv:1812.00442, by a
softmax over cosines (loss.name=cosine_softmax). The idea: a classifier of people whose last layer sees angles alone, so
that the features in front of it can be compared by cosine once the classes are gone.

To the parameter: batch norms learn a shift and no scale, a residual block begins with one (the first does not), its
second convolution has a bias in place of one, and shortcuts that halve a map are 1x1 convolutions. The dense layer has
a batch norm and no further one stands between it and the normalisation to length 1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from opsin.checks import check_probability
from opsin.embed.embedder import Embedder
from opsin.losses.angular import CosineSoftmax
from opsin.registry import Published, register


class ShiftNorm(nn.Module):
    """Batch norm with a shift and no scale, of maps (B, C, H, W) or rows (B, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps=1e-3, affine=False)
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        maps = x if x.ndim == 4 else x[:, :, None, None]
        found = self.norm(maps) + self.shift[:, None, None]
        return found if x.ndim == 4 else found[:, :, 0, 0]


class ResidualBlock(nn.Module):
    """Norm and ELU, a convolution with norm and ELU, dropout, a convolution with a bias; added to the shortcut.

    first: without the norm and ELU in front. halved: twice the channels at half the size.
    """

    def __init__(self, in_channels: int, *, first: bool = False, halved: bool = False, dropout: float = 0.4) -> None:
        super().__init__()
        width, stride = (2 * in_channels, 2) if halved else (in_channels, 1)
        self.before = nn.Identity() if first else nn.Sequential(ShiftNorm(in_channels), nn.ELU())
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False),
            ShiftNorm(width),
            nn.ELU(),
            nn.Dropout(dropout),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.shortcut = nn.Conv2d(in_channels, width, 1, stride, bias=False) if halved else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.body(self.before(x))


class DeepSORTNetwork(Embedder):
    """Two convolutions, six residual blocks, a dense layer of 128 numbers, length 1: of 128x64 pixels.

    num_classes: people of the training, whom its criterion alone tells apart; None trains by triplets. dropout: within
    blocks and in front of the dense layer.
    """

    learned = ("stem", "blocks")
    shape = (128, 64)

    def __init__(self, *, num_classes: int | None = None, in_channels: int = 3, dropout: float = 0.4) -> None:
        super().__init__(128, in_channels)
        check_probability("dropout", dropout)
        self.stem = nn.Sequential(
            *(nn.Conv2d(in_channels, 32, 3, padding=1, bias=False), ShiftNorm(32), nn.ELU()),
            *(nn.Conv2d(32, 32, 3, padding=1, bias=False), ShiftNorm(32), nn.ELU()),
            nn.MaxPool2d(3, 2, padding=1),
        )
        self.blocks = nn.Sequential(
            ResidualBlock(32, first=True, dropout=dropout),
            ResidualBlock(32, dropout=dropout),
            ResidualBlock(32, halved=True, dropout=dropout),
            ResidualBlock(64, dropout=dropout),
            ResidualBlock(64, halved=True, dropout=dropout),
            ResidualBlock(128, dropout=dropout),
        )
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(128 * 16 * 8, 128, bias=False),
            ShiftNorm(128),
            nn.ELU(),
        )
        if num_classes is not None:
            self.criterion = CosineSoftmax(num_classes, 128)

    def embed(self, images: Tensor) -> Tensor:
        return F.normalize(self.head(self.blocks(self.stem(images))), dim=1)


@register(
    "deep_sort",
    task="embed",
    network=DeepSORTNetwork,
    published=Published(
        paper="arXiv:1703.07402",
        year=2017,
        input=(3, 128, 64),
        params=2_800_864,
        idea="a classifier of people by angles alone, whose features then tell anybody apart",
        source="the paper, section 2.4; its classes are not counted",
    ),
)
def deep_sort(**options: Any) -> DeepSORTNetwork:
    """The appearance descriptor of DeepSORT."""
    return DeepSORTNetwork(**options)
