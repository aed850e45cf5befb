"""MobileNetV2: Inverted Residuals and Linear Bottlenecks.

Sandler, Howard, Zhu, Zhmoginov and Chen 2018, arXiv:1801.04381. The idea: a block widens a thin map by a factor of six,
filters it depthwise, and projects it back to a thin one without an activation, since a ReLU in few dimensions loses
what it cuts; the shortcut joins the thin ends, so that the wide map never has to be kept.

mobilenet_v2 has width 1; mobilenet_v2_x0_75 has three quarters of the channels, and mobilenet_v2_x0_75_160 is the same
net published for images of 160x160. Channels are rounded to multiples of 8, as TensorFlow's code and torchvision do
(plain rounding would give 0.75 other counts); the last 1280 grow with the width, but never shrink. The paper's table of
parameters counts the weights of convolutions and of the classifier only: 3.47 M, where all that is learnt is 3.50 M.
The inverted residual here is that of MobileNetV3 and EfficientNet as well.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from opsin.backbones.backbone import Backbone
from opsin.backbones.weights import imagenet_weights, torchvision_weights
from opsin.checks import check_number
from opsin.nn.conv import Activation, ConvNormActivation, Norm
from opsin.nn.padding import Framework
from opsin.nn.regularize import create_regularizer
from opsin.registry import Published, Weights, register

# The paper's table 2: expansion, channels, blocks, stride of the first block. A stride of 2 begins a stage.
_BLOCKS = (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)


class InvertedResidual(nn.Module):
    """1x1 to `expanded_channels`, depthwise k x k, `squeeze`, 1x1 to `out_channels`; x added where the shape stays.

    Figure 4d of MobileNetV2; with a squeeze between, figure 4 of MobileNetV3. Without expansion the first 1x1 is left
    out. linear=False puts the activation behind the last 1x1 too. drop: probability to lose the body for an example.
    """

    def __init__(
        self,
        in_channels: int,
        expanded_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        *,
        activation: Activation = "relu6",
        squeeze: nn.Module | None = None,
        norm: Norm = "batch",
        padding: Framework = "torch",
        residual: bool = True,
        linear: bool = True,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if expanded_channels != in_channels:
            layers.append(ConvNormActivation(in_channels, expanded_channels, 1, norm=norm, activation=activation))
        layers.append(
            ConvNormActivation(
                expanded_channels,
                expanded_channels,
                kernel_size,
                stride,
                padding=padding,
                groups=expanded_channels,
                norm=norm,
                activation=activation,
            )
        )
        if squeeze is not None:
            layers.append(squeeze)
        last = None if linear else activation
        layers.append(ConvNormActivation(expanded_channels, out_channels, 1, norm=norm, activation=last))
        self.body = nn.Sequential(*layers)
        self.residual = residual and stride == 1 and in_channels == out_channels
        if self.residual and drop > 0:
            self.body.append(create_regularizer("stochastic_depth", p=drop))

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return y + x if self.residual else y


class MobileNetV2(Backbone):
    """A 3x3 convolution, seventeen inverted residuals in five resolutions, a 1x1 to 1280, pooling, one linear layer.

    width: multiplies the channels of every layer. small_images: for images of about 32x32, the stem and the first
    blocks that would halve the map keep it: strides up to 8 instead of 32. padding: "tf" pads as TensorFlow.
    residual=False leaves the shortcuts out, linear=False puts a ReLU6 behind each bottleneck: the paper's figure 6.
    """

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        width: float = 1.0,
        small_images: bool = False,
        residual: bool = True,
        linear: bool = True,
        dropout: float = 0.2,
        padding: Framework = "torch",
    ) -> None:
        super().__init__(num_classes, in_channels)
        channels, stride = scale_channels(32, width), 1 if small_images else 2
        self.stem = ConvNormActivation(in_channels, channels, 3, stride, padding=padding, activation="relu6")
        stages: list[list[nn.Module]] = []
        widths, strides = [], []
        for expansion, base, blocks, step in _BLOCKS:
            out_channels = scale_channels(base, width)
            if step == 2 or not stages:
                stages.append([])
                widths.append(out_channels)
                step = 1 if small_images and len(stages) == 2 else step
                stride *= step
                strides.append(stride)
            for _ in range(blocks):
                stages[-1].append(
                    InvertedResidual(
                        channels,
                        expansion * channels,
                        out_channels,
                        stride=step,
                        padding=padding,
                        residual=residual,
                        linear=linear,
                    )
                )
                channels, step = out_channels, 1
            widths[-1] = out_channels
        self.stages = nn.ModuleList(nn.Sequential(*blocks) for blocks in stages)
        self.channels, self.strides = tuple(widths), tuple(strides)
        last = scale_channels(1280, max(1.0, width))
        self.head = nn.Sequential(
            ConvNormActivation(channels, last, 1, activation="relu6"),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(last, num_classes),
        )
        initialize(self)


def scale_channels(channels: float, width: float = 1.0, divisor: int = 8) -> int:
    """channels * width, to the nearest multiple of the divisor, but one more where that would take off above a tenth.

    The rounding of TensorFlow's MobileNets and of EfficientNet, so that channels fill the lanes of a processor.
    """
    check_number("width", width, above=True, hint="1.0 is the network of the paper")
    wanted = channels * width
    rounded = max(divisor, int(wanted + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * wanted else rounded


def initialize(network: nn.Module) -> None:
    """Convolutions keep the variance of the gradient (He et al. 2015, arXiv:1502.01852), the classifier starts small.

    The fan counts what one filter feeds, so that depthwise ones start as large as others; torchvision's start smaller
    by the root of their channels, which the norm behind them hides.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _timm(file: str, top1: float, top5: float) -> Weights:
    url = f"https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/mobilenetv2_{file}.pth"
    return imagenet_weights(url, "Apache-2.0", "timm", top1, top5, interpolation="bicubic")


