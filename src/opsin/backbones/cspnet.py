"""CSPNet: A New Backbone that can Enhance Learning Capability of CNN.

Wang, Liao, Yeh, Wu, Chen and Hsieh 2019, arXiv:1911.11929. The idea: send only a part of a stage's maps through its
blocks and join the rest behind them, so that the blocks cost less and the two paths do not learn from the same gradient
twice. It is a change to a stage, not a network: `CrossStage` does it to any stage.

cspresnet50, cspresnext50 and cspdarknet53 are the authors' cfg files. Those make the two parts by two 1x1 convolutions
of one map; here one of both widths does, which is the same, and the parts are joined in timm's order, what passes by
first. timm's nets of these names differ: leaky ReLU has slope 0.01 instead of 0.1 in all of them, and the ResNets also
pool 3x3 in the stem, keep every split linear, and start the first stage with as many maps as the others. They carry
timm's weights: cspresnet50_timm, cspresnext50_timm, cspdarknet53_timm.

The paper's CSPDenseNets have no published definition. cspdensenet121 is section 3.1 done to DenseNet-121, at a partial
ratio of one half.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from opsin.backbones.backbone import Backbone
from opsin.backbones.darknet import Layers, Norm, bottleneck, dark_block, he_initialize, pooled_linear, timm_weights
from opsin.backbones.densenet import DenseBlock, DenseLayer
from opsin.checks import check_count
from opsin.errors import InputError, unknown
from opsin.registry import Published, register

Fusion: TypeAlias = Literal["both", "first", "last"]
Transition: TypeAlias = Callable[[int, int], nn.Module]  # (in_channels, out_channels) -> a 1x1 layer


class CrossStage(nn.Module):
    """A stage of which only a part of the maps goes through the blocks. Section 3.1 and figure 3.

    blocks: any module that keeps height and width; block_channels: what it takes and gives.
    passing: how many maps go past it. None: those of the input that the blocks do not take, as they are (figure 2).
    A number: `split` first makes that many, and the blocks' ones, of all (the authors' networks).
    fusion: "both" is transition, concatenation, transition (figure 3b); "first" concatenates and has the later
    transition only (3c); "last" has the earlier only and concatenates (3d), so that what passes by is a part of the
    output as it is. transition_channels: between the two of "both"; as many as the blocks give unless given.
    transition: what makes the 1x1 layers; split: the same for the one that makes the parts.
    (B, in_channels, H, W) -> (B, out_channels, H, W). Raises InputError for numbers of channels that do not add up.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        blocks: nn.Module,
        block_channels: tuple[int, int],
        transition: Transition,
        *,
        passing: int | None = None,
        split: Transition | None = None,
        fusion: Fusion = "both",
        transition_channels: int | None = None,
    ) -> None:
        super().__init__()
        if fusion not in ("both", "first", "last"):
            raise unknown("fusion", fusion, ("both", "first", "last"))
        taken, given = block_channels
        projected = passing is not None
        passing = in_channels - taken if passing is None else passing
        if passing < 1 or (fusion == "last" and passing >= out_channels):
            raise InputError(
                f"{passing} channels cannot pass by blocks that take {taken} of {in_channels} in a stage of "
                f"{out_channels}, fusion={fusion!r}; give the blocks fewer, or pass fewer than the stage puts out"
            )
        self.parts = [passing, taken]
        self.split = (split or transition)(in_channels, passing + taken) if projected else nn.Identity()
        self.blocks = blocks
        between = {"both": transition_channels or given, "first": given, "last": out_channels - passing}[fusion]
        self.transition = nn.Identity() if fusion == "first" else transition(given, between)
        self.fusion = nn.Identity() if fusion == "last" else transition(passing + between, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        passing, through = self.split(x).split(self.parts, dim=1)
        return self.fusion(torch.cat([passing, self.transition(self.blocks(through))], dim=1))


@dataclass(frozen=True)
class Stage:
    """A stage of the authors' cfg files.

    depth: its blocks. hidden: their width inside. width: of the maps behind a block, and of those that pass by.
    out_channels: of the stage. entry: what the first block takes, where it is not width. linear: split without an
    activation.
    """

    depth: int
    hidden: int
    width: int
    out_channels: int
    entry: int | None = None
    linear: bool = False


@dataclass(frozen=True)
class Plan:
    """What tells the networks of the file apart: the stages, their blocks, the pooling behind a 7x7 stem or none."""

    stages: tuple[Stage, ...]
    block: Literal["dark", "bottleneck"]
    groups: int = 1
    pool: Literal["2x2", "3x3"] | None = None


_RESNET = (
    Stage(3, 64, 128, 128, entry=64),
    Stage(3, 128, 256, 256, linear=True),
    Stage(5, 256, 512, 512, linear=True),
    Stage(2, 512, 1024, 1024),
)
_RESNEXT = tuple(replace(s, hidden=2 * s.hidden, out_channels=2 * s.out_channels) for s in _RESNET)
_RESNET50 = Plan(_RESNET, "bottleneck", pool="2x2")
_RESNEXT50 = Plan(_RESNEXT, "bottleneck", groups=32, pool="2x2")
_DARKNET53 = Plan(
    (
        Stage(1, 32, 64, 64),
        Stage(2, 64, 64, 128),
        Stage(8, 128, 128, 256),
        Stage(8, 256, 256, 512),
        Stage(4, 512, 512, 1024),
    ),
    "dark",
)


class CSPNet(Backbone):
    """A stem, cross stages that each but a ResNet's first halve the map, global average pooling, one linear layer.

    fusion: how the parts of a stage are joined, as in `CrossStage`; None sends all maps through the blocks: the plain
    network, for cspdarknet53 that is darknet53. With "last" half of a stage's output passes by.
    residual=False leaves the sums in the blocks out. norm: "bn" or None. activation: a name of `opsin.nn.activation`,
    such as YOLOv4's "mish"; negative_slope: of "leaky_relu".
    """

    def __init__(
        self,
        plan: Plan,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        fusion: Fusion | None = "both",
        residual: bool = True,
        norm: Norm = "bn",
        activation: str = "leaky_relu",
        negative_slope: float = 0.1,
    ) -> None:
        super().__init__(num_classes, in_channels)
        layers = Layers(norm, activation, negative_slope)
        self.stem = _stem(layers, in_channels, plan)
        self.stages = nn.ModuleList()
        channels, stride = (32, 1) if plan.pool is None else (64, 4)
        strides = []
        for place, stage in enumerate(plan.stages):
            modules: list[nn.Module] = []
            if plan.block == "dark" or place:
                wider = stage.out_channels if plan.block == "dark" else channels
                modules.append(layers(channels, wider, 3, 2, groups=plan.groups))
                channels, stride = wider, 2 * stride
            modules += _cross_stage(layers, channels, stage, plan, fusion, residual)
            self.stages.append(nn.Sequential(*modules))
            strides.append(stride)
            channels = stage.out_channels
        self.head = pooled_linear(channels, num_classes)
        self.channels = tuple(stage.out_channels for stage in plan.stages)
        self.strides = tuple(strides)
        he_initialize(self)


def _stem(layers: Layers, in_channels: int, plan: Plan) -> nn.Module:
    if plan.pool is None:
        return layers(in_channels, 32, 3)
    pool = nn.MaxPool2d(2, ceil_mode=True) if plan.pool == "2x2" else nn.MaxPool2d(3, 2, 1)
    return nn.Sequential(layers(in_channels, 64, 7, 2), pool)


def _cross_stage(
    layers: Layers, channels: int, stage: Stage, plan: Plan, fusion: Fusion | None, residual: bool
) -> list[nn.Module]:
    """The blocks of a stage, those of half its maps with the rest passing by, or all of them where fusion is None."""
    entry, width = (channels, stage.out_channels) if fusion is None else (stage.entry or stage.width, stage.width)
    blocks: list[nn.Module] = []
    for place in range(stage.depth):
        taken = width if place else entry
        if plan.block == "dark":
            blocks.append(dark_block(layers, taken, stage.hidden, width, residual))
        else:
            blocks.append(bottleneck(layers, taken, stage.hidden, width, groups=plan.groups, residual=residual))
    if fusion is None:
        return blocks
    return [
        CrossStage(
            channels,
            stage.out_channels,
            nn.Sequential(*blocks),
            (entry, width),
            lambda before, after: layers(before, after, 1),
            passing=stage.out_channels // 2 if fusion == "last" else stage.width,
            split=lambda before, after: layers(before, after, 1, linear=stage.linear),
            fusion=fusion,
        )
    ]


class CSPDenseNet(Backbone):
    """DenseNet of partial dense blocks and partial transition layers. Section 3.1, figure 2b.

    depths: dense layers of each stage. growth: maps that each adds. widths: of the maps between the stages, DenseNet's
    by default, so that only the inside of the stages changes. partial: the share of a stage's input that passes by, the
    paper's gamma; 0 is the plain DenseNet. fusion: as in `CrossStage`; the first of two transitions halves the maps, as
    DenseNet's does. recompute: memory linear in depth, as in `DenseNet`.
    """

    min_size = 29  # halved five times, three of them by pooling without a border

    def __init__(
        self,
        depths: Sequence[int],
        widths: Sequence[int],
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        growth: int = 32,
        partial: float = 0.5,
        fusion: Fusion = "both",
        recompute: bool = False,
    ) -> None:
        super().__init__(num_classes, in_channels)
        if not 0 <= partial < 1:
            raise InputError(f"partial is the share of the maps that pass by, at least 0 and below 1, got {partial}")
        check_count("growth", growth)
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        )
        self.stages = nn.ModuleList()
        channels = 64
        for depth, width in zip(depths, widths, strict=True):
            modules: list[nn.Module] = [nn.AvgPool2d(2)] if len(self.stages) else []
            taken = channels - int(partial * channels)
            given = taken + depth * growth
            layers = [DenseLayer(c, growth, True, 0.0, recompute) for c in range(taken, given, growth)]
            blocks = DenseBlock(layers, dense=True)
            if taken == channels:  # DenseNet has no transition where none is needed, behind its last stage
                modules += [blocks] if given == width else [blocks, _transition(given, width)]
            else:
                halved = given // 2
                modules.append(
                    CrossStage(
                        channels, width, blocks, (taken, given), _transition, fusion=fusion, transition_channels=halved
                    )
                )
            self.stages.append(nn.Sequential(*modules))
            channels = width
        self.head = nn.Sequential(
            nn.BatchNorm2d(channels), nn.ReLU(inplace=True), *pooled_linear(channels, num_classes)
        )
        self.channels = tuple(widths)
        self.strides = tuple(4 * 2**stage for stage in range(len(depths)))
        he_initialize(self)


