"""SSD: Single Shot MultiBox Detector.

Liu, Anguelov, Erhan, Szegedy, Reed, Fu and Berg 2015, arXiv:1512.02325. The idea: predict classes and boxes in one pass
by small convolutions on several maps of one network, each map for objects of its scale, from a fixed set of default
boxes at every cell.

ssd300_vgg16 and ssd512_vgg16 are the paper's, for the 20 classes of VOC; with num_classes=80 they have COCO's counts,
and COCO's smaller boxes come with scales=COCO_300 or COCO_512. ssd300_vgg16_torchvision is torchvision's form of the
first, which its published weights need: COCO's scales, boxes cut to the image's size, 90 classes, the numbers of
COCO's categories less one. ssdlite320_mobilenet_v3_large is torchvision's as well: SSDlite (MobileNetV2, arXiv:
1801.04381, section 6.2, and MobileNetV3, arXiv:1905.02244, section 6.3) has separable convolutions in heads and extra
maps. ssd is the same on any backbone and behind any neck, small by default. RFBNet is SSD with other blocks: see there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.backbones.extraction import Extractor, create_extractor
from opsin.backbones.mobilenet_v2 import InvertedResidual
from opsin.backbones.mobilenet_v3 import LARGE_REDUCED, MobileNetV3
from opsin.backbones.vgg import VGG
from opsin.backbones.weights import coco_weights
from opsin.checks import check_number, check_share
from opsin.detect.default_boxes import DefaultBoxes, evenly_spaced
from opsin.detect.detector import Assignment, Detector, Outputs
from opsin.detect.matching import assign_anchors, gather_positives
from opsin.detect.postprocess import Selection, select_candidates
from opsin.errors import InputError
from opsin.losses import hard_negatives, smooth_l1_loss
from opsin.necks import create_neck
from opsin.necks.neck import SteadyBatchNorm2d
from opsin.nn.capabilities import ClassRows, rows_of_last
from opsin.nn.conv import ConvNormActivation, Norm
from opsin.nn.norm import L2Norm
from opsin.ops import clip_boxes, decode_boxes, encode_boxes
from opsin.registry import Published, create_model, register
from opsin.structures import Instances

VARIANCES = (0.1, 0.1, 0.2, 0.2)  # the paper does not state them; its Caffe code does


@dataclass(frozen=True)
class Trunk:
    """What the heads stand on: backbone -> neck -> extra maps, each made from the one before.

    channels, strides: of all maps, the finest first.
    """

    backbone: nn.Module
    neck: nn.Module
    extra: nn.ModuleList
    channels: tuple[int, ...]
    strides: tuple[int, ...]


class SSD(Detector):
    """A trunk of maps, and on each a convolution for classes, background first, and one for boxes.

    default_boxes: laid on the cells of every map. fixed_size: of the input, where the trunk allows no other. lite: the
    heads are a depthwise 3x3 and a 1x1. match_threshold: a default box whose IoU with a truth is at least that answers
    for it, and so does one of its own for every truth. negatives: so many default boxes of background count for each
    that answers, those of the highest loss. box_weight: alpha, of the loss of boxes.

    forward gives logits (B, A, 1 + K), offsets (B, A, 4), anchors (A, 4) and the input's size.
    """

    candidates_of, clips_first = "classes", True

    def __init__(
        self,
        trunk: Trunk,
        default_boxes: DefaultBoxes,
        fixed_size: int | None = None,
        lite: bool = False,
        *,
        num_classes: int = 20,
        in_channels: int = 3,
        match_threshold: float = 0.5,
        negatives: float = 3.0,
        box_weight: float = 1.0,
    ) -> None:
        super().__init__(num_classes, in_channels)
        check_share("match_threshold", match_threshold, hint="0.5 is the paper's")
        self.match_threshold = match_threshold
        self.negatives, self.box_weight = check_number("negatives", negatives), check_number("box_weight", box_weight)
        if len(default_boxes) != len(trunk.channels):
            raise InputError(
                f"the trunk has {len(trunk.channels)} maps, the default boxes are for {len(default_boxes)}; give one "
                f"scale for each and one more, and as many ratios"
            )
        self.fixed_size, self.strides, self.default_boxes = fixed_size, trunk.strides, default_boxes
        self.backbone, self.neck, self.extra = trunk.backbone, trunk.neck, trunk.extra
        head = _lite_head if lite else _head
        counts = default_boxes.per_cell
        self.class_heads = nn.ModuleList(
            head(width, count * (1 + num_classes)) for width, count in zip(trunk.channels, counts, strict=True)
        )
        self.box_heads = nn.ModuleList(
            head(width, count * 4) for width, count in zip(trunk.channels, counts, strict=True)
        )
        # candidates of each class; 0.01, 0.45, 400 and 200 are the paper's, section 3.7 and its code
        self.selection = Selection(score_threshold=0.01, iou_threshold=0.45, candidates=400, limit=200)

    def forward(self, images: Tensor) -> Outputs:
        self._check(images)
        height, width = images.shape[-2:]
        maps = list(self.neck(self.backbone(images)))
        for layers in self.extra:
            maps.append(layers(maps[-1]))
        return {
            "logits": flatten_heads(self.class_heads, maps, 1 + self.num_classes),
            "offsets": flatten_heads(self.box_heads, maps, 4),
            "anchors": self.default_boxes.lay_out([x.shape[-2:] for x in maps], (height, width), images.device),
            "size": torch.tensor([height, width]),
        }

    def _check(self, images: Tensor) -> None:
        try:
            super()._check(images)
        except InputError as error:
            if self.fixed_size is None or images.ndim != 4 or images.shape[-1] == images.shape[-2] == self.fixed_size:
                raise
            others = "for other sizes there are ssd300_vgg16, ssd512_vgg16, and ssd, which takes any"
            raise InputError(f"{error}; {others}") from None

    def loss(self, outputs: Outputs, targets: Sequence[Instances]) -> dict[str, Tensor]:
        losses = multibox_loss(outputs, targets, self.assign(outputs, targets), self.negatives)
        return {**losses, "box": self.box_weight * losses["box"]}

    def assign(self, outputs: Outputs, targets: Sequence[Instances]) -> list[Assignment]:
        return assign_anchors(outputs["anchors"], targets, self.num_classes, positive=self.match_threshold)

    def class_rows(self) -> dict[str, ClassRows]:
        found: dict[str, ClassRows] = {}
        for place, (head, count) in enumerate(zip(self.class_heads, self.default_boxes.per_cell, strict=True)):
            found |= rows_of_last(f"class_heads.{place}", head, ClassRows(count, before=1))
        return found

    def predictions(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        return box_scores(outputs)

    def decode(self, outputs: Outputs, selection: Selection | None = None, **options: Any) -> list[Instances]:
        """As `Detector.decode`, but that `candidates` are of each class, as in the paper's code and torchvision."""
        selection = Selection(**{**vars(selection or self.selection), **options})
        anchors, size, found = outputs["anchors"], outputs["size"].tolist(), []
        for logits, offsets in zip(outputs["logits"].float(), outputs["offsets"].float(), strict=True):
            scores = logits.softmax(dim=-1)[:, 1:]

            def boxes_of(places: Tensor, offsets: Tensor = offsets) -> Tensor:
                return clip_boxes(decode_boxes(offsets[places], anchors[places], VARIANCES), size)

            found.append(select_candidates(scores.amax(dim=1), scores.__getitem__, boxes_of, selection))
        return found

    def initialize_from(self, state: Mapping[str, Tensor]) -> list[str]:
        """As every detector; from a VGG's state fc6 and fc7 come along, thinned out (see `thin_out`)."""
        return super().initialize_from(extend_vgg(state, "neck.deep."))