_WEIGHTS = {
    "mobilenet_v2": {
        **torchvision_weights(("mobilenet_v2-b0353104", 71.878, 90.286), ("mobilenet_v2-7ebf99e0", 72.154, 90.822)),
        "imagenet1k_timm": _timm("100_ra-b33bc2c4", 72.976, 91.01),
    },
    "mobilenet_v2_x0_5": {"imagenet1k": _timm("050-3d30d450", 65.95, 86.088)},
    "mobilenet_v2_x1_4": {"imagenet1k": _timm("140_ra-21a4e913", 76.52, 92.986)},
}

# Width, parameters; for each size: multiply-adds, top-1 and top-5 on ImageNet-1k.
_PUBLISHED: tuple[tuple[float, int, dict[int, tuple[int, float, float]]], ...] = (
    (1.4, 6_108_776, {224: (582_195_824, 75.0, 92.5)}),
    (1.3, 5_386_792, {224: (509_374_560, 74.4, 92.1)}),
    (
        1.0,
        3_504_872,
        {
            224: (300_774_272, 71.8, 91.0),
            192: (221_316_608, 70.7, 90.1),
            160: (154_083_200, 68.8, 89.0),
            128: (99_074_048, 65.3, 86.9),
            96: (56_289_152, 60.3, 83.2),
        },
    ),
    (
        0.75,
        2_636_424,
        {
            224: (209_069_792, 69.8, 89.6),
            192: (153_941_888, 68.7, 88.9),
            160: (107_295_200, 66.4, 87.3),
            128: (69_129_728, 63.2, 85.3),
            96: (39_445_472, 58.8, 81.6),
        },
    ),
    (
        0.5,
        1_968_680,
        {
            224: (97_131_840, 65.4, 86.4),
            192: (71_701_760, 63.9, 85.4),
            160: (50_184_000, 61.0, 83.2),
            128: (32_578_560, 57.7, 80.8),
            96: (18_885_440, 51.2, 75.8),
        },
    ),
    (
        0.35,
        1_677_128,
        {
            224: (59_285_808, 60.3, 82.9),
            192: (43_896_512, 58.2, 81.2),
            160: (30_874_800, 55.7, 79.1),
            128: (20_220_672, 50.8, 75.0),
            96: (11_934_128, 45.5, 70.4),
        },
    ),
)


def _register(width: float, size: int, params: int, macs: int, top1: float, top5: float) -> None:
    suffix = "" if width == 1 else f"_x{width}".replace(".", "_")
    name = f"mobilenet_v2{suffix}" + ("" if size == 224 else f"_{size}")
    published = Published(
        paper="arXiv:1801.04381",
        year=2018,
        input=(3, size, size),
        params=params,
        macs=macs,
        metrics={"imagenet1k top-1": top1, "imagenet1k top-5": top5},
        idea="widen, filter depthwise, project linearly to a thin map; the shortcut joins the thin ends",
        source="counted; results read: tensorflow/models, research/slim/nets/mobilenet",
    )

    @register(name, task="classify", network=MobileNetV2, published=published, weights=_WEIGHTS.get(name))
    def build(*, width: float = width, **options: Any) -> MobileNetV2:
        return MobileNetV2(width=width, **options)


for _width, _params, _sizes in _PUBLISHED:
    for _size, (_macs, _top1, _top5) in _sizes.items():
        _register(_width, _size, _params, _macs, _top1, _top5)
