"""YOLOv3: An Incremental Improvement.

Redmon and Farhadi 2018, arXiv:1804.02767. The idea: YOLOv2's grid at three scales, the two finer ones fed by the
coarser of what they see; Darknet-53 below; and a sigmoid for each class, so that one box may be a woman and a person.

A truth belongs to the one anchor of all nine whose shape fits best, in the cell of its centre; other predictions that
overlap a truth by more than 0.5 are left alone (section 2.1; Darknet's cfg has 0.7: `ignore_threshold`). Of the paper's
"sum of squared error" Darknet's gradient is the cross-entropy of the sigmoids: so it is here, see `GridDetector`.

yolov3_spp: three max-poolings of the coarsest map (Huang et al. 2019, arXiv:1903.08589). yolov3_tiny: two scales on a
backbone of seven convolutions; Darknet's cfg gives 81x82 to both scales, and lists an anchor, 10x14, that no scale has:
a truth that it fits best is nobody's there, and that of the next best anchor here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.backbones.backbone import Backbone
from opsin.backbones.darknet import Layers, he_initialize, pooled_linear
from opsin.backbones.extraction import Extractor, create_extractor
from opsin.detect.yolo import BoxLoss, GridDetector, Sizes, check_anchors, check_scales
from opsin.errors import InputError
from opsin.necks import create_neck
from opsin.necks.neck import Neck, resize
from opsin.nn.context import SPPBlock
from opsin.nn.pooling import SameMaxPool2d
from opsin.registry import Published, register

# k-means on COCO at 416 pixels. Section 2.3.
ANCHORS = ((10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119), (116, 90), (156, 198), (373, 326))
TINY_ANCHORS = ((23, 27), (37, 58), (81, 82), (81, 82), (135, 169), (344, 319))

leaky = Layers("bn", "leaky_relu", 0.1)


class Pyramid(Neck):
    """YOLOv3's neck: T_i = five([up(reduce_i(T_{i+1})), C_i]), five being 1x1, 3x3, 1x1, 3x3, 1x1.

    widths: of the maps that come out; the 3x3s have twice as many. spp: pooling of windows of 5, 9 and 13 in the middle
    of the coarsest level.
    """

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], widths: Sequence[int], *, spp: bool = False
    ) -> None:
        super().__init__(channels, strides)
        finer = range(len(channels) - 1)
        self.sets = nn.ModuleList(_five(channels[i] + widths[i], widths[i]) for i in finer)
        self.sets.append(_six_with_pooling(channels[-1], widths[-1]) if spp else _five(channels[-1], widths[-1]))
        self.reduce = nn.ModuleList(leaky(widths[i + 1], widths[i], 1) for i in finer)
        self.channels, self.strides = tuple(widths), tuple(strides)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        self._check(maps)
        levels = [*maps[:-1], self.sets[-1](maps[-1])]
        for i in range(len(maps) - 2, -1, -1):
            above = resize(self.reduce[i](levels[i + 1]), maps[i])
            levels[i] = self.sets[i](torch.cat([above, maps[i]], dim=1))
        return levels

    def darknet_order(self, heads: Sequence[nn.Module]) -> Iterator[nn.Module]:
        for i in range(len(self.sets) - 1, -1, -1):
            if i < len(self.reduce):
                yield self.reduce[i]
            yield self.sets[i]
            yield heads[i]


def _five(in_channels: int, width: int) -> nn.Sequential:
    wide = 2 * width
    return nn.Sequential(
        leaky(in_channels, width, 1),
        leaky(width, wide, 3),
        leaky(wide, width, 1),
        leaky(width, wide, 3),
        leaky(wide, width, 1),
    )


def _six_with_pooling(in_channels: int, width: int) -> nn.Sequential:
    first = _five(in_channels, width)[:3]
    return nn.Sequential(*first, SPPBlock(), *_five(4 * width, width)[:3])


class YOLOv3(GridDetector):
    """Any backbone, any neck, and for each level a 3x3 convolution and a 1x1 that predicts.

    backbone: name of a classification network; backbone_options: its own, backbone_weights: published ones. neck:
    "yolo" is the paper's, or a name that `opsin.necks` knows, with neck_options. width: of neck and heads, 1 the
    paper's; 0.25 with a small backbone makes a member for a CPU. anchors: in pixels, finest first, a multiple of the
    number of levels: the paper's are of COCO at 416 pixels; `opsin.ops.kmeans_anchors` finds those of other data.
    grid_scales: YOLOv4's, of each level; None is 1 for all. The rest: see `GridDetector`.
    """

    def __init__(
        self,
        *,
        num_classes: int = 80,
        in_channels: int = 3,
        backbone: str = "darknet53",
        backbone_options: Mapping[str, Any] | None = None,
        backbone_weights: str | None = None,
        neck: str | None = "yolo",
        neck_options: Mapping[str, Any] | None = None,
        spp: bool = False,
        width: float = 1.0,
        strides: Sequence[int] = (8, 16, 32),
        anchors: Sizes = ANCHORS,
        grid_scales: Sequence[float] | None = None,
        box_loss: BoxLoss = "offsets",
        box_weight: float = 1.0,
        ignore_threshold: float = 0.5,
        match_threshold: float | None = None,
        label_smoothing: float = 0.0,
        prior: float = 0.01,
    ) -> None:
        super().__init__(
            strides,
            check_anchors(anchors, len(strides)),
            check_scales(grid_scales, len(strides)),
            num_classes=num_classes,
            in_channels=in_channels,
            box_loss=box_loss,
            box_weight=box_weight,
            ignore_threshold=ignore_threshold,
            match_threshold=match_threshold,
            label_smoothing=label_smoothing,
            prior=prior,
        )
        self.backbone_name = backbone
        self.backbone = create_extractor(
            backbone, strides, in_channels=in_channels, weights=backbone_weights, **(backbone_options or {})
        )
        self.neck = _neck(neck, self.backbone, width, spp, dict(neck_options or {}))
        self.heads = nn.ModuleList(
            _head(entering, 2 * entering, len(sizes) * (5 + num_classes))
            for entering, sizes in zip(self.neck.channels, self.anchors, strict=True)
        )
        if isinstance(self.neck, Pyramid):
            he_initialize(self.neck)
        he_initialize(self.heads)
        self.start_heads()

    def darknet_order(self) -> Iterator[nn.Module]:
        if self.backbone_name == "darknet53" and isinstance(self.neck, Pyramid):
            yield self.backbone
            yield from self.neck.darknet_order(list(self.heads))
        else:
            yield from super().darknet_order()


def _neck(name: str | None, backbone: Extractor, width: float, spp: bool, options: dict[str, Any]) -> Neck:
    if not 0 < width <= 4:
        raise InputError(f"width is the share of the paper's channels, above 0 and at most 4; got {width!r}")
    levels = len(backbone.strides)
    widths = [max(8, round(128 * 2**i * width / 8) * 8) for i in range(levels)]
    if name == "yolo":
        if options:
            raise InputError(f"neck_options {sorted(options)} belong to another neck than 'yolo'; name it with neck=")
        return Pyramid(backbone.channels, backbone.strides, widths, spp=spp)
    if spp:
        raise InputError(f"spp belongs to neck='yolo', not to {name!r}")
    out_channels = widths if name == "panet_concat" else widths[levels // 2]
    neck = create_neck(name, backbone.channels, backbone.strides, **{"out_channels": out_channels, **options})
    if len(neck.channels) != levels:
        raise InputError(f"{name} gives {len(neck.channels)} maps for {levels} strides; leave extra_levels out")
    return neck


def _head(in_channels: int, hidden: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(leaky(in_channels, hidden, 3), nn.Conv2d(hidden, out_channels, 1))


class TinyDarknet(Backbone):
    """Seven 3x3 convolutions with 2x2 max-pooling between them, the last of stride 1. yolov3-tiny.cfg."""

    min_size = 32

    def __init__(self, *, num_classes: int = 1000, in_channels: int = 3) -> None:
        super().__init__(num_classes, in_channels)
        widths = (16, 32, 64, 128, 256, 512)
        self.stem = leaky(in_channels, 16, 3)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.MaxPool2d(2), leaky(entering, leaving, 3)) for entering, leaving in pairwise(widths)
        )
        # A window that reaches past the lower and right border, where Darknet sees nothing
        last = self.stages[-1]
        assert isinstance(last, nn.Sequential)
        last.extend([SameMaxPool2d(2, 1), leaky(512, 1024, 3)])
        self.channels, self.strides = (*widths[1:-1], 1024), (2, 4, 8, 16, 32)
        self.head = pooled_linear(1024, num_classes)
        he_initialize(self)


class TinyPyramid(nn.Module):
    """Two levels: the coarse map through a 1x1, and beside it, upsampled once more reduced, the fine one.

    channels: of the fine and the coarse map. (fine, coarse) -> (fine with 128 more, 256).
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.top = leaky(channels[1], 256, 1)
        self.reduce = leaky(256, 128, 1)
        self.channels = (128 + channels[0], 256)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        top = self.top(maps[1])
        return [torch.cat([F.interpolate(self.reduce(top), scale_factor=2.0), maps[0]], dim=1), top]