def multibox_loss(
    outputs: Outputs, targets: Sequence[Instances], assigned: Sequence[Assignment], negatives: float
) -> dict[str, Tensor]:
    """Section 2.2: softmax with hard negatives, and smooth L1 of offsets, each divided by the boxes that answer.

    The division is over the batch, as in the ports. An image without truth has no negatives either.
    """
    logits, offsets, anchors = outputs["logits"].float(), outputs["offsets"].float(), outputs["anchors"]
    matched = torch.stack([one.matched for one in assigned])
    hits = gather_positives(assigned, targets)
    classes = torch.zeros_like(matched)
    classes[hits.rows, hits.places] = 1 + hits.labels
    terms = F.cross_entropy(logits.flatten(0, 1), classes.flatten(), reduction="none").view(classes.shape)
    positive = matched >= 0
    counted = positive | hard_negatives(terms, positive, ratio=negatives, negative=matched == -1)
    count = positive.sum().clamp(min=1)
    truth = encode_boxes(hits.boxes, anchors[hits.places], VARIANCES)
    missed = smooth_l1_loss(offsets[hits.rows, hits.places], truth, reduction="sum")
    return {"class": (terms * counted).sum() / count, "box": missed / count}


def box_scores(outputs: Outputs) -> tuple[Tensor, Tensor]:
    """Boxes (B, A, 4), and scores (B, A, K) without the background's."""
    boxes = decode_boxes(outputs["offsets"].float(), outputs["anchors"], VARIANCES)
    return boxes, outputs["logits"].float().softmax(dim=-1)[..., 1:]


