"""Regions of interest: what detectors of two stages share once boxes have been proposed.

Girshick 2015, arXiv:1504.08083 (Fast R-CNN): the image is convolved once; each region is pooled from its map to a
fixed size, two fully connected layers look at it, and say its class, background among them, and for each class how the
box must be moved. Ren et al. 2015, arXiv:1506.01497, brought the regions from the same maps; Lin et al. 2016,
arXiv:1612.03144, took each from the level of a pyramid that fits its size; He et al. 2017, arXiv:1703.06870 (RoIAlign),
ceased to round their borders; Liu et al. 2018, arXiv:1803.01534 (PANet), took each from all levels.

The class logits of a region are (K + 1,), background first. So are its offsets, (K + 1, 4): nothing reads those of the
background, but every published network has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import roi_align, roi_pool

from opsin.checks import check_count, check_number
from opsin.detect.detector import Assignment
from opsin.detect.matching import assign_anchors
from opsin.detect.postprocess import Selection, suppress
from opsin.errors import InputError, unknown
from opsin.losses import smooth_l1_loss
from opsin.nn.capabilities import ClassRows, rows_of_last
from opsin.nn.conv import ConvNormActivation, Norm
from opsin.ops import clip_boxes, decode_boxes, encode_boxes
from opsin.structures import Instances

Pooling: TypeAlias = Literal["align", "pool"]

# Fast R-CNN brings targets to unit variance (section 2.3); on VOC that is about a tenth of a side and a fifth of a
# logarithm, and all its successors have these numbers.
VARIANCES = (0.1, 0.1, 0.2, 0.2)

# 20,000: no cut before suppression, as in the papers; of 1,000 regions no more than 19 classes each can pass 0.05.
REGION_SELECTION = Selection(score_threshold=0.05, iou_threshold=0.5, candidates=20_000, limit=100)

_FLAT = 1e-2  # torchvision's: a box narrower than that, in pixels, is no answer


class Regions(NamedTuple):
    """Boxes of several images in one row. boxes: (R, 4), xyxy in pixels of the input. rows: (R,) int64, their image."""

    boxes: Tensor
    rows: Tensor

    @classmethod
    def gather(cls, boxes: Sequence[Tensor]) -> Regions:
        """The boxes (R_i, 4) of each image. Raises InputError for no image at all."""
        if not boxes:
            raise InputError("regions need at least one image; give an empty (0, 4) for one without boxes")
        counts = torch.tensor([len(one) for one in boxes], device=boxes[0].device)
        rows = torch.arange(len(boxes), device=counts.device).repeat_interleave(counts)
        return cls(torch.cat(list(boxes)), rows)


# Pooling


class RoIPooler(nn.Module):
    """Each region of maps of some strides at a fixed size: maps, regions -> [(R, C, size, size)].

    kind: "pool" takes the largest value of each of size x size cells whose borders are rounded to the map's (Fast
    R-CNN, section 2.1); "align" the mean of `sampling` x `sampling` points in each, between which the map is
    interpolated, without rounding (Mask R-CNN, section 3). aligned: moves the points by half a cell, so that they lie
    where the pixels are; torchvision's detectors, and their weights, do not.
    Of a pyramid, a region of width w and height h is pooled from level k0 + log2(sqrt(w h) / canonical_size), rounded
    down, where k0 is the level of stride 16 and 224 the side of ImageNet's images (FPN, section 4.2, eq. 1).
    all_levels: adaptive feature pooling (PANet, section 3.2): from every level, one tensor for each.
    """

    def __init__(
        self,
        strides: Sequence[int],
        size: int = 7,
        kind: Pooling = "align",
        *,
        sampling: int = 2,
        aligned: bool = False,
        canonical_size: float = 224.0,
        canonical_stride: int = 16,
        all_levels: bool = False,
    ) -> None:
        super().__init__()
        if kind not in ("align", "pool"):
            raise unknown("kind of RoI pooling", kind, ("align", "pool"))
        check_count("roi_size", size)
        check_count("sampling", sampling)
        if not strides or any(coarser != 2 * finer for finer, coarser in pairwise(strides)):
            raise InputError(f"regions are pooled from maps whose strides double, got {list(strides)}")
        self.strides, self.size, self.kind = tuple(strides), size, kind
        self.sampling, self.aligned, self.all_levels = sampling, aligned, all_levels
        # The side from which on a region is meant for the finest level, and by powers of two for the others.
        self.unit = check_number("canonical_size", canonical_size, above=True) * strides[0] / canonical_stride

    @property
    def views(self) -> int:
        """How many tensors come out."""
        return len(self.strides) if self.all_levels else 1

    def forward(self, maps: Sequence[Tensor], regions: Regions) -> list[Tensor]:
        """maps: (B, C, about H / stride, about W / stride), the finest first; coarser ones than asked for are unused.

        Computed in float32 whatever the maps are: half precision cannot hold the coordinates.
        """
        maps = [x.float() for x, _ in zip(maps, self.strides, strict=False)]
        rois = torch.cat([regions.rows[:, None].to(regions.boxes), regions.boxes], dim=1).to(maps[0])
        if self.all_levels or len(maps) == 1 or rois.is_meta:  # shapes only: any level will do
            maps = maps if self.all_levels else maps[:1]
            return [self._pool(x, rois, stride) for x, stride in zip(maps, self.strides, strict=False)]
        pooled = maps[0].new_zeros(len(rois), maps[0].shape[1], self.size, self.size)
        levels = self.levels(regions.boxes)
        for level, (x, stride) in enumerate(zip(maps, self.strides, strict=True)):
            places = (levels == level).nonzero()[:, 0]
            pooled.index_copy_(0, places, self._pool(x, rois[places], stride))
        return [pooled]

    def levels(self, boxes: Tensor) -> Tensor:
        """The place among the strides of each box (R, 4): (R,) int64."""
        side = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1).sqrt()
        # 1e-6, torchvision's: a side of 224 must not fall below its level by rounding
        level = torch.floor(torch.log2(side / self.unit) + 1e-6)
        return level.clamp(0, len(self.strides) - 1).long()

    def _pool(self, x: Tensor, rois: Tensor, stride: int) -> Tensor:
        if self.kind == "pool":
            return roi_pool(x, rois, self.size, 1 / stride)
        return roi_align(x, rois, self.size, 1 / stride, self.sampling, self.aligned)

    def extra_repr(self) -> str:
        return f"{list(self.strides)}, size={self.size}, kind={self.kind!r}, views={self.views}"


def any_regions(like: Tensor, count: int) -> Regions:
    """So many regions of the first image, with shapes and without values. like: boxes of any number, on meta."""
    return Regions(like.new_zeros(count, 4), torch.zeros(count, dtype=torch.int64, device=like.device))


# Heads


class TwoLayerHead(nn.Module):
    """fc6 and fc7: what the pooler gives, `views` tensors (R, in_channels, size, size) -> (R, hidden).

    Of several views each has an fc6 of its own, and the largest value of all goes on (PANet, section 3.2).
    """

    def __init__(
        self, in_channels: int, size: int = 7, hidden: int = 1024, *, dropout: float = 0.0, views: int = 1
    ) -> None:
        super().__init__()
        check_count("hidden", hidden)
        self.fc6 = nn.ModuleList(nn.Linear(in_channels * size**2, hidden) for _ in range(views))
        self.fc7 = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(dropout)
        self.out_features = hidden
        _initialize(self)

    def forward(self, views: Sequence[Tensor]) -> Tensor:
        x = self.dropout(F.relu(_largest(self.fc6, [view.flatten(1) for view in views])))
        return self.dropout(F.relu(self.fc7(x)))


def fill_hidden(model: nn.Module, layers: Sequence[str], state: Mapping[str, Tensor]) -> list[str]:
    """Copy the hidden layers of a classification network, the first linear ones of its head, to those of these names.

    From the first pair on that does not fit they stay as they are. Returns the names of the tensors that were filled.
    """
    own, filled = model.state_dict(), {}
    linear = [k for k, v in state.items() if k.startswith("head.") and k.endswith(".weight") and v.ndim == 2]
    for ours, weight in zip(layers, linear, strict=False):
        given = {f"{ours}.{kind}": state.get(weight.removesuffix("weight") + kind) for kind in ("weight", "bias")}
        if any(v is None or k not in own or own[k].shape != v.shape for k, v in given.items()):
            break
        filled |= given
    model.load_state_dict(filled, strict=False)
    return list(filled)


class ConvHead(nn.Module):
    """3x3 convolutions and one fully connected layer: as `TwoLayerHead`. Wu and He 2018, arXiv:1803.08494, sec. 4.2.

    norm: of the convolutions, by name, or None. torchvision's second version has four, with batch norm.
    """

    def __init__(
        self,
        in_channels: int,
        size: int = 7,
        hidden: int = 1024,
        *,
        convs: int = 4,
        norm: Norm = None,
        dropout: float = 0.0,
        views: int = 1,
    ) -> None:
        super().__init__()
        check_count("hidden", hidden)
        check_count("convs", convs)
        self.convs = ConvStack(in_channels, convs, norm, views)
        self.fc = nn.Linear(in_channels * size**2, hidden)
        self.dropout = nn.Dropout(dropout)
        self.out_features = hidden
        _initialize(self)

    def forward(self, views: Sequence[Tensor]) -> Tensor:
        return self.dropout(F.relu(self.fc(self.convs(views).flatten(1))))


class ConvStack(nn.Module):
    """`count` 3x3 convolutions that keep the size, the first for each view: [(R, C, S, S)] -> (R, C, S, S)."""

    def __init__(self, channels: int, count: int, norm: Norm = None, views: int = 1) -> None:
        super().__init__()
        self.first = nn.ModuleList(ConvNormActivation(channels, channels, norm=norm) for _ in range(views))
        self.rest = nn.Sequential(*(ConvNormActivation(channels, channels, norm=norm) for _ in range(count - 1)))

    def forward(self, views: Sequence[Tensor]) -> Tensor:
        return self.rest(_largest(self.first, views))


class RegionPredictor(nn.Module):
    """What a region is and where: (R, in_features) -> logits (R, K + 1) and offsets (R, K + 1, 4), background first."""

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.logits = nn.Linear(in_features, num_classes + 1)
        self.offsets = nn.Linear(in_features, 4 * (num_classes + 1))
        for layer, std in ((self.logits, 0.01), (self.offsets, 0.001)):  # Fast R-CNN, section 2.3
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def class_rows(self, name: str) -> dict[str, ClassRows]:
        """Of its tensors, as those of a network in which it is called `name`."""
        logits = rows_of_last(f"{name}.logits", self.logits, ClassRows(before=1))
        return logits | rows_of_last(f"{name}.offsets", self.offsets, ClassRows(before=4, width=4))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.logits(features), self.offsets(features).unflatten(1, (-1, 4))


def _largest(layers: nn.ModuleList, views: Sequence[Tensor]) -> Tensor:
    """Each view through a layer of its own, the largest value of all."""
    found = [layer(view) for layer, view in zip(layers, views, strict=True)]
    return found[0] if len(found) == 1 else torch.stack(found).amax(dim=0)


def _initialize(head: nn.Module) -> None:
    """He's: layers of no published network start so that a ReLU keeps the variance."""
    for layer in head.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


