"""EfficientDet: Scalable and Efficient Object Detection.

Tan, Pang and Le 2019, arXiv:1911.09070. The idea: scales are fused in both directions, again and again, each with a
weight that is learned (BiFPN, see `opsin.necks.bifpn`); and one number phi scales everything together: the backbone,
EfficientNet-B(phi), the channels and layers of neck and heads, and the image.

Classes and boxes are predicted as RetinaNet does, from nine anchors a cell with heads shared by all levels; here their
convolutions are separable, and each level has norms of its own.

Where the paper is silent or rounds, this is the authors' release (google/automl), whose counts are the published ones:
the table at the end of this file instead of the paper's powers of 1.35; anchors of 1.4 x 0.7 where the paper says a
ratio of 1/2; D6 and D7 add their maps without weights, "for stability"; D7 is D6 with larger images and anchors, D7x
is on B7 with a level more. It matches at an IoU of 0.5 with nothing in between, divides by the anchors that answer plus
one, and counts boxes fifty times. Where truths have one best anchor the release gives it to the first; here the last
has it. The release leaves a coordinate of a box that is exactly its anchor's out of the loss, by accident; here it
counts. Its numbers of a box are y, x, h, w; here x, y, w, h.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from opsin.backbones.extraction import create_extractor
from opsin.checks import check_count, check_number
from opsin.detect.detector import Assignment, Detector, Outputs
from opsin.detect.matching import assign_anchors, gather_positives
from opsin.detect.postprocess import Selection, select_anchors
from opsin.errors import InputError
from opsin.losses import huber_loss
from opsin.losses.background import detection_focal_loss
from opsin.necks import create_neck
from opsin.necks.bifpn import Fusion
from opsin.nn.capabilities import ClassRows, rows_of_last
from opsin.ops import decode_boxes, encode_boxes, grid_anchors
from opsin.registry import Published, register
from opsin.structures import Instances

# Width and height of anchors in units of their scale: the release's.
ASPECTS = ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4))

_norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)  # 0.99 and 1e-3 in the release's TensorFlow


class SharedHead(nn.Module):
    """`repeats` separable 3x3s, then one that predicts; shared by all levels but for their norms, one for each level.

    [(B, channels, H_l, W_l)] -> (B, A, values), A the sum of all H_l * W_l * anchors: level by level, row by row, cell
    by cell. The convolutions have biases, redundant before the norms, which the published counts include.
    """

    def __init__(self, channels: int, repeats: int, levels: int, anchors: int, values: int) -> None:
        super().__init__()
        self.values = values
        self.convs = nn.ModuleList(_separable(channels, channels) for _ in range(repeats))
        self.norms = nn.ModuleList(nn.ModuleList(_norm(channels) for _ in range(levels)) for _ in range(repeats))
        self.activation = nn.SiLU(inplace=True)
        self.predict = _separable(channels, anchors * values)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        predicted = []
        for level, x in enumerate(maps):
            for conv, norms in zip(self.convs, self.norms, strict=True):
                x = self.activation(norms[level](conv(x)))  # type: ignore[index]
            predicted.append(self.predict(x).permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, self.values)))
        return torch.cat(predicted, dim=1)


def _separable(in_channels: int, out_channels: int) -> nn.Sequential:
    """A depthwise 3x3 without and a 1x1 with biases, begun as TensorFlow does.

    Its variance scaling divides by the inputs of a depthwise kernel as if each of them saw all channels. So what the
    last layer predicts begins near zero, and an untrained network says what its biases say.
    """
    depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
    pointwise = nn.Conv2d(in_channels, out_channels, 1)
    for conv, inputs in ((depthwise, 9 * in_channels), (pointwise, in_channels)):
        std = inputs**-0.5 / 0.87962566  # the deviation of a normal distribution cut off at two deviations
        nn.init.trunc_normal_(conv.weight, std=std, a=-2 * std, b=2 * std)
    assert pointwise.bias is not None
    nn.init.zeros_(pointwise.bias)
    return nn.Sequential(depthwise, pointwise)


class EfficientDet(Detector):
    """Any backbone, any neck, and two heads, of classes and of boxes, that all levels share.

    backbone: name of a classification network; backbone_options: its own; backbone_weights: published ones. strides: of
    the maps taken from it. neck: a name that `opsin.necks` knows, with neck_options. extra_levels: coarser than the
    backbone's. channels: of every level. neck_repeats, fusion: layers of a BiFPN, and how it weighs maps ("fast",
    "softmax", "sum"); other necks have neither. head_repeats: convolutions of a head before the one that predicts.
    D0 is the default; mobilenet_v3_small, channels=48, neck_repeats=2 and head_repeats=2 make a member for a CPU.

    anchor_scale: side of the smallest anchors of a level in units of its stride; octaves: sizes up to twice that;
    aspects: widths and heights of a size of 1.
    match_threshold: an anchor with at least that IoU with a truth is matched to it, and so is the best one of every
    truth; below background_threshold it is background, between the two neither. alpha, gamma: of the focal loss.
    delta: where the Huber loss of boxes turns linear. box_weight: of that loss. prior: the probability of each class
    that an untrained network states.

    forward gives logits (B, A, K), offsets (B, A, 4), dx dy dw dh, anchors (A, 4) and the input's size. Any input of at
    least a pixel will do; maps of sides that the strides do not divide are rounded up.
    """

    def __init__(
        self,
        *,
        num_classes: int = 90,
        in_channels: int = 3,
        backbone: str = "tf_efficientnet_b0",
        backbone_options: Mapping[str, Any] | None = None,
        backbone_weights: str | None = None,
        strides: Sequence[int] = (8, 16, 32),
        neck: str | None = "bifpn",
        neck_options: Mapping[str, Any] | None = None,
        extra_levels: int = 2,
        channels: int = 64,
        neck_repeats: int = 3,
        fusion: Fusion = "fast",
        head_repeats: int = 3,
        anchor_scale: float = 4.0,
        octaves: int = 3,
        aspects: Sequence[Sequence[float]] = ASPECTS,
        match_threshold: float = 0.5,
        background_threshold: float = 0.5,
        alpha: float = 0.25,
        gamma: float = 1.5,
        delta: float = 0.1,
        box_weight: float = 50.0,
        prior: float = 0.01,
    ) -> None:
        super().__init__(num_classes, in_channels)
        check_count("channels", channels)
        check_count("head_repeats", head_repeats, least=0)
        self.match_threshold, self.background_threshold = match_threshold, background_threshold
        self.alpha, self.gamma, self.delta, self.box_weight = alpha, gamma, delta, box_weight
        if not 0 < background_threshold <= match_threshold <= 1:
            raise InputError(
                f"background_threshold={background_threshold} and match_threshold={match_threshold} must rise in this "
                "order between 0 and 1"
            )
        self.sides = _anchor_sides(anchor_scale, octaves, aspects)
        self.backbone = create_extractor(
            backbone, strides, in_channels=in_channels, weights=backbone_weights, **(backbone_options or {})
        )
        options: dict[str, Any] = {"out_channels": channels, "extra_levels": extra_levels}
        if neck == "bifpn":
            options |= {"repeats": neck_repeats, "fusion": fusion}
        options |= neck_options or {}
        self.neck = create_neck(neck, self.backbone.channels, self.backbone.strides, **options)
        self.strides = self.neck.strides
        if set(self.neck.channels) != {channels}:
            raise InputError(
                f"the heads are shared by all levels, of {channels} channels, and {neck} gives "
                f"{list(self.neck.channels)}; leave out_channels to channels={channels}"
            )
        form = (channels, head_repeats, len(self.strides), len(self.sides))
        self.class_head, self.box_head = SharedHead(*form, num_classes), SharedHead(*form, 4)
        if not 0 < prior < 1:
            raise InputError(f"prior is a probability between 0 and 1, got {prior!r}")
        nn.init.constant_(self.class_head.predict[1].bias, math.log(prior / (1 - prior)))  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Outputs:
        self._check(images)
        height, width = images.shape[-2:]
        maps = self.neck(self.backbone(images))
        return {
            "logits": self.class_head(maps),
            "offsets": self.box_head(maps),
            "anchors": self._anchors(maps),
            "size": torch.tensor([height, width]),
        }

    def _anchors(self, maps: Sequence[Tensor]) -> Tensor:
        levels = []
        for x, stride in zip(maps, self.strides, strict=True):
            halves = torch.tensor(self.sides, device=x.device) * (stride / 2)
            levels.append(grid_anchors(torch.cat([-halves, halves], dim=1), x.shape[-2:], stride))
        return torch.cat(levels)

    def _check(self, images: Tensor) -> None:
        super()._check(images)
        if not self.training or torch.compiler.is_compiling():
            return
        coarsest = self.strides[-1]
        if len(images) == 1 and max(images.shape[-2:]) <= coarsest:
            raise InputError(
                f"{type(self).__name__} normalises its coarsest map, of stride {coarsest}, over the batch, and of one "
                f"image of {images.shape[-2]}x{images.shape[-1]} it is a single cell; train with larger images "
                f"(data.size={2 * coarsest}), more in a batch, or fewer extra_levels"
            )

    def class_rows(self) -> dict[str, ClassRows]:
        return rows_of_last("class_head.predict", self.class_head.predict, ClassRows(len(self.sides)))

    def predictions(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        return decode_boxes(outputs["offsets"].float(), outputs["anchors"]), outputs["logits"].float().sigmoid()

    def decode(self, outputs: Outputs, selection: Selection | None = None, **options: Any) -> list[Instances]:
        """As `Detector.decode`; boxes are made of the best places alone."""
        selection = Selection(**{**vars(selection or self.selection), **options})
        together = torch.zeros_like(outputs["anchors"][:, 0], dtype=torch.int64)  # candidates are of all levels
        return select_anchors(outputs, selection, together, clip_first=False)

    def loss(self, outputs: Outputs, targets: Sequence[Instances]) -> dict[str, Tensor]:
        logits, offsets, anchors = outputs["logits"].float(), outputs["offsets"].float(), outputs["anchors"]
        assigned = self.assign(outputs, targets)
        hits = gather_positives(assigned, targets)
        seen = torch.stack([one.matched != -2 for one in assigned])
        wrong = detection_focal_loss(
            logits, (hits.rows, hits.places, hits.labels), seen, alpha=self.alpha, gamma=self.gamma
        )
        truth = encode_boxes(hits.boxes, anchors[hits.places])
        missed = huber_loss(offsets[hits.rows, hits.places], truth, beta=self.delta, reduction="sum")
        positives = len(hits.rows) + 1
        return {"class": wrong / positives, "box": self.box_weight * missed / (4 * positives)}

    def assign(self, outputs: Outputs, targets: Sequence[Instances]) -> list[Assignment]:
        rules = {"positive": self.match_threshold, "negative": self.background_threshold, "rescue": "last"}
        return assign_anchors(outputs["anchors"], targets, self.num_classes, **rules)


def _anchor_sides(scale: float, octaves: int, aspects: Sequence[Sequence[float]]) -> tuple[tuple[float, float], ...]:
    """Widths and heights of a cell's anchors in units of its stride, sizes first."""
    check_count("octaves", octaves)
    pairs = [tuple(aspect) for aspect in aspects]
    if not pairs or any(len(pair) != 2 or not all(0 < side < math.inf for side in pair) for pair in pairs):
        raise InputError(f"aspects are pairs of width and height, such as [[1, 1], [1.4, 0.7]]; got {aspects!r}")
    check_number("anchor_scale", scale, above=True, hint="4 is the paper's")
    sizes = [scale * 2 ** (place / octaves) for place in range(octaves)]
    return tuple((size * width, size * height) for size in sizes for width, height in pairs)