def _transition(in_channels: int, out_channels: int) -> nn.Sequential:
    """DenseNet's 1x1 layers, which have norm and ReLU before the convolution."""
    return nn.Sequential(
        nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True), nn.Conv2d(in_channels, out_channels, 1, bias=False)
    )


_AUTHORS = "counted: the authors' cfg; results read: the README of WongKinYiu/CrossStagePartialNetworks, at 256x256"
_TIMM = "counted: timm; results read: its results-imagenet.csv, at 256x256"
_IDEA = "half of a stage's maps pass its blocks by"


def _published(params: int, macs: int, top1: float, top5: float, source: str, idea: str = _IDEA) -> Published:
    metrics = {"imagenet1k top-1": top1, "imagenet1k top-5": top5}
    return Published("arXiv:1911.11929", 2019, (3, 256, 256), params, macs, metrics, idea, source)


@register(
    "cspresnet50",
    task="classify",
    network=CSPNet,
    published=_published(21_607_848, 4_483_686_400, 76.6, 93.3, _AUTHORS),
)
def cspresnet50(**options: Any) -> CSPNet:
    return CSPNet(_RESNET50, **options)


@register(
    "cspresnext50",
    task="classify",
    network=CSPNet,
    published=_published(20_557_480, 3_964_616_704, 77.9, 94.0, _AUTHORS),
)
def cspresnext50(**options: Any) -> CSPNet:
    return CSPNet(_RESNEXT50, **options)