def _head(in_channels: int, out_channels: int) -> nn.Module:
    return initialize(nn.Conv2d(in_channels, out_channels, 3, padding=1))


def _lite_head(in_channels: int, out_channels: int) -> nn.Module:
    depthwise = ConvNormActivation(in_channels, in_channels, 3, groups=in_channels, norm=lite_norm, activation="relu6")
    return initialize(nn.Sequential(depthwise, nn.Conv2d(in_channels, out_channels, 1)), std=0.03)


def flatten_heads(heads: nn.ModuleList, maps: Sequence[Tensor], values: int) -> Tensor:
    """(B, A, values): map by map, row by row, cell by cell, box by box."""
    found = [head(x).permute(0, 2, 3, 1).flatten(1) for head, x in zip(heads, maps, strict=True)]
    return torch.cat(found, dim=1).unflatten(1, (-1, values))


def initialize(module: nn.Module, std: float | None = None) -> Any:
    """New layers start from Glorot's uniform weights (section 3), or normal ones; biases from 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            if std is None:
                nn.init.xavier_uniform_(layer.weight)
            else:
                nn.init.normal_(layer.weight, std=std)  # torchvision's SSDlite: 0.03
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module


# The trunk of VGG

# Of each extra map: channels of a 1x1, of the map, and kernel, stride and border of the convolution that makes it.
_EXTRA_300 = (256, 512, 3, 2, 1), (128, 256, 3, 2, 1), (128, 256, 3, 1, 0), (128, 256, 3, 1, 0)
_EXTRA_512 = (256, 512, 3, 2, 1), *((128, 256, 3, 2, 1),) * 3, (128, 256, 4, 1, 1)
_STRIDES = {300: (8, 16, 32, 64, 100, 300), 512: (8, 16, 32, 64, 128, 256, 512)}

# Sides of default boxes as fractions of the image: the code's, for VOC and for COCO.
VOC_300 = (0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05)
VOC_512 = (0.07, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.05)
COCO_300 = (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)
COCO_512 = (0.04, 0.1, 0.26, 0.42, 0.58, 0.74, 0.9, 1.06)
RATIOS_300 = (2,), (2, 3), (2, 3), (2, 3), (2,), (2,)
RATIOS_512 = (2,), (2, 3), (2, 3), (2, 3), (2, 3), (2,), (2,)


class _VGGNeck(nn.Module):
    """[conv4_3, conv5_3] -> [conv4_3 at a length of 20, fc7]; shallow, deep: what to do with each map."""

    def __init__(self, shallow: nn.Module, deep: nn.Module) -> None:
        super().__init__()
        self.shallow, self.deep = shallow, deep

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [self.shallow(maps[0]), self.deep(maps[1])]


def vgg_features(in_channels: int, weights: str | None, **options: Any) -> tuple[Extractor, nn.Sequential]:
    """conv1_1 to conv5_3 of VGG-16 with Caffe's pooling, which rounds up: 75 -> 38; and fc6, fc7 as convolutions.

    Section 3: pool5 keeps the size, so fc6 looks 6 places far. With published weights fc6 and fc7 are thinned out.
    """
    if weights is None:  # what is not kept need not be made
        options = {"hidden_features": 1, "pooled_size": 1, **options}
    vgg = create_model("vgg16", in_channels=in_channels, weights=weights, **options)
    assert isinstance(vgg, VGG)
    deep = nn.Sequential(
        nn.MaxPool2d(3, stride=1, padding=1),
        nn.Conv2d(512, 1024, 3, padding=6, dilation=6),
        nn.ReLU(inplace=True),
        nn.Conv2d(1024, 1024, 1),
        nn.ReLU(inplace=True),
    )
    initialize(deep)
    if weights:
        deep.load_state_dict(thin_out(vgg.state_dict()))
    for layer in vgg.stages.modules():
        if isinstance(layer, nn.MaxPool2d):
            layer.ceil_mode = True
    extractor = Extractor(vgg, (8, 16))
    extractor.name = "vgg16"
    return extractor, deep


def thin_out(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """fc6 and fc7 of a VGG's state as convolutions of 1,024 channels: every fourth of 4,096, every third of 7x7 places.

    Section 3, after Chen et al. 2014, arXiv:1412.7062: "subsample parameters from fc6 and fc7".
    """
    fc6 = state["head.3.weight"].unflatten(1, (512, 7, 7))
    return {
        "1.weight": fc6[::4, :, ::3, ::3].contiguous(),
        "1.bias": state["head.3.bias"][::4],
        "3.weight": state["head.6.weight"][::4, ::4, None, None].contiguous(),
        "3.bias": state["head.6.bias"][::4],
    }


def extend_vgg(state: Mapping[str, Tensor], prefix: str) -> Mapping[str, Tensor]:
    """A VGG's state with its names in a detector, and fc6 and fc7, thinned out, behind `prefix`; any other as it is."""
    shapes = [tuple(state[name].shape) for name in ("head.3.weight", "head.6.weight") if name in state]
    if shapes != [(4096, 25088), (4096, 4096)]:
        return state
    named = {f"backbone.backbone.{name}": tensor for name, tensor in state.items()}
    return named | {f"{prefix}{name}": tensor for name, tensor in thin_out(state).items()}


