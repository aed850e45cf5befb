"""Inception-ResNet v1 and v2: Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning.

Szegedy, Ioffe, Vanhoucke and Alemi 2016, arXiv:1602.07261. The idea: cheap Inception modules as the residuals of a
residual network, each brought back to the full width by a linear 1x1 and scaled down before it is added, without which
the widest nets died in training (section 3.3).

inception_resnet_v1: of the cost of Inception v3, with the classes straight behind the pooled map.
inception_resnet_v1_512: the same trunk, with 512 features in between, an embedding: what the best-known ports of
FaceNet and pytorchcv have.
inception_resnet_v2: of the cost of v4, in the form of the released TensorFlow network, which timm, Cadene and pytorchcv
share. It has v3's stem, 10, 20 and 10 modules and other widths than the paper's figures.
The last module of each is without scale and ReLU; in v1 it comes on top of the paper's five.
inception_resnet_v1_2016, inception_resnet_v2_2016: as the figures print them, with 5, 10 and 5 modules that are all
alike, and v4's stem in v2. Where figures 17 and 19 print 1154 and 2048 maps, their inputs have 1152 and 2144, as
reductions of these widths give, and a sum needs as many.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from opsin.backbones.backbone import Backbone
from opsin.backbones.googlenet import Branches, Conv, chain, convolution, initialize_he
from opsin.backbones.inception_v4 import inception_v4_stem, last_of_stem
from opsin.errors import InputError
from opsin.registry import Published, register

_SCALES = (0.17, 0.10, 0.20)  # of TensorFlow's code; section 3.3 says "between 0.1 and 0.3"


@dataclass(frozen=True)
class Plan:
    """What differs between v1 and v2: modules of each stage before the last one, and channels.

    block_a, block_b, block_c, reduction_a: widths of their convolutions that differ. reduction_b: of those behind its
    three 1x1 of 256. last: channels of a convolution behind the last stage, or 0. start: what stands before the
    residual modules: a convolution, v2's module of v3's kind, or the end of v4's stem, which then is the stem.
    linear_end: one more module follows, without scale and ReLU.
    """

    depths: tuple[int, int, int]
    channels: tuple[int, int, int]
    block_a: tuple[int, int]
    reduction_a: tuple[int, int, int]
    block_b: tuple[int, int, int, int]
    reduction_b: tuple[int, int, int, int]
    block_c: tuple[int, int, int]
    last: int
    start: Literal["conv", "mixed", "v4"]
    linear_end: bool = True


_V1 = Plan((5, 10, 5), (256, 896, 1792), (32, 32), (192, 192, 256), (128, 128, 128, 128), (384, 256, 256, 256),
           (192, 192, 192), 0, "conv")  # fmt: skip
_V2 = Plan((10, 20, 9), (320, 1088, 2080), (48, 64), (256, 256, 384), (192, 128, 160, 192), (384, 288, 288, 320),
           (192, 224, 256), 1536, "mixed")  # fmt: skip
_V1_PRINTED = replace(_V1, linear_end=False)
_V2_PRINTED = replace(_V2, depths=(5, 10, 5), channels=(384, 1152, 2144), last=0, start="v4", linear_end=False)


class ScaledResidual(nn.Module):
    """relu(x + scale * linear(branches(x))), without the ReLU where `activate` is false. Figures 10 to 19.

    residual=False leaves x out, and with it the scale: the module as a layer of its own.
    """

    def __init__(self, branches: Branches, width: int, channels: int, scale: float, activate: bool, residual: bool):
        super().__init__()
        self.branches = branches
        self.linear = nn.Conv2d(width, channels, 1)
        self.activation = nn.ReLU(inplace=True) if activate else nn.Identity()
        self.scale, self.residual = scale, residual

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(self.branches(x))
        return self.activation(torch.add(x, y, alpha=self.scale) if self.residual else y)

    def extra_repr(self) -> str:
        return f"scale={self.scale}, residual={self.residual}"


class InceptionResNet(Backbone):
    """A stem, three stages of residual Inception modules, global average pooling, one linear layer.

    embedding: features between the pooled map and the classes, 0 for none. depths: modules of each stage before the
    last one, None for the published. scales: of the residuals of each stage.
    residual=False leaves the shortcuts out. norm: "bn" within the residuals (not behind the additions: section 3.2), or
    None.
    """

    min_size = 75

    def __init__(
        self,
        plan: Plan,
        embedding: int = 0,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        depths: tuple[int, int, int] | None = None,
        scales: tuple[float, float, float] = _SCALES,
        residual: bool = True,
        norm: Literal["bn"] | None = "bn",
        dropout: float = 0.2,
    ) -> None:
        super().__init__(num_classes, in_channels)
        if len(scales) != 3:
            raise InputError(f"scales are of three stages, got {len(scales)}: {tuple(scales)}")
        conv = convolution(norm)
        self.strides = (8, 16, 32)
        self.channels = (*plan.channels[:2], plan.last or plan.channels[2])
        self.stem, first = _start(conv, plan, in_channels)
        modules = [partial(block, conv, plan) for block in (_block_a, _block_b, _block_c)]
        a, b, c = (
            [_residual(module, plan.channels[stage], scale, residual) for _ in range(depth)]
            for stage, (module, depth, scale) in enumerate(zip(modules, depths or plan.depths, scales, strict=True))
        )
        if plan.linear_end:
            c.append(_residual(modules[2], plan.channels[2], 1.0, residual, activate=False))
        last = [conv(plan.channels[2], plan.last, 1)] if plan.last else []
        self.stages = nn.ModuleList(
            [
                nn.Sequential(*first, *a),
                nn.Sequential(_reduction_a(conv, plan), *b),
                nn.Sequential(_reduction_b(conv, plan), *c, *last),
            ]
        )
        self.head = _head(self.channels[-1], embedding, num_classes, dropout)
        initialize_he(self)


def _start(conv: Conv, plan: Plan, in_channels: int) -> tuple[nn.Module, list[nn.Module]]:
    """The stem, and the layers of the first stage before its residual modules. Figures 3 and 14."""
    if plan.start == "v4":
        return inception_v4_stem(conv, in_channels), [last_of_stem(conv)]
    stem = nn.Sequential(
        chain(conv, in_channels, (32, 3, 2, 0), (32, 3, 1, 0), (64, 3)),
        nn.MaxPool2d(3, 2),
        chain(conv, 64, (80, 1), (192, 3, 1, 0)),
    )
    if plan.start == "mixed":
        return stem, [nn.MaxPool2d(3, 2), _mixed(conv)]
    return stem, [conv(192, 256, 3, 2, border=0)]


def _residual(
    module: Callable[[], tuple[Branches, int]], channels: int, scale: float, residual: bool, activate: bool = True
) -> ScaledResidual:
    branches, width = module()
    return ScaledResidual(branches, width, channels, scale, activate, residual)


def _head(channels: int, embedding: int, num_classes: int, dropout: float) -> nn.Sequential:
    pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout)
    if not embedding:
        return nn.Sequential(*pooled, nn.Linear(channels, num_classes))
    features = nn.Linear(channels, embedding, bias=False), nn.BatchNorm1d(embedding, eps=1e-3)
    return nn.Sequential(*pooled, *features, nn.Linear(embedding, num_classes))


def _mixed(conv: Conv) -> Branches:
    """v2's first module, of v3's kind and not residual."""
    pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
    return Branches(
        [
            chain(conv, 192, (96, 1)),
            chain(conv, 192, (48, 1), (64, 5)),
            chain(conv, 192, (64, 1), (96, 3), (96, 3)),
            nn.Sequential(pool, conv(192, 64, 1)),
        ]
    )


def _block_a(conv: Conv, plan: Plan) -> tuple[Branches, int]:
    """Figures 10 and 16, at 35x35."""
    channels, (middle, out) = plan.channels[0], plan.block_a
    double = chain(conv, channels, (32, 1), (middle, 3), (out, 3))
    return Branches([chain(conv, channels, (32, 1)), chain(conv, channels, (32, 1), (32, 3)), double]), 64 + out


def _block_b(conv: Conv, plan: Plan) -> tuple[Branches, int]:
    """Figures 11 and 17, at 17x17."""
    channels, (one, reduced, row, column) = plan.channels[1], plan.block_b
    seven = chain(conv, channels, (reduced, 1), (row, (1, 7)), (column, (7, 1)))
    return Branches([chain(conv, channels, (one, 1)), seven]), one + column


def _block_c(conv: Conv, plan: Plan) -> tuple[Branches, int]:
    """Figures 13 and 19, at 8x8."""
    channels, (one, row, column) = plan.channels[2], plan.block_c
    three = chain(conv, channels, (192, 1), (row, (1, 3)), (column, (3, 1)))
    return Branches([chain(conv, channels, (one, 1)), three]), one + column


def _reduction_a(conv: Conv, plan: Plan) -> Branches:
    """Figure 7; k, l, m of table 1."""
    channels, (k, l, m) = plan.channels[0], plan.reduction_a  # noqa: E741
    double = chain(conv, channels, (k, 1), (l, 3), (m, 3, 2, 0))
    return Branches([chain(conv, channels, (384, 3, 2, 0)), double, nn.MaxPool2d(3, 2)])


def _reduction_b(conv: Conv, plan: Plan) -> Branches:
    """Figures 12 and 18."""
    channels, (one, two, middle, three) = plan.channels[1], plan.reduction_b
    return Branches(
        [
            chain(conv, channels, (256, 1), (one, 3, 2, 0)),
            chain(conv, channels, (256, 1), (two, 3, 2, 0)),
            chain(conv, channels, (256, 1), (middle, 3), (three, 3, 2, 0)),
            nn.MaxPool2d(3, 2),
        ]
    )


def _published(
    params: int, macs: int, source: str, metrics: dict[str, float] | None = None, size: int = 299
) -> Published:
    return Published(
        paper="arXiv:1602.07261",
        year=2016,
        input=(3, size, size),
        params=params,
        macs=macs,
        metrics=metrics or {},
        idea="Inception modules as scaled residuals",
        source=source,
    )


_V1_512 = {"imagenet1k top-1": 80.42, "imagenet1k top-5": 95.19}
_V2_TF = {"imagenet1k top-1": 80.434, "imagenet1k top-5": 95.312}


@register(
    "inception_resnet_v1",
    task="classify",
    network=InceptionResNet,
    published=_published(24_357_096, 6_308_597_856, "counted: the trunk of facenet-pytorch, and one linear layer"),
)
def inception_resnet_v1(**options: Any) -> InceptionResNet:
    return InceptionResNet(_V1, **options)


@register(
    "inception_resnet_v1_512",
    task="classify",
    network=InceptionResNet,
    published=_published(23_995_624, 6_308_235_360, "counted: pytorchcv; results read: its README", _V1_512),
)
def inception_resnet_v1_512(**options: Any) -> InceptionResNet:
    return InceptionResNet(_V1, 512, **options)


@register(
    "inception_resnet_v2",
    task="classify",
    network=InceptionResNet,
    published=_published(55_843_464, 13_155_794_016, "counted: timm; results read: timm's tf_in1k weights", _V2_TF),
)
def inception_resnet_v2(**options: Any) -> InceptionResNet:
    return InceptionResNet(_V2, **options)


_PRINTED = "derived: the widths of the paper's figures"


@register(
    "inception_resnet_v1_2016",
    task="classify",
    network=InceptionResNet,
    published=_published(22_756_328, 6_206_361_696, _PRINTED),
)
def inception_resnet_v1_2016(**options: Any) -> InceptionResNet:
    return InceptionResNet(_V1_PRINTED, **options)


@register(
    "inception_resnet_v2_2016",
    task="classify",
    network=InceptionResNet,
    published=_published(32_433_928, 9_257_953_632, _PRINTED),
)
def inception_resnet_v2_2016(**options: Any) -> InceptionResNet:
    return InceptionResNet(_V2_PRINTED, **options)
