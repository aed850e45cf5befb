"""Inception v4: Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning.

Szegedy, Ioffe, Vanhoucke and Alemi 2016, arXiv:1602.07261. The idea: v3 without the baggage of its history. Every stage
repeats one module, and the stem too halves maps by convolution and pooling side by side. The residual nets of the same
paper are in `inception_resnet`.

The layers are TensorFlow's, which timm, Cadene and pytorchcv share; average poolings leave out the zeros of the border.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from opsin.backbones.backbone import Backbone
from opsin.backbones.googlenet import Branches, Conv, chain, convolution, initialize_he
from opsin.registry import Published, register


class InceptionV4(Backbone):
    """A stem, then 4, 7 and 3 equal modules in stages at 35x35, 17x17 and 8x8 for images of 299. Figure 9.

    depths: modules of each stage. norm: "bn" or None.
    """

    min_size = 75

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        depths: tuple[int, int, int] = (4, 7, 3),
        norm: Literal["bn"] | None = "bn",
        dropout: float = 0.2,
    ) -> None:
        super().__init__(num_classes, in_channels)
        conv = convolution(norm)
        self.channels, self.strides = (384, 1024, 1536), (8, 16, 32)
        self.stem = inception_v4_stem(conv, in_channels)
        at35, at17, at8 = depths
        self.stages = nn.ModuleList(
            [
                nn.Sequential(last_of_stem(conv), *(_inception_a(conv) for _ in range(at35))),
                nn.Sequential(_reduction_a(conv), *(_inception_b(conv) for _ in range(at17))),
                nn.Sequential(_reduction_b(conv), *(_inception_c(conv) for _ in range(at8))),
            ]
        )
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(1536, num_classes)
        )
        initialize_he(self)


def inception_v4_stem(conv: Conv, in_channels: int) -> nn.Sequential:
    """Figure 3 but for its last halving, with which the first stage begins. (B, C, 299, 299) -> (B, 192, 71, 71)."""
    return nn.Sequential(
        chain(conv, in_channels, (32, 3, 2, 0), (32, 3, 1, 0), (64, 3)),
        Branches([nn.MaxPool2d(3, 2), chain(conv, 64, (96, 3, 2, 0))]),
        Branches(
            [
                chain(conv, 160, (64, 1), (96, 3, 1, 0)),
                chain(conv, 160, (64, 1), (64, (1, 7)), (64, (7, 1)), (96, 3, 1, 0)),
            ]
        ),
    )


def last_of_stem(conv: Conv) -> Branches:
    """The last halving of figure 3, to 384 maps."""
    return Branches([chain(conv, 192, (192, 3, 2, 0)), nn.MaxPool2d(3, 2)])


def _pooled(conv: Conv, in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False), conv(in_channels, out_channels, 1))


def _inception_a(conv: Conv) -> Branches:
    """Figure 4."""
    return Branches(
        [
            chain(conv, 384, (96, 1)),
            chain(conv, 384, (64, 1), (96, 3)),
            chain(conv, 384, (64, 1), (96, 3), (96, 3)),
            _pooled(conv, 384, 96),
        ]
    )


def _reduction_a(conv: Conv) -> Branches:
    """Figure 7 with k, l, m, n of table 1: 192, 224, 256, 384."""
    double = chain(conv, 384, (192, 1), (224, 3), (256, 3, 2, 0))
    return Branches([chain(conv, 384, (384, 3, 2, 0)), double, nn.MaxPool2d(3, 2)])


def _inception_b(conv: Conv) -> Branches:
    """Figure 5."""
    row, column = (1, 7), (7, 1)
    return Branches(
        [
            chain(conv, 1024, (384, 1)),
            chain(conv, 1024, (192, 1), (224, row), (256, column)),
            chain(conv, 1024, (192, 1), (192, column), (224, row), (224, column), (256, row)),
            _pooled(conv, 1024, 128),
        ]
    )


def _reduction_b(conv: Conv) -> Branches:
    """Figure 8."""
    large = chain(conv, 1024, (256, 1), (256, (1, 7)), (320, (7, 1)), (320, 3, 2, 0))
    return Branches([chain(conv, 1024, (192, 1), (192, 3, 2, 0)), large, nn.MaxPool2d(3, 2)])


def _inception_c(conv: Conv) -> Branches:
    """Figure 6: the row and the column of the last 3x3 side by side."""

    def wide(channels: int) -> Branches:
        return Branches([conv(channels, 256, (1, 3)), conv(channels, 256, (3, 1))])

    return Branches(
        [
            chain(conv, 1536, (256, 1)),
            nn.Sequential(chain(conv, 1536, (384, 1)), wide(384)),
            nn.Sequential(chain(conv, 1536, (384, 1), (448, (3, 1)), (512, (1, 3))), wide(512)),
            _pooled(conv, 1536, 256),
        ]
    )


@register(
    "inception_v4",
    task="classify",
    network=InceptionV4,
    published=Published(
        paper="arXiv:1602.07261",
        year=2016,
        input=(3, 299, 299),
        params=42_679_816,
        macs=12_253_974_624,
        metrics={"imagenet1k top-1": 80.144, "imagenet1k top-5": 94.982},
        idea="Inception without its history: one module a stage",
        source="counted: timm; results read: timm's tf_in1k weights",
    ),
)
def inception_v4(**options: Any) -> InceptionV4:
    return InceptionV4(**options)