# Training


@dataclass(frozen=True)
class RoISampler:
    """Which regions of an image the head learns from. Fast R-CNN, section 2.3.

    count: of an image. positives: the share of those that are matched to a truth, at most. threshold: the IoU from
    which on a region is. background: from where to where the IoU of the others lies, the upper end excluded; (0.1, 0.5)
    is the paper's heuristic for hard ones, (0, 0.5) that of its successors.
    """

    count: int = 512
    positives: float = 0.25
    threshold: float = 0.5
    background: tuple[float, float] = (0.0, 0.5)

    def __post_init__(self) -> None:
        check_count("count", self.count)
        low, high = self.background
        if not 0 <= self.positives <= 1 or not 0 <= low < high <= self.threshold <= 1:
            raise InputError(
                f"a sample needs positives in [0, 1] and 0 <= background[0] < background[1] <= threshold <= 1, got "
                f"positives={self.positives}, background={low, high} and threshold={self.threshold}"
            )


class Samples(NamedTuple):
    """The regions of a batch that its loss sees.

    regions: R of them. labels: (R,), of the matched truth, -1 for background. boxes: (R, 4), its box; their own
    for background. sources: (R,), its place among the truths of all images, one image after the other, -1 for
    background.
    """

    regions: Regions
    labels: Tensor
    boxes: Tensor
    sources: Tensor


