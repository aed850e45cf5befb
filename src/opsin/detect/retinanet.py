"""RetinaNet: Focal Loss for Dense Object Detection.

Lin, Goyal, Girshick, He and Dollar 2017, arXiv:1708.02002. The idea: a detector in one stage sees a hundred thousand
boxes of background for a few objects; let the loss look away from what is already right, (1 - p)^gamma, and it can
train on all of them without sampling. The network is plain: a backbone, an FPN of five levels, and two heads of four
convolutions that all levels share, with nine anchors a cell. Its class biases start from a probability of 0.01, or the
background would drown the first steps (section 4.1).

retinanet is the paper's form on any backbone and neck: P6 from C5, anchors of 4 to 6.3 strides around the middle of
their cell, smooth L1 that is linear beyond 0.11 (Detectron's; the paper names only smooth L1), 80 classes.
retinanet_resnet50_fpn is torchvision's first version, which its published weights need: P6 from P5, anchors with whole
sides around the corner of their cell, L1, batch norms frozen, and a class 0 that nothing has. The second version,
retinanet_resnet50_fpn_v2, has P6 from C5, group norm in the heads and GIoU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from opsin.backbones.extraction import create_extractor
from opsin.backbones.weights import add_no_eps, coco_weights
from opsin.checks import check_count, check_number
from opsin.detect.anchor_grid import AnchorForm, AnchorGrid
from opsin.detect.detector import Assignment, Detector, Outputs
from opsin.detect.matching import assign_anchors, gather_positives
from opsin.detect.postprocess import Selection, select_anchors
from opsin.errors import InputError, unknown
from opsin.losses import giou_loss, l1_loss, smooth_l1_loss
from opsin.losses.background import detection_focal_loss
from opsin.necks import create_neck
from opsin.nn.capabilities import ClassRows, rows_of_last
from opsin.nn.conv import ConvNormActivation
from opsin.nn.norm import create_norm, freeze_batch_norm
from opsin.ops import decode_boxes, encode_boxes
from opsin.registry import Published, register
from opsin.structures import Instances

BoxLoss: TypeAlias = Literal["smooth_l1", "l1", "giou"]

RATIOS = (0.5, 1.0, 2.0)  # height / width


class SharedHead(nn.Module):
    """`repeats` 3x3s, then one that predicts, the same for all levels: [(B, C, H_l, W_l)] -> (B, A, values).

    A is the sum of all H_l * W_l * anchors: level by level, row by row, cell by cell. norm: "group" or None.
    """

    def __init__(self, channels: int, repeats: int, anchors: int, values: int, norm: str | None) -> None:
        super().__init__()
        self.values = values
        make_norm = None if norm is None else partial(create_norm, norm)
        self.convs = nn.Sequential(*(ConvNormActivation(channels, channels, norm=make_norm) for _ in range(repeats)))
        self.predict = nn.Conv2d(channels, anchors * values, 3, padding=1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)  # section 4.1
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        predicted = [self.predict(self.convs(x)).permute(0, 2, 3, 1).flatten(1) for x in maps]
        return torch.cat(predicted, dim=1).unflatten(1, (-1, self.values))


class RetinaNet(Detector):
    """Any backbone, any neck, and two heads, of classes and of boxes, that all levels share.

    backbone: name of a classification network; backbone_options: its own; backbone_weights: published ones;
    frozen_norm: its batch norms keep their statistics and are not trained, for small batches. strides: of the maps
    taken from it. neck: a name that `opsin.necks` knows, with neck_options. extra_levels: coarser than the backbone's.
    channels: of every level. head_repeats, head_norm: of each head, None or "group".
    The defaults are the paper's on ResNet-50; mobilenet_v3_small, channels=64 and head_repeats=2 make one for a CPU.

    anchor_scale: side of the smallest anchors of a level in units of its stride; octaves: sizes up to twice that;
    ratios: height / width. anchors: "paper", or "torchvision", which rounds sides and lays them on corners of cells.
    match_threshold: an anchor with at least that IoU with a truth is matched to it; below background_threshold it is
    background, between the two neither. low_quality: the best anchors of a truth are matched at any IoU, as in the
    ports; the paper does not say so. alpha, gamma: of the focal loss. box_loss: "smooth_l1", linear beyond `beta`, "l1"
    or "giou". box_weight: of it. prior: the probability of each class that an untrained network states.

    forward gives logits (B, A, K), offsets (B, A, 4), anchors (A, 4), the level of each anchor and the input's size.
    """

    candidates_of, clips_first = "levels", True

    def __init__(
        self,
        *,
        num_classes: int = 80,
        in_channels: int = 3,
        backbone: str = "resnet50",
        backbone_options: Mapping[str, Any] | None = None,
        backbone_weights: str | None = None,
        frozen_norm: bool = False,
        strides: Sequence[int] = (8, 16, 32),
        neck: str | None = "fpn",
        neck_options: Mapping[str, Any] | None = None,
        extra_levels: int = 2,
        channels: int = 256,
        head_repeats: int = 4,
        head_norm: str | None = None,
        anchor_scale: float = 4.0,
        octaves: int = 3,
        ratios: Sequence[float] = RATIOS,
        anchors: AnchorForm = "paper",
        match_threshold: float = 0.5,
        background_threshold: float = 0.4,
        low_quality: bool = True,
        alpha: float = 0.25,
        gamma: float = 2.0,
        box_loss: BoxLoss = "smooth_l1",
        beta: float = 0.11,
        box_weight: float = 1.0,
        prior: float = 0.01,
    ) -> None:
        super().__init__(num_classes, in_channels)
        check_count("channels", channels)
        check_count("head_repeats", head_repeats, least=0)
        self._set_loss(match_threshold, background_threshold, low_quality, alpha, gamma, box_loss, beta, box_weight)
        self.backbone = create_extractor(
            backbone, strides, in_channels=in_channels, weights=backbone_weights, **(backbone_options or {})
        )
        if frozen_norm:
            freeze_batch_norm(self.backbone)
        options = {"out_channels": channels, "extra_levels": extra_levels, **(neck_options or {})}
        self.neck = create_neck(neck, self.backbone.channels, self.backbone.strides, **options)
        self.strides = self.neck.strides
        if set(self.neck.channels) != {channels}:
            raise InputError(
                f"the heads are shared by all levels, of {channels} channels, and {neck} gives "
                f"{list(self.neck.channels)}; leave out_channels to channels={channels}"
            )
        sides = [_sides(stride, anchor_scale, octaves, anchors) for stride in self.strides]
        self.grid = AnchorGrid(self.strides, sides, ratios, anchors)
        form = (channels, head_repeats, self.grid.count)
        self.class_head = SharedHead(*form, num_classes, head_norm)
        self.box_head = SharedHead(*form, 4, head_norm)
        if not 0 < prior < 1:
            raise InputError(f"prior is a probability between 0 and 1, got {prior!r}")
        nn.init.constant_(self.class_head.predict.bias, math.log(prior / (1 - prior)))  # type: ignore[arg-type]
        self.selection = Selection(score_threshold=0.05, iou_threshold=0.5, candidates=1000, limit=100)

    def _set_loss(
        self,
        match_threshold: float,
        background_threshold: float,
        low_quality: bool,
        alpha: float,
        gamma: float,
        box_loss: BoxLoss,
        beta: float,
        box_weight: float,
    ) -> None:
        if not 0 < background_threshold <= match_threshold <= 1:
            raise InputError(
                f"background_threshold={background_threshold} and match_threshold={match_threshold} must rise in this "
                "order between 0 and 1"
            )
        if box_loss not in ("smooth_l1", "l1", "giou"):
            raise unknown("box_loss", box_loss, ("smooth_l1", "l1", "giou"))
        self.rules = {
            "positive": match_threshold,
            "negative": background_threshold,
            "rescue": "ties" if low_quality else None,
        }
        self.alpha, self.gamma = check_number("alpha", alpha), check_number("gamma", gamma)
        self.box_loss, self.beta = box_loss, check_number("beta", beta)
        self.box_weight = check_number("box_weight", box_weight)

    def forward(self, images: Tensor) -> Outputs:
        self._check(images)
        height, width = images.shape[-2:]
        maps = self.neck(self.backbone(images))
        anchors = self.grid.lay_out([x.shape[-2:] for x in maps], (height, width), images.device)
        return {
            "logits": self.class_head(maps),
            "offsets": self.box_head(maps),
            "anchors": torch.cat(anchors),
            "levels": torch.cat(
                [torch.full((len(boxes),), level, device=images.device) for level, boxes in enumerate(anchors)]
            ),
            "size": torch.tensor([height, width]),
        }

    def loss(self, outputs: Outputs, targets: Sequence[Instances]) -> dict[str, Tensor]:
        """Section 4.1: focal loss of all anchors, and the offsets of those that answer; of each image the sums divided
        by the anchors that answer in it, at least 1, then the mean over images.
        """
        logits, offsets, anchors = outputs["logits"].float(), outputs["offsets"].float(), outputs["anchors"]
        assigned = self.assign(outputs, targets)
        hits = gather_positives(assigned, targets)
        share = 1 / (torch.bincount(hits.rows, minlength=len(targets)).clamp(min=1) * len(targets))
        seen = torch.stack([one.matched != -2 for one in assigned]) * share[:, None]
        wrong = detection_focal_loss(
            logits, (hits.rows, hits.places, hits.labels), seen, alpha=self.alpha, gamma=self.gamma
        )
        missed = self._box_terms(offsets[hits.rows, hits.places], anchors[hits.places], hits.boxes)
        box = (missed.sum(dim=-1) if missed.ndim > 1 else missed) * share[hits.rows]
        return {"class": wrong, "box": self.box_weight * box.sum()}

    def _box_terms(self, offsets: Tensor, anchors: Tensor, truth: Tensor) -> Tensor:
        if self.box_loss == "giou":
            return giou_loss(decode_boxes(offsets, anchors), truth, reduction="none")
        wanted = encode_boxes(truth, anchors)
        if self.box_loss == "l1":
            return l1_loss(offsets, wanted, reduction="none")
        return smooth_l1_loss(offsets, wanted, beta=self.beta, reduction="none")

    def assign(self, outputs: Outputs, targets: Sequence[Instances]) -> list[Assignment]:
        return assign_anchors(outputs["anchors"], targets, self.num_classes, **self.rules)

    def class_rows(self) -> dict[str, ClassRows]:
        return rows_of_last("class_head.predict", self.class_head.predict, ClassRows(self.grid.count))

    def predictions(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        return decode_boxes(outputs["offsets"].float(), outputs["anchors"]), outputs["logits"].float().sigmoid()

    def decode(self, outputs: Outputs, selection: Selection | None = None, **options: Any) -> list[Instances]:
        """As `Detector.decode`, but that `candidates` are of each level, as in the paper (section 4) and the ports."""
        selection = Selection(**{**vars(selection or self.selection), **options})
        return select_anchors(outputs, selection, outputs["levels"], clip_first=True)


def _sides(stride: int, scale: float, octaves: int, form: AnchorForm) -> list[float]:
    check_count("octaves", octaves)
    smallest = stride * check_number("anchor_scale", scale, above=True)
    sides = [smallest * 2 ** (place / octaves) for place in range(octaves)]
    return [float(int(side)) for side in sides] if form == "torchvision" else sides


# Published networks

_IDEA = "a loss with little weight on what is right already, so that all anchors are trained on"
_published = partial(Published, "arXiv:1708.02002", 2017, (3, 800, 1344), idea=_IDEA)


@register(
    "retinanet",
    task="detect",
    network=RetinaNet,
    published=_published(
        37_968_692, 250_487_537_664, source="derived: the paper's section 4 on ResNet-50; detectron2 has the same form"
    ),
)
def retinanet(**options: Any) -> RetinaNet:
    return RetinaNet(**options)


_weights = partial(
    coco_weights,
    num_classes=91,
    preprocessing={
        "size": [800, 1344],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "fit": "pad",
    },
)


@register(
    "retinanet_resnet50_fpn",
    task="detect",
    network=RetinaNet,
    published=_published(34_014_999, 254_469_734_400, {"coco val2017 AP": 36.4}, source="counted: torchvision"),
    weights={"coco": _weights("retinanet_resnet50_fpn_coco-eeacb38b", 36.4, arrange=add_no_eps)},
)
def retinanet_resnet50_fpn(
    *,
    num_classes: int = 91,
    frozen_norm: bool = True,
    neck_options: Mapping[str, Any] | None = None,
    anchors: AnchorForm = "torchvision",
    box_loss: BoxLoss = "l1",
    **options: Any,
) -> RetinaNet:
    necks = {"extra_from": "p5", **(neck_options or {})}
    return _torchvision(num_classes, anchors, box_loss, necks, {"frozen_norm": frozen_norm, **options})


@register(
    "retinanet_resnet50_fpn_v2",
    task="detect",
    network=RetinaNet,
    published=_published(38_198_935, 255_596_888_064, {"coco val2017 AP": 41.5}, source="counted: torchvision"),
    weights={"coco": _weights("retinanet_resnet50_fpn_v2_coco-5905b1c5", 41.5)},
)
def retinanet_resnet50_fpn_v2(
    *,
    num_classes: int = 91,
    head_norm: str | None = "group",
    anchors: AnchorForm = "torchvision",
    box_loss: BoxLoss = "giou",
    neck_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> RetinaNet:
    return _torchvision(num_classes, anchors, box_loss, neck_options, {"head_norm": head_norm, **options})


def _torchvision(
    num_classes: int,
    anchors: AnchorForm,
    box_loss: BoxLoss,
    neck_options: Mapping[str, Any] | None,
    options: Mapping[str, Any],
) -> RetinaNet:
    model = RetinaNet(num_classes=num_classes, anchors=anchors, box_loss=box_loss, neck_options=neck_options, **options)
    model.selection = Selection(score_threshold=0.05, iou_threshold=0.5, candidates=1000, limit=300)
    return model