def _vgg_trunk(size: int, in_channels: int, weights: str | None, norm_scale: float | None) -> Trunk:
    backbone, deep = vgg_features(in_channels, weights)
    shallow = nn.Identity() if norm_scale is None else L2Norm(512, norm_scale)
    blocks, width = [], 1024
    for narrow, channels, kernel_size, stride, border in _EXTRA_300 if size == 300 else _EXTRA_512:
        squeeze = ConvNormActivation(width, narrow, 1, norm=None)
        conv = ConvNormActivation(narrow, channels, kernel_size, stride, border=border, norm=None)
        blocks.append(initialize(nn.Sequential(squeeze, conv)))
        width = channels
    channels = (512, 1024, *(block[1].out_channels for block in blocks))
    return Trunk(backbone, _VGGNeck(shallow, deep), nn.ModuleList(blocks), channels, _STRIDES[size])


def _build_vgg(
    size: int,
    scales: Sequence[float],
    ratios: Sequence[Sequence[float]],
    norm_scale: float | None,
    backbone_weights: str | None,
    clip: bool,
    options: Mapping[str, Any],
) -> SSD:
    trunk = _vgg_trunk(size, options.get("in_channels", 3), backbone_weights, norm_scale)
    boxes = DefaultBoxes(scales, ratios, steps=_STRIDES[size], clip=clip)
    return SSD(trunk, boxes, size, **options)


# The trunks of SSDlite

lite_norm: Norm = partial(SteadyBatchNorm2d, eps=1e-3, momentum=0.03)  # torchvision's, TensorFlow's for detection


class _ExpandedMaps(Extractor):
    """MobileNetV3 up to its last 1x1: C4 is the widened map in the first block of the last stage, C5 what comes out.

    Section 6.3: "the expansion layer of the 13th bottleneck". Strides 16 and 32.
    """

    def __init__(self, network: MobileNetV3) -> None:
        last = network.head[0]  # type: ignore[index]
        assert isinstance(last, ConvNormActivation)
        super().__init__(network, (16, 32))
        network.head = nn.Sequential(last)
        self.name, self.channels = "mobilenet_v3_large", (672, last.out_channels)

    def forward(self, images: Tensor) -> list[Tensor]:
        network = self.backbone
        x = network.stem(images)
        for stage in network.stages[:-1]:
            x = stage(x)
        first, *rest = network.stages[-1]  # type: ignore[misc]
        assert isinstance(first, InvertedResidual)
        expanded = first.body[0](x)
        x = first.body[1:](expanded)
        for block in rest:
            x = block(x)
        return [expanded, network.head(x)]