def draw(matched: Tensor, count: int, positives: float) -> tuple[Tensor, Tensor]:
    """A random sample of anchors or regions: places that answer, at most count * positives, and of background.

    matched: (A,), the place of a truth, -1 for background, anything less for neither. Background fills the sample up
    to `count`, if there is so much. Drawn by torch's own generator of the device.
    """
    answering, background = (matched >= 0).nonzero()[:, 0], (matched == -1).nonzero()[:, 0]
    answering = _some(answering, int(count * positives))
    return answering, _some(background, count - len(answering))


@torch.no_grad()
def assign_regions(proposals: Tensor, truth: Instances, sampler: RoISampler, num_classes: int) -> Assignment:
    """Which truth each proposal (P, 4) of an image is matched to, and which are near enough to be background."""
    low, high = sampler.background
    rules: dict[str, Any] = {"rescue": None, "num_classes": num_classes}
    (own,) = assign_anchors(proposals, [truth], positive=sampler.threshold, negative=high, **rules)
    if low == 0:
        return own
    (near,) = assign_anchors(proposals, [truth], positive=low, **rules)
    return Assignment(proposals, torch.where((own.matched == -1) & (near.matched < 0), -2, own.matched))


@torch.no_grad()
def sample_regions(
    proposals: Sequence[Tensor], targets: Sequence[Instances], sampler: RoISampler, num_classes: int
) -> Samples:
    """What the head is trained on. proposals: (P_i, 4) of each image; the caller appends the truth where it wants it.

    Regions that lie in one to ignore, a truth with the label -1, by more than half are not background. An image without
    truth has background only, where `sampler.background` starts at 0. Raises InputError for a label without a class.
    """
    boxes, labels, truths, sources, start = [], [], [], [], 0
    for given, truth in zip(proposals, targets, strict=True):
        matched = assign_regions(given, truth, sampler, num_classes).matched
        answering, background = draw(matched, sampler.count, sampler.positives)
        chosen = torch.cat([answering, background])
        own, source = given[chosen], matched[chosen]
        boxes.append(own)
        labels.append(_labels(truth, source[: len(answering)]))
        labels.append(torch.full_like(background, -1))
        truths.append(truth.boxes.to(own)[source[: len(answering)]])
        truths.append(given[background])
        sources.append(torch.where(source >= 0, source + start, -1))
        start += len(truth)
    return Samples(Regions.gather(boxes), torch.cat(labels), torch.cat(truths), torch.cat(sources))


