"""RFBNet: Receptive Field Block Net for Accurate and Fast Object Detection.

Liu, Huang and Wang 2018, arXiv:1711.07767. The idea: keep SSD and its light backbone, and put blocks between maps and
heads whose branches look at the middle with small kernels and further out with dilated larger ones, as human receptive
fields grow with their distance from the centre of sight.

rfbnet300_vgg16 and rfbnet512_vgg16 are the authors' code: RFB-s on conv4_3 in place of the L2 norm, an RFB on fc7, and
RFBs of stride 2 in place of SSD's first extra layers, six default boxes where SSD has four: 11,620 and 32,756.
rfbnet512_e_vgg16 is RFBNet-E: fc7, upsampled, joins conv4_3 before a block of seven branches, and the other blocks have
a branch of 1x7 and 7x1. Its paper's table has 34.4 AP for it on COCO, the plain one 33.8. rfbnet is the idea on
any backbone, as the paper tries it on MobileNet: RFB-s on the finest map, an RFB on each coarser one, and extra maps by
RFBs of stride 2.

Matching, loss and decoding are SSD's. With num_classes=80 the counts are COCO's; COCO's smaller boxes come with
scales=opsin.detect.ssd.COCO_300 or COCO_512.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.backbones.extraction import create_extractor
from opsin.detect.default_boxes import DefaultBoxes, evenly_spaced
from opsin.detect.ssd import COCO_512, SSD, VOC_300, VOC_512, Trunk, vgg_features
from opsin.necks.neck import SteadyBatchNorm2d
from opsin.nn.context import ReceptiveField, rfb, rfb_s
from opsin.nn.conv import ConvNormActivation
from opsin.registry import Published, register

Layer: TypeAlias = tuple[int, int | tuple[int, int], int]  # channels, kernel size, stride

_norm = partial(SteadyBatchNorm2d, momentum=0.01)  # the authors' code
_layer = partial(ConvNormActivation, norm=_norm)

_STRIDES = {300: (8, 16, 32, 64, 100, 300), 512: (8, 16, 32, 64, 128, 256, 512)}
_RATIOS = {300: ((2, 3),) * 4 + ((2,),) * 2, 512: ((2, 3),) * 5 + ((2,),) * 2}


class _Neck(nn.Module):
    """[conv4_3, conv5_3] -> [a block on conv4_3, one on fc7]. lift: before, fc7 joins conv4_3, 256 channels each."""

    def __init__(self, deep: nn.Module, shallow_block: nn.Module, deep_block: nn.Module, lift: bool) -> None:
        super().__init__()
        self.deep = deep
        self.reduce = _layer(512, 256, 1) if lift else None
        self.lift = _layer(1024, 256, 1) if lift else None
        self.shallow_block, self.deep_block = shallow_block, deep_block

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        shallow, deep = maps[0], self.deep(maps[1])
        if self.reduce is not None and self.lift is not None:
            raised = F.interpolate(self.lift(deep), size=shallow.shape[-2:], mode="bilinear")
            shallow = torch.cat([self.reduce(shallow), raised], dim=1)
        return [self.shallow_block(shallow), self.deep_block(deep)]


def _trunk(size: int, in_channels: int, weights: str | None, scale: float) -> Trunk:
    backbone, deep = vgg_features(in_channels, weights)
    block = partial(rfb, rates=(2, 3, 5), scale=scale, norm=_norm)
    neck = _Neck(deep, rfb_s(512, 512, scale=scale, norm=_norm), block(1024, 1024), lift=False)
    blocks: list[nn.Module] = [block(1024, 512, 2), block(512, 256, 2)]
    if size == 512:  # on 16x16 places and fewer the dilations are smaller
        blocks += [rfb(256, 256, 2, rates=(1, 2, 3), scale=scale, norm=_norm) for _ in range(2)]
    return _joined(backbone, neck, blocks, size)


def _joined(backbone: nn.Module, neck: nn.Module, blocks: Sequence[nn.Module], size: int) -> Trunk:
    """SSD's last extra layers close the trunk: two of 3x3 without border at 300, one of 4x4 at 512."""
    if size == 300:
        last = [nn.Sequential(_layer(256, 128, 1), _layer(128, 256, 3, border=0)) for _ in range(2)]
    else:
        last = [nn.Sequential(_layer(256, 128, 1), _layer(128, 256, 4, border=1))]
    channels = (512, 1024, 512, *(256,) * (len(blocks) + len(last) - 1))
    trunk = Trunk(backbone, neck, nn.ModuleList([*blocks, *last]), channels, _STRIDES[size])
    for part in (neck, trunk.extra):
        _initialize(part)
    return trunk


