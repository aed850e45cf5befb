"""YOLOv4: Optimal Speed and Accuracy of Object Detection.

Bochkovskiy, Wang and Liao 2020, arXiv:2004.10934. The idea: take YOLOv3 apart, try what three years of papers offer for
each part, and keep what pays on one GPU. CSPDarknet-53 with mish below; pooling at three sizes and a PANet that puts
maps side by side between; YOLOv3's head above, whose grid is stretched a little, so that a centre on the border of a
cell needs no infinite t. For training: mosaic, CIoU, label smoothing, and several anchors for one truth (all whose
shape overlaps it by more than 0.213). Mosaic is a step of `augment` in a recipe.

Darknet multiplies what it calls the gradient of CIoU by 0.07, but leaves the sigmoid and the size of the grid out of
it. The loss whose true gradient is as large, on a grid of 26 cells, weighs 0.07 * 26 / 0.25, about 7; on coarser ones
less. `box_weight` is 5. `label_smoothing` is a switch, off as in the authors' cfg, and so is suppression="diou", which
the paper chose and the cfg of the published figures leaves to a plain one.

yolov4_tiny: two levels, on a backbone of three blocks of which each sends half of its maps through two convolutions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from opsin.backbones.darknet import he_initialize
from opsin.detect.postprocess import Suppression
from opsin.detect.yolo import BoxLoss, Sizes
from opsin.detect.yolov3 import TinyYOLO, YOLOv3, leaky
from opsin.necks import ConcatPANet
from opsin.registry import Published, register

# k-means on COCO at 512 pixels, as the authors' cfg has them.
ANCHORS = ((12, 16), (19, 36), (40, 28), (36, 75), (76, 55), (72, 146), (142, 110), (192, 243), (459, 401))
_MISH = {"activation": "mish"}


class YOLOv4(YOLOv3):
    """`YOLOv3` with other parts; all of its options."""

    def darknet_order(self) -> Iterator[nn.Module]:
        neck = self.neck
        if self.backbone_name != "cspdarknet53" or not isinstance(neck, ConcatPANet):
            yield from super().darknet_order()
            return
        yield from (self.backbone, neck.top)
        for place in range(len(neck.laterals) - 1, -1, -1):
            yield from (neck.reduce[place], neck.laterals[place], neck.top_down[place])
        yield self.heads[0]
        for place, head in enumerate(self.heads[1:]):
            yield from (neck.down[place], neck.bottom_up[place], head)


class TinyBlock(nn.Module):
    """3x3; of half of its maps a 3x3, of that another; both through a 1x1; the first map beside it. Then pooling.

    (B, in_channels, H, W) -> (B, 2 width, H / 2, W / 2), and what the 1x1 gave: (B, width, H, W).
    """

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        half = width // 2
        self.first = leaky(in_channels, width, 3)
        self.second, self.third = leaky(half, half, 3), leaky(half, half, 3)
        self.join = leaky(width, width, 1)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = self.first(x)
        second = self.second(first.chunk(2, dim=1)[1])
        joined = self.join(torch.cat([self.third(second), second], dim=1))
        return self.pool(torch.cat([first, joined], dim=1)), joined


class TinyCSPDarknet(nn.Module):
    """Two 3x3s of stride 2, three `TinyBlock`s, a 3x3: maps of 256 channels at stride 16 and 512 at 32."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(leaky(in_channels, 32, 3, 2), leaky(32, 64, 3, 2))
        self.blocks = nn.ModuleList(TinyBlock(width, width) for width in (64, 128, 256))
        self.last = leaky(512, 512, 3)
        he_initialize(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = fine = self.stem(images)
        for block in self.blocks:
            x, fine = block(x)
        return [fine, self.last(x)]


_published = partial(Published, "arXiv:2004.10934", 2020)


@register(
    "yolov4",
    task="detect",
    network=YOLOv4,
    published=_published(
        (3, 608, 608),
        64_363_101,
        64_194_741_248,
        {"coco test-dev AP": 43.5, "coco test-dev AP50": 65.7},
        "YOLOv3 with each part replaced by what pays most on one GPU",
        "counted: the authors' cfg; results read: their README",
    ),
)
def yolov4(
    *,
    backbone: str = "cspdarknet53",
    backbone_options: Mapping[str, Any] | None = None,
    neck: str | None = "panet_concat",
    anchors: Sizes = ANCHORS,
    grid_scales: Sequence[float] | None = (1.2, 1.1, 1.05),
    box_loss: BoxLoss = "ciou",
    box_weight: float = 5.0,
    ignore_threshold: float = 0.7,
    match_threshold: float | None = 0.213,
    suppression: Suppression = "hard",
    **options: Any,
) -> YOLOv4:
    if backbone_options is None and backbone == "cspdarknet53":
        backbone_options = _MISH
    model = YOLOv4(
        backbone=backbone,
        backbone_options=backbone_options,
        neck=neck,
        anchors=anchors,
        grid_scales=grid_scales,
        box_loss=box_loss,
        box_weight=box_weight,
        ignore_threshold=ignore_threshold,
        match_threshold=match_threshold,
        **options,
    )
    model.selection = replace(model.selection, suppression=suppression)
    return model


@register(
    "yolov4_tiny",
    task="detect",
    network=TinyYOLO,
    published=_published(
        (3, 416, 416),
        6_056_606,
        3_453_938_176,
        {"coco test-dev AP50": 40.2},
        "two scales on three blocks that send half of their maps through",
        "counted: the authors' cfg; results read: their README",
    ),
)
def yolov4_tiny(
    *,
    grid_scales: Sequence[float] | None = (1.05, 1.05),
    box_loss: BoxLoss = "ciou",
    box_weight: float = 5.0,
    ignore_threshold: float = 0.7,
    **options: Any,
) -> TinyYOLO:
    return TinyYOLO(
        TinyCSPDarknet,
        256,
        512,
        grid_scales=grid_scales,
        box_loss=box_loss,
        box_weight=box_weight,
        ignore_threshold=ignore_threshold,
        **options,
    )
