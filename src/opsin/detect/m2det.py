"""M2Det: A Single-Shot Object Detector based on Multi-Level Feature Pyramid Network.

Zhao et al. 2018, arXiv:1811.04533. The idea: SSD's maps were made to classify whole images, and each comes from one
depth; build instead a pyramid for detection, of eight U-shaped modules on each other (`opsin.necks.mlfpn`), so that the
map of a scale holds features from shallow to deep. On it stand plain 3x3 heads; matching, hard negatives, smooth L1 and
variances are SSD's (arXiv:1512.02325).

What is counted as published is the authors' release with SFAM on: one convolution of FFM v2 for all levels and one
weighing for all scales, since it repeats one module in a list. `shared=False` gives each its own, as the paper draws
them. Its released configurations leave SFAM out: `sfam=False`.

The release lays out boxes on a grid of steps rounded up, 107 pixels for 3 cells on 320, and cuts them at the image's
border; so does this. Sizes are fractions of the shorter side, so that other inputs than the three named ones work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from opsin.backbones.extraction import create_extractor
from opsin.checks import check_number, check_share
from opsin.detect.default_boxes import DefaultBoxes
from opsin.detect.detector import Assignment, Detector, Outputs
from opsin.detect.matching import assign_anchors
from opsin.detect.postprocess import Selection
from opsin.detect.ssd import box_scores, extend_vgg, flatten_heads, initialize, multibox_loss, vgg_features
from opsin.errors import InputError
from opsin.necks import create_neck
from opsin.nn.capabilities import ClassRows, rows_of_last
from opsin.ops import clip_boxes, grid_anchors
from opsin.registry import Published, register
from opsin.structures import Instances

# Side of the smallest box of each scale as a fraction of the image's, and of one scale more: the release's.
FRACTIONS = (0.06, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)
_RATIOS = (2, 3)  # width / height, each with its inverse


class M2Det(Detector):
    """Two maps of a backbone -> MLFPN -> on each scale a 3x3 for classes and a 3x3 for boxes.

    backbone: a classification network's name, its maps of `strides`; "vgg16" at 8 and 16 is continued as SSD does, with
    dilated fc6 and fc7 as convolutions. fractions: of the boxes, one more than there are scales. planes:
    channels of a TUM; levels: how many there are. shared, sfam: see the module. neck: another one than MLFPN, which
    then has `planes * levels` channels unless neck_options say otherwise. neck_options: more of the neck's own.
    shrink_last: the coarsest scale is a 3x3 without border, and the image larger than 256 pixels; else it is half.
    match_threshold: a box whose IoU with a truth is at least that is matched to it, and so is the best one of every
    truth. negatives: so many times as many background boxes count, those of the highest loss.

    forward gives logits (B, A, 1 + K), background first, offsets (B, A, 4), anchors (A, 4) and the input's size.
    """

    def __init__(
        self,
        *,
        num_classes: int = 80,
        in_channels: int = 3,
        backbone: str = "vgg16",
        backbone_options: Mapping[str, Any] | None = None,
        backbone_weights: str | None = None,
        strides: Sequence[int] = (8, 16),
        neck: str | None = "sfam",
        neck_options: Mapping[str, Any] | None = None,
        fractions: Sequence[float] = FRACTIONS,
        planes: int = 256,
        levels: int = 8,
        shared: bool = True,
        sfam: bool = True,
        shrink_last: bool = True,
        match_threshold: float = 0.5,
        negatives: float = 3.0,
    ) -> None:
        super().__init__(num_classes, in_channels)
        self.match_threshold, self.negatives = match_threshold, check_number("negatives", negatives)
        check_share("match_threshold", match_threshold)
        self.fractions = _check_fractions(fractions, len(strides))
        given: dict[str, Any] = {"in_channels": in_channels, "weights": backbone_weights, **(backbone_options or {})}
        if backbone == "vgg16" and tuple(strides) == (8, 16):
            self.backbone, self.deep = vgg_features(**given)
            channels = (512, 1024)
        else:
            self.backbone, self.deep = create_extractor(backbone, strides, **given), nn.Identity()
            channels = self.backbone.channels
        options: dict[str, Any] = {"out_channels": planes * levels, "extra_levels": len(fractions) - 1 - len(strides)}
        if neck == "sfam":
            options |= {"levels": levels, "shared": shared, "sfam": sfam, "shrink_last": shrink_last}
        self.neck = create_neck(neck, channels, self.backbone.strides, **{**options, **(neck_options or {})})
        self.strides, self.shrink_last = self.neck.strides, neck == "sfam" and shrink_last
        self.default_boxes = DefaultBoxes(self.fractions, (_RATIOS,) * len(self.neck.channels))
        heads = list(zip(self.neck.channels, self.default_boxes.per_cell, strict=True))
        self.box_heads = nn.ModuleList(nn.Conv2d(c, 4 * count, 3, padding=1) for c, count in heads)
        self.class_heads = nn.ModuleList(nn.Conv2d(c, (1 + num_classes) * count, 3, padding=1) for c, count in heads)
        for part in (self.box_heads, self.class_heads):
            initialize(part)
        # "Soft-NMS with a linear kernel", section 3.2; the numbers are the release's.
        self.selection = Selection(score_threshold=0.1, iou_threshold=0.45, suppression="linear")

    def forward(self, images: Tensor) -> Outputs:
        self._check(images)
        height, width = images.shape[-2:]
        *finer, coarsest = self.backbone(images)
        maps = self.neck([*finer, self.deep(coarsest)])
        return {
            "logits": flatten_heads(self.class_heads, maps, 1 + self.num_classes),
            "offsets": flatten_heads(self.box_heads, maps, 4),
            "anchors": self._anchors(maps, height, width),
            "size": torch.tensor([height, width]),
        }

    def _anchors(self, maps: Sequence[Tensor], height: int, width: int) -> Tensor:
        shorter, levels = min(height, width), []
        for x, sides in zip(maps, self.default_boxes.sides, strict=True):
            halves = torch.tensor(sides, device=x.device) * (shorter / 2)
            steps = [-(-whole // cells) for whole, cells in zip((height, width), x.shape[-2:], strict=True)]
            levels.append(grid_anchors(torch.cat([-halves, halves], dim=1), x.shape[-2:], steps))
        return clip_boxes(torch.cat(levels), (height, width))

    def _check(self, images: Tensor) -> None:
        super()._check(images)
        if not self.shrink_last or torch.compiler.is_compiling():
            return
        least = 2 * self.strides[-2] + 1  # so that the last scale but one has three places
        if min(images.shape[-2:]) < least:
            raise InputError(
                f"{type(self).__name__} takes images of at least {least}x{least}, got {images.shape[-2]}x"
                f"{images.shape[-1]}: its coarsest map needs 3x3 places below it; enlarge them (data.size={least}), "
                "build it with fewer fractions, or with shrink_last=False"
            )

    def class_rows(self) -> dict[str, ClassRows]:
        found: dict[str, ClassRows] = {}
        for place, (head, count) in enumerate(zip(self.class_heads, self.default_boxes.per_cell, strict=True)):
            found |= rows_of_last(f"class_heads.{place}", head, ClassRows(count, before=1))
        return found

    def predictions(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        return box_scores(outputs)

    def loss(self, outputs: Outputs, targets: Sequence[Instances]) -> dict[str, Tensor]:
        return multibox_loss(outputs, targets, self.assign(outputs, targets), self.negatives)

    def assign(self, outputs: Outputs, targets: Sequence[Instances]) -> list[Assignment]:
        rules = {"positive": self.match_threshold, "rescue": "last"}  # the release's, after ssd.pytorch
        return assign_anchors(outputs["anchors"], targets, self.num_classes, **rules)

    def initialize_from(self, state: Mapping[str, Tensor]) -> list[str]:
        """As every detector; from a VGG's state fc6 and fc7 come along, thinned out as in SSD."""
        return super().initialize_from(extend_vgg(state, "deep."))


