"""ResNet: Deep Residual Learning for Image Recognition.

He, Zhang, Ren and Sun 2015, arXiv:1512.03385. The idea: let layers learn the residual F(x) = H(x) - x and add x back,
so that a deeper net can always do at least as well as a shallower one.

resnet18 to resnet152 are the nets for ImageNet as torchvision has them, "v1.5": a bottleneck that halves the map does
so in its 3x3 convolution. resnet50_v1, resnet101_v1 and resnet152_v1 are the paper's: it does so in its first 1x1, and
so reads a quarter of the map; the same parameters, 6 % less work in resnet50. 18 and 34 have no bottlenecks, and so one
form. resnet20 to resnet1202 are the nets for CIFAR of section 4.2, thin ones for pictures of 32x32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import torch.nn.functional as F
from torch import Tensor, nn

from opsin.backbones.backbone import Backbone
from opsin.errors import InputError, unknown
from opsin.registry import Published, register

Shortcut: TypeAlias = Literal["A", "B", "C"]
Norm: TypeAlias = Literal["bn"] | None


class Block(nn.Module):
    """relu(body(x) + shortcut(x)), or relu(body(x)) in a plain net. Eq. 1 and 2."""

    def __init__(self, body: nn.Sequential, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if self.shortcut is not None:
            y += self.shortcut(x)
        return self.relu(y)


class ZeroPad(nn.Module):
    """Shortcut A where the shape changes: every stride-th pixel, and zeros for the new channels. No parameters."""

    def __init__(self, new_channels: int, stride: int) -> None:
        super().__init__()
        self.new_channels, self.stride = new_channels, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))


class ResNet(Backbone):
    """A stem, then stages of blocks, each but the first halving the map; global average pooling; one linear layer.

    depths: blocks of each stage. bottleneck: where one halves the map, None for basic blocks. widths: of the 3x3
    convolutions of each stage; bottlenecks give four times as many maps. small_images: a 3x3 stem that keeps the size,
    instead of one of stride 4.

    shortcut (section 4.1): "A" pads with zeros where the shape changes, "B" projects there, "C" projects everywhere.
    residual=False leaves shortcuts out: the plain nets that get worse with depth. norm: "bn" or None.
    zero_init_residual starts every block as its shortcut (Goyal et al. 2017, arXiv:1706.02677, section 5.1).
    """

    def __init__(
        self,
        depths: Sequence[int],
        bottleneck: Literal["v1", "v1.5"] | None = None,
        widths: Sequence[int] = (64, 128, 256, 512),
        small_images: bool = False,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        shortcut: Shortcut = "B",
        residual: bool = True,
        norm: Norm = "bn",
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__(num_classes, in_channels)
        if shortcut not in ("A", "B", "C"):
            raise unknown("shortcut", shortcut, ("A", "B", "C"))
        if norm not in ("bn", None):
            raise unknown("norm", norm, ("bn", "null"))
        if zero_init_residual and (norm is None or not residual):
            raise InputError("zero_init_residual needs a norm to set to zero and a shortcut beside it; leave it out")
        self.stem = _stem(in_channels, widths[0], norm, small_images)
        self.stages = nn.ModuleList()
        channels = widths[0]
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            blocks = []
            for place in range(depth):
                stride = 2 if stage > 0 and place == 0 else 1
                body = _body(channels, width, stride, norm, bottleneck)
                out_channels = width if bottleneck is None else 4 * width
                skip = _shortcut(shortcut, channels, out_channels, stride, norm) if residual else None
                blocks.append(Block(body, skip))
                channels = out_channels
            self.stages.append(nn.Sequential(*blocks))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))
        self.channels = tuple(width if bottleneck is None else 4 * width for width in widths)
        self.strides = tuple((1 if small_images else 4) * 2**stage for stage in range(len(widths)))
        self._initialize(zero_init_residual)

    def _initialize(self, zero_init_residual: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # He et al. 2015, arXiv:1502.01852, which the paper names, in its backward form (section 2.2)
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, Block) and zero_init_residual:
                nn.init.zeros_(module.body[-1].weight)  # type: ignore[arg-type]


def _conv(in_channels: int, out_channels: int, kernel_size: int, stride: int, norm: Norm) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=norm is None)
    return [conv, nn.BatchNorm2d(out_channels)] if norm == "bn" else [conv]


def _stem(in_channels: int, width: int, norm: Norm, small_images: bool) -> nn.Sequential:
    if small_images:
        return nn.Sequential(*_conv(in_channels, width, 3, 1, norm), nn.ReLU(inplace=True))
    return nn.Sequential(*_conv(in_channels, width, 7, 2, norm), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))


def _body(in_channels: int, width: int, stride: int, norm: Norm, bottleneck: str | None) -> nn.Sequential:
    """F of a block: two 3x3 convolutions, or 1x1 to fewer channels, 3x3, 1x1 to four times as many. Figure 5."""
    if bottleneck is None:
        layers = (3, stride, width), (3, 1, width)
    elif bottleneck == "v1":
        layers = (1, stride, width), (3, 1, width), (1, 1, 4 * width)
    else:
        layers = (1, 1, width), (3, stride, width), (1, 1, 4 * width)
    modules: list[nn.Module] = []
    for kernel_size, step, out_channels in layers:
        modules += [nn.ReLU(inplace=True)] if modules else []
        modules += _conv(in_channels, out_channels, kernel_size, step, norm)
        in_channels = out_channels
    return nn.Sequential(*modules)


def _shortcut(option: Shortcut, in_channels: int, out_channels: int, stride: int, norm: Norm) -> nn.Module:
    changes = stride != 1 or in_channels != out_channels
    if option == "C" or (option == "B" and changes):
        return nn.Sequential(*_conv(in_channels, out_channels, 1, stride, norm))
    return ZeroPad(out_channels - in_channels, stride) if changes else nn.Identity()


def _published(params: int, macs: int, top1: float, top5: float, source: str) -> Published:
    return Published(
        paper="arXiv:1512.03385",
        year=2015,
        input=(3, 224, 224),
        params=params,
        macs=macs,
        metrics={"imagenet1k top-1": top1, "imagenet1k top-5": top5},
        idea="learn the residual F(x) = H(x) - x",
        source=source,
    )


def _cifar(depth: int, params: int, macs: int, error: float) -> Callable[..., ResNet]:
    """Register a net for CIFAR of 6n + 2 layers: three stages of n basic blocks, with 16, 32 and 64 maps."""
    blocks = (depth - 2) // 6
    plan = (blocks, blocks, blocks), None, (16, 32, 64), True
    published = Published(
        paper="arXiv:1512.03385",
        year=2015,
        input=(3, 32, 32),
        params=params,
        macs=macs,
        metrics={"cifar10 accuracy": round(100 - error, 2)},
        idea="learn the residual F(x) = H(x) - x",
        source="counted on the paper's section 4.2; result: its table 6 as akamaster/pytorch_resnet_cifar10 quotes it",
    )

    @register(f"resnet{depth}", task="classify", published=published)
    def build(*, num_classes: int = 10, shortcut: Shortcut = "A", **options: Any) -> ResNet:
        return ResNet(*plan, num_classes=num_classes, shortcut=shortcut, **options)

    return build


_TORCHVISION = "counted and weights' results read: torchvision"
_MSRA = "counted: the authors' prototxt, less a stray bias in ResNet-50's conv1; results read: their README, 1 crop"


@register("resnet18", task="classify", published=_published(11_689_512, 1_814_073_344, 69.758, 89.078, _TORCHVISION))
def resnet18(**options: Any) -> ResNet:
    return ResNet((2, 2, 2, 2), **options)


@register("resnet34", task="classify", published=_published(21_797_672, 3_663_761_408, 73.314, 91.42, _TORCHVISION))
def resnet34(**options: Any) -> ResNet:
    return ResNet((3, 4, 6, 3), **options)


@register("resnet50", task="classify", published=_published(25_557_032, 4_089_184_256, 76.13, 92.862, _TORCHVISION))
def resnet50(**options: Any) -> ResNet:
    return ResNet((3, 4, 6, 3), "v1.5", **options)


@register("resnet101", task="classify", published=_published(44_549_160, 7_801_405_440, 77.374, 93.546, _TORCHVISION))
def resnet101(**options: Any) -> ResNet:
    return ResNet((3, 4, 23, 3), "v1.5", **options)


@register("resnet152", task="classify", published=_published(60_192_808, 11_513_626_624, 78.312, 94.046, _TORCHVISION))
def resnet152(**options: Any) -> ResNet:
    return ResNet((3, 8, 36, 3), "v1.5", **options)


@register("resnet50_v1", task="classify", published=_published(25_557_032, 3_857_973_248, 75.3, 92.2, _MSRA))
def resnet50_v1(**options: Any) -> ResNet:
    return ResNet((3, 4, 6, 3), "v1", **options)


@register("resnet101_v1", task="classify", published=_published(44_549_160, 7_570_194_432, 76.4, 92.9, _MSRA))
def resnet101_v1(**options: Any) -> ResNet:
    return ResNet((3, 4, 23, 3), "v1", **options)


@register("resnet152_v1", task="classify", published=_published(60_192_808, 11_282_415_616, 77.0, 93.3, _MSRA))
def resnet152_v1(**options: Any) -> ResNet:
    return ResNet((3, 8, 36, 3), "v1", **options)


resnet20 = _cifar(20, 269_722, 40_551_040, 8.75)
resnet32 = _cifar(32, 464_154, 68_862_592, 7.51)
resnet44 = _cifar(44, 658_586, 97_174_144, 7.17)
resnet56 = _cifar(56, 853_018, 125_485_696, 6.97)
resnet110 = _cifar(110, 1_727_962, 252_887_680, 6.43)
resnet1202 = _cifar(1202, 19_421_274, 2_829_238_912, 7.93)
