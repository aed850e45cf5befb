"""ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices.

Zhang, Zhou, Lin and Sun 2017, arXiv:1707.01083. The idea: in small nets most of the work is in 1x1 convolutions, so
group those too, and let the groups see each other by a shuffle of the channels between two of them. What is saved goes
into more channels.

shufflenet_v1_g3_x1_0: three groups, and the widths of table 1 times 1.0. The more groups, the wider, for the same work.
Two forms are about. In the paper's, as pytorchcv has it, the width of the stem scales with the others, and the shuffle
stands before the depthwise convolution. In the authors' later release, *_megvii here, it stands behind it and deals the
other way round, the pooled channels come first in a join, the stem keeps 24 channels at 1.5, and the linear layer has
no bias. In both, the first 1x1 of all is not grouped: there are too few channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from opsin.backbones.backbone import Backbone
from opsin.backbones.shufflenet_v2 import depthwise, initialize
from opsin.nn.conv import ConvNormActivation, channel_shuffle
from opsin.registry import Published, register

Form: TypeAlias = Literal["paper", "megvii"]

_DEPTHS = (4, 8, 4)
_WIDTHS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}  # of the first stage, by groups: table 1. Each stage doubles it.


class Shuffle(nn.Module):
    """`channel_shuffle` as a layer."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        return channel_shuffle(x, self.groups)


class Unit(nn.Module):
    """1x1 to a quarter of the channels, shuffle, depthwise 3x3, 1x1; figure 2, b and c.

    The input is added; where the map is halved, its average pooling is joined instead, and the body makes the
    channels that are missing. Both end in a ReLU.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        groups: int,
        first_groups: int,
        shuffle: bool,
        form: Form,
    ) -> None:
        super().__init__()
        width = out_channels // 4
        made = out_channels - in_channels if stride != 1 else out_channels
        shuffled = shuffle and groups > 1
        self.body = nn.Sequential(
            ConvNormActivation(in_channels, width, 1, groups=first_groups),
            *([Shuffle(groups)] if shuffled and form == "paper" else []),
            depthwise(width, stride),
            *([Shuffle(width // groups)] if shuffled and form == "megvii" else []),
            ConvNormActivation(width, made, 1, groups=groups, activation=None),
        )
        self.pool = nn.AvgPool2d(3, stride, 1) if stride != 1 else None
        self.pooled_first = form == "megvii"
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if self.pool is None:
            return self.relu(x + y)
        pooled = self.pool(x)
        return self.relu(torch.cat([pooled, y] if self.pooled_first else [y, pooled], dim=1))


class ShuffleNetV1(Backbone):
    """A 3x3 stem and a max pooling, three stages of 4, 8 and 4 units, global average pooling, one linear layer.

    groups: of the 1x1 convolutions. scale: times the widths of table 1. shuffle=False leaves the groups apart: from the
    first unit on, what comes out of a group comes from that group alone, but for what the joins move. small_images: a
    stem that keeps the size, instead of one of stride 4, for images of about 32x32.
    The paper names no initialisation: this is He's (arXiv:1502.01852), by the inputs of a group.
    """

    def __init__(
        self,
        groups: int,
        scale: float = 1.0,
        form: Form = "paper",
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        shuffle: bool = True,
        small_images: bool = False,
    ) -> None:
        super().__init__(num_classes, in_channels)
        widths = tuple(int(_WIDTHS[groups] * scale) * 2**stage for stage in range(3))
        channels = _stem_width(groups, scale, form)
        self.stem = nn.Sequential(ConvNormActivation(in_channels, channels, 3, 1 if small_images else 2))
        if not small_images:
            self.stem.append(nn.MaxPool2d(3, 2, 1))
        self.stages = nn.ModuleList()
        for depth, width in zip(_DEPTHS, widths, strict=True):
            stage = nn.Sequential()
            for place in range(depth):
                first_groups = groups if len(self.stages) or place else 1
                stage.append(Unit(channels, width, 1 if place else 2, groups, first_groups, shuffle, form))
                channels = width
            self.stages.append(stage)
        linear = nn.Linear(channels, num_classes, bias=form == "paper")
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)
        self.channels = widths
        self.strides = (2, 4, 8) if small_images else (8, 16, 32)
        initialize(self)


def _stem_width(groups: int, scale: float, form: Form) -> int:
    if form == "megvii" and scale == 0.5 and groups == 8:
        return 16  # a multiple of the groups, which 12 is not
    if form == "megvii" and scale == 1.5:
        return 24
    return int(24 * scale)


_MEGVII = "counted: the authors' release, megvii-model/ShuffleNet-Series; results read: its README"

# Groups, scale; parameters, multiply-adds; top-1 and top-5 where published for the form.
_NETS: list[tuple[int, float, Form, int, int, tuple[float, float] | None]] = [
    (1, 1.0, "paper", 1_531_936, 143_078_976, None),
    (1, 0.75, "paper", 975_214, 82_542_672, None),
    (1, 0.5, "paper", 534_484, 38_517_408, None),
    (1, 0.25, "paper", 209_746, 11_003_184, None),
    (2, 1.0, "paper", 1_733_848, 140_836_512, None),
    (3, 1.0, "paper", 1_865_728, 137_460_672, None),
    (4, 1.0, "paper", 1_968_344, 134_339_776, None),
    (8, 1.0, "paper", 2_434_768, 138_365_952, None),
    (3, 0.75, "paper", 1_238_266, 79_740_144, None),
    (3, 0.5, "paper", 718_324, 37_589_856, None),
    (3, 0.25, "paper", 305_902, 11_009_808, None),
    (3, 0.5, "megvii", 717_324, 37_589_856, (57.3, 80.0)),
    (3, 1.0, "megvii", 1_864_728, 137_460_672, (67.8, 87.7)),
    (3, 1.5, "megvii", 3_441_168, 292_443_552, (71.6, 90.2)),
    (3, 2.0, "megvii", 5_449_776, 524_045_184, (74.1, 91.4)),
    (8, 0.5, "megvii", 1_010_448, 40_469_760, (58.8, 81.0)),
    (8, 1.0, "megvii", 2_433_768, 138_365_952, (68.0, 86.4)),
    (8, 1.5, "megvii", 4_268_952, 290_188_800, (71.0, 89.6)),
    (8, 2.0, "megvii", 6_521_232, 521_942_016, (72.9, 90.8)),
]


def _register(
    groups: int, scale: float, form: Form, params: int, macs: int, results: tuple[float, float] | None
) -> Callable[..., ShuffleNetV1]:
    name = f"shufflenet_v1_g{groups}_x{str(scale).replace('.', '_')}" + ("_megvii" if form == "megvii" else "")
    published = Published(
        paper="arXiv:1707.01083",
        year=2017,
        input=(3, 224, 224),
        params=params,
        macs=macs,
        metrics={} if results is None else {"imagenet1k top-1": results[0], "imagenet1k top-5": results[1]},
        idea="group the 1x1 convolutions too, and shuffle channels between the groups",
        source=_MEGVII if form == "megvii" else "counted on the paper's table 1; pytorchcv agrees",
    )

    @register(name, task="classify", network=ShuffleNetV1, published=published)
    def build(**options: Any) -> ShuffleNetV1:
        return ShuffleNetV1(groups, scale, form, **options)

    return build


for _facts in _NETS:
    _register(*_facts)
