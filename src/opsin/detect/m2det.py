"""M2Det: A Single-Shot Object Detector based on Multi-Level Feature Pyramid Network.

Zhao et al. 2018, arXiv:1811.04533. The idea: SSD's maps were made to classify whole pictures, and each comes from one
depth; build instead a pyramid for detection, of eight U-shaped modules on each other (`opsin.necks.mlfpn`), so that the
map of a scale holds features from shallow to deep. On it stand plain 3x3 heads; matching, hard negatives, smooth L1 and
variances are SSD's (arXiv:1512.02325).

What is counted as published is the authors' release with SFAM on: one convolution of FFM v2 for all levels and one
weighing for all scales, since it repeats one module in a list. `shared=False` gives each its own, as the paper draws
them. Its released configurations leave SFAM out: `sfam=False`.

The release lays out boxes on a grid of steps rounded up, 107 pixels for 3 cells on 320, and cuts them at the picture's
border; so does this. Sizes are fractions of the shorter side, so that other inputs than the three named ones work.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.backbones.extraction import create_extractor
from opsin.detect.detector import Assignment, Detector, Outputs, Selection
from opsin.errors import InputError
from opsin.losses import hard_negatives, smooth_l1_loss
from opsin.necks import create_neck
from opsin.ops import clip_boxes, decode_boxes, encode_boxes, grid_anchors, pairwise_iou
from opsin.registry import Published, register
from opsin.structures import Instances

VARIANCES = (0.1, 0.1, 0.2, 0.2)

# Side of the smallest box of each scale as a fraction of the picture's, and of one scale more: the release's.
FRACTIONS = (0.06, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)
_RATIOS = (2.0, 1 / 2, 3.0, 1 / 3)  # width / height


class M2Det(Detector):
    """Two maps of a backbone -> MLFPN -> on each scale a 3x3 for classes and a 3x3 for boxes.

    backbone: a classification network's name, its maps of `strides` 8 and 16; "vgg16" is continued as SSD does, with
    dilated fc6 and fc7 as convolutions at stride 16. fractions: of the boxes, one more than there are scales. planes:
    channels of a TUM; levels: how many there are. shared, sfam: see the module. neck: another one than MLFPN, which
    then has `planes * levels` channels unless neck_options say otherwise. neck_options: more of the neck's own.
    shrink_last: the coarsest scale is a 3x3 without border, and the picture larger than 256 pixels; else it is half.
    match_threshold: a box whose IoU with a truth is at least that answers for it, and so does the best one of every
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
        self.match_threshold, self.negatives = match_threshold, negatives
        if not 0 < match_threshold <= 1:
            raise InputError(f"match_threshold must be above 0 and at most 1, got {match_threshold!r}")
        self.fractions = _check_fractions(fractions, len(strides))
        self.backbone = create_extractor(
            backbone, strides, in_channels=in_channels, weights=backbone_weights, **(backbone_options or {})
        )
        channels = list(self.backbone.channels)
        self.deep: nn.Module = nn.Identity()
        if backbone == "vgg16":
            self.deep, channels[-1] = _dilated_fully_connected(channels[-1]), 1024
        options: dict[str, Any] = {"out_channels": planes * levels, "extra_levels": len(fractions) - 1 - len(strides)}
        if neck == "sfam":
            options |= {"levels": levels, "shared": shared, "sfam": sfam, "shrink_last": shrink_last}
        self.neck = create_neck(neck, channels, self.backbone.strides, **{**options, **(neck_options or {})})
        self.strides, self.shrink_last = self.neck.strides, neck == "sfam" and shrink_last
        per_cell = 2 + len(_RATIOS)
        self.box_heads = nn.ModuleList(nn.Conv2d(c, 4 * per_cell, 3, padding=1) for c in self.neck.channels)
        self.class_heads = nn.ModuleList(
            nn.Conv2d(c, (1 + num_classes) * per_cell, 3, padding=1) for c in self.neck.channels
        )
        for head in (*self.box_heads, *self.class_heads):
            nn.init.xavier_uniform_(head.weight)  # type: ignore[arg-type]
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]
        # "Soft-NMS with a linear kernel", section 3.2; the numbers are the release's.
        self.selection = Selection(score_threshold=0.1, iou_threshold=0.45, suppression="linear")

    def forward(self, images: Tensor) -> Outputs:
        self._check(images)
        height, width = images.shape[-2:]
        *finer, coarsest = self.backbone(images)
        maps = self.neck([*finer, self.deep(coarsest)])
        return {
            "logits": _rows(self.class_heads, maps, 1 + self.num_classes),
            "offsets": _rows(self.box_heads, maps, 4),
            "anchors": self._anchors(maps, height, width),
            "size": torch.tensor([height, width]),
        }

    def _anchors(self, maps: Sequence[Tensor], height: int, width: int) -> Tensor:
        """On each cell a square of the scale's side, one between it and the next scale's, then the four ratios."""
        side, levels = min(height, width), []
        for x, (smaller, larger) in zip(maps, pairwise(self.fractions), strict=True):
            between = math.sqrt(smaller * larger)
            pairs = [(smaller, smaller), (between, between)]
            pairs += [(smaller * math.sqrt(ratio), smaller / math.sqrt(ratio)) for ratio in _RATIOS]
            halves = torch.tensor(pairs, device=x.device) * (side / 2)
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

    def predictions(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        boxes = decode_boxes(outputs["offsets"].float(), outputs["anchors"], VARIANCES)
        return boxes, outputs["logits"].float().softmax(dim=-1)[..., 1:]

    def loss(self, outputs: Outputs, targets: Sequence[Instances]) -> dict[str, Tensor]:
        logits, offsets, anchors = outputs["logits"].float(), outputs["offsets"].float(), outputs["anchors"]
        matched = torch.stack([assigned.matched for assigned in self.assign(outputs, targets)])
        wanted = torch.zeros_like(matched)
        predicted, boxes = [offsets[:0].flatten(0, 1)], [anchors[:0]]
        for row, one in enumerate(targets):
            places = (matched[row] >= 0).nonzero()[:, 0]
            truth = matched[row, places]
            if len(places):
                wanted[row, places] = 1 + one.labels[truth]  # type: ignore[index]
                predicted.append(offsets[row, places])
                boxes.append(encode_boxes(one.boxes[truth].float(), anchors[places], VARIANCES))
        terms = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none").view(wanted.shape)
        positive = matched >= 0
        hard = hard_negatives(terms, positive, ratio=self.negatives, negative=matched == -1)
        count = positive.sum().clamp(min=1)
        return {
            "class": (terms * (positive | hard)).sum() / count,
            "box": smooth_l1_loss(torch.cat(predicted), torch.cat(boxes), reduction="sum") / count,
        }

    @torch.no_grad()
    def assign(self, outputs: Outputs, targets: Sequence[Instances]) -> list[Assignment]:
        anchors = outputs["anchors"]
        return [Assignment(anchors, self._match(one, anchors)) for one in targets]

    def _match(self, truth: Instances, anchors: Tensor) -> Tensor:
        """What each box answers for, as in `Assignment`. Truths without an area are nobody's."""
        matched = torch.full((len(anchors),), -1, device=anchors.device)
        labels, boxes = truth.labels, truth.boxes.to(anchors)
        if labels is None or not len(labels):
            return matched
        if int(labels.max()) >= self.num_classes:
            raise InputError(
                f"a box has label {int(labels.max())}, the model was built for {self.num_classes} classes, 0 to "
                f"{self.num_classes - 1}; build it with num_classes={int(labels.max()) + 1}"
            )
        solid = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        area = (anchors[:, 2:] - anchors[:, :2]).prod(dim=1)
        for region in boxes[solid & (labels < 0)]:
            shared = torch.minimum(anchors[:, 2:], region[2:]) - torch.maximum(anchors[:, :2], region[:2])
            matched[shared.clamp(min=0).prod(dim=1) > area / 2] = -2
        best = torch.full((len(anchors),), self.match_threshold, device=anchors.device)
        forced: list[tuple[Tensor, Tensor]] = []
        for part in (solid & (labels >= 0)).nonzero()[:, 0].split(_CHUNK):
            if not len(part):
                continue
            overlap = pairwise_iou(boxes[part], anchors)
            value, row = overlap.max(dim=0)
            better = value >= best if not forced else value > best  # of equal ones the first
            matched, best = torch.where(better, part[row], matched), torch.where(better, value, best)
            reach, anchor = overlap.max(dim=1)
            forced.append((part[reach > 0], anchor[reach > 0]))
        for truths, own in forced:
            matched[own] = truths
        return matched


_CHUNK = 64  # truths compared with all boxes at a time: 80,208 of M2Det800 with 64 of them are 20 MB


def _check_fractions(fractions: Sequence[float], given: int) -> tuple[float, ...]:
    values = tuple(fractions)
    if len(values) <= given or not all(0 < smaller < larger for smaller, larger in pairwise(values)):
        raise InputError(
            f"fractions must grow from above 0, one for each scale and one more, of at least {given} scales; "
            f"got {list(values)}"
        )
    return values


def _dilated_fully_connected(in_channels: int) -> nn.Sequential:
    """VGG's pool5, fc6 and fc7 as SSD has them: pooling that keeps the size, so a 3x3 must look 6 places far."""
    layers = nn.Sequential(
        nn.MaxPool2d(3, stride=1, padding=1),
        nn.Conv2d(in_channels, 1024, 3, padding=6, dilation=6),
        nn.ReLU(inplace=True),
        nn.Conv2d(1024, 1024, 1),
        nn.ReLU(inplace=True),
    )
    for layer in layers:
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return layers


def _rows(heads: nn.ModuleList, maps: Sequence[Tensor], values: int) -> Tensor:
    """(B, A, values): scale by scale, row by row, cell by cell, box by box."""
    found = [head(x).permute(0, 2, 3, 1).flatten(1) for head, x in zip(heads, maps, strict=True)]
    return torch.cat(found, dim=1).unflatten(1, (-1, values))


_published = partial(
    Published,
    "arXiv:1811.04533",
    2018,
    params=133_159_604,
    idea="eight U-shaped modules on each other make a pyramid whose every scale holds features of all depths",
    source="counted: qijiezhao/M2Det with SFAM on; AP of 800 read: the paper's abstract",
)


@register("m2det", task="detect", published=_published((3, 512, 512), macs=190_105_829_376))
def m2det(**options: Any) -> M2Det:
    return M2Det(**options)


@register("m2det320_vgg16", task="detect", published=_published((3, 320, 320), macs=74_307_014_656))
def m2det320_vgg16(*, fractions: Sequence[float] = (0.08, *FRACTIONS[1:]), **options: Any) -> M2Det:
    return M2Det(fractions=fractions, **options)


@register("m2det512_vgg16", task="detect", published=_published((3, 512, 512), macs=190_105_829_376))
def m2det512_vgg16(**options: Any) -> M2Det:
    return M2Det(**options)


@register(
    "m2det800_vgg16",
    task="detect",
    published=_published((3, 800, 800), macs=464_783_376_384, metrics={"coco test-dev AP": 41.0}),
)
def m2det800_vgg16(*, fractions: Sequence[float] = (0.04, *FRACTIONS[1:]), **options: Any) -> M2Det:
    return M2Det(fractions=fractions, **options)
