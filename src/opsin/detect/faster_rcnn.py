"""Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks.

Ren, He, Girshick and Sun 2015, arXiv:1506.01497. The idea: Fast R-CNN classifies regions of one set of maps; let a
small network (`opsin.detect.rpn`) find the regions in the same maps, and both cost hardly more than one.

faster_rcnn_vgg16 and faster_rcnn_zf are the paper's: one map of stride 16, nine anchors a place, RoI pooling, and the
fully connected layers of the classification network. faster_rcnn is any backbone on any neck, FPN (Lin et al. 2016,
arXiv:1612.03144) by default, with RoIAlign. faster_rcnn_resnet50_fpn and its _v2 (Li et al. 2021,
arXiv:2111.11429) are torchvision's, which their published weights need. mask=True adds the branch of Mask R-CNN (He et
al. 2017, arXiv:1703.06870), as the mask_rcnn ones have it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.backbones.weights import add_no_eps, coco_weights
from opsin.checks import check_count, check_number
from opsin.detect.anchor_grid import AnchorForm
from opsin.detect.detector import Assignment, Detector, Outputs
from opsin.detect.mask_head import MaskHead, cut_masks, paste_masks
from opsin.detect.postprocess import Selection
from opsin.detect.regions import (
    REGION_SELECTION,
    ConvHead,
    Pooling,
    RegionPredictor,
    Regions,
    RoIPooler,
    RoISampler,
    Samples,
    TwoLayerHead,
    any_regions,
    decode_regions,
    fill_hidden,
    likeliest_boxes,
    region_losses,
    sample_regions,
)
from opsin.detect.rpn import create_proposal_head, create_trunk, take_proposals
from opsin.nn.capabilities import ClassRows, rows_of_last
from opsin.nn.conv import Norm
from opsin.registry import Published, Weights, register
from opsin.structures import Instances


class RegionHead(nn.Module):
    """The second stage: maps and regions -> class logits (R, K + 1) and offsets (R, K + 1, 4); masks on demand.

    head, predictor: of boxes. mask_pooler, mask_head: None without masks.
    """

    def __init__(
        self,
        pooler: RoIPooler,
        head: TwoLayerHead | ConvHead,
        num_classes: int,
        mask: tuple[RoIPooler, MaskHead] | None = None,
    ) -> None:
        super().__init__()
        self.pooler, self.head = pooler, head
        self.predictor = RegionPredictor(head.out_features, num_classes)
        self.mask_pooler, self.mask_head = mask if mask is not None else (None, None)

    def forward(self, maps: Sequence[Tensor], regions: Regions) -> tuple[Tensor, Tensor]:
        return self.predictor(self.head(self.pooler(maps, regions)))

    def masks(self, maps: Sequence[Tensor], regions: Regions, labels: Tensor) -> Tensor:
        """Logits (R, M, M) of the mask of a class (R,) in each region, from its left upper corner to the other one."""
        assert self.mask_pooler is not None and self.mask_head is not None
        logits = self.mask_head(self.mask_pooler(maps, regions))
        return logits[torch.arange(len(labels), device=labels.device), labels + 1].float()


class FasterRCNN(Detector):
    """Any backbone, any neck, an RPN on all its maps, and a head on regions of all but the extra levels.

    backbone, strides, neck, extra_levels, channels, and their options: see `create_trunk`. anchor_scales, ratios,
    anchors, and in rpn_options whatever else `ProposalHead` takes.
    candidates: the best so many anchors of each level go into the suppression, proposals: at most so many come out of
    it for training; test_candidates, test_proposals: the same for decoding. Forward gives the survivors of the larger
    number with their ranks, from which either is taken exactly: whether a box survives depends on better ones only.

    roi_pooling, roi_size, all_levels: see `RoIPooler`, all_levels being PANet's adaptive feature pooling.
    hidden: width of the two fully connected layers; head_convs: so many convolutions in place of the first, with
    head_norm. dropout: behind either layer. mask: whether there is a mask branch, on regions of twice roi_size, with
    mask_norm.
    sampled, positives, background: regions of an image that train the head, see `RoISampler`; the truth is among them.
    beta: where smooth L1 of the head becomes linear.
    alternating: train in the four steps of `opsin.detect.alternating_training`, each for the epochs and with the
    schedule of the recipe, instead of both stages at once. It changes nothing in the network that comes of it.

    forward gives what `ProposalHead` gives, the maps that regions are pooled from as map0, map1, ..., and the input's
    size. The proposals are constants to the head: the approximate joint training of section 3.2.
    """

    export_refusal = (
        "its second stage has as many regions as survive in each image, with a box for each class, and a file has "
        "one box for each of a fixed number of places"
    )

    def __init__(
        self,
        *,
        num_classes: int = 80,
        in_channels: int = 3,
        backbone: str = "resnet50",
        backbone_options: Mapping[str, Any] | None = None,
        backbone_weights: str | None = None,
        frozen_norm: bool = False,
        strides: Sequence[int] = (4, 8, 16, 32),
        neck: str | None = "fpn",
        neck_options: Mapping[str, Any] | None = None,
        extra_levels: int = 1,
        channels: int | None = 256,
        anchor_scales: Sequence[float] = (8.0,),
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        anchors: AnchorForm = "paper",
        rpn_options: Mapping[str, Any] | None = None,
        candidates: int = 2000,
        proposals: int = 2000,
        test_candidates: int = 1000,
        test_proposals: int = 1000,
        roi_pooling: Pooling = "align",
        roi_size: int = 7,
        all_levels: bool = False,
        hidden: int = 1024,
        head_convs: int = 0,
        head_norm: Norm = None,
        dropout: float = 0.0,
        mask: bool = False,
        mask_norm: Norm = None,
        sampled: int = 512,
        positives: float = 0.25,
        background: Sequence[float] = (0.0, 0.5),
        beta: float = 1 / 9,
        alternating: bool = False,
    ) -> None:
        super().__init__(num_classes, in_channels)
        self.alternating = alternating
        for name, value in (("proposals", proposals), ("test_proposals", test_proposals)):
            check_count(name, value)
        for name, value in (("candidates", candidates), ("test_candidates", test_candidates)):
            check_count(name, value)
        self.candidates, self.proposals = candidates, proposals
        self.test_candidates, self.test_proposals = test_candidates, test_proposals
        low, high = background
        self.sampler = RoISampler(sampled, positives, background=(low, high))
        self.beta = check_number("beta", beta)
        trunk = create_trunk(
            backbone,
            strides,
            neck,
            channels,
            in_channels=in_channels,
            backbone_options=backbone_options,
            backbone_weights=backbone_weights,
            frozen_norm=frozen_norm,
            neck_options=neck_options,
            extra_levels=extra_levels,
        )
        self.backbone, self.neck, self.strides = trunk.backbone, trunk.neck, trunk.strides
        self.rpn = create_proposal_head(
            trunk,
            anchor_scales=anchor_scales,
            ratios=ratios,
            anchors=anchors,
            candidates=max(candidates, test_candidates),
            **(rpn_options or {}),
        )
        pooler = partial(RoIPooler, trunk.strides[: len(strides)], kind=roi_pooling, all_levels=all_levels)
        boxes = pooler(size=roi_size)
        form: dict[str, Any] = {"dropout": dropout, "views": boxes.views}
        if head_convs:
            head = ConvHead(trunk.channels, roi_size, hidden, convs=head_convs, norm=head_norm, **form)
        else:
            head = TwoLayerHead(trunk.channels, roi_size, hidden, **form)
        branch = None
        if mask:
            branch = pooler(size=2 * roi_size), MaskHead(trunk.channels, num_classes, mask_norm, boxes.views)
        self.roi = RegionHead(boxes, head, num_classes, branch)
        self.needs_masks = mask
        self.selection = REGION_SELECTION

    def forward(self, images: Tensor) -> Outputs:
        self._check(images)
        size = images.shape[-2:]
        maps = self.neck(self.backbone(images))
        outputs = self.rpn(maps, size)
        pooled = {f"map{place}": x for place, (x, _) in enumerate(zip(maps, self.roi.pooler.strides, strict=False))}
        return {**pooled, **outputs, "size": torch.tensor(size)}

    def loss(self, outputs: Outputs, targets: Sequence[Instances]) -> dict[str, Tensor]:
        """The RPN's terms, and those of the head on a sample of the proposals and the truth: section 3.2.

        Masks are of the truth's class alone, binary cross-entropy of each place (Mask R-CNN, section 3); targets then
        have masks (N, H, W) of the input's size.
        """
        return self.rpn.losses(outputs, targets, self.num_classes) | self.head_losses(outputs, targets)

    def head_losses(self, outputs: Outputs, targets: Sequence[Instances]) -> dict[str, Tensor]:
        """The terms of the head alone: class, box, and mask where there is a branch."""
        proposals = take_proposals(outputs, self.proposals, self.candidates)
        given = [torch.cat([found, _objects(one, found)]) for found, one in zip(proposals, targets, strict=True)]
        samples = sample_regions(given, targets, self.sampler, self.num_classes)
        maps = self._maps(outputs)
        logits, offsets = self.roi(maps, samples.regions)
        losses = region_losses(logits, offsets, samples, beta=self.beta)
        if self.roi.mask_head is not None:
            losses["mask"] = self._mask_loss(maps, samples, targets)
        return losses

    def _mask_loss(self, maps: Sequence[Tensor], samples: Samples, targets: Sequence[Instances]) -> Tensor:
        answering = (samples.labels >= 0).nonzero()[:, 0]
        regions = Regions(samples.regions.boxes[answering], samples.regions.rows[answering])
        logits = self.roi.masks(maps, regions, samples.labels[answering])
        wanted = cut_masks(targets, samples.sources[answering], regions.boxes, logits.shape[-1])
        return F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum") / max(1, logits.numel())

    def assign(self, outputs: Outputs, targets: Sequence[Instances]) -> list[Assignment]:
        """What the RPN's loss makes of the truth of each image, before it draws a sample."""
        return self.rpn.assign(outputs, targets, self.num_classes)

    def class_rows(self) -> dict[str, ClassRows]:
        found = self.roi.predictor.class_rows("roi.predictor")
        if self.roi.mask_head is not None:
            found |= rows_of_last("roi.mask_head.predict", self.roi.mask_head.predict, ClassRows(before=1))
        return found

    def predictions(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """See `opsin.detect.regions.likeliest_boxes`; decoding has a box for each class."""
        proposals = take_proposals(outputs, self.test_proposals, self.test_candidates)
        regions = Regions.gather(proposals)
        logits, offsets = self.roi(self._maps(outputs), regions)
        scores = logits.float().softmax(dim=1)[:, 1:]
        return likeliest_boxes(regions.boxes, scores, offsets.float()[:, 1:], [len(one) for one in proposals])

    @property
    def second_stage_counts(self) -> dict[str, int]:
        masks = {} if self.roi.mask_head is None else {"masks": self.selection.limit}
        return {"proposals": self.test_proposals} | masks

    def second_stage(self, outputs: Outputs) -> Any:
        maps, boxes = self._maps(outputs), outputs["proposals"]
        answers = self.roi(maps, any_regions(boxes, self.test_proposals))
        if self.roi.mask_head is None:
            return answers
        found = any_regions(boxes, self.selection.limit)
        return answers, self.roi.masks(maps, found, found.rows)

    def decode(self, outputs: Outputs, selection: Selection | None = None, **options: Any) -> list[Instances]:
        """The head on the proposals: instances of each image, best first, suppressed within a class.

        With a mask branch they have masks (N, H, W) of the input's size.
        """
        selection = Selection(**{**vars(selection or self.selection), **options})
        proposals = take_proposals(outputs, self.test_proposals, self.test_candidates)
        regions, maps, size = Regions.gather(proposals), self._maps(outputs), outputs["size"].tolist()
        logits, offsets = self.roi(maps, regions)
        found = decode_regions(logits, offsets, regions, len(proposals), size, selection)
        if self.roi.mask_head is not None:
            self._add_masks(found, maps, size)
        return found

    @torch.no_grad()
    def _add_masks(self, found: Sequence[Instances], maps: Sequence[Tensor], size: Sequence[int]) -> None:
        labels: list[Any] = [one.labels for one in found]
        logits = self.roi.masks(maps, Regions.gather([one.boxes for one in found]), torch.cat(labels))
        for one, own in zip(found, logits.sigmoid().split([len(one) for one in found]), strict=True):
            one.masks = paste_masks(own, one.boxes, size)

    def initialize_from(self, state: Mapping[str, Tensor]) -> list[str]:
        """As every detector; and fc6 and fc7 from the first linear layers of a classification network that fit."""
        fresh = super().initialize_from(state)
        filled = fill_hidden(self, ("roi.head.fc6.0", "roi.head.fc7"), state)
        return [name for name in fresh if name not in filled]

    def _maps(self, outputs: Outputs) -> list[Tensor]:
        return [outputs[f"map{place}"] for place in range(len(self.roi.pooler.strides))]


def _objects(truth: Instances, like: Tensor) -> Tensor:
    """The boxes that the head may be shown: of what is to be found, and not flat."""
    if truth.labels is None:
        return like.new_zeros(0, 4)
    boxes = truth.boxes.to(like)
    return boxes[(boxes[:, 2:] > boxes[:, :2]).all(dim=1) & (truth.labels.to(like.device) >= 0)]


# Published networks

_IDEA = "regions proposed and classified on the same maps"
_published = partial(Published, "arXiv:1506.01497", 2015, idea=_IDEA)

# Section 3 and 4.1 and, where the paper is silent, the authors' py-faster-rcnn: its numbers of candidates, the smooth
# L1 and the background of the head's sample.
_PAPER: Mapping[str, Any] = {
    "strides": (16,),
    "neck": None,
    "extra_levels": 0,
    "channels": None,
    "anchor_scales": (8.0, 16.0, 32.0),
    "rpn_options": {"objectness": "softmax", "inside_only": True},
    "candidates": 12_000,
    "proposals": 2000,
    "test_candidates": 6000,
    "test_proposals": 300,
    "roi_pooling": "pool",
    "hidden": 4096,
    "dropout": 0.5,
    "sampled": 128,
    "beta": 1.0,
}


@register(
    "faster_rcnn_vgg16",
    task="detect",
    network=FasterRCNN,
    published=_published(
        (3, 600, 1000),
        137_078_239,
        225_573_931_008,
        {"voc2007 test mAP": 73.2, "voc2012 test mAP": 70.4},
        source="counted on py-faster-rcnn's prototxt with 300 proposals; results read: the abstract, trained on 07+12",
    ),
)
def faster_rcnn_vgg16(*, num_classes: int = 20, **options: Any) -> FasterRCNN:
    model = FasterRCNN(num_classes=num_classes, **{**_PAPER, "backbone": "vgg16", **options})
    for layer in model.backbone.modules():
        if isinstance(layer, nn.MaxPool2d):
            layer.ceil_mode = True  # Caffe's: 75 rows give 38
    return model


@register(
    "faster_rcnn_zf",
    task="detect",
    network=FasterRCNN,
    published=_published(
        (3, 600, 1000),
        59_294_751,
        33_722_863_104,
        {"voc2007 test mAP": 59.9},
        source="counted on py-faster-rcnn's prototxt with 300 proposals; results read: the paper's table 2, VOC 2007",
    ),
)
def faster_rcnn_zf(*, num_classes: int = 20, **options: Any) -> FasterRCNN:
    model = FasterRCNN(num_classes=num_classes, **{**_PAPER, "backbone": "zfnet", "roi_size": 6, **options})
    # py-faster-rcnn pads every layer so that a place of the map looks around the corner of its 16x16 pixels; with the
    # paddings of the classification network it would look 20 pixels below and right of that, beside its regions.
    for layer in model.backbone.modules():
        if isinstance(layer, nn.Conv2d):
            layer.padding = (layer.kernel_size[0] // 2, layer.kernel_size[1] // 2)
        elif isinstance(layer, nn.MaxPool2d):
            layer.padding = 1
    return model


@register(
    "faster_rcnn",
    task="detect",
    network=FasterRCNN,
    published=_published(
        (3, 800, 1344), 41_757_156, 215_935_753_472, source="counted: torchvision's form, 80 classes, norms trained"
    ),
)
def faster_rcnn(**options: Any) -> FasterRCNN:
    return FasterRCNN(**options)


# What torchvision's forms share: anchors around the corners of cells. Their 90 classes are COCO's category numbers,
# less one; their background is the 0 that nothing has there.
_TORCHVISION: Mapping[str, Any] = {"anchors": "torchvision"}
_FIRST: Mapping[str, Any] = {**_TORCHVISION, "frozen_norm": True}
_SECOND: Mapping[str, Any] = {
    **_TORCHVISION,
    "neck_options": {"norm": "batch"},
    "rpn_options": {"convs": 2},
    "head_convs": 4,
    "head_norm": "batch",
    "mask_norm": "batch",
}


def _counted(params: int, macs: int, ap: float, mask_ap: float | None = None) -> Published:
    source = "counted: torchvision, with 1,000 proposals" + ("" if mask_ap is None else ", 100 masks")
    return _published((3, 800, 1344), params, macs, _metrics(ap, mask_ap), source=source)


def _coco(file: str, ap: float, mask_ap: float | None = None, *, arrange: Any = None) -> dict[str, Weights]:
    preprocessing = {"size": [800, 1344], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "fit": "pad"}
    weights = coco_weights(file, ap, num_classes=90, preprocessing=preprocessing, arrange=arrange)
    return {"coco": replace(weights, metrics=_metrics(ap, mask_ap))}


def _metrics(ap: float, mask_ap: float | None) -> dict[str, float]:
    return {"coco val2017 AP": ap} | ({} if mask_ap is None else {"coco val2017 mask AP": mask_ap})


@register(
    "faster_rcnn_resnet50_fpn",
    task="detect",
    network=FasterRCNN,
    published=_counted(41_755_286, 215_986_953_472, 37.0),
    weights=_coco("fasterrcnn_resnet50_fpn_coco-258fb6c6", 37.0, arrange=add_no_eps),
)
def faster_rcnn_resnet50_fpn(*, num_classes: int = 90, **options: Any) -> FasterRCNN:
    return FasterRCNN(num_classes=num_classes, **{**_FIRST, **options})


@register(
    "faster_rcnn_resnet50_fpn_v2",
    task="detect",
    network=FasterRCNN,
    published=_counted(43_712_278, 383_346_695_424, 46.7),
    weights=_coco("fasterrcnn_resnet50_fpn_v2_coco-dd69338a", 46.7),
)
def faster_rcnn_resnet50_fpn_v2(*, num_classes: int = 90, **options: Any) -> FasterRCNN:
    return FasterRCNN(num_classes=num_classes, **{**_SECOND, **options})


@register(
    "mask_rcnn_resnet50_fpn",
    task="detect",
    network=FasterRCNN,
    published=_counted(44_401_393, 269_193_583_872, 37.9, 34.6),
    weights=_coco("maskrcnn_resnet50_fpn_coco-bf2d0c1e", 37.9, 34.6, arrange=add_no_eps),
)
def mask_rcnn_resnet50_fpn(*, num_classes: int = 90, mask: bool = True, **options: Any) -> FasterRCNN:
    return FasterRCNN(num_classes=num_classes, mask=mask, **{**_FIRST, **options})


@register(
    "mask_rcnn_resnet50_fpn_v2",
    task="detect",
    network=FasterRCNN,
    published=_counted(46_359_409, 436_553_325_824, 47.4, 41.8),
    weights=_coco("maskrcnn_resnet50_fpn_v2_coco-73cbd019", 47.4, 41.8),
)
def mask_rcnn_resnet50_fpn_v2(*, num_classes: int = 90, mask: bool = True, **options: Any) -> FasterRCNN:
    return FasterRCNN(num_classes=num_classes, mask=mask, **{**_SECOND, **options})