def _extra_block(in_channels: int, out_channels: int, lite: bool) -> nn.Sequential:
    """1x1 to half the channels, 3x3 of stride 2; that one depthwise in SSDlite, and a 1x1 behind it."""
    narrow = out_channels // 2
    if not lite:
        squeeze = ConvNormActivation(in_channels, narrow, 1, norm=SteadyBatchNorm2d)
        conv = ConvNormActivation(narrow, out_channels, 3, 2, norm=SteadyBatchNorm2d)
        return initialize(nn.Sequential(squeeze, conv))
    layer = partial(ConvNormActivation, norm=lite_norm, activation="relu6")
    block = nn.Sequential(
        layer(in_channels, narrow, 1), layer(narrow, narrow, 3, 2, groups=narrow), layer(narrow, out_channels, 1)
    )
    return initialize(block, std=0.03)


def _extended(backbone: nn.Module, neck: nn.Module, given: Any, extra_channels: Sequence[int], lite: bool) -> Trunk:
    """A trunk with so many more maps, each half the size of the one before. given: has channels and strides of maps."""
    channels, strides = list(given.channels), list(given.strides)
    blocks = []
    for width in extra_channels:
        blocks.append(_extra_block(channels[-1], width, lite))
        channels.append(width)
        strides.append(2 * strides[-1])
    return Trunk(backbone, neck, nn.ModuleList(blocks), tuple(channels), tuple(strides))


# Published networks

_published = partial(
    Published,
    "arXiv:1512.02325",
    2015,
    idea="default boxes of every scale on several maps of one network, classified and moved in one pass",
)
_COUNTED = "counted: amdegroot/ssd.pytorch, and the same code extended to 512; results: the paper, table 7"


@register(
    "ssd300_vgg16",
    alias="ssd300",
    task="detect",
    network=SSD,
    published=_published((3, 300, 300), 26_285_486, 31_373_537_792, {"voc2007 test mAP": 74.3}, source=_COUNTED),
)
def ssd300_vgg16(
    *,
    scales: Sequence[float] = VOC_300,
    ratios: Sequence[Sequence[float]] = RATIOS_300,
    norm_scale: float | None = 20.0,
    backbone_weights: str | None = None,
    **options: Any,
) -> SSD:
    return _build_vgg(300, scales, ratios, norm_scale, backbone_weights, False, options)


@register(
    "ssd512_vgg16",
    alias="ssd512",
    task="detect",
    network=SSD,
    published=_published((3, 512, 512), 27_188_676, 90_207_908_864, {"voc2007 test mAP": 76.8}, source=_COUNTED),
)
def ssd512_vgg16(
    *,
    scales: Sequence[float] = VOC_512,
    ratios: Sequence[Sequence[float]] = RATIOS_512,
    norm_scale: float | None = 20.0,
    backbone_weights: str | None = None,
    **options: Any,
) -> SSD:
    return _build_vgg(512, scales, ratios, norm_scale, backbone_weights, False, options)


