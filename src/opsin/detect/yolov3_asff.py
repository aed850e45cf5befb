"""YOLOv3 with ASFF: Learning Spatial Fusion for Single-Shot Object Detection.

Liu, Huang and Wang 2019, arXiv:1911.09516. The idea is its neck's, `opsin.necks.ASFF`; below it is the stronger
YOLOv3 that the paper measures it against: pooling at three more sizes, and guided anchors (Wang et al. 2019,
arXiv:1901.03278). A 1x1 convolution first guesses how each anchor should grow at each place, exp(g) times, then a
deformable convolution bends its window to those anchors, and YOLO's numbers are read off that. Beside the three anchors
of a level is a free one, of 4 strides, which takes a truth over where its guess fits better than the anchor did.

This is the authors' release, models/yolov3_asff.py and yolov3_head.py: 79,409,493 parameters with ASFF, 75,554,428
without (`fusion=False`). The targets of its L1 loss hold the guess and pass gradient on to it; there they cancel, so
that t + g is compared with the truth. `guided=False` is YOLOv3's own head, for where there is no deformable
convolution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from opsin.backbones.darknet import he_initialize
from opsin.backbones.extraction import create_extractor
from opsin.detect.detector import Assignment, Outputs
from opsin.detect.yolo import (
    GridDetector,
    Level,
    Positives,
    Rows,
    Sizes,
    Truths,
    check_anchors,
    encode_offsets,
    gather_truths,
    input_size,
    match,
    pick,
    small_boxes_more,
)
from opsin.detect.yolov3 import Pyramid, leaky
from opsin.errors import InputError
from opsin.losses import l1_loss, sigmoid_cross_entropy
from opsin.necks import ASFF
from opsin.ops import iou
from opsin.registry import Published, register
from opsin.structures import Instances

# The release's: two of YOLOv3's nine are others.
ANCHORS = ((10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (42, 119), (116, 90), (156, 198), (121, 240))
_FREE = 4  # side of the free anchor, in strides


class GuidedHead(nn.Module):
    """(B, C, H, W) -> the maps of the numbers, (B, n (5 + K), H, W), and of the guesses, (B, 2 n, H, W)."""

    def __init__(self, channels: int, anchors: int, num_classes: int) -> None:
        super().__init__()
        self.guide = nn.Conv2d(channels, 2 * anchors, 1)
        self.offset = nn.Conv2d(2 * anchors, 2 * 9 * anchors, 1, groups=anchors)
        self.bend = nn.Conv2d(channels, channels, 3, padding=1)  # its weights; the windows are those of `offset`
        self.predict = nn.Conv2d(channels, anchors * (5 + num_classes), 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        from torchvision.ops import deform_conv2d  # a detector that is only listed does not need torchvision

        guess = self.guide(x)
        bent = deform_conv2d(x, self.offset(guess.detach()), self.bend.weight, self.bend.bias, padding=(1, 1))
        return self.predict(bent), guess


class YOLOv3ASFF(GridDetector):
    """Backbone, YOLOv3's pyramid, ASFF, and guided heads.

    backbone, backbone_options, backbone_weights, width, anchors: as in `YOLOv3`. fusion=False leaves ASFF out.
    guided=False: three anchors a level and no guesses. ignore_threshold, label_smoothing, prior: see `GridDetector`.
    Beside its numbers each level gives its guesses: "guide8" and so on.
    """

    def __init__(
        self,
        *,
        num_classes: int = 80,
        in_channels: int = 3,
        backbone: str = "darknet53",
        backbone_options: Mapping[str, Any] | None = None,
        backbone_weights: str | None = None,
        width: float = 1.0,
        fusion: bool = True,
        guided: bool = True,
        anchors: Sizes = ANCHORS,
        ignore_threshold: float = 0.7,
        label_smoothing: float = 0.0,
        prior: float = 0.01,
    ) -> None:
        strides = (8, 16, 32)
        levels = check_anchors(anchors, len(strides))
        if guided:
            levels = tuple((*own, (_FREE * s, _FREE * s)) for own, s in zip(levels, strides, strict=True))
        super().__init__(
            strides,
            levels,
            (1.0,) * len(strides),
            num_classes=num_classes,
            in_channels=in_channels,
            box_loss="iou",
            box_weight=1.0,
            ignore_threshold=ignore_threshold,
            match_threshold=None,
            label_smoothing=label_smoothing,
            prior=prior,
        )
        if not 0 < width <= 4:
            raise InputError(f"width is the share of the paper's channels, above 0 and at most 4; got {width!r}")
        self.guided, self.backbone_name = guided, backbone
        self.backbone = create_extractor(
            backbone, strides, in_channels=in_channels, weights=backbone_weights, **(backbone_options or {})
        )
        fine, middle, coarse = (max(8, round(128 * 2**i * width / 8) * 8) for i in range(3))
        pyramid = Pyramid(self.backbone.channels, strides, (fine, middle, coarse), spp=True)
        out_channels = (middle, coarse, 2 * coarse)
        if fusion:
            fused = ASFF((middle, middle, coarse), strides, out_channels=out_channels)
            self.neck = nn.Sequential(pyramid, _Widen([fine], [middle]), fused)
        else:
            self.neck = nn.Sequential(pyramid, _Widen(pyramid.channels, out_channels))
        he_initialize(self.neck)
        self.heads = nn.ModuleList(
            GuidedHead(channels, len(own), num_classes)
            if guided
            else nn.Conv2d(channels, len(own) * (5 + num_classes), 1)
            for channels, own in zip(out_channels, self.anchors, strict=True)
        )
        self.start_heads()
        for layer in self.heads.modules():
            if isinstance(layer, GuidedHead):  # guesses of 1 and windows unbent to begin with
                nn.init.normal_(layer.guide.weight, std=0.01)
                nn.init.normal_(layer.offset.weight, std=0.01)
                nn.init.zeros_(layer.guide.bias)  # type: ignore[arg-type]
                nn.init.zeros_(layer.offset.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Outputs:
        self._check(images)
        outputs = {}
        for stride, head, x in zip(self.strides, self.heads, self.neck(self.backbone(images)), strict=True):
            if self.guided:
                outputs[f"stride{stride}"], outputs[f"guide{stride}"] = head(x)
            else:
                outputs[f"stride{stride}"] = head(x)
        return outputs

    def levels(self, outputs: Outputs) -> list[Level]:
        """As `GridDetector.levels`: t_wh + g takes the place of t_wh, for a side is anchor * exp(g) * exp(t)."""
        levels = super().levels(outputs)
        if not self.guided:
            return levels
        found = []
        for level, guide in zip(levels, self._guides(outputs, levels), strict=True):
            rows = level.rows.float()
            sides = rows[:, :, 2:4] + guide.rows.float()
            found.append(level._replace(rows=torch.cat([rows[:, :, :2], sides, rows[:, :, 4:]], dim=2)))
        return found

    def _guides(self, outputs: Outputs, levels: Sequence[Level]) -> list[Level]:
        """The guesses, as grids: rows (B, n, 2, H, W)."""
        maps = (outputs[f"guide{level.stride}"].unflatten(1, (-1, 2)) for level in levels)
        return [level._replace(rows=one) for level, one in zip(levels, maps, strict=True)]

    def loss(self, outputs: Outputs, targets: Sequence[Instances]) -> dict[str, Tensor]:
        levels = self.levels(outputs)
        objectness = torch.cat([level.rows[:, :, 4].flatten(1) for level in levels], dim=1).float()
        truths, regions = gather_truths(targets, input_size(levels), self.num_classes, objectness.device)
        positives, free = self._match(outputs, levels, truths)
        boxes = truths.boxes[positives.truth]
        rows = pick(levels, positives.image, positives.place)
        wanted = torch.zeros_like(objectness)
        wanted[positives.image, positives.place] = 1
        seen = ~self.ignored(levels, truths, regions) | wanted.bool()
        classes = torch.zeros_like(rows.raw[:, 5:])
        positive, truth = positives.pairs
        classes[positive, truths.labels[truth]] = 1
        classes = classes * (1 - self.label_smoothing) + self.label_smoothing / 2
        images = max(len(objectness), 1)
        losses = {
            "box": _box_errors(rows, boxes, input_size(levels)) / images,
            "objectness": (sigmoid_cross_entropy(objectness, wanted, reduction="none") * seen).sum() / images,
            "class": sigmoid_cross_entropy(rows.raw[:, 5:], classes, reduction="sum") / images,
        }
        if self.guided:
            fits = [_guess_fit(one, boxes) for one in free]
            losses["guide"] = sum((1 - fit.square()).sum() for fit in fits) / images  # type: ignore[assignment]
        return losses

    def _match(self, outputs: Outputs, levels: Sequence[Level], truths: Truths) -> tuple[Positives, tuple[Rows, ...]]:
        """Which anchor is matched to which truth, and the guesses of its anchor and of the free anchor in its cell."""
        if not self.guided:
            return match(levels, truths), ()
        # A free anchor without size fits no truth.
        fixed = [level._replace(anchors=torch.cat([level.anchors[:-1], 0 * level.anchors[-1:]])) for level in levels]
        positives = match(fixed, truths)
        guides = self._guides(outputs, levels)
        taken, before = positives.place.clone(), 0
        for level in levels:
            cells = level.rows.shape[3] * level.rows.shape[4]
            here = (taken >= before) & (taken < before + level.places)
            free = before + (len(level.anchors) - 1) * cells + (positives.place - before) % cells
            taken = torch.where(here, free, taken)
            before += level.places
        own = pick(guides, positives.image, positives.place)
        free_rows = pick(guides, positives.image, taken)
        boxes = truths.boxes[positives.truth]
        better = _guess_fit(free_rows, boxes) > _guess_fit(own._replace(raw=0 * own.raw), boxes)
        return positives._replace(place=torch.where(better, taken, positives.place)), (own, free_rows)

    def assign(self, outputs: Outputs, targets: Sequence[Instances]) -> list[Assignment]:
        levels = self.levels(outputs)
        truths, regions = gather_truths(targets, input_size(levels), self.num_classes, levels[0].rows.device)
        positives, _ = self._match(outputs, levels, truths)
        return self.assignments(levels, positives, truths, regions)


class _Widen(nn.Module):
    """A 3x3 convolution on each of the first maps; the others pass."""

    def __init__(self, channels: Sequence[int], out_channels: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(leaky(c, o, 3) for c, o in zip(channels, out_channels, strict=True))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [layer(x) for layer, x in zip(self.layers, maps, strict=False)] + list(maps[len(self.layers) :])


def _guess_fit(rows: Rows, boxes: Tensor) -> Tensor:
    """IoU of guessed anchors, anchor * exp(g), with the shapes of boxes: (M,)."""
    guessed, sides = rows.anchors * rows.raw.clamp(max=_LARGEST_GUESS).exp(), boxes[:, 2:] - boxes[:, :2]
    return iou(torch.cat([-guessed, guessed], dim=1), torch.cat([-sides, sides], dim=1))


_LARGEST_GUESS = 7.0  # e^7: from 10 pixels past every image


def _box_errors(rows: Rows, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """1 - IoU^2, cross-entropy of the centres and L1 of the logarithms of the sides; small boxes count up to twice."""
    shifts, growths = encode_offsets(rows, boxes)
    terms = sigmoid_cross_entropy(rows.raw[:, :2], shifts, reduction="none")
    terms = (terms + l1_loss(rows.raw[:, 2:4], growths, reduction="none")).sum(dim=1)
    return ((terms + 1 - iou(rows.boxes(), boxes).square()) * small_boxes_more(boxes, size)).sum()


@register(
    "yolov3_asff",
    task="detect",
    network=YOLOv3ASFF,
    published=Published(
        "arXiv:1911.09516",
        2019,
        (3, 608, 608),
        79_409_493,
        None,
        {"coco test-dev AP": 40.6},
        "each place of each level learns how much it takes of every level; guided anchors",
        "counted: the authors' release; results read: its README",
    ),
)
def yolov3_asff(**options: Any) -> YOLOv3ASFF:
    return YOLOv3ASFF(**options)