@register(
    "cspdarknet53",
    task="classify",
    network=CSPNet,
    published=_published(27_642_184, 6_533_652_480, 77.2, 93.6, _AUTHORS),
)
def cspdarknet53(**options: Any) -> CSPNet:
    return CSPNet(_DARKNET53, **options)


@register(
    "cspdensenet121",
    task="classify",
    network=CSPDenseNet,
    published=Published(
        "arXiv:1911.11929",
        2019,
        (3, 224, 224),
        params=8_102_664,
        macs=2_724_978_688,
        idea="half of a dense stage's maps pass its layers by",
        source="counted on ours: section 3.1 done to DenseNet-121; the paper trains other DenseNets, and defines none",
    ),
)
def cspdensenet121(**options: Any) -> CSPDenseNet:
    return CSPDenseNet((6, 12, 24, 16), (128, 256, 512, 1024), **options)


# timm's forms, for its weights.


def _timm_plan(plan: Plan) -> Plan:
    return replace(plan, stages=tuple(replace(s, entry=None, linear=True) for s in plan.stages), pool="3x3")


@register(
    "cspresnet50_timm",
    task="classify",
    network=CSPNet,
    published=_published(21_616_168, 4_517_240_832, 79.59, 94.712, _TIMM, "cspresnet50 with timm's stem and splits"),
    weights=timm_weights(
        "v0.1-weights/cspresnet50_ra-d3e8d487", "cspresnet50.ra_in1k", 79.59, 94.712, 256, 0.887, "bilinear"
    ),
)
def cspresnet50_timm(*, negative_slope: float = 0.01, **options: Any) -> CSPNet:
    return CSPNet(_timm_plan(_RESNET50), negative_slope=negative_slope, **options)


@register(
    "cspresnext50_timm",
    task="classify",
    network=CSPNet,
    published=_published(20_569_896, 4_014_948_352, 80.556, 95.322, _TIMM, "cspresnext50 with timm's stem and splits"),
    weights=timm_weights(
        "v0.1-weights/cspresnext50_ra_224-648b4713", "cspresnext50.ra_in1k", 80.556, 95.322, 256, 0.887, "bilinear"
    ),
)
def cspresnext50_timm(*, negative_slope: float = 0.01, **options: Any) -> CSPNet:
    return CSPNet(_timm_plan(_RESNEXT50), negative_slope=negative_slope, **options)


@register(
    "cspdarknet53_timm",
    task="classify",
    network=CSPNet,
    published=_published(27_642_184, 6_533_652_480, 80.062, 95.08, _TIMM, "cspdarknet53 with leaky ReLU of slope 0.01"),
    weights=timm_weights(
        "v0.1-weights/cspdarknet53_ra_256-d05c7c21", "cspdarknet53.ra_in1k", 80.062, 95.08, 256, 0.887, "bilinear"
    ),
)
def cspdarknet53_timm(*, negative_slope: float = 0.01, **options: Any) -> CSPNet:
    return CSPNet(_DARKNET53, negative_slope=negative_slope, **options)