def region_losses(
    logits: Tensor, offsets: Tensor, samples: Samples, *, variances: Sequence[float] = VARIANCES, beta: float = 1.0
) -> dict[str, Tensor]:
    """Fast R-CNN, section 2.3, eq. 1 to 3: cross-entropy over all classes and the background, and smooth L1 of the
    offsets of the true class, both divided by the number of samples.

    logits: (R, K + 1). offsets: (R, K + 1, 4), those of `encode_boxes` with `variances`. beta: where smooth L1 becomes
    linear, 1 in the paper; torchvision has 1/9. Both are 0, with a gradient of 0, without samples.
    """
    logits, offsets = logits.float(), offsets.float()
    share = 1 / max(1, len(samples.labels))
    wrong = F.cross_entropy(logits, samples.labels + 1, reduction="sum")
    answering = (samples.labels >= 0).nonzero()[:, 0]
    wanted = encode_boxes(samples.boxes[answering], samples.regions.boxes[answering], variances)
    stated = offsets[answering, samples.labels[answering] + 1]
    return {"class": wrong * share, "box": smooth_l1_loss(stated, wanted, beta=beta, reduction="sum") * share}


# Answers


@torch.no_grad()
def likeliest_boxes(
    boxes: Tensor, scores: Tensor, offsets: Tensor, counts: Sequence[int], variances: Sequence[float] = VARIANCES
) -> tuple[Tensor, Tensor]:
    """Of each region the box of its likeliest class, (B, P, 4), and the scores of all classes, (B, P, K).

    boxes: (R, 4), scores: (R, K) and offsets: (R, K, 4), without background. counts: the regions of each image. P is
    the most of them; what another image lacks are zeros.
    """
    best = scores.argmax(dim=1)
    moved = decode_boxes(offsets[torch.arange(len(best), device=best.device), best], boxes, variances)
    places, found = (pad_sequence(list(x.split(list(counts))), batch_first=True) for x in (moved, scores))
    return places, found


def decode_regions(
    logits: Tensor,
    offsets: Tensor,
    regions: Regions,
    count: int,
    size: Sequence[int],
    selection: Selection = REGION_SELECTION,
    *,
    variances: Sequence[float] = VARIANCES,
) -> list[Instances]:
    """The instances of each of `count` images, best first, suppressed within a class.

    logits: (R, K + 1). offsets: (R, K + 1, 4). size: (height, width) of the input, at whose border boxes are cut; those
    that are then flat are left out. A region gives one instance for each class that is certain enough.
    """
    scores = logits.float().softmax(dim=1)[:, 1:]
    places, labels = (scores > selection.score_threshold).nonzero(as_tuple=True)
    boxes = clip_boxes(decode_boxes(offsets.float()[places, labels + 1], regions.boxes[places], variances), size)
    solid = ((boxes[:, 2:] - boxes[:, :2]) >= _FLAT).all(dim=1)
    rows = regions.rows[places]
    found = []
    for row in range(count):
        own = (solid & (rows == row)).nonzero()[:, 0]
        values = scores[places[own], labels[own]]
        if len(values) > selection.candidates:
            values, best = values.topk(selection.candidates)
            own = own[best]
        found.append(suppress(boxes[own], labels[own], values, selection))
    return found


def _labels(truth: Instances, places: Tensor) -> Tensor:
    """Of the truths at some places; a truth without labels, all of it to be ignored, has none that answer."""
    return places if truth.labels is None else truth.labels.to(places.device)[places]


def _some(places: Tensor, count: int) -> Tensor:
    """So many of the places at random, all of them where there are no more."""
    if len(places) <= count:
        return places
    return places[torch.randperm(len(places), device=places.device)[:count]]
