"""RegNet and AnyNet: Designing Network Design Spaces.

Radosavovic, Kosaraju, Girshick, He and Dollar 2020, arXiv:2003.13678. The idea: look for a good space of networks, not
for one good network. AnyNet is the whole space, residual bottlenecks in four stages of any depth and width; trained
samples of it narrow it down to RegNet, where six numbers make a network, since widths grow along a line.

Its blocks can be others: `block="vgg"` and `block="inverted_residual"`.

regnetx_* and regnety_* are the authors' best of each size by multiply-adds, as pycls has them; Y has
squeeze-excitation. The names end in the size: 200mf to 32gf, twelve of each. torchvision rounds widths to the groups in
another way, which makes three of its nets others: those are regnetx_400mf_torchvision, regnety_800mf_torchvision and
regnety_8gf_torchvision. anynetx takes the stages themselves as options.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal, TypeAlias

from torch import Tensor, nn

from opsin.backbones.backbone import Backbone
from opsin.backbones.mobilenet_v2 import InvertedResidual
from opsin.backbones.weights import imagenet_weights, torchvision_weights
from opsin.checks import check_count, check_probability
from opsin.errors import InputError, unknown
from opsin.nn.attention import squeeze_excitation
from opsin.nn.conv import ConvNormActivation
from opsin.registry import Published, Weights, register

Rounding: TypeAlias = Literal["pycls", "torchvision"]
Space: TypeAlias = Literal["A", "B", "C", "D", "E"]
BlockName: TypeAlias = Literal["bottleneck", "vgg", "inverted_residual"]
BLOCKS: tuple[BlockName, ...] = ("bottleneck", "vgg", "inverted_residual")


@dataclass(frozen=True)
class Stages:
    """The degrees of freedom of AnyNet: a number for each stage. Section 3.2.

    depths: blocks. widths: channels that come out. bottleneck_ratios: widths over the channels inside of a block.
    group_widths: channels of each group of the 3x3 convolutions. strides: of the first blocks, 2 each unless given.
    Raises InputError for lists of different lengths, and for groups that do not divide the channels inside.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    bottleneck_ratios: tuple[float, ...]
    group_widths: tuple[int, ...]
    strides: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("depths", "widths", "bottleneck_ratios", "group_widths", "strides"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.strides:
            object.__setattr__(self, "strides", (2,) * len(self.depths))
        lengths = [len(v) for v in vars(self).values()]
        if not lengths[0] or len(set(lengths)) > 1:
            raise InputError(
                f"depths, widths, bottleneck_ratios, group_widths and strides need a number for each stage, at least "
                f"one; got {lengths} of them"
            )
        for name in ("depths", "widths", "group_widths", "strides"):
            for number in getattr(self, name):
                check_count(name, number)
        for width, ratio, group in zip(self.widths, self.bottleneck_ratios, self.group_widths, strict=True):
            inside = width / ratio if ratio > 0 else 0.5
            if inside % group:
                raise InputError(
                    f"group_width={group} does not divide width={width} / bottleneck_ratio={ratio}; "
                    f"take others, or let opsin.backbones.regnet.fit_groups do so"
                )

    def rows(self) -> Iterator[tuple[int, int, float, int, int]]:
        """Depth, width, bottleneck ratio, group width and stride of each stage."""
        return zip(self.depths, self.widths, self.bottleneck_ratios, self.group_widths, self.strides, strict=True)


def fit_groups(
    depths: Sequence[int],
    widths: Sequence[int],
    bottleneck_ratios: Sequence[float],
    group_widths: Sequence[int],
    rounding: Rounding = "pycls",
) -> Stages:
    """The stages nearest to those asked for whose groups divide their channels. Section 3.2; pycls's code has the rule.

    A group is at most as wide as what it is a part of; then that becomes a multiple of it. Half a group more is rounded
    to an even multiple in "pycls". "torchvision" rounds it up, and never down by more than a tenth.
    """
    if rounding not in ("pycls", "torchvision"):
        raise unknown("rounding", rounding, ("pycls", "torchvision"))
    if any(ratio <= 0 for ratio in bottleneck_ratios):
        raise InputError(f"bottleneck_ratios must be above 0, got {list(bottleneck_ratios)}")
    fitted, groups = [], []
    for width, ratio, group_width in zip(widths, bottleneck_ratios, group_widths, strict=True):
        inside = max(1, round(width / ratio))
        group = min(group_width, inside)
        step = math.lcm(group, round(1 / ratio)) if ratio < 1 else group  # else the width outside were no whole number
        if rounding == "pycls":
            multiple = round(inside / step)
        else:
            multiple = math.floor(inside / step + 0.5)
            multiple += multiple * step < 0.9 * inside
        fitted.append(round(max(1, multiple) * step * ratio))
        groups.append(group)
    return Stages(tuple(depths), tuple(fitted), tuple(bottleneck_ratios), tuple(groups))


@dataclass(frozen=True)
class Line:
    """The six numbers of a RegNet. Section 3.3.

    Block j of `depth` wants to be w_0 + w_a j wide. It gets the power of w_m, times w_0, that is nearest to this by
    its exponent, rounded to a multiple of 8; blocks of the same width are a stage.
    """

    depth: int
    w_0: int
    w_a: float
    w_m: float
    group_width: int
    bottleneck_ratio: float = 1

    def __post_init__(self) -> None:
        check_count("depth", self.depth)
        check_count("group_width", self.group_width)
        if self.w_0 < 8 or self.w_0 % 8 or self.w_a < 0 or self.w_m <= 1:
            raise InputError(
                f"w_0={self.w_0}, w_a={self.w_a}, w_m={self.w_m} make no widths; w_0 must be a multiple of 8, "
                f"w_a at least 0, w_m above 1"
            )

    def block_widths(self) -> list[int]:
        """Of every block, before they are fitted to the groups. Equations 2 to 4."""
        wanted = [self.w_0 + self.w_a * block for block in range(self.depth)]
        exponents = [round(math.log(width / self.w_0, self.w_m)) for width in wanted]
        return [8 * round(self.w_0 * self.w_m**exponent / 8) for exponent in exponents]

    def stages(self, rounding: Rounding = "pycls") -> Stages:
        """The blocks of each width, fitted to the groups. The authors' nets have four stages."""
        blocks = self.block_widths()
        widths = sorted(set(blocks))
        ratios, groups = [self.bottleneck_ratio] * len(widths), [self.group_width] * len(widths)
        return fit_groups([blocks.count(width) for width in widths], widths, ratios, groups, rounding)


def sample_anynetx(space: Space, random: Random, block: BlockName = "bottleneck") -> Stages:
    """A network of one of the paper's spaces of four stages. Section 3.2, table 1.

    A: depth up to 16, width up to 1024 in steps of 8, both log-uniform; ratio 1, 2 or 4; group width 1 to 32, a power
    of 2. B: one ratio for all stages. C: and one group width. D: and widths that do not shrink. E: nor do depths.
    The paper keeps those of 360 to 400 million multiply-adds: `opsin.nn.counting.count_macs` on the meta device.
    block: a VGG block has neither ratio nor groups; an inverted residual is 1, 2 or 4 times as wide inside, and each
    channel is a group.
    """
    if space not in ("A", "B", "C", "D", "E"):
        raise unknown("space", space, ("A", "B", "C", "D", "E"))
    ratios_of, groups_of = _freedom(block)
    depths = [_log_uniform(random, 1, 16) for _ in range(4)]
    widths = [_log_uniform(random, 8, 1024, step=8) for _ in range(4)]
    ratios = [random.choice(ratios_of)] * 4 if space >= "B" else random.choices(ratios_of, k=4)
    groups = [random.choice(groups_of)] * 4 if space >= "C" else random.choices(groups_of, k=4)
    # Four draws put in order are distributed as those that come in order by themselves.
    return fit_groups(
        sorted(depths) if space >= "E" else depths, sorted(widths) if space >= "D" else widths, ratios, groups
    )


def sample_regnetx(random: Random, block: BlockName = "bottleneck") -> Line:
    """A RegNet of four stages: depth < 64, w_0, w_a < 256, 1.5 <= w_m <= 3, the rest as in AnyNetX. Section 3.3.

    w_0, w_a and w_m are log-uniform, w_0 and w_a from 8 on, as pycls samples them.
    """
    ratios_of, groups_of = _freedom(block)
    while True:  # one in about six has four stages
        line = Line(
            depth=random.randint(4, 63),
            w_0=_log_uniform(random, 8, 248, step=8),
            w_a=round(math.exp(random.uniform(math.log(8), math.log(256))), 1),
            w_m=round(math.exp(random.uniform(math.log(1.5), math.log(3))), 3),
            group_width=random.choice(groups_of),
            bottleneck_ratio=random.choice(ratios_of),
        )
        if len(set(line.block_widths())) == 4:
            return line


_RATIOS = (1, 2, 4)
_GROUP_WIDTHS = (1, 2, 4, 8, 16, 32)


def _freedom(block: BlockName) -> tuple[Sequence[float], Sequence[int]]:
    """The bottleneck ratios and the group widths that a kind of block may have."""
    if block not in BLOCKS:
        raise unknown("block", block, BLOCKS)
    ratios: dict[str, Sequence[float]] = {"bottleneck": _RATIOS, "vgg": (1,), "inverted_residual": (1, 1 / 2, 1 / 4)}
    return ratios[block], _GROUP_WIDTHS if block == "bottleneck" else (1,)


def _log_uniform(random: Random, low: int, high: int, step: int = 1) -> int:
    """A multiple of step from low to high, whose logarithm is uniform before it is rounded."""
    return step * round(math.exp(random.uniform(math.log(low), math.log(high))) / step)


class Block(nn.Module):
    """relu(x + body(x)): 1x1, grouped 3x3, weighed channels in Y, 1x1. Figure 4, the X block.

    The shortcut is a 1x1 convolution with a norm where the shape changes. residual=False leaves it out.
    """

    def __init__(
        self, shape: tuple[int, int, int], stride: int, group_width: int, squeeze_channels: int, residual: bool
    ) -> None:
        super().__init__()
        channels, inside, out_channels = shape
        self.shortcut: nn.Module | None = None
        if residual:
            self.shortcut = nn.Identity()
            if stride != 1 or channels != out_channels:
                self.shortcut = ConvNormActivation(channels, out_channels, 1, stride, activation=None)
        self.body = nn.Sequential(
            ConvNormActivation(channels, inside, 1),
            ConvNormActivation(inside, inside, 3, stride, groups=inside // group_width),
            *([squeeze_excitation(inside, squeeze_channels)] if squeeze_channels else []),
            ConvNormActivation(inside, out_channels, 1, activation=None),
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        return self.relu(y)


def _block(
    name: BlockName, shape: tuple[int, int, int], stride: int, group_width: int, squeeze_channels: int, residual: bool
) -> nn.Module:
    """A block of a stage. shape: channels that come in, those inside, those that come out."""
    if name == "bottleneck":
        return Block(shape, stride, group_width, squeeze_channels, residual)
    channels, inside, out_channels = shape
    if group_width != 1 or (name == "vgg" and inside != out_channels):
        what = "bottleneck_ratios and group_widths" if name == "vgg" else "group_widths"
        raise InputError(f"a block {name!r} has no {what} to choose; give 1 for each stage")
    squeeze = squeeze_excitation(inside, squeeze_channels) if squeeze_channels else None
    if name == "inverted_residual":
        return InvertedResidual(channels, inside, out_channels, stride=stride, squeeze=squeeze, residual=residual)
    conv = ConvNormActivation(channels, out_channels, 3, stride)
    return conv if squeeze is None else nn.Sequential(conv, squeeze)


class AnyNet(Backbone):
    """A stem, stages of X or Y blocks, global average pooling, one linear layer.

    block: "bottleneck" is the X block. "vgg" is one 3x3 convolution, its norm and a ReLU, without a shortcut: the
    vanilla block of the authors' earlier spaces (arXiv:1905.13214, section 4). "inverted_residual" is MobileNetV2's
    (arXiv:1801.04381, figure 4d), as wide inside as the ratio says of what comes out; ratios below 1 expand.

    se: squeeze-excitation in every block, of the Y nets. se_ratio: its hidden channels over those that come into the
    block, as in pycls; most others take the channels that it weighs. residual=False leaves the shortcuts out.
    stem: "simple", 3x3 of stride 2, or "resnet", 7x7 of stride 2 and a max pooling; stem_width: its channels.
    small_images: a 3x3 stem that keeps the size, for images of about 32x32. dropout: before the linear layer.
    Initialised as pycls does, which is what ResNet does.
    """

    def __init__(
        self,
        stages: Stages,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        block: BlockName = "bottleneck",
        se: bool = False,
        se_ratio: float = 0.25,
        residual: bool = True,
        stem: Literal["simple", "resnet"] = "simple",
        stem_width: int = 32,
        small_images: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(num_classes, in_channels)
        if stem not in ("simple", "resnet"):
            raise unknown("stem", stem, ("simple", "resnet"))
        if block not in BLOCKS:
            raise unknown("block", block, BLOCKS)
        if se and not se_ratio > 0:
            raise InputError(f"se_ratio must be above 0, got {se_ratio}; to leave the blocks unweighed, pass se=False")
        check_probability("dropout", dropout)
        channels = check_count("stem_width", stem_width)
        self.stem, stride = _stem(in_channels, channels, stem, small_images)
        self.stages = nn.ModuleList()
        strides = []
        for depth, width, ratio, group_width, step in stages.rows():
            blocks = []
            for place in range(depth):
                squeezed = max(1, round(se_ratio * channels)) if se else 0
                shape = channels, round(width / ratio), width
                blocks.append(_block(block, shape, step if place == 0 else 1, group_width, squeezed, residual))
                channels = width
            self.stages.append(nn.Sequential(*blocks))
            stride *= step
            strides.append(stride)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(channels, num_classes)
        )
        self.channels, self.strides = stages.widths, tuple(strides)
        self._initialize()

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
            else:
                continue
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _stem(in_channels: int, width: int, kind: str, small_images: bool) -> tuple[nn.Module, int]:
    """The stem and its stride."""
    if small_images:
        return ConvNormActivation(in_channels, width, 3), 1
    if kind == "simple":
        return ConvNormActivation(in_channels, width, 3, 2), 2
    return nn.Sequential(ConvNormActivation(in_channels, width, 7, 2), nn.MaxPool2d(3, 2, 1)), 4


def _published(params: int, macs: int, top1: float | None, top5: float | None, source: str) -> Published:
    return Published(
        paper="arXiv:2003.13678",
        year=2020,
        input=(3, 224, 224),
        params=params,
        macs=macs,
        metrics={} if top1 is None or top5 is None else {"imagenet1k top-1": top1, "imagenet1k top-5": top5},
        idea="widths along a line, found by narrowing a space of networks",
        source=source,
    )


_PYCLS = "counted: pycls, timm and pytorchcv agree; results read: pycls, mean of 5 trainings"
_TORCHVISION = "counted and weights' results read: torchvision"


def _swag(file: str, top1: float, top5: float, size: int) -> Weights:
    """Trained on hashtags of 3.6 billion images (arXiv:2201.08371), fine-tuned, or at 224 only its last layer."""
    return imagenet_weights(
        f"https://download.pytorch.org/models/{file}.pth",
        "CC-BY-NC-4.0 (not for commercial use)",
        f"torchvision, IMAGENET1K_SWAG_{'E2E' if size > 224 else 'LINEAR'}_V1",
        top1,
        top5,
        size=size,
        crop_ratio=1.0,
        interpolation="bicubic",
    )


def _timm(file: str, release: str, top1: float, top5: float) -> Weights:
    return imagenet_weights(
        f"https://github.com/huggingface/pytorch-image-models/releases/download/{release}/{file}.pth",
        "Apache-2.0",
        "timm; results at the size it recommends, read: its results-imagenet.csv",
        top1,
        top5,
        size=288,
        crop_ratio=1.0,
        interpolation="bicubic",
        arrange=_shortcuts_first,
    )


def _shortcuts_first(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """timm's tensors in our order: it has the shortcut of a block behind its body."""
    first: dict[str, int] = {}
    for place, name in enumerate(state):
        first.setdefault(_prefix(name), place)
    names = sorted(state, key=lambda name: (first[_prefix(name)], ".downsample." not in name))
    return {name: state[name] for name in names}


def _prefix(name: str) -> str:
    """`s1.b2` of timm's name of a tensor in block 2 of stage 1."""
    return ".".join(name.split(".")[:2])


# The line of each, as in pycls's configs; parameters, multiply-adds, top-1, top-5.
_NETS: dict[str, tuple[Line, int, int, float, float]] = {
    "regnetx_200mf": (Line(13, 24, 36.44, 2.49, 8), 2_684_792, 199_039_872, 68.912, 88.658),
    "regnetx_400mf": (Line(22, 24, 24.48, 2.54, 16), 5_157_512, 397_677_568, 72.618, 90.924),
    "regnetx_600mf": (Line(16, 48, 36.97, 2.24, 24), 6_196_040, 600_890_112, 74.136, 91.802),
    "regnetx_800mf": (Line(16, 56, 35.73, 2.28, 16), 7_259_656, 799_699_712, 75.154, 92.408),
    "regnetx_1_6gf": (Line(18, 80, 34.01, 2.25, 24), 9_190_136, 1_602_849_792, 76.962, 93.516),
    "regnetx_3_2gf": (Line(25, 88, 26.31, 2.25, 48), 15_296_552, 3_176_621_952, 78.264, 94.138),
    "regnetx_4gf": (Line(23, 96, 38.65, 2.43, 40), 22_118_248, 3_964_498_816, 78.644, 94.264),
    "regnetx_6_4gf": (Line(17, 184, 60.83, 2.07, 56), 26_209_256, 6_460_291_264, 79.156, 94.566),
    "regnetx_8gf": (Line(23, 80, 49.56, 2.88, 120), 39_572_648, 7_995_132_416, 79.272, 94.58),
    "regnetx_12gf": (Line(19, 168, 73.36, 2.37, 112), 46_106_056, 12_086_678_016, 79.712, 94.716),
    "regnetx_16gf": (Line(22, 216, 55.59, 2.1, 128), 54_278_536, 15_940_755_456, 80.044, 94.978),
    "regnetx_32gf": (Line(23, 320, 69.86, 2.0, 168), 107_811_560, 31_735_929_792, 80.502, 95.122),
    "regnety_200mf": (Line(13, 24, 36.44, 2.49, 8), 3_162_996, 199_514_080, 70.342, 89.622),
    "regnety_400mf": (Line(16, 48, 27.89, 2.09, 8), 4_344_144, 401_842_848, 74.102, 91.93),
    "regnety_600mf": (Line(15, 48, 32.54, 2.32, 16), 6_055_160, 601_220_992, 75.46, 92.72),
    "regnety_800mf": (Line(14, 56, 38.84, 2.4, 16), 6_263_168, 797_176_832, 76.316, 93.154),
    "regnety_1_6gf": (Line(27, 48, 20.71, 2.65, 24), 11_202_430, 1_612_076_160, 77.934, 93.866),
    "regnety_3_2gf": (Line(21, 80, 42.63, 2.66, 24), 19_436_338, 3_176_482_752, 78.926, 94.546),
    "regnety_4gf": (Line(22, 96, 31.41, 2.24, 64), 20_646_656, 3_973_288_448, 79.36, 94.664),
    "regnety_6_4gf": (Line(25, 112, 33.22, 2.27, 72), 30_583_252, 6_355_204_992, 79.89, 94.9),
    "regnety_8gf": (Line(17, 192, 76.82, 2.19, 56), 39_180_068, 7_963_057_312, 79.948, 94.94),
    "regnety_12gf": (Line(19, 168, 73.36, 2.37, 112), 51_822_544, 12_092_376_576, 80.33, 95.144),
    "regnety_16gf": (Line(18, 200, 106.23, 2.48, 112), 83_590_140, 15_911_510_272, 80.392, 95.056),
    "regnety_32gf": (Line(20, 232, 115.89, 2.53, 232), 145_046_770, 32_279_552_832, 80.934, 95.432),
    "regnetx_400mf_torchvision": (Line(22, 24, 24.48, 2.54, 16), 5_495_976, 413_812_608, 72.834, 90.95),
    "regnety_800mf_torchvision": (Line(14, 56, 38.84, 2.4, 16), 6_432_512, 833_856_256, 76.42, 93.136),
    "regnety_8gf_torchvision": (Line(17, 192, 76.82, 2.19, 56), 39_381_472, 8_473_070_592, 80.032, 95.048),
}

_WEIGHTS: dict[str, dict[str, Weights]] = {
    "regnetx_400mf_torchvision": torchvision_weights(
        ("regnet_x_400mf-adf1edd5", 72.834, 90.95), ("regnet_x_400mf-62229a5f", 74.864, 92.322)
    ),
    "regnetx_800mf": torchvision_weights(
        ("regnet_x_800mf-ad17e45c", 75.212, 92.348), ("regnet_x_800mf-94a99ebd", 77.522, 93.826)
    ),
    "regnetx_1_6gf": torchvision_weights(
        ("regnet_x_1_6gf-e3633e7f", 77.04, 93.44), ("regnet_x_1_6gf-a12f2b72", 79.668, 94.922)
    ),
    "regnetx_3_2gf": torchvision_weights(
        ("regnet_x_3_2gf-f342aeae", 78.364, 93.992), ("regnet_x_3_2gf-7071aa85", 81.196, 95.43)
    ),
    "regnetx_8gf": torchvision_weights(
        ("regnet_x_8gf-03ceed89", 79.344, 94.686), ("regnet_x_8gf-2b70d774", 81.682, 95.678)
    ),
    "regnetx_16gf": torchvision_weights(
        ("regnet_x_16gf-2007eb11", 80.058, 94.944), ("regnet_x_16gf-ba3796d7", 82.716, 96.196)
    ),
    "regnetx_32gf": torchvision_weights(
        ("regnet_x_32gf-9d47f8d0", 80.622, 95.248), ("regnet_x_32gf-6eb8fdc6", 83.014, 96.288)
    ),
    "regnety_400mf": torchvision_weights(
        ("regnet_y_400mf-c65dace8", 74.046, 91.716), ("regnet_y_400mf-e6988f5f", 75.804, 92.742)
    ),
    "regnety_800mf_torchvision": torchvision_weights(
        ("regnet_y_800mf-1b27b58c", 76.42, 93.136), ("regnet_y_800mf-58fc7688", 78.828, 94.502)
    ),
    "regnety_1_6gf": torchvision_weights(
        ("regnet_y_1_6gf-b11a554e", 77.95, 93.966), ("regnet_y_1_6gf-0d7bc02a", 80.876, 95.444)
    ),
    "regnety_3_2gf": {
        **torchvision_weights(("regnet_y_3_2gf-b5a9779c", 78.948, 94.576), ("regnet_y_3_2gf-9180c971", 81.982, 95.972)),
        "imagenet1k_timm": _timm("regnety_032_ra-7f2439f9", "v0.1-weights", 82.728, 96.416),
    },
    "regnety_4gf": {"imagenet1k": _timm("regnety_040_ra3-670e1166", "v0.1-tpu-weights", 83.044, 96.498)},
    "regnety_6_4gf": {"imagenet1k": _timm("regnety_064_ra3-aa26dc7d", "v0.1-tpu-weights", 83.72, 96.722)},
    "regnety_8gf": {"imagenet1k": _timm("regnety_080_ra3-1fdc4344", "v0.1-tpu-weights", 83.926, 96.89)},
    "regnety_8gf_torchvision": torchvision_weights(
        ("regnet_y_8gf-d0d0e4a8", 80.032, 95.048), ("regnet_y_8gf-dc2b1b54", 82.828, 96.33)
    ),
    "regnety_16gf": {
        **torchvision_weights(("regnet_y_16gf-9e6ed7dd", 80.424, 95.24), ("regnet_y_16gf-3e4a00f9", 82.886, 96.328)),
        "imagenet1k_swag": _swag("regnet_y_16gf_swag-43afe44d", 86.012, 98.054, 384),
        "imagenet1k_swag_linear": _swag("regnet_y_16gf_lc_swag-f3ec0043", 83.976, 97.244, 224),
    },
    "regnety_32gf": {
        **torchvision_weights(("regnet_y_32gf-4dee3f7a", 80.878, 95.34), ("regnet_y_32gf-8db6d4b5", 83.368, 96.498)),
        "imagenet1k_swag": _swag("regnet_y_32gf_swag-04fdfa75", 86.838, 98.362, 384),
        "imagenet1k_swag_linear": _swag("regnet_y_32gf_lc_swag-e1583746", 84.622, 97.48, 224),
    },
}


def _register(name: str, line: Line, params: int, macs: int, top1: float, top5: float) -> Callable[..., AnyNet]:
    """Register a RegNet, whose name says whether its channels are weighed and who rounds its widths."""
    ported, weighed = name.endswith("_torchvision"), name.startswith("regnety")
    published = _published(params, macs, top1, top5, _TORCHVISION if ported else _PYCLS)

    @register(name, task="classify", network=AnyNet, published=published, weights=_WEIGHTS.get(name))
    def build(*, se: bool = weighed, **options: Any) -> AnyNet:
        return AnyNet(line.stages("torchvision" if ported else "pycls"), se=se, **options)

    return build


for _name, _facts in _NETS.items():
    _register(_name, *_facts)


@register(
    "anynetx",
    task="classify",
    network=AnyNet,
    published=_published(5_157_512, 397_677_568, None, None, "counted: in its default form it is regnetx_400mf"),
)
def anynetx(
    *,
    depths: Sequence[int] = (1, 2, 7, 12),
    widths: Sequence[int] = (32, 64, 160, 384),
    bottleneck_ratios: Sequence[float] = (1, 1, 1, 1),
    group_widths: Sequence[int] = (16, 16, 16, 16),
    strides: Sequence[int] = (2, 2, 2, 2),
    **options: Any,
) -> AnyNet:
    """Any network of the space. The defaults are a place to start from: regnetx_400mf."""
    stages = Stages(tuple(depths), tuple(widths), tuple(bottleneck_ratios), tuple(group_widths), tuple(strides))
    return AnyNet(stages, **options)
