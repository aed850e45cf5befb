"""ShuffleNet v2: Practical Guidelines for Efficient CNN Architecture Design.

Ma, Zhang, Zheng and Sun 2018, arXiv:1807.11164. The idea: what a phone waits for is memory as much as arithmetic, so a
unit gives half of its channels past itself instead of grouping its 1x1 convolutions, keeps all its widths equal, joins
by concatenation instead of addition, and shuffles once, behind the join.

shufflenet_v2_x0_5 to _x2_0 are the four widths of table 5, as torchvision has them. The authors' release has no bias in
the linear layer, and a dropout of 0.2 before it at 2.0. pytorchcv has other nets at 1.5 and 2.0: it scales the widths
of 1.0, 116 at first, where the table has 176 and 244.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from opsin.backbones.backbone import Backbone
from opsin.backbones.weights import imagenet_weights
from opsin.checks import check_probability
from opsin.nn.attention import squeeze_excitation
from opsin.nn.conv import ConvNormActivation, channel_shuffle, channel_split
from opsin.registry import Published, Weights, register


class Unit(nn.Module):
    """Half of the channels pass by, half go through 1x1, depthwise 3x3 and 1x1; they are joined and shuffled. Figure 3.

    A unit that changes the shape (stride 2) has no split: both of its branches see all channels, and each makes half of
    those that come out. There the shortcut is a depthwise 3x3 and a 1x1, and nothing is added.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, *, shuffle: bool, residual: bool, se: bool
    ) -> None:
        super().__init__()
        width = out_channels // 2
        self.shortcut = None
        if stride != 1:
            self.shortcut = nn.Sequential(
                depthwise(in_channels, stride),
                ConvNormActivation(in_channels, width, 1),
            )
        self.body = nn.Sequential(
            ConvNormActivation(in_channels if stride != 1 else width, width, 1),
            depthwise(width, stride),
            ConvNormActivation(width, width, 1),
            *([squeeze_excitation(width)] if se else []),
        )
        self.shuffle = shuffle
        self.residual = residual and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        past, through = (self.shortcut(x), x) if self.shortcut is not None else channel_split(x)
        y = self.body(through)
        if self.residual:
            y = y + through
        y = torch.cat([past, y], dim=1)
        return channel_shuffle(y, 2) if self.shuffle else y


class ShuffleNetV2(Backbone):
    """A 3x3 stem and a max pooling, three stages of units, a 1x1 convolution, global average pooling, one linear layer.

    depths, widths: units and channels of each stage. last_width: of the 1x1 convolution before the pooling.

    shuffle=False leaves the halves apart: within a stage, half of the channels stay what its first unit made of them.
    residual=True adds the half that goes through a unit to what comes out, se=True weighs that by squeeze-excitation,
    before the addition: what the paper adds in its largest net, of 164 layers. Its text does not place them; this is
    pytorchcv's reading, behind the last ReLU.
    small_images: a stem that keeps the size, instead of one of stride 4, for images of about 32x32. dropout: before
    the linear layer.
    The paper names no initialisation: this is He's (arXiv:1502.01852), by the inputs of a group.
    """

    def __init__(
        self,
        depths: Sequence[int],
        widths: Sequence[int],
        last_width: int,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        shuffle: bool = True,
        residual: bool = False,
        se: bool = False,
        small_images: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(num_classes, in_channels)
        check_probability("dropout", dropout)
        channels = 24  # in all widths
        self.stem = nn.Sequential(ConvNormActivation(in_channels, channels, 3, 1 if small_images else 2))
        if not small_images:
            self.stem.append(nn.MaxPool2d(3, 2, 1))
        self.stages = nn.ModuleList()
        for depth, width in zip(depths, widths, strict=True):
            stage = nn.Sequential()
            for place in range(depth):
                stride = 2 if place == 0 else 1
                stage.append(Unit(channels, width, stride, shuffle=shuffle, residual=residual, se=se))
                channels = width
            self.stages.append(stage)
        self.head = nn.Sequential(
            ConvNormActivation(channels, last_width, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(last_width, num_classes),
        )
        self.channels = tuple(widths)
        self.strides = tuple((2 if small_images else 8) * 2**stage for stage in range(len(widths)))
        initialize(self)


def initialize(model: nn.Module) -> None:
    """He's initialisation for grouped convolutions, N(0, 0.01^2) for linear layers, biases of 0."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            # by what comes in: torch counts all maps of a depthwise convolution as what goes out of each
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def depthwise(channels: int, stride: int) -> ConvNormActivation:
    """3x3 on each channel. No activation behind it, as in v1 and Xception."""
    return ConvNormActivation(channels, channels, 3, stride, groups=channels, activation=None)


def _published(params: int, macs: int, top1: float, top5: float) -> Published:
    return Published(
        paper="arXiv:1807.11164",
        year=2018,
        input=(3, 224, 224),
        params=params,
        macs=macs,
        metrics={"imagenet1k top-1": top1, "imagenet1k top-5": top5},
        idea="work on half of the channels, give half past it, shuffle both",
        source="counted and weights' results read: torchvision",
    )


def _weights(file: str, top1: float, top5: float, resized: int) -> dict[str, Weights]:
    url = f"https://download.pytorch.org/models/{file}.pth"
    source = "torchvision, IMAGENET1K_V1"  # of the two large ones too, though by the recipe of its V2 files
    return {"imagenet1k": imagenet_weights(url, "BSD-3-Clause", source, top1, top5, crop_ratio=224 / resized)}


_DEPTHS = (4, 8, 4)


@register(
    "shufflenet_v2_x0_5",
    task="classify",
    network=ShuffleNetV2,
    published=_published(1_366_792, 40_476_448, 60.552, 81.746),
    weights=_weights("shufflenetv2_x0.5-f707e7126e", 60.552, 81.746, resized=256),
)
def shufflenet_v2_x0_5(**options: Any) -> ShuffleNetV2:
    return ShuffleNetV2(_DEPTHS, (48, 96, 192), 1024, **options)


@register(
    "shufflenet_v2_x1_0",
    task="classify",
    network=ShuffleNetV2,
    published=_published(2_278_604, 144_907_992, 69.362, 88.316),
    weights=_weights("shufflenetv2_x1-5666bf0f80", 69.362, 88.316, resized=256),
)
def shufflenet_v2_x1_0(**options: Any) -> ShuffleNetV2:
    return ShuffleNetV2(_DEPTHS, (116, 232, 464), 1024, **options)


@register(
    "shufflenet_v2_x1_5",
    task="classify",
    network=ShuffleNetV2,
    published=_published(3_503_624, 295_759_392, 72.996, 91.086),
    weights=_weights("shufflenetv2_x1_5-3c479a10", 72.996, 91.086, resized=232),
)
def shufflenet_v2_x1_5(**options: Any) -> ShuffleNetV2:
    return ShuffleNetV2(_DEPTHS, (176, 352, 704), 1024, **options)


@register(
    "shufflenet_v2_x2_0",
    task="classify",
    network=ShuffleNetV2,
    published=_published(7_393_996, 583_253_464, 76.23, 93.006),
    weights=_weights("shufflenetv2_x2_0-8be3c8ee", 76.23, 93.006, resized=232),
)
def shufflenet_v2_x2_0(**options: Any) -> ShuffleNetV2:
    return ShuffleNetV2(_DEPTHS, (244, 488, 976), 2048, **options)
