"""BN-Inception, or Inception v2: Batch Normalization, Accelerating Deep Network Training.

Ioffe and Szegedy 2015, arXiv:1502.03167. The idea: normalise what every layer sees by the statistics of the batch, so
that the layers behind it need not follow each other's drift. The network it was shown on is GoogLeNet with two 3x3 in
place of each 5x5, modules that halve the map by convolution and pooling side by side, and no auxiliary heads.

The paper's table of layers (figure 5) contradicts itself: modules 4c and 4d add up to 608 channels, but 576 are given.
inception_v2: 576, by narrower poolings, and a first convolution that is separable with a depth multiplier of 8, as the
text says; TensorFlow's network, with its SAME padding.
bn_inception: 608, as in the Caffe port that Cadene and pytorchcv took over, with a plain first convolution, Caffe's
rounding up in pooling, and a bias before every batch norm, which that makes redundant.
Neither has the 13.6 million parameters that the paper's text states.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.backbones.backbone import Backbone
from opsin.backbones.googlenet import Branches, Conv, chain, convolution, initialize_he
from opsin.nn.conv import create_conv
from opsin.nn.padding import Framework, pair
from opsin.nn.pooling import create_pool
from opsin.registry import Published, register


@dataclass(frozen=True)
class Form:
    """What differs between the two. projections: of the poolings in 4c and 4d. bias: before batch norm as well."""

    framework: Framework
    projections: tuple[int, int]
    separable_stem: bool
    bias: bool
    eps: float
    min_size: int


_TENSORFLOW = Form("tf", (96, 96), separable_stem=True, bias=False, eps=1e-3, min_size=1)
_CAFFE = Form("caffe", (128, 128), separable_stem=False, bias=True, eps=1e-5, min_size=7)


class BNInception(Backbone):
    """A stem, ten Inception modules in three stages, global average pooling, one linear layer. Figure 5.

    norm: "bn", or None for what batch norm is measured against.
    """

    def __init__(
        self,
        form: Form,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        norm: Literal["bn"] | None = "bn",
        dropout: float = 0.2,
    ) -> None:
        super().__init__(num_classes, in_channels)
        conv = convolution(norm, form.eps, padding=form.framework, bias=form.bias or norm is None)
        self.min_size, self.strides = form.min_size, (8, 16, 32)
        self.stem = _stem(conv, in_channels, form)
        _4c, _4d = form.projections
        # 1x1, 3x3 reduce, 3x3, double 3x3 reduce, double 3x3, pooling projection
        plans = (
            ((64, 64, 64, 64, 96, 32), (64, 64, 96, 64, 96, 64)),
            (
                (0, 128, 160, 64, 96, 0),
                (224, 64, 96, 96, 128, 128),
                (192, 96, 128, 96, 128, 128),
                (160, 128, 160, 128, 160, _4c),
                (96, 128, 192, 160, 192, _4d),
            ),
            ((0, 128, 192, 192, 256, 0), (352, 192, 320, 160, 224, 128), (352, 192, 320, 192, 224, 128)),
        )
        channels, widths = 192, []
        self.stages = nn.ModuleList()
        for stage, modules in enumerate(plans):
            blocks = [_stem_pool(form)] if stage == 0 else []
            for place, plan in enumerate(modules):
                last = stage == 2 and place == 2
                blocks.append(_inception(conv, channels, plan, form, "max" if last else "average"))
                channels = plan[0] + plan[2] + plan[4] + (plan[5] or channels)
            self.stages.append(nn.Sequential(*blocks))
            widths.append(channels)
        self.channels = tuple(widths)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(channels, num_classes)
        )
        initialize_he(self)


class HalvingPool(nn.MaxPool2d):
    """Max pooling 3x3 of stride 2 that makes ceil(n / 2) of n pixels, as the padded convolutions beside it do.

    On even maps it is Caffe's, which on odd ones makes a pixel less, so that the ports fail there.
    """

    def __init__(self) -> None:
        super().__init__(3, 2)

    def dilate(self, rate: tuple[int, int], stride: tuple[int, int]) -> None:
        """Take every `rate`-th pixel, and stride so far: `opsin.nn.dilation.Dilatable`."""
        self.dilation, self.stride = rate, stride

    def forward(self, input: Tensor) -> Tensor:
        below, right = (2 * rate for rate in pair(self.dilation))
        padded = F.pad(input, (0, right, 0, below), value=-torch.inf)
        return F.max_pool2d(padded, self.kernel_size, self.stride, dilation=self.dilation)


def _halving(form: Form) -> nn.Module:
    return create_pool("max", kernel_size=3, stride=2, padding="tf") if form.framework == "tf" else HalvingPool()


def _stem_pool(form: Form) -> nn.Module:
    return create_pool("max", kernel_size=3, stride=2, padding=form.framework)


def _even_pool(form: Form, kind: str) -> nn.Module:
    """Pooling that keeps the size."""
    if form.framework == "tf":
        return create_pool(kind, kernel_size=3, stride=1, padding="tf")
    return create_pool(kind, kernel_size=3, stride=1, border=1)


def _stem(conv: Conv, in_channels: int, form: Form) -> nn.Sequential:
    first: nn.Module = conv(in_channels, 64, 7, 2)
    if form.separable_stem:
        # section 4.2: 8 depthwise maps of every channel; the 1x1 behind them makes 64
        depthwise = create_conv(in_channels, 8 * in_channels, 7, 2, padding="tf", groups=in_channels, bias=False)
        first = nn.Sequential(depthwise, conv(8 * in_channels, 64, 1))
    return nn.Sequential(first, _stem_pool(form), chain(conv, 64, (64, 1), (192, 3)))


def _inception(conv: Conv, channels: int, plan: tuple[int, ...], form: Form, kind: str) -> Branches:
    """1x1, 3x3, double 3x3 and pooling side by side; without 1x1 and projection the module halves the map."""
    one, reduce3, three, reduce5, five, projection = plan
    if not one:
        halves = (2, None)
        return Branches(
            [
                chain(conv, channels, (reduce3, 1), (three, 3, *halves)),
                chain(conv, channels, (reduce5, 1), (five, 3), (five, 3, *halves)),
                _halving(form),
            ]
        )
    return Branches(
        [
            chain(conv, channels, (one, 1)),
            chain(conv, channels, (reduce3, 1), (three, 3)),
            chain(conv, channels, (reduce5, 1), (five, 3), (five, 3)),
            nn.Sequential(_even_pool(form, kind), conv(channels, projection, 1)),
        ]
    )


def _published(params: int, macs: int, source: str, metrics: dict[str, float] | None = None) -> Published:
    return Published(
        paper="arXiv:1502.03167",
        year=2015,
        input=(3, 224, 224),
        params=params,
        macs=macs,
        metrics=metrics or {},
        idea="batch normalisation, on GoogLeNet with two 3x3 for each 5x5",
        source=source,
    )


_CADENE = {"imagenet1k top-1": 73.524, "imagenet1k top-5": 91.562}


@register(
    "inception_v2",
    task="classify",
    network=BNInception,
    published=_published(11_188_288, 1_934_857_216, "counted on the paper's figure 5 as TensorFlow-slim resolves it"),
)
def inception_v2(**options: Any) -> BNInception:
    return BNInception(_TENSORFLOW, **options)


@register(
    "bn_inception",
    task="classify",
    network=BNInception,
    published=_published(11_295_240, 2_032_600_064, "counted: Cadene, pytorchcv; results read: Cadene", _CADENE),
)
def bn_inception(**options: Any) -> BNInception:
    return BNInception(_CAFFE, **options)
