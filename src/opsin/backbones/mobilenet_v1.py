"""MobileNet: Efficient Convolutional Neural Networks for Mobile Vision Applications.

Howard, Zhu, Chen, Kalenichenko, Wang, Weyand, Andreetto and Adam 2017, arXiv:1704.04861. The idea: filter every channel
by itself, then mix the channels in one place at a time; a 3x3 convolution so split costs eight to nine times less. Two
numbers trade accuracy for cost: alpha multiplies the channels of every layer, rho the sides of the image.

mobilenet_v1 has alpha 1 and 224x224; mobilenet_v1_x0_5_160 has half the channels and is published for 160x160: the same
net as mobilenet_v1_x0_5, which takes images of any size. The paper has ReLU; TensorFlow's code and timm have ReLU6
(activation="relu6"). TensorFlow's own table counts 1001 classes, and is off in the multiply-adds of alpha 0.75 and of
0.25 at 192; the numbers here are counted.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from opsin.backbones.backbone import Backbone
from opsin.backbones.mobilenet_v2 import initialize
from opsin.checks import check_number
from opsin.nn.conv import ConvNormActivation, SeparableConv
from opsin.nn.padding import Framework
from opsin.registry import Published, register

# The paper's table 1: channels and stride of each separable convolution. A stride of 2 begins a stage.
_LAYERS = (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1)


class MobileNetV1(Backbone):
    """A 3x3 convolution, thirteen separable ones in five resolutions, pooling, one linear layer.

    width: alpha, multiplies the channels of every layer. small_images: for images of about 32x32, the stem and the
    first layer that would halve the map keep it: strides up to 8 instead of 32. padding: "tf" pads as TensorFlow.
    separable=False has plain 3x3 convolutions instead, the paper's table 4. dropout: TensorFlow's code has 0.001.
    """

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        width: float = 1.0,
        small_images: bool = False,
        separable: bool = True,
        activation: str = "relu",
        dropout: float = 0.0,
        padding: Framework = "torch",
    ) -> None:
        super().__init__(num_classes, in_channels)
        channels, stride = _scaled(32, width), 1 if small_images else 2
        self.stem = ConvNormActivation(in_channels, channels, 3, stride, padding=padding, activation=activation)
        layer = SeparableConv if separable else ConvNormActivation
        stages: list[list[nn.Module]] = []
        widths, strides = [], []
        for base, step in _LAYERS:
            out_channels = _scaled(base, width)
            if step == 2 or not stages:
                stages.append([])
                widths.append(out_channels)
                step = 1 if small_images and len(stages) == 2 else step
                stride *= step
                strides.append(stride)
            stages[-1].append(layer(channels, out_channels, 3, step, padding=padding, activation=activation))
            channels = out_channels
        self.stages = nn.ModuleList(nn.Sequential(*layers) for layers in stages)
        self.channels, self.strides = tuple(widths), tuple(strides)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(channels, num_classes)
        )
        initialize(self)


def _scaled(channels: int, width: float) -> int:
    """At least 8, as in TensorFlow's code, which rounds down; later MobileNets round to multiples of 8."""
    check_number("width", width, above=True, hint="1.0 is the network of the paper")
    return max(8, int(channels * width))


# Width, parameters; for each size: multiply-adds, top-1 and top-5 on ImageNet-1k.
_PUBLISHED: tuple[tuple[float, int, dict[int, tuple[int, float, float]]], ...] = (
    (
        1.0,
        4_231_976,
        {
            224: (568_740_352, 70.9, 89.9),
            192: (418_121_728, 70.0, 89.2),
            160: (290_675_200, 68.0, 87.7),
            128: (186_400_768, 65.2, 85.8),
        },
    ),
    (
        0.75,
        2_585_560,
        {
            224: (325_400_448, 68.4, 88.2),
            192: (239_273_472, 67.2, 87.3),
            160: (166_396_800, 65.3, 86.0),
            128: (106_770_432, 62.1, 83.9),
        },
    ),
    (
        0.5,
        1_331_592,
        {
            224: (149_497_088, 63.3, 84.9),
            192: (109_970_432, 61.7, 83.6),
            160: (76_524_800, 59.1, 81.9),
            128: (49_160_192, 56.3, 79.4),
        },
    ),
    (
        0.25,
        470_072,
        {
            224: (41_030_272, 49.8, 74.2),
            192: (30_212_608, 47.7, 72.3),
            160: (21_059_200, 45.5, 70.3),
            128: (13_570_048, 41.5, 66.3),
        },
    ),
)


def _register(width: float, size: int, params: int, macs: int, top1: float, top5: float) -> None:
    suffix = "" if width == 1 else f"_x{width}".replace(".", "_")
    published = Published(
        paper="arXiv:1704.04861",
        year=2017,
        input=(3, size, size),
        params=params,
        macs=macs,
        metrics={"imagenet1k top-1": top1, "imagenet1k top-5": top5},
        idea="filter each channel by itself, then mix the channels place by place",
        source="counted; results read: tensorflow/models, research/slim/nets/mobilenet_v1.md",
    )

    @register(
        f"mobilenet_v1{suffix}" + ("" if size == 224 else f"_{size}"),
        task="classify",
        network=MobileNetV1,
        published=published,
    )
    def build(*, width: float = width, **options: Any) -> MobileNetV1:
        return MobileNetV1(width=width, **options)


for _width, _params, _sizes in _PUBLISHED:
    for _size, (_macs, _top1, _top5) in _sizes.items():
        _register(_width, _size, _params, _macs, _top1, _top5)