# Backbone B, side of the image, channels, layers of the BiFPN, of the heads, fusion, scale of anchors, extra levels:
# the release's. Parameters, multiply-adds; AP on COCO test-dev and val2017.
_Scale = tuple[int, int, int, int, int, Fusion, float, int]
_SCALES: dict[str, tuple[_Scale, int, int, float, float]] = {
    "d0": ((0, 512, 64, 3, 3, "fast", 4.0, 2), 3_880_067, 2_492_331_520, 34.6, 34.3),
    "d1": ((1, 640, 88, 4, 3, "fast", 4.0, 2), 6_625_898, 6_003_416_880, 40.5, 40.2),
    "d2": ((2, 768, 112, 5, 3, "fast", 4.0, 2), 8_097_039, 10_832_466_688, 43.9, 43.5),
    "d3": ((3, 896, 160, 6, 4, "fast", 4.0, 2), 12_032_296, 24_568_753_664, 47.2, 46.8),
    "d4": ((4, 1024, 224, 7, 4, "fast", 4.0, 2), 20_723_675, 54_583_712_096, 49.7, 49.3),
    "d5": ((5, 1280, 288, 7, 4, "fast", 4.0, 2), 33_653_315, 134_133_865_152, 51.5, 51.2),
    "d6": ((6, 1280, 384, 8, 5, "sum", 4.0, 2), 51_871_782, 224_121_477_984, 52.6, 52.1),
    "d7": ((6, 1536, 384, 8, 5, "sum", 5.0, 2), 51_871_782, 322_731_636_576, 53.7, 53.4),
    "d7x": ((7, 1536, 384, 8, 5, "sum", 4.0, 3), 77_147_166, 407_628_345_344, 55.1, 54.4),
}


