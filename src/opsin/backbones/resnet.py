"""ResNet: Deep Residual Learning for Image Recognition.

He, Zhang, Ren and Sun 2015, arXiv:1512.03385. The idea: let layers learn the residual F(x) = H(x) - x and add x back,
so that a deeper net can always do at least as well as a shallower one.

resnet18 to resnet152 are the nets for ImageNet as torchvision has them, "v1.5": a bottleneck that halves the map does
so in its 3x3 convolution. resnet50_v1 to resnet200_v1 are the paper's: it does so in its first 1x1, and so reads a
quarter of the map; the same parameters, 6 % less work in resnet50. 18 and 34 have no bottlenecks, and so one form.
resnet20 to resnet1202 are the nets for CIFAR of section 4.2, thin ones for images of 32x32.

ResNeXt, Wide ResNet, SENet and CBAM-ResNet are this network with other blocks: see their files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from opsin.backbones.backbone import Backbone
from opsin.backbones.weights import torchvision_weights
from opsin.checks import check_count, check_probability
from opsin.errors import InputError, unknown
from opsin.nn.pooling import SpatialPyramidPooling
from opsin.registry import Published, register

Bottleneck: TypeAlias = Literal["v1", "v1.5", "senet154"] | None
Stem: TypeAlias = Literal["imagenet", "caffe", "deep", "cifar"]
Shortcut: TypeAlias = Literal["A", "A_centred", "B", "C"]
Norm: TypeAlias = Literal["bn", "gn"] | None
Pooling: TypeAlias = Literal["average", "grid", "pyramid"]
Attention: TypeAlias = Callable[[int], nn.Module] | None  # channels -> what weighs a map of so many


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
    """Shortcut A where the shape changes: every stride-th pixel, and zeros for the new channels. No parameters.

    The zeros come behind, or, centred, half of them before: the channels of x then meet others of the body's. Trained
    anew it is the same; weights of the one answer noise in the other.
    """

    def __init__(self, new_channels: int, stride: int, centred: bool = False) -> None:
        super().__init__()
        self.new_channels, self.stride = new_channels, stride
        self.before = new_channels // 2 if centred else 0

    def dilate(self, rate: tuple[int, int], stride: tuple[int, int]) -> None:
        """Stride less: `opsin.nn.dilation.Dilatable`. It sees no neighbours, and so has no dilation."""
        self.stride = stride[0]

    def forward(self, x: Tensor) -> Tensor:
        behind = self.new_channels - self.before
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, behind))


@dataclass(frozen=True)
class BlockDesign:
    """What the blocks of a network share; `ResNet` says what each of these is."""

    bottleneck: Bottleneck = None
    groups: int = 1
    width_per_group: int = 64
    attention: Attention = None
    shortcut: Shortcut = "B"
    residual: bool = True
    norm: Norm = "bn"

    def __post_init__(self) -> None:
        check_count("groups", self.groups)
        check_count("width_per_group", self.width_per_group)
        if self.shortcut not in get_args(Shortcut):
            raise unknown("shortcut", self.shortcut, get_args(Shortcut))
        if self.norm not in ("bn", "gn", None):
            raise unknown("norm", self.norm, ("bn", "gn", "null"))

    def out_channels(self, width: int) -> int:
        return width if self.bottleneck is None else 4 * width

    def build(self, in_channels: int, width: int, stride: int) -> Block:
        """The block that takes `in_channels` maps, in a stage of the given width."""
        skip = self._skip(in_channels, self.out_channels(width), stride) if self.residual else None
        return Block(self._body(in_channels, width, stride), skip)

    def _body(self, in_channels: int, width: int, stride: int) -> nn.Sequential:
        """F: two 3x3 convolutions, or 1x1 to fewer channels, 3x3, 1x1 to four times the width. Figure 5."""
        inner = width * self.width_per_group // 64 * self.groups
        layers = {  # kernel size, stride, maps
            None: [(3, stride, width), (3, 1, width)],
            "v1": [(1, stride, inner), (3, 1, inner), (1, 1, 4 * width)],
            "v1.5": [(1, 1, inner), (3, stride, inner), (1, 1, 4 * width)],
            "senet154": [(1, 1, inner // 2), (3, stride, inner), (1, 1, 4 * width)],
        }[self.bottleneck]
        modules: list[nn.Module] = []
        for kernel_size, step, channels in layers:
            modules += [nn.ReLU(inplace=True)] if modules else []
            groups = self.groups if kernel_size == 3 else 1
            modules += conv_norm(in_channels, channels, kernel_size, step, self.norm, groups)
            in_channels = channels
        return nn.Sequential(*modules, *([self.attention(in_channels)] if self.attention else []))

    def _skip(self, in_channels: int, out_channels: int, stride: int) -> nn.Module:
        changes = stride != 1 or in_channels != out_channels
        if self.shortcut == "C" or (self.shortcut == "B" and changes):
            kernel_size = 3 if self.bottleneck == "senet154" and stride != 1 else 1
            return nn.Sequential(*conv_norm(in_channels, out_channels, kernel_size, stride, self.norm))
        return ZeroPad(out_channels - in_channels, stride, self.shortcut == "A_centred") if changes else nn.Identity()


class ResNet(Backbone):
    """A stem, then stages of blocks, each but the first halving the map; global average pooling; one linear layer.

    depths: blocks of each stage. bottleneck: where one halves the map, None for basic blocks; "senet154" has half as
    many maps before the 3x3 convolution as behind it, and 3x3 projections. widths: of the convolutions of each stage;
    bottlenecks give four times as many maps. stem: "imagenet" is 7x7 and a max pooling, of stride 4, "caffe" the same
    with Caffe's pooling, "deep" that with three 3x3 and twice the maps, "cifar" a 3x3 that keeps the size.
    groups, width_per_group: of the 3x3 convolution in a bottleneck. width_per_group is that of a stage of 64 and grows
    with the stages': 64 and one group make it as wide as the stage. attention: made at the end of every body, from the
    number of its maps.

    shortcut (section 4.1): "A" pads with zeros behind the channels where the shape changes, "A_centred" on both sides
    of them, as some ports do; "B" projects there, "C" projects everywhere.
    residual=False leaves shortcuts out: the plain nets that get worse with depth. norm: "bn", "gn" or None; a group
    norm (Wu and He 2018, arXiv:1803.08494) has 32 groups, fewer where a group would be of one map alone.
    pooling: "average" of the whole last map; "grid" of 4 x 4 parts of it, as if each image were resized to one that
    has such a map; "pyramid", the maxima of 4 x 4, 2 x 2 and 1 x 1 parts (He et al. 2014, arXiv:1406.4729).
    zero_init_residual starts every block as its shortcut (Goyal et al. 2017, arXiv:1706.02677, section 5.1).
    dropout: before the linear layer.
    """

    def __init__(
        self,
        depths: Sequence[int],
        bottleneck: Bottleneck = None,
        widths: Sequence[int] = (64, 128, 256, 512),
        stem: Stem = "imagenet",
        groups: int = 1,
        width_per_group: int = 64,
        attention: Attention = None,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        shortcut: Shortcut = "B",
        residual: bool = True,
        norm: Norm = "bn",
        zero_init_residual: bool = False,
        pooling: Pooling = "average",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(num_classes, in_channels)
        design = BlockDesign(bottleneck, groups, width_per_group, attention, shortcut, residual, norm)
        check_probability("dropout", dropout)
        if zero_init_residual and (norm is None or not residual):
            raise InputError("zero_init_residual needs a norm to set to zero and a shortcut beside it; leave it out")
        if stem == "caffe" or stem == "deep":
            self.min_size = 3  # Caffe's pooling has no border to fill its window of 3 with
        channels = 2 * widths[0] if stem == "deep" else widths[0]
        self.stem = _stem(stem, in_channels, channels, norm)
        self.stages = nn.ModuleList()
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            blocks = nn.Sequential()
            for place in range(depth):
                blocks.append(design.build(channels, width, stride=2 if stage > 0 and place == 0 else 1))
                channels = design.out_channels(width)
            self.stages.append(blocks)
        flatten = nn.Flatten()
        if dropout:  # inside, so that the tensors keep their names
            flatten = nn.Sequential(flatten, nn.Dropout(dropout))
        pool, cells = _pool(pooling)
        self.head = nn.Sequential(pool, flatten, nn.Linear(cells * channels, num_classes))
        self.channels = tuple(map(design.out_channels, widths))
        self.strides = tuple((1 if stem == "cifar" else 4) * 2**stage for stage in range(len(widths)))
        self._initialize(zero_init_residual)

    def _initialize(self, zero_init_residual: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # He et al. 2015, arXiv:1502.01852, which the paper names, in its backward form (section 2.2)
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, Block) and zero_init_residual:
                last = [layer for layer in module.body if isinstance(layer, (nn.BatchNorm2d, nn.GroupNorm))][-1]
                nn.init.zeros_(last.weight)


def conv_norm(
    in_channels: int, out_channels: int, kernel_size: int, stride: int, norm: Norm, groups: int = 1
) -> list[nn.Module]:
    """A convolution that keeps the size at stride 1, and its norm, or its bias where there is none."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=norm is None)
    return [conv] if norm is None else [conv, create_norm_of(norm, out_channels)]


