"""YOLOv2: YOLO9000: Better, Faster, Stronger.

Redmon and Farhadi 2016, arXiv:1612.08242. The idea: YOLO as a convolution. No fully connected layer, so that any size
of input works and the size can change while it trains; anchors found by k-means on the data's boxes, and centres that a
sigmoid keeps in their cell; batch norm everywhere; and the finer map of Darknet-19 brought in beside the last one by a
passthrough, every 2x2 places of which become channels of one.

The loss is a sum of squared errors as in v1, with Darknet's weights: 1 for the offsets (times 2 - the truth's share of
the input), 5 for the objectness of what is matched to a truth, whose target is its IoU, and 1 for that of what overlaps
none by more than 0.6. Classes exclude each other: a softmax. Darknet squares their errors by name, but its gradient is
that of cross-entropy, so it is cross-entropy here. For the first 12,800 images it also pulls every box to its anchor,
which is anchor_pull=12800; here it is 0, since the layer that predicts starts with small weights, so that the boxes
start there.

Section 4: an image may say what it shows and not where, as those of a recipe's `detect.joint` do. Then the box most
certain of the class learns it, and that it is an object. The paper's WordTree, which puts 9,418 classes into a
hierarchy, is not here.

Fine-tuning at a high resolution and sizes that change every ten batches are a recipe's: `train.init` takes the backbone
of a classifier trained on 448 pixels, `detect.multi_scale` names the sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from opsin.backbones.darknet import he_initialize
from opsin.backbones.extraction import create_extractor
from opsin.checks import check_count
from opsin.detect.detector import Outputs
from opsin.detect.yolo import (
    GridDetector,
    Level,
    Positives,
    Rows,
    Sizes,
    check_anchors,
    encode_offsets,
    gather_truths,
    input_size,
    match,
    pick,
    small_boxes_more,
)
from opsin.detect.yolov3 import leaky
from opsin.errors import InputError
from opsin.losses import l2_loss, softmax_cross_entropy
from opsin.nn.pooling import SpaceToDepth
from opsin.ops import iou
from opsin.registry import Published, register
from opsin.structures import Instances

# k-means of the authors' cfg files, there in cells of 32 pixels.
_COCO_CELLS = ((0.57273, 0.677385), (1.87446, 2.06253), (3.33843, 5.47434), (7.88282, 3.52778), (9.77052, 9.16828))
_VOC_CELLS = ((1.3221, 1.73145), (3.19275, 4.00944), (5.05587, 8.09892), (9.47112, 4.84053), (11.2364, 10.0071))
COCO_ANCHORS = tuple((32 * w, 32 * h) for w, h in _COCO_CELLS)
VOC_ANCHORS = tuple((32 * w, 32 * h) for w, h in _VOC_CELLS)


class Passthrough(nn.Module):
    """(fine, coarse) -> two 3x3s on the coarse map, beside it the fine one, 1x1 and 2x2 places to channels; one 3x3.

    order: of the channels that come of a 2x2 square, see `SpaceToDepth`. enabled=False leaves the fine map out.
    """

    def __init__(self, channels: Sequence[int], width: int, reduced: int, *, enabled: bool = True) -> None:
        super().__init__()
        fine, coarse = channels
        self.top = nn.Sequential(leaky(coarse, width, 3), leaky(width, width, 3))
        self.reduce = leaky(fine, reduced, 1) if enabled else None
        self.fold = SpaceToDepth(2, order="darknet" if reduced % 4 == 0 else "torch")
        self.last = leaky(width + (4 * reduced if enabled else 0), width, 3)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        top = self.top(maps[1])
        if self.reduce is not None:
            top = torch.cat([self.fold(self.reduce(maps[0])), top], dim=1)
        return self.last(top)


class YOLOv2(GridDetector):
    """One grid of stride 32.

    backbone, backbone_options, backbone_weights, width: as in `YOLOv3`; the paper's has 1,024 channels above it.
    passthrough=False leaves the finer map out. anchors: in pixels; `opsin.ops.kmeans_anchors` finds those of other
    data. iou_target=False makes the target of objectness 1. object_weight: of those that are matched to a truth.
    anchor_pull: for so many images of the training, counted in each process, every box that is not matched learns a
    little to be its anchor. ignore_threshold, prior: see `GridDetector`.
    """

    learns_somewhere: ClassVar[bool] = True

    def __init__(
        self,
        *,
        num_classes: int = 80,
        in_channels: int = 3,
        backbone: str = "darknet19",
        backbone_options: Mapping[str, Any] | None = None,
        backbone_weights: str | None = None,
        width: float = 1.0,
        passthrough: bool = True,
        anchors: Sizes = COCO_ANCHORS,
        object_weight: float = 5.0,
        ignore_threshold: float = 0.6,
        iou_target: bool = True,
        anchor_pull: int = 0,
        prior: float = 0.01,
    ) -> None:
        super().__init__(
            (32,),
            check_anchors(anchors, 1),
            (1.0,),
            num_classes=num_classes,
            in_channels=in_channels,
            box_loss="offsets",
            box_weight=1.0,
            ignore_threshold=ignore_threshold,
            match_threshold=None,
            label_smoothing=0.0,
            prior=prior,
        )
        if not 0 < width <= 4:
            raise InputError(f"width is the share of the paper's channels, above 0 and at most 4; got {width!r}")
        self.object_weight, self.iou_target = object_weight, iou_target
        self.anchor_pull = check_count("anchor_pull", anchor_pull, least=0)
        self.images_seen: Tensor | None
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.int64) if anchor_pull else None)
        self.backbone_name = backbone
        self.backbone = create_extractor(
            backbone, (16, 32), in_channels=in_channels, weights=backbone_weights, **(backbone_options or {})
        )
        wide, reduced = (max(8, round(channels * width / 8) * 8) for channels in (1024, 64))
        self.neck = Passthrough(self.backbone.channels, wide, reduced, enabled=passthrough)
        self.heads = nn.ModuleList([nn.Conv2d(wide, len(anchors) * (5 + num_classes), 1)])
        he_initialize(self.neck)
        self.start_heads()

    def forward(self, images: Tensor) -> Outputs:
        self._check(images)
        return {"stride32": self.heads[0](self.neck(self.backbone(images)))}

    def class_scores(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=-1)

    def darknet_order(self) -> Iterator[nn.Module]:
        neck = self.neck
        if self.backbone_name == "darknet19" and isinstance(neck, Passthrough) and neck.reduce is not None:
            yield from (self.backbone, neck.top, neck.reduce, neck.last, self.heads)
        else:
            yield from super().darknet_order()

    def loss(self, outputs: Outputs, targets: Sequence[Instances]) -> dict[str, Tensor]:
        levels = self.levels(outputs)
        logits = levels[0].rows[:, :, 4].flatten(1).float()
        truths, regions = gather_truths(targets, input_size(levels), self.num_classes, logits.device)
        positives = match(levels, truths)
        rows = pick(levels, positives.image, positives.place)
        boxes = truths.boxes[positives.truth]
        unplaced = [one.boxes.isnan().any(dim=1) for one in targets]
        told = torch.tensor([not where.any() for where in unplaced], device=logits.device)
        # An image that says of something not where it is says of no place that it is background.
        weights = (~self.ignored(levels, truths, regions) & told[:, None]).float()
        wanted = torch.zeros_like(logits)
        wanted[positives.image, positives.place] = (
            iou(rows.boxes().detach(), boxes) if self.iou_target else torch.ones_like(boxes[:, 0])
        )
        weights[positives.image, positives.place] = self.object_weight
        images = max(len(logits), 1)
        losses = {
            "box": _offset_errors(rows, boxes, input_size(levels)) / images,
            "objectness": (weights * l2_loss(logits.sigmoid(), wanted, reduction="none")).sum() / 2 / images,
            "class": softmax_cross_entropy(rows.raw[:, 5:], truths.labels[positives.truth], reduction="sum") / images,
        }
        if self.training and self.images_seen is not None:
            if int(self.images_seen) < self.anchor_pull:
                losses["pull"] = _to_anchors(levels[0], positives) / images
            self.images_seen += len(logits)
        if not told.all():
            losses["somewhere"] = self._somewhere(levels[0], targets, unplaced) / images
        return losses

    def _somewhere(self, level: Level, targets: Sequence[Instances], unplaced: Sequence[Tensor]) -> Tensor:
        """The class, and the objectness, of the box that is most certain of a class which is somewhere."""
        raw = level.rows.permute(0, 1, 3, 4, 2).flatten(1, 3).float()
        total = raw.sum() * 0
        for row, one, where in zip(raw, targets, unplaced, strict=True):
            if one.labels is None or not where.any():
                continue
            labels = one.labels[where].to(row.device)
            with torch.no_grad():
                best = (row[:, 4:5].sigmoid() * self.class_scores(row[:, 5:]))[:, labels].argmax(dim=0)
            total = total + softmax_cross_entropy(row[best, 5:], labels, reduction="sum")
            # "at least .3 IOU": the target of objectness for a box that nobody measured
            below = (_ASSUMED_IOU - row[best, 4].sigmoid()).clamp(min=0)
            total = total + self.object_weight * below.square().sum() / 2
        return total


# Section 4.3: the box that learns a class from an image without boxes is assumed to overlap the truth that much.
_ASSUMED_IOU = 0.3


def _offset_errors(rows: Rows, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Half the squared errors of sigmoid(t_xy) and t_wh; small boxes count up to twice."""
    shifts, growths = encode_offsets(rows, boxes)
    errors = torch.cat([rows.raw[:, :2].sigmoid() - shifts, rows.raw[:, 2:4] - growths], dim=1).square()
    return (errors.sum(dim=1) * small_boxes_more(boxes, size)).sum() / 2