def _published(name: str) -> Published:
    (_, size, *_), params, macs, test, validation = _SCALES[name]
    return Published(
        paper="arXiv:1911.09070",
        year=2019,
        input=(3, size, size),
        params=params,
        macs=macs,
        metrics={"coco test-dev AP": test, "coco val2017 AP": validation},
        idea="fuse scales both ways with learned weights, and scale backbone, neck, heads and image by one number",
        source="counted: effdet 0.4.1, tf_efficientdet; results read: google/automl, efficientdet/README.md",
    )


@register("efficientdet", task="detect", network=EfficientDet, published=_published("d0"))
def efficientdet(**options: Any) -> EfficientDet:
    return EfficientDet(**options)


def _register(name: str) -> None:
    place, _, width, layers, head_layers, weighing, size, levels = _SCALES[name][0]

    @register(f"efficientdet_{name}", task="detect", network=EfficientDet, published=_published(name))
    def build(
        *,
        backbone: str = f"tf_efficientnet_b{place}",
        channels: int = width,
        neck_repeats: int = layers,
        head_repeats: int = head_layers,
        fusion: Fusion = weighing,
        anchor_scale: float = size,
        extra_levels: int = levels,
        **options: Any,
    ) -> EfficientDet:
        return EfficientDet(
            backbone=backbone,
            channels=channels,
            neck_repeats=neck_repeats,
            head_repeats=head_repeats,
            fusion=fusion,
            anchor_scale=anchor_scale,
            extra_levels=extra_levels,
            **options,
        )


for _name in _SCALES:
    _register(_name)