def _initialize(part: Any) -> Any:
    """New layers start as "MSRA" has it, section 4; fc6 and fc7 have weights."""
    for name, layer in part.named_modules():
        if isinstance(layer, nn.Conv2d) and not name.startswith("deep."):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out")
    return part


# Any backbone


class _BlockPerMap(nn.Module):
    """A block on each map of a backbone."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [block(x) for block, x in zip(self.blocks, maps, strict=True)]


# RFBNet-E


def _branch(in_channels: int, layers: Sequence[Layer], rate: int) -> nn.Sequential:
    """Layers, closed by a 3x3 of a rate without activation."""
    modules: list[nn.Module] = []
    for channels, kernel_size, stride in layers:
        modules.append(_layer(in_channels, channels, kernel_size, stride))
        in_channels = channels
    modules.append(_layer(in_channels, in_channels, 3, dilation=rate, activation=None))
    return nn.Sequential(*modules)


def _block(in_channels: int, out_channels: int, stride: int, branches: Sequence[nn.Sequential]) -> ReceptiveField:
    joined = sum(branch[-1].out_channels for branch in branches)  # type: ignore[misc]
    join = _layer(joined, out_channels, 1, activation=None)
    return ReceptiveField(branches, join, _layer(in_channels, out_channels, 1, stride, activation=None), 1.0)


def _wide_block(in_channels: int, out_channels: int, stride: int = 1, middle: bool = True) -> ReceptiveField:
    """RFB with a branch of 1x7 and 7x1 more, or, without `middle`, in place of the two 3x3."""
    narrow = in_channels // 8
    wide, between = 2 * narrow, narrow // 2 * 3
    entry: Layer = (narrow, 1, 1)
    branches = [
        _branch(in_channels, [(wide, 1, stride)], 1),
        _branch(in_channels, [entry, (wide, 3, stride)], 3),
        _branch(in_channels, [entry, (between, 3, 1), (wide, 3, stride)], 5),
        _branch(in_channels, [entry, (between, (1, 7), 1), (wide, (7, 1), stride)], 7),
    ]
    return _block(in_channels, out_channels, stride, branches if middle else [*branches[:2], branches[3]])


def _fine_block(in_channels: int, out_channels: int) -> ReceptiveField:
    """RFB-s with both orders of 1x3 and 3x1 at every rate: seven branches."""
    width = in_channels // 8
    half, middle = width // 2, width // 4 * 3
    entry: Layer = (width, 1, 1)
    across, down = (1, 3), (3, 1)
    branches = [_branch(in_channels, [entry], 1)]
    for rate in (3, 5):
        branches += [_branch(in_channels, [entry, (width, kernel, 1)], rate) for kernel in (down, across)]
    for first, second in ((across, down), (down, across)):
        branches.append(_branch(in_channels, [(half, 1, 1), (middle, first, 1), (width, second, 1)], 7))
    return _block(in_channels, out_channels, 1, branches)


def _wide_trunk(in_channels: int, weights: str | None) -> Trunk:
    backbone, deep = vgg_features(in_channels, weights)
    neck = _Neck(deep, _fine_block(512, 512), _wide_block(1024, 1024), lift=True)
    blocks = [_wide_block(1024, 512, 2), _wide_block(512, 256, 2)]
    blocks += [_wide_block(256, 256, 2, middle=False) for _ in range(2)]
    return _joined(backbone, neck, blocks, 512)


# Published networks


def _published(size: int, params: int, macs: int, metrics: dict[str, float]) -> Published:
    return Published(
        paper="arXiv:1711.07767",
        year=2018,
        input=(3, size, size),
        params=params,
        macs=macs,
        metrics=metrics,
        idea="SSD with blocks whose dilated branches see as human receptive fields do",
        source="counted: ruinmessi/RFBNet; results read: its README",
    )


@register(
    "rfbnet300_vgg16",
    alias="rfbnet300",
    task="detect",
    network=SSD,
    published=_published(300, 36_531_296, 36_056_240_640, {"voc2007 test mAP": 80.7}),
)
def rfbnet300_vgg16(
    *,
    in_channels: int = 3,
    scales: Sequence[float] = VOC_300,
    ratios: Sequence[Sequence[float]] = _RATIOS[300],
    branch_scale: float = 1.0,
    backbone_weights: str | None = None,
    **options: Any,
) -> SSD:
    trunk = _trunk(300, in_channels, backbone_weights, branch_scale)
    boxes = DefaultBoxes(scales, ratios, _STRIDES[300])
    return SSD(trunk, boxes, 300, in_channels=in_channels, **options)


@register(
    "rfbnet512_vgg16",
    alias="rfbnet512",
    task="detect",
    network=SSD,
    published=_published(512, 37_417_910, 103_415_161_856, {"voc2007 test mAP": 82.2}),
)
def rfbnet512_vgg16(
    *,
    in_channels: int = 3,
    scales: Sequence[float] = VOC_512,
    ratios: Sequence[Sequence[float]] = _RATIOS[512],
    branch_scale: float = 1.0,
    backbone_weights: str | None = None,
    **options: Any,
) -> SSD:
    """branch_scale: what the branches' sum is weighed by before the shortcut is added; 1 in the authors' detectors."""
    trunk = _trunk(512, in_channels, backbone_weights, branch_scale)
    boxes = DefaultBoxes(scales, ratios, _STRIDES[512])
    return SSD(trunk, boxes, 512, in_channels=in_channels, **options)


@register(
    "rfbnet512_e_vgg16",
    alias="rfbnet512_e",
    task="detect",
    network=SSD,
    published=_published(512, 49_935_326, 115_118_650_368, {"coco test-dev AP": 34.4}),
)
def rfbnet512_e_vgg16(
    *,
    num_classes: int = 80,
    in_channels: int = 3,
    scales: Sequence[float] = COCO_512,
    ratios: Sequence[Sequence[float]] = _RATIOS[512],
    backbone_weights: str | None = None,
    **options: Any,
) -> SSD:
    boxes = DefaultBoxes(scales, ratios, _STRIDES[512])
    trunk = _wide_trunk(in_channels, backbone_weights)
    return SSD(trunk, boxes, 512, num_classes=num_classes, in_channels=in_channels, **options)


@register(
    "rfbnet",
    task="detect",
    network=SSD,
    published=replace(
        _published(320, 19_298_500, 3_917_570_048, {}), source="counted here; nobody published this combination"
    ),
)
def rfbnet(
    *,
    num_classes: int = 20,
    in_channels: int = 3,
    backbone: str = "mobilenet_v1",
    backbone_options: Mapping[str, Any] | None = None,
    backbone_weights: str | None = None,
    strides: Sequence[int] = (8, 16, 32),
    extra_channels: Sequence[int] = (512, 256, 256),
    scales: Sequence[float] | None = None,
    ratios: Sequence[Sequence[float]] | None = None,
    branch_scale: float = 1.0,
    **options: Any,
) -> SSD:
    """Maps of any backbone, of these strides, and a smaller one for each of `extra_channels`; boxes as in `ssd`."""
    extractor = create_extractor(
        backbone, strides, in_channels=in_channels, weights=backbone_weights, **(backbone_options or {})
    )
    block = partial(rfb, rates=(2, 3, 5), scale=branch_scale, norm=_norm)
    finest, *coarser = extractor.channels
    blocks = [rfb_s(finest, finest, scale=branch_scale, norm=_norm), *(block(width, width) for width in coarser)]
    channels = (*extractor.channels, *extra_channels)
    extra = [block(entering, leaving, 2) for entering, leaving in pairwise(channels[len(blocks) - 1 :])]
    trunk = Trunk(
        extractor,
        _initialize(_BlockPerMap(blocks)),
        _initialize(nn.ModuleList(extra)),
        channels,
        (*extractor.strides, *(extractor.strides[-1] * 2**n for n in range(1, len(extra) + 1))),
    )
    count = len(channels)
    boxes = DefaultBoxes(scales or (0.1, *evenly_spaced(0.2, 0.9, count - 1), 1.05), ratios or ((2, 3),) * count)
    return SSD(trunk, boxes, None, num_classes=num_classes, in_channels=in_channels, **options)
