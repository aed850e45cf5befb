"""Inception v3: Rethinking the Inception Architecture for Computer Vision.

Szegedy et al. 2015, arXiv:1512.00567. The idea: large kernels are products of small ones. 5x5 becomes two of 3x3, 7x7
becomes 1x7 and 7x1, maps are halved by convolution and pooling side by side; batch norm is everywhere, in the auxiliary
classifier too, and labels are smoothed.

The layers are those of TensorFlow's network as torchvision and timm have it, which is what everybody calls v3; the
paper's table 1 differs in details of the stem. torchvision's average poolings count the zeros of the border,
TensorFlow's did not; timm follows torchvision, and so do we.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from opsin.backbones.backbone import Backbone
from opsin.backbones.googlenet import (
    AtLeast,
    Branches,
    Conv,
    auxiliary_last,
    chain,
    convolution,
    inception_weights,
    initialize_he,
)
from opsin.registry import Published, register


class InceptionV3(Backbone):
    """A stem without padding, eleven Inception modules in three stages, global average pooling, one linear layer.

    factorized=False puts whole kernels where the paper's section 3.2 has 1xn and nx1. aux_heads: the auxiliary
    classifier of section 4, in training alone if None, see `training_options`; aux_weight: of its loss, which the paper
    does not give; 0.4 is TensorFlow's. norm: "bn" or None.
    """

    min_size = 75

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        norm: Literal["bn"] | None = "bn",
        factorized: bool = True,
        aux_heads: bool | None = None,
        aux_weight: float = 0.4,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(num_classes, in_channels)
        conv = convolution(norm)
        self.channels, self.strides = (288, 768, 2048), (8, 16, 32)
        self.stem = nn.Sequential(
            chain(conv, in_channels, (32, 3, 2, 0), (32, 3, 1, 0), (64, 3)),
            nn.MaxPool2d(3, 2),
            chain(conv, 64, (80, 1), (192, 3, 1, 0)),
        )
        at35 = [_five(conv, 192, 32), _five(conv, 256, 64), _five(conv, 288, 64)]
        at17 = [_seven(conv, width, factorized) for width in (128, 160, 160, 192)]
        at8 = [_expanded(conv, 1280, factorized), _expanded(conv, 2048, factorized)]
        self.stages = nn.ModuleList(
            [
                nn.Sequential(nn.MaxPool2d(3, 2), *at35),
                nn.Sequential(_halve_to_17(conv), *at17),
                nn.Sequential(_halve_to_8(conv, factorized), *at8),
            ]
        )
        if aux_heads:
            self.aux_taps, self.aux_weight = {"aux1": (1, 4)}, aux_weight
            self.aux_heads = nn.ModuleDict({"aux1": _aux_head(conv, num_classes)})
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(2048, num_classes)
        )
        initialize_he(self)


def _pooled(conv: Conv, in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.AvgPool2d(3, 1, 1), conv(in_channels, out_channels, 1))


def _five(conv: Conv, channels: int, pooled: int) -> Branches:
    """Figure 5, at 35x35: the 5x5 of v1 beside one cut into two 3x3."""
    return Branches(
        [
            chain(conv, channels, (64, 1)),
            chain(conv, channels, (48, 1), (64, 5)),
            chain(conv, channels, (64, 1), (96, 3), (96, 3)),
            _pooled(conv, channels, pooled),
        ]
    )


def _seven(conv: Conv, width: int, factorized: bool) -> Branches:
    """Figure 6, at 17x17: one 7x7 beside two, each of them cut into a row and a column."""
    row, column = (1, 7), (7, 1)
    if factorized:
        once = (width, 1), (width, row), (192, column)
        twice = (width, 1), (width, column), (width, row), (width, column), (192, row)
    else:
        once, twice = ((width, 1), (192, 7)), ((width, 1), (width, 7), (192, 7))
    return Branches(
        [chain(conv, 768, (192, 1)), chain(conv, 768, *once), chain(conv, 768, *twice), _pooled(conv, 768, 192)]
    )


def _expanded(conv: Conv, channels: int, factorized: bool) -> Branches:
    """Figure 7, at 8x8: the row and the column of a 3x3 side by side, for more and sparser features."""

    def wide() -> nn.Module:
        return Branches([conv(384, 384, (1, 3)), conv(384, 384, (3, 1))]) if factorized else conv(384, 768, 3)

    return Branches(
        [
            chain(conv, channels, (320, 1)),
            nn.Sequential(chain(conv, channels, (384, 1)), wide()),
            nn.Sequential(chain(conv, channels, (448, 1), (384, 3)), wide()),
            _pooled(conv, channels, 192),
        ]
    )


def _halve_to_17(conv: Conv) -> Branches:
    """Figure 10: pooling alone would lose, and pooling behind a convolution cost four times the work."""
    double = chain(conv, 288, (64, 1), (96, 3), (96, 3, 2, 0))
    return Branches([chain(conv, 288, (384, 3, 2, 0)), double, nn.MaxPool2d(3, 2)])


def _halve_to_8(conv: Conv, factorized: bool) -> Branches:
    seven = ((192, (1, 7)), (192, (7, 1))) if factorized else ((192, 7),)
    large = chain(conv, 768, (192, 1), *seven, (192, 3, 2, 0))
    return Branches([chain(conv, 768, (192, 1), (320, 3, 2, 0)), large, nn.MaxPool2d(3, 2)])


def _aux_head(conv: Conv, num_classes: int) -> nn.Sequential:
    """Figure 8: of a 17x17 map 5x5 windows, 1x1 to 128 channels, all of them in a 5x5 convolution, the classes."""
    return nn.Sequential(
        AtLeast(17),  # images smaller than 299 leave less than the two 5x5 need
        nn.AvgPool2d(5, 3),
        chain(conv, 768, (128, 1), (768, 5, 1, 0)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(768, num_classes),
    )


@register(
    "inception_v3",
    task="classify",
    network=InceptionV3,
    published=Published(
        paper="arXiv:1512.00567",
        year=2015,
        input=(3, 299, 299),
        params=27_161_264,
        macs=5_713_216_096,
        metrics={"imagenet1k top-1": 77.294, "imagenet1k top-5": 93.45},
        idea="large kernels cut into rows and columns",
        source="counted and weights' results read: torchvision; MACs without the auxiliary head",
    ),
    weights={
        "imagenet1k": inception_weights(
            "https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth",
            "BSD-3-Clause",
            "torchvision, IMAGENET1K_V1, ported from TensorFlow",
            77.294,
            93.45,
            size=299,
            crop_ratio=299 / 342,
            arrange=auxiliary_last,
        )
    },
)
def inception_v3(**options: Any) -> InceptionV3:
    return InceptionV3(**options)