def _check_fractions(fractions: Sequence[float], given: int) -> tuple[float, ...]:
    values = tuple(fractions)
    if len(values) <= given or not all(0 < smaller < larger for smaller, larger in pairwise(values)):
        raise InputError(
            f"fractions must grow from above 0, one for each scale and one more, of at least {given} scales; "
            f"got {list(values)}"
        )
    return values


_published = partial(
    Published,
    "arXiv:1811.04533",
    2018,
    params=133_159_604,
    idea="eight U-shaped modules on each other make a pyramid whose every scale holds features of all depths",
    source="counted: qijiezhao/M2Det with SFAM on; AP of 800 read: the paper's abstract",
)


@register("m2det", task="detect", network=M2Det, published=_published((3, 512, 512), macs=190_105_829_376))
def m2det(**options: Any) -> M2Det:
    return M2Det(**options)


@register(
    "m2det320_vgg16",
    alias="m2det320",
    task="detect",
    network=M2Det,
    published=_published((3, 320, 320), macs=74_307_014_656),
)
def m2det320_vgg16(*, fractions: Sequence[float] = (0.08, *FRACTIONS[1:]), **options: Any) -> M2Det:
    return M2Det(fractions=fractions, **options)


@register(
    "m2det512_vgg16",
    alias="m2det512",
    task="detect",
    network=M2Det,
    published=_published((3, 512, 512), macs=190_105_829_376),
)
def m2det512_vgg16(**options: Any) -> M2Det:
    return M2Det(**options)


@register(
    "m2det800_vgg16",
    alias="m2det800",
    task="detect",
    network=M2Det,
    published=_published((3, 800, 800), macs=464_783_376_384, metrics={"coco test-dev AP": 41.0}),
)
def m2det800_vgg16(*, fractions: Sequence[float] = (0.04, *FRACTIONS[1:]), **options: Any) -> M2Det:
    return M2Det(fractions=fractions, **options)