class TinyYOLO(GridDetector):
    """Two levels of strides 16 and 32, on a backbone of its own. The options: see `GridDetector`.

    backbone: in_channels -> a module that gives a map of `fine` channels at stride 16 and one of `coarse` at 32.
    """

    def __init__(
        self,
        backbone: Callable[[int], nn.Module],
        fine: int,
        coarse: int,
        *,
        num_classes: int = 80,
        in_channels: int = 3,
        anchors: Sizes = TINY_ANCHORS,
        grid_scales: Sequence[float] | None = None,
        box_loss: BoxLoss = "offsets",
        box_weight: float = 1.0,
        ignore_threshold: float = 0.5,
        match_threshold: float | None = None,
        label_smoothing: float = 0.0,
        prior: float = 0.01,
    ) -> None:
        super().__init__(
            (16, 32),
            check_anchors(anchors, 2),
            check_scales(grid_scales, 2),
            num_classes=num_classes,
            in_channels=in_channels,
            box_loss=box_loss,
            box_weight=box_weight,
            ignore_threshold=ignore_threshold,
            match_threshold=match_threshold,
            label_smoothing=label_smoothing,
            prior=prior,
        )
        self.backbone = backbone(in_channels)
        self.neck = neck = TinyPyramid((fine, coarse))
        self.heads = nn.ModuleList(
            _head(entering, hidden, len(sizes) * (5 + num_classes))
            for entering, hidden, sizes in zip(neck.channels, (256, 512), self.anchors, strict=True)
        )
        he_initialize(self.neck)
        he_initialize(self.heads)
        self.start_heads()

    def darknet_order(self) -> Iterator[nn.Module]:
        assert isinstance(self.neck, TinyPyramid)
        yield from (self.backbone, self.neck.top, self.heads[1], self.neck.reduce, self.heads[0])