_PULL = 0.01  # the weight of Darknet's


def _to_anchors(level: Level, positives: Positives) -> Tensor:
    """Half the squared errors of boxes that should be their anchors, centred in their cells, times 0.01.

    Those that are matched to a truth have it to learn.
    """
    raw = level.rows.permute(0, 1, 3, 4, 2).flatten(1, 3)[..., :4].float()
    errors = torch.cat([raw[..., :2].sigmoid() - 0.5, raw[..., 2:]], dim=-1).square().sum(dim=-1)
    free = torch.ones_like(errors)
    free[positives.image, positives.place] = 0
    return _PULL * (errors * free).sum() / 2


_IDEA = "YOLO as a convolution: anchors from k-means, centres kept in their cells, a passthrough of the finer map"


@register(
    "yolov2",
    task="detect",
    network=YOLOv2,
    published=Published(
        "arXiv:1612.08242",
        2016,
        (3, 608, 608),
        50_962_889,
        31_469_126_656,
        {"coco test-dev AP": 21.6, "coco test-dev AP50": 44.0},
        _IDEA,
        "counted: the author's cfg; results read: the paper",
    ),
)
def yolov2(**options: Any) -> YOLOv2:
    return YOLOv2(**options)


@register(
    "yolov2_voc",
    task="detect",
    network=YOLOv2,
    published=Published(
        "arXiv:1612.08242",
        2016,
        (3, 416, 416),
        50_655_389,
        14_680_167_424,
        {"voc07 test mAP": 76.8},
        _IDEA,
        "counted: the author's cfg; results read: the paper's abstract",
    ),
)
def yolov2_voc(*, num_classes: int = 20, anchors: Sizes = VOC_ANCHORS, **options: Any) -> YOLOv2:
    return YOLOv2(num_classes=num_classes, anchors=anchors, **options)