def create_norm_of(norm: Literal["bn", "gn"], channels: int) -> nn.Module:
    """A batch norm, or a group norm of 32 groups, fewer where a group would be of one map alone."""
    if norm == "bn":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(math.gcd(channels, min(32, max(1, channels // 2))), channels)


def _pool(pooling: Pooling) -> tuple[nn.Module, int]:
    """What makes vectors of the last map, and how many numbers it gives of each channel."""
    if pooling == "pyramid":
        return SpatialPyramidPooling((4, 2, 1)), 21
    if pooling not in ("average", "grid"):
        raise unknown("pooling", pooling, get_args(Pooling))
    side = 4 if pooling == "grid" else 1
    return nn.AdaptiveAvgPool2d(side), side**2


def _stem(kind: Stem, in_channels: int, width: int, norm: Norm) -> nn.Sequential:
    layers = {  # kernel size, stride, maps
        "imagenet": [(7, 2, width)],
        "caffe": [(7, 2, width)],
        "deep": [(3, 2, width // 2), (3, 1, width // 2), (3, 1, width)],
        "cifar": [(3, 1, width)],
    }[kind]
    stem = nn.Sequential()
    for kernel_size, stride, channels in layers:
        stem.extend([*conv_norm(in_channels, channels, kernel_size, stride, norm), nn.ReLU(inplace=True)])
        in_channels = channels
    if kind == "imagenet":
        stem.append(nn.MaxPool2d(3, 2, 1))
    elif kind != "cifar":
        stem.append(nn.MaxPool2d(3, 2, ceil_mode=True))
    return stem


def _published(params: int, macs: int, top1: float | None, top5: float | None, source: str) -> Published:
    return Published(
        paper="arXiv:1512.03385",
        year=2015,
        input=(3, 224, 224),
        params=params,
        macs=macs,
        metrics={} if top1 is None or top5 is None else {"imagenet1k top-1": top1, "imagenet1k top-5": top5},
        idea="learn the residual F(x) = H(x) - x",
        source=source,
    )


def _cifar(depth: int, params: int, macs: int, error: float) -> Callable[..., ResNet]:
    """Register a net for CIFAR of 6n + 2 layers: three stages of n basic blocks, with 16, 32 and 64 maps."""
    blocks = (depth - 2) // 6
    plan = (blocks, blocks, blocks), None, (16, 32, 64), "cifar"
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

    @register(f"resnet{depth}", task="classify", network=ResNet, published=published)
    def build(*, num_classes: int = 10, shortcut: Shortcut = "A", **options: Any) -> ResNet:
        return ResNet(*plan, num_classes=num_classes, shortcut=shortcut, **options)

    return build


_TORCHVISION = "counted and weights' results read: torchvision"
_MSRA = "counted: the authors' prototxt, less a stray bias in ResNet-50's conv1; results read: their README, 1 crop"
_PYTORCHCV = "counted: pytorchcv. Not in the paper, which stops at 152"


@register(
    "resnet18",
    task="classify",
    network=ResNet,
    published=_published(11_689_512, 1_814_073_344, 69.758, 89.078, _TORCHVISION),
    weights=torchvision_weights(("resnet18-f37072fd", 69.758, 89.078)),
)
def resnet18(**options: Any) -> ResNet:
    return ResNet((2, 2, 2, 2), **options)


@register(
    "resnet34",
    task="classify",
    network=ResNet,
    published=_published(21_797_672, 3_663_761_408, 73.314, 91.42, _TORCHVISION),
    weights=torchvision_weights(("resnet34-b627a593", 73.314, 91.42)),
)
def resnet34(**options: Any) -> ResNet:
    return ResNet((3, 4, 6, 3), **options)


@register(
    "resnet50",
    task="classify",
    network=ResNet,
    published=_published(25_557_032, 4_089_184_256, 76.13, 92.862, _TORCHVISION),
    weights=torchvision_weights(("resnet50-0676ba61", 76.13, 92.862), ("resnet50-11ad3fa6", 80.858, 95.434)),
)
def resnet50(**options: Any) -> ResNet:
    return ResNet((3, 4, 6, 3), "v1.5", **options)


@register(
    "resnet101",
    task="classify",
    network=ResNet,
    published=_published(44_549_160, 7_801_405_440, 77.374, 93.546, _TORCHVISION),
    weights=torchvision_weights(("resnet101-63fe2227", 77.374, 93.546), ("resnet101-cd907fc2", 81.886, 95.78)),
)
def resnet101(**options: Any) -> ResNet:
    return ResNet((3, 4, 23, 3), "v1.5", **options)


@register(
    "resnet152",
    task="classify",
    network=ResNet,
    published=_published(60_192_808, 11_513_626_624, 78.312, 94.046, _TORCHVISION),
    weights=torchvision_weights(("resnet152-394f9c45", 78.312, 94.046), ("resnet152-f82ba261", 82.284, 96.002)),
)
def resnet152(**options: Any) -> ResNet:
    return ResNet((3, 8, 36, 3), "v1.5", **options)


@register(
    "resnet50_v1", task="classify", network=ResNet, published=_published(25_557_032, 3_857_973_248, 75.3, 92.2, _MSRA)
)
def resnet50_v1(**options: Any) -> ResNet:
    return ResNet((3, 4, 6, 3), "v1", **options)


@register(
    "resnet101_v1", task="classify", network=ResNet, published=_published(44_549_160, 7_570_194_432, 76.4, 92.9, _MSRA)
)
def resnet101_v1(**options: Any) -> ResNet:
    return ResNet((3, 4, 23, 3), "v1", **options)


@register(
    "resnet152_v1", task="classify", network=ResNet, published=_published(60_192_808, 11_282_415_616, 77.0, 93.3, _MSRA)
)
def resnet152_v1(**options: Any) -> ResNet:
    return ResNet((3, 8, 36, 3), "v1", **options)


@register(
    "resnet200_v1",
    task="classify",
    network=ResNet,
    published=_published(64_673_832, 14_776_270_848, None, None, _PYTORCHCV),
)
def resnet200_v1(**options: Any) -> ResNet:
    return ResNet((3, 24, 36, 3), "v1", **options)


resnet20 = _cifar(20, 269_722, 40_551_040, 8.75)
resnet32 = _cifar(32, 464_154, 68_862_592, 7.51)
resnet44 = _cifar(44, 658_586, 97_174_144, 7.17)
resnet56 = _cifar(56, 853_018, 125_485_696, 6.97)
resnet110 = _cifar(110, 1_727_962, 252_887_680, 6.43)
resnet1202 = _cifar(1202, 19_421_274, 2_829_238_912, 7.93)