_published = partial(Published, "arXiv:1804.02767", 2018)


@register(
    "yolov3",
    task="detect",
    network=YOLOv3,
    published=_published(
        (3, 416, 416),
        61_949_149,
        32_932_037_632,
        {"coco test-dev AP": 31.0, "coco test-dev AP50": 55.3},
        "YOLO's grid at three scales, each fed by the coarser one, and a sigmoid for each class",
        "counted: the author's cfg; results read: the paper's abstract and the author's page",
    ),
)
def yolov3(**options: Any) -> YOLOv3:
    return YOLOv3(**options)


@register(
    "yolov3_spp",
    task="detect",
    network=YOLOv3,
    published=_published(
        (3, 608, 608),
        62_998_749,
        70_724_486_144,
        {"coco test-dev AP50": 60.6},
        "yolov3 with pooling at three more sizes on its coarsest map",
        "counted: the author's cfg; results read: the README of AlexeyAB/darknet",
    ),
)
def yolov3_spp(*, spp: bool = True, **options: Any) -> YOLOv3:
    return YOLOv3(spp=spp, **options)


@register(
    "yolov3_tiny",
    task="detect",
    network=TinyYOLO,
    published=_published(
        (3, 416, 416),
        8_852_366,
        2_782_480_896,
        {"coco test-dev AP50": 33.1},
        "two scales on a backbone of seven convolutions",
        "counted: the author's cfg; results read: the README of AlexeyAB/darknet",
    ),
)
def yolov3_tiny(**options: Any) -> TinyYOLO:
    return TinyYOLO(lambda c: Extractor(TinyDarknet(in_channels=c), (16, 32)), 256, 1024, **options)
