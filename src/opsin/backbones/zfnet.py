"""ZFNet: Visualizing and Understanding Convolutional Networks.

Zeiler and Fergus 2013, arXiv:1311.2901. The idea: look at what excites each unit, by running the network backwards to
the image, and mend what one sees. AlexNet's first filters of 11x11 and stride 4 missed the middle frequencies and let
the second layer alias; filters of 7x7 and strides of 2 see more, at the price of more work.

zfnet: the network of figure 3, on one GPU, so without AlexNet's groups. zfnetb: table 2's (b), with 512, 1024 and 512
maps in the last three convolutions.
The paper normalises behind the pooling (figure 3), pytorchcv's nets before it, and with a constant a fifth as large;
norm=None makes them equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import nn

from opsin.backbones.backbone import Backbone
from opsin.checks import check_count
from opsin.errors import unknown
from opsin.nn.norm import alexnet_lrn
from opsin.registry import Published, register


class ZFNet(Backbone):
    """Five convolutions, the first two of stride 2, and three fully connected layers.

    widths: of the last three convolutions. norm: "lrn" behind the first two poolings, or None. kernel_size, stride: of
    the first convolution; 11 and 4 are AlexNet's, which the paper found wanting (figure 6). hidden_features: width of
    the two hidden fully connected layers.
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        norm: Literal["lrn"] | None = "lrn",
        kernel_size: int = 7,
        stride: int = 2,
        hidden_features: int = 4096,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(num_classes, in_channels)
        if norm not in ("lrn", None):
            raise unknown("norm", norm, ("lrn", "null"))
        three, four, five = widths
        first = check_count("kernel_size", kernel_size), check_count("stride", stride)
        self.stem = nn.Sequential(*_conv(in_channels, 96, *first, padding=1), _pool(), *_norm(norm))
        self.stages = nn.ModuleList(
            [
                nn.Sequential(*_conv(96, 256, 5, 2)),
                nn.Sequential(
                    _pool(),
                    *_norm(norm),
                    *_conv(256, three, 3, padding=1),
                    *_conv(three, four, 3, padding=1),
                    *_conv(four, five, 3, padding=1),
                ),
            ]
        )
        self.head = nn.Sequential(
            _pool(),
            nn.AdaptiveAvgPool2d(6),  # the identity at the published input size
            nn.Flatten(),
            nn.Linear(five * 6 * 6, check_count("hidden_features", hidden_features)),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden_features, hidden_features),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden_features, num_classes),
        )
        self.channels, self.strides = (256, five), (4 * stride, 8 * stride)
        # The last pooling needs two rows, so the second convolution gives 4 of 11, and the first 22.
        self.min_size = 21 * stride + kernel_size - 2
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):  # section 3.1: 10^-2, biases of 0
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]


def _conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0) -> list[nn.Module]:
    return [nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding), nn.ReLU(inplace=True)]


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, 2, ceil_mode=True)  # 110 -> 55 and 26 -> 13, as figure 3 has it


def _norm(norm: str | None) -> list[nn.Module]:
    return [] if norm is None else [alexnet_lrn()]


def _published(params: int, macs: int, top1: float, top5: float) -> Published:
    return Published(
        paper="arXiv:1311.2901",
        year=2013,
        input=(3, 224, 224),
        params=params,
        macs=macs,
        metrics={"imagenet1k top-1": top1, "imagenet1k top-5": top5},
        idea="AlexNet with smaller first filters and strides, found by looking at what units see",
        source="counted: pytorchcv, and on the paper's figure 3; results read: its table 2, mean of 10 crops",
    )


@register("zfnet", task="classify", network=ZFNet, published=_published(62_357_608, 1_168_032_896, 61.6, 83.5))
def zfnet(**options: Any) -> ZFNet:
    return ZFNet((384, 384, 256), **options)


@register("zfnetb", task="classify", network=ZFNet, published=_published(107_627_624, 2_476_704_896, 62.5, 84.0))
def zfnetb(**options: Any) -> ZFNet:
    return ZFNet((512, 1024, 512), **options)