def _arrange_vgg(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's scale of conv4_3 comes first; ours stands behind conv5_3, before fc6."""
    ordered = {name: tensor for name, tensor in state.items() if name != "backbone.scale_weight"}
    names = list(ordered)
    place = 26  # weights and biases of 13 convolutions
    scale = {"backbone.scale_weight": state["backbone.scale_weight"]}
    return {n: ordered[n] for n in names[:place]} | scale | {n: ordered[n] for n in names[place:]}


@register(
    "ssd300_vgg16_torchvision",
    task="detect",
    network=SSD,
    published=_published(
        (3, 300, 300), 35_641_826, 34_858_153_472, {"coco val2017 AP": 25.1}, source="counted: torchvision"
    ),
    weights={
        "coco": coco_weights(
            "ssd300_vgg16_coco-b556d3b4",
            25.1,
            num_classes=90,
            preprocessing={
                "size": [300, 300],
                "mean": [0.48235, 0.45882, 0.40784],
                "std": [1 / 255] * 3,
                "fit": "squash",
            },
            arrange=_arrange_vgg,
        )
    },
)
def ssd300_vgg16_torchvision(
    *,
    num_classes: int = 90,
    scales: Sequence[float] = COCO_300,
    ratios: Sequence[Sequence[float]] = RATIOS_300,
    norm_scale: float | None = 20.0,
    backbone_weights: str | None = None,
    **options: Any,
) -> SSD:
    return _build_vgg(300, scales, ratios, norm_scale, backbone_weights, True, {"num_classes": num_classes, **options})


@register(
    "ssdlite320_mobilenet_v3_large",
    alias="ssdlite",
    task="detect",
    network=SSD,
    published=Published(
        "arXiv:1905.02244",
        2019,
        (3, 320, 320),
        3_440_060,
        583_171_904,
        {"coco val2017 AP": 21.3},
        "SSD with separable heads on a network searched for phones",
        "counted: torchvision",
    ),
    weights={
        "coco": coco_weights(
            "ssdlite320_mobilenet_v3_large_coco-a79551df",
            21.3,
            num_classes=90,
            preprocessing={"size": [320, 320], "mean": [0.5] * 3, "std": [0.5] * 3, "fit": "squash"},
        )
    },
)
def ssdlite320_mobilenet_v3_large(
    *,
    num_classes: int = 90,
    in_channels: int = 3,
    scales: Sequence[float] | None = None,
    ratios: Sequence[Sequence[float]] | None = None,
    extra_channels: Sequence[int] = (512, 256, 256, 128),
    reduced_tail: bool | None = None,
    backbone_weights: str | None = None,
    **options: Any,
) -> SSD:
    """reduced_tail: half the channels in the last blocks; None unless the backbone comes with weights."""
    reduced = backbone_weights is None if reduced_tail is None else reduced_tail
    if reduced:
        if backbone_weights is not None:
            raise InputError("published weights of mobilenet_v3_large do not fit reduced_tail=True; leave one out")
        network = MobileNetV3(LARGE_REDUCED, 1, in_channels=in_channels)
        initialize(network, std=0.03)
    else:
        network = create_model("mobilenet_v3_large", in_channels=in_channels, weights=backbone_weights)
    assert isinstance(network, MobileNetV3)
    backbone = _ExpandedMaps(network)
    for layer in backbone.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.03
    trunk = _extended(backbone, nn.Identity(), backbone, extra_channels, lite=True)
    count = len(trunk.channels)
    # From 0.2 to 0.95 of the image, five ratios on every map: torchvision's.
    boxes = DefaultBoxes(scales or (*evenly_spaced(0.2, 0.95, count), 1.0), ratios or ((2, 3),) * count, clip=True)
    model = SSD(trunk, boxes, None, True, num_classes=num_classes, in_channels=in_channels, **options)
    model.selection = Selection(score_threshold=0.001, iou_threshold=0.55, candidates=300, limit=300)
    return model


@register(
    "ssd",
    task="detect",
    network=SSD,
    published=_published(
        (3, 320, 320), 3_129_876, 446_688_896, source="counted here; nobody published this combination"
    ),
)
def ssd(
    *,
    num_classes: int = 20,
    in_channels: int = 3,
    backbone: str = "mobilenet_v3_large",
    backbone_options: Mapping[str, Any] | None = None,
    backbone_weights: str | None = None,
    strides: Sequence[int] = (8, 16, 32),
    neck: str | None = None,
    neck_options: Mapping[str, Any] | None = None,
    extra_channels: Sequence[int] = (256, 256, 128),
    lite: bool = True,
    scales: Sequence[float] | None = None,
    ratios: Sequence[Sequence[float]] | None = None,
    **options: Any,
) -> SSD:
    """Maps of any backbone, of these strides, behind any neck, and a smaller one for each of `extra_channels`.

    lite: separable heads and extra maps. scales: one for each map and one more; None is the paper's rule, 0.1 on the
    finest map, then evenly from 0.2 to 0.9. ratios: of each map, none of them below 1; None is 2 and 3 on every map.
    """
    extractor = create_extractor(
        backbone, strides, in_channels=in_channels, weights=backbone_weights, **(backbone_options or {})
    )
    joined = create_neck(neck, extractor.channels, extractor.strides, **(neck_options or {}))
    trunk = _extended(extractor, joined, joined, extra_channels, lite)
    count = len(trunk.channels)
    boxes = DefaultBoxes(scales or (0.1, *evenly_spaced(0.2, 0.9, count - 1), 1.05), ratios or ((2, 3),) * count)
    return SSD(trunk, boxes, None, lite, num_classes=num_classes, in_channels=in_channels, **options)
