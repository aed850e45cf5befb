"""What YOLO v2, v3 and v4 share: grids of cells, anchors, logistic offsets, matching of anchors and truth, decoding.

A map of stride s is a grid of cells of s x s pixels. Each cell has the anchors of its level, and predicts for each of
them t_x, t_y, t_w, t_h, an objectness, and the classes:

    centre = (cell + scale * sigmoid(t_xy) - (scale - 1) / 2) * s        side = anchor * exp(t_wh)

scale is 1 (YOLO9000, arXiv:1612.08242, section 2, figure 3), or a little more, so that a centre can reach the border of
its cell without an infinite t: YOLOv4's grid sensitivity (arXiv:2004.10934, section 3.4).

Places are counted level by level, the finest first, and within a level anchor by anchor, row by row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from opsin.checks import check_within
from opsin.detect.detector import Assignment, Detector, Outputs
from opsin.detect.postprocess import Selection, select
from opsin.errors import InputError, unknown
from opsin.losses import ciou_loss, diou_loss, giou_loss, iou_loss, l2_loss, sigmoid_cross_entropy
from opsin.nn.capabilities import ClassRows, rows_of_last
from opsin.ops import clip_boxes, shape_iou
from opsin.ops.iou import lie_within, overlap_any
from opsin.structures import Instances

BoxLoss: TypeAlias = Literal["offsets", "iou", "giou", "diou", "ciou"]
Sizes: TypeAlias = Sequence[Sequence[float]]

_OVERLAP_LOSSES = {"iou": iou_loss, "giou": giou_loss, "diou": diou_loss, "ciou": ciou_loss}
# e^t_w of an untrained network would overflow; from the smallest anchor, 10 pixels, this is past every image.
_LARGEST_GROWTH = math.log(1000)


class Level(NamedTuple):
    """One map: rows (B, n, 5 + K, H, W) of raw numbers, its stride, its anchors (n, 2) in pixels, its grid's scale."""

    rows: Tensor
    stride: int
    anchors: Tensor
    scale: float

    @property
    def places(self) -> int:
        """How many predictions it makes for an image."""
        return self.rows.shape[1] * self.rows.shape[3] * self.rows.shape[4]

    def boxes(self) -> Tensor:
        """Every prediction's box, (B, n, H, W, 4)."""
        y, x = (torch.arange(n, device=self.rows.device) for n in self.rows.shape[3:])
        offsets = self.rows[:, :, :4].permute(0, 1, 3, 4, 2).float()
        return decode_offsets(
            offsets, torch.stack(torch.meshgrid(x, y, indexing="xy"), -1), self.anchors[:, None, None], self
        )


class Truths(NamedTuple):
    """The boxes of a batch in one list: boxes (T, 4), labels, the image of each, and its number in that image."""

    boxes: Tensor
    labels: Tensor
    image: Tensor
    number: Tensor

    def where(self, chosen: Tensor) -> Truths:
        return Truths(*(field[chosen] for field in self))


class Positives(NamedTuple):
    """Predictions that are matched to a truth, (M,) each: image, place in it, and truth, a place in `Truths`.

    pairs: every (positive, truth) that met there, for a place that several truths claim: its box is the last one's, its
    classes are all of theirs.
    """

    image: Tensor
    place: Tensor
    truth: Tensor
    pairs: tuple[Tensor, Tensor]


class Rows(NamedTuple):
    """Chosen predictions: raw (M, 5 + K) float32, cells (M, 2) as x and y, anchors (M, 2), stride and scale (M, 1)."""

    raw: Tensor
    cells: Tensor
    anchors: Tensor
    stride: Tensor
    scale: Tensor

    def boxes(self) -> Tensor:
        return decode_offsets(self.raw[:, :4], self.cells, self.anchors, self)


def decode_offsets(offsets: Tensor, cells: Tensor, anchors: Tensor, grid: Level | Rows) -> Tensor:
    """t (..., 4), cells and anchors (..., 2) that broadcast -> xyxy in pixels."""
    shifts = grid.scale * offsets[..., :2].sigmoid() - (grid.scale - 1) / 2
    centres = (cells + shifts) * grid.stride
    halves = anchors * offsets[..., 2:].clamp(max=_LARGEST_GROWTH).exp() / 2
    return torch.cat([centres - halves, centres + halves], dim=-1)


def gather_truths(
    targets: Sequence[Instances], size: tuple[int, int], num_classes: int, device: torch.device
) -> tuple[Truths, Truths]:
    """The truths of a batch, and its regions to ignore (label -1). size: (height, width) of the input.

    What sticks out of the input is cut off; a box of which nothing is left, or that has no area, is nobody's.
    """
    counts = [len(one) for one in targets]
    labels = [torch.zeros(len(one), dtype=torch.int64) if one.labels is None else one.labels for one in targets]
    every = Truths(
        torch.cat([one.boxes.to(device, torch.float32) for one in targets] or [torch.zeros(0, 4, device=device)]),
        torch.cat([one.to(device) for one in labels] or [torch.zeros(0, dtype=torch.int64, device=device)]),
        torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts, dtype=torch.int64)).to(device),
        torch.cat([torch.arange(n) for n in counts] or [torch.zeros(0, dtype=torch.int64)]).to(device),
    )
    if device.type == "cpu" and len(every.labels) and int(every.labels.max()) >= num_classes:
        raise InputError(
            f"a box has label {int(every.labels.max())}, the model was built for {num_classes} classes, 0 to "
            f"{num_classes - 1}; build it with num_classes={int(every.labels.max()) + 1}"
        )
    every = every._replace(boxes=clip_boxes(every.boxes, size))
    solid = (every.boxes[:, 2:] > every.boxes[:, :2]).all(dim=1)
    return every.where(solid & (every.labels >= 0)), every.where(solid & (every.labels < 0))


def match(levels: Sequence[Level], truths: Truths, threshold: float | None = None) -> Positives:
    """The anchor whose shape fits a truth best is matched to it, in the cell that holds its centre.

    threshold: every anchor whose shape overlaps more than that answers as well: YOLOv4's. Anchors of one shape on two
    levels, as the tiny networks have, both answer.
    """
    sides = truths.boxes[:, 2:] - truths.boxes[:, :2]
    centres = (truths.boxes[:, 2:] + truths.boxes[:, :2]) / 2
    fit = shape_iou(sides, torch.cat([level.anchors for level in levels]))
    fits = fit == fit.amax(dim=1, keepdim=True) if fit.numel() else fit > 0
    if threshold is not None:
        fits |= fit > threshold
    truth, anchor = fits.nonzero(as_tuple=True)
    total, before, first = sum(level.places for level in levels), 0, 0
    claimed = torch.zeros_like(truth)
    for level in levels:
        count, height, width = level.rows.shape[1], *level.rows.shape[3:]
        x, y = (centres[truth] / level.stride).long().unbind(dim=1)
        x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)  # a centre on the right border is in the last cell
        here = (anchor >= first) & (anchor < first + count)
        claimed = torch.where(here, before + ((anchor - first) * height + y) * width + x, claimed)
        before, first = before + level.places, first + count
    flat = truths.image[truth] * total + claimed
    owner = torch.full((len(levels[0].rows) * total,), -1, device=flat.device)
    owner.scatter_reduce_(0, flat, truth, "amax")  # the last truth, whatever the order of writing
    places = (owner >= 0).nonzero()[:, 0]
    pairs = torch.searchsorted(places, flat), truth
    return Positives(places // max(total, 1), places % max(total, 1), owner[places], pairs)


def pick(levels: Sequence[Level], image: Tensor, place: Tensor) -> Rows:
    """The predictions at some places."""
    parts, order, before = [], [], 0
    for level in levels:
        height, width = level.rows.shape[3:]
        here = ((place >= before) & (place < before + level.places)).nonzero()[:, 0]
        inside = place[here] - before
        anchor, y, x = inside // (height * width), inside // width % height, inside % width
        raw = level.rows[image[here], anchor, :, y, x].float()
        ones = raw.new_ones(len(here), 1)
        parts.append(Rows(raw, torch.stack([x, y], 1), level.anchors[anchor], ones * level.stride, ones * level.scale))
        order.append(here)
        before += level.places
    back = torch.cat(order).argsort()
    return Rows(*(torch.cat(column)[back] for column in zip(*parts, strict=True)))


def check_anchors(anchors: Sizes, levels: int) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Widths and heights in pixels, those of the finest level first, dealt out to the levels in equal parts.

    Raises InputError unless they are pairs of numbers above 0, as many for each level.
    """
    if isinstance(anchors, str):
        raise InputError(f"anchors={anchors} follow from the boxes of a training; give pairs of width and height here")
    pairs = [tuple(float(side) for side in pair) for pair in anchors]
    if not pairs or any(len(pair) != 2 or not all(0 < side < math.inf for side in pair) for pair in pairs):
        raise InputError(f"anchors are pairs of width and height in pixels, such as [[10, 13], ...]; got {anchors!r}")
    if len(pairs) % levels:
        raise InputError(f"{len(pairs)} anchors cannot be dealt out to {levels} levels; give a multiple of {levels}")
    count = len(pairs) // levels
    return tuple(tuple(pairs[i * count : (i + 1) * count]) for i in range(levels))  # type: ignore[misc]


def check_scales(scales: Sequence[float] | None, levels: int) -> tuple[float, ...]:
    """The scale of each level's grid. Raises InputError unless there is one for each, from 1 to 2."""
    scales = (1.0,) * levels if scales is None else tuple(scales)
    if len(scales) != levels or not all(1 <= scale <= 2 for scale in scales):
        raise InputError(f"grid_scales are {levels} numbers from 1 to 2, one for each level; got {list(scales)}")
    return scales


class GridDetector(Detector):
    """A detector whose maps are grids of cells with anchors: `backbone -> neck -> heads`, one head a map.

    forward gives the raw map of every level, {"stride8": (B, n (5 + K), H / 8, W / 8), ...}, the numbers of one anchor
    together, as Darknet orders them. Sides of the input are multiples of the coarsest stride.

    anchors: of each level, in pixels. scales: of each level's grid. box_loss: "offsets" is what Darknet's gradient of
    v3 amounts to: cross-entropy of the sigmoids of t_xy and half the squared error of t_wh, times 2 - the truth's share
    of the input, so that small boxes count up to twice as much; or an overlap loss by name. ignore_threshold: a
    prediction that overlaps any truth by more is not trained to be background. match_threshold: see `match`.
    label_smoothing: e moves class targets to 1 - e / 2 and e / 2. prior: the objectness that an untrained network
    states. Darknet starts at 0.5, which its first thousand steps of small learning rates have to unlearn.

    Every term is a sum over the cells, divided by the number of images, as in Darknet.
    """

    backbone: nn.Module
    neck: nn.Module
    heads: nn.ModuleList

    def __init__(
        self,
        strides: Sequence[int],
        anchors: Sequence[Sizes],
        scales: Sequence[float],
        *,
        num_classes: int,
        in_channels: int,
        box_loss: BoxLoss,
        box_weight: float,
        ignore_threshold: float,
        match_threshold: float | None,
        label_smoothing: float,
        prior: float,
    ) -> None:
        super().__init__(num_classes, in_channels)
        if box_loss != "offsets" and box_loss not in _OVERLAP_LOSSES:
            raise unknown("box_loss", box_loss, ("offsets", *_OVERLAP_LOSSES))
        for name, value in (("ignore_threshold", ignore_threshold), ("label_smoothing", label_smoothing)):
            check_within(name, value, 0, 1)
        if not 0 < prior < 1:
            raise InputError(f"prior is a probability between 0 and 1, got {prior!r}")
        self.strides, self.divisor = tuple(strides), max(strides)
        self.anchors = tuple(tuple((float(w), float(h)) for w, h in level) for level in anchors)
        self.scales = tuple(scales)
        self.box_loss, self.box_weight = box_loss, box_weight
        self.ignore_threshold, self.match_threshold = ignore_threshold, match_threshold
        self.label_smoothing, self.prior = label_smoothing, prior

    def forward(self, images: Tensor) -> Outputs:
        self._check(images)
        maps = self.neck(self.backbone(images))
        return {f"stride{s}": head(x) for s, head, x in zip(self.strides, self.heads, maps, strict=True)}

    def darknet_order(self) -> Iterable[nn.Module]:
        """Our modules in the order of Darknet's cfg, for its .weights files."""
        raise InputError(f"no Darknet file has the layers of this {type(self).__name__}; use one by its published name")

    def levels(self, outputs: Outputs) -> list[Level]:
        """The outputs as grids."""
        found = []
        for stride, sizes, scale in zip(self.strides, self.anchors, self.scales, strict=True):
            raw = outputs[f"stride{stride}"]
            anchors = torch.tensor(sizes, device=raw.device)
            found.append(Level(raw.unflatten(1, (len(sizes), 5 + self.num_classes)), stride, anchors, scale))
        return found

    def class_scores(self, logits: Tensor) -> Tensor:
        """(..., K) -> probabilities. Here classes are independent of each other."""
        return logits.sigmoid()

    def predictions(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        boxes, scores = [], []
        for level in self.levels(outputs):
            boxes.append(level.boxes().flatten(1, 3))
            raw = level.rows[:, :, 4:].permute(0, 1, 3, 4, 2).float()
            scores.append((raw[..., :1].sigmoid() * self.class_scores(raw[..., 1:])).flatten(1, 3))
        return torch.cat(boxes, dim=1), torch.cat(scores, dim=1)

    def decode(self, outputs: Outputs, selection: Selection | None = None, **options: Any) -> list[Instances]:
        """As `Detector.decode`; a place whose objectness is below the threshold is left out before anything is made."""
        selection = Selection(**{**vars(selection or self.selection), **options})
        levels = self.levels(outputs)
        objectness = torch.cat([level.rows[:, :, 4].flatten(1) for level in levels], dim=1).float().sigmoid()
        image, place = (objectness > selection.score_threshold).nonzero(as_tuple=True)
        rows = pick(levels, image, place)
        boxes, scores = rows.boxes(), rows.raw[:, 4:5].sigmoid() * self.class_scores(rows.raw[:, 5:])
        counts = torch.bincount(image, minlength=len(objectness)).tolist()  # images come in order
        found = []
        for one, certain in zip(boxes.split(counts), scores.split(counts), strict=True):
            instances = select(one, certain, selection)
            instances.boxes = clip_boxes(instances.boxes, input_size(levels))
            found.append(instances)
        return found

    def loss(self, outputs: Outputs, targets: Sequence[Instances]) -> dict[str, Tensor]:
        levels = self.levels(outputs)
        objectness = torch.cat([level.rows[:, :, 4].flatten(1) for level in levels], dim=1).float()
        truths, regions = gather_truths(targets, input_size(levels), self.num_classes, objectness.device)
        positives = match(levels, truths, self.match_threshold)
        rows = pick(levels, positives.image, positives.place)
        wanted = torch.zeros_like(objectness)
        wanted[positives.image, positives.place] = 1
        seen = ~self.ignored(levels, truths, regions) | wanted.bool()
        classes = torch.zeros_like(rows.raw[:, 5:])
        positive, truth = positives.pairs
        classes[positive, truths.labels[truth]] = 1
        classes = classes * (1 - self.label_smoothing) + self.label_smoothing / 2
        images = max(len(objectness), 1)
        misses = sigmoid_cross_entropy(objectness, wanted, reduction="none")
        return {
            "box": self._box_loss(rows, truths.boxes[positives.truth], input_size(levels)) / images,
            "objectness": (misses * seen).sum() / images,
            "class": sigmoid_cross_entropy(rows.raw[:, 5:], classes, reduction="sum") / images,
        }

    def _box_loss(self, rows: Rows, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        if self.box_loss != "offsets":
            return self.box_weight * _OVERLAP_LOSSES[self.box_loss](rows.boxes(), boxes, reduction="sum")
        shifts, growths = encode_offsets(rows, boxes)
        centre = sigmoid_cross_entropy(rows.raw[:, :2], shifts, reduction="none")
        side = l2_loss(rows.raw[:, 2:4], growths, reduction="none") / 2
        return self.box_weight * ((centre + side).sum(dim=1) * small_boxes_more(boxes, size)).sum()

    @torch.no_grad()
    def ignored(self, levels: Sequence[Level], truths: Truths, regions: Truths) -> Tensor:
        """Where a prediction overlaps a truth too well to be background, or half of it is in a region to ignore.

        (B, A) bool; those that are matched to a truth may be among them.
        """
        found = torch.zeros(len(levels[0].rows), sum(level.places for level in levels), dtype=torch.bool)
        found = found.to(levels[0].rows.device)
        if not len(truths.boxes) and not len(regions.boxes):
            return found
        boxes = torch.cat([level.boxes().flatten(1, 3) for level in levels], dim=1)
        for row, one in enumerate(boxes):
            found[row] = overlap_any(one, truths.boxes[truths.image == row], self.ignore_threshold)
            found[row] |= lie_within(one, regions.boxes[regions.image == row])
        return found

    def assign(self, outputs: Outputs, targets: Sequence[Instances]) -> list[Assignment]:
        levels = self.levels(outputs)
        truths, regions = gather_truths(targets, input_size(levels), self.num_classes, levels[0].rows.device)
        return self.assignments(levels, match(levels, truths, self.match_threshold), truths, regions)

    def assignments(
        self, levels: Sequence[Level], positives: Positives, truths: Truths, regions: Truths
    ) -> list[Assignment]:
        """What was matched, as it is drawn: anchors in the middle of their cells."""
        matched = self.ignored(levels, truths, regions).long().neg() - 1
        matched[positives.image, positives.place] = truths.number[positives.truth]
        blank = [level._replace(rows=torch.zeros_like(level.rows[:1])) for level in levels]
        boxes = torch.cat([level.boxes().flatten(0, 3) for level in blank])  # sigmoid(0): the middle of the cell
        return [Assignment(boxes, one) for one in matched]

    def class_rows(self) -> dict[str, ClassRows]:
        found: dict[str, ClassRows] = {}
        for place, (head, anchors) in enumerate(zip(self.heads, self.anchors, strict=True)):
            found |= rows_of_last(f"heads.{place}", head, ClassRows(len(anchors), before=5))
        return found

    def start_heads(self) -> None:
        """Small weights for the layers that predict, and the prior for the bias of objectness."""
        for head, anchors in zip(self.heads, self.anchors, strict=True):
            last = [layer for layer in head.modules() if isinstance(layer, nn.Conv2d)][-1]
            nn.init.normal_(last.weight, std=0.01)
            assert last.bias is not None
            with torch.no_grad():
                last.bias.zero_()
                last.bias.view(len(anchors), -1)[:, 4] = math.log(self.prior / (1 - self.prior))


def input_size(levels: Sequence[Level]) -> tuple[int, int]:
    """(height, width) of the input that gave these maps."""
    return levels[0].rows.shape[3] * levels[0].stride, levels[0].rows.shape[4] * levels[0].stride


def encode_offsets(rows: Rows, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """What sigmoid(t_xy) and t_wh have to be for these boxes, (M, 2) each."""
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    shifts = (centres / rows.stride - rows.cells + (rows.scale - 1) / 2) / rows.scale
    return shifts.clamp(0, 1), torch.log(sides / rows.anchors)


def small_boxes_more(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """2 - area / area of the input: (M, 4) -> (M,)."""
    return 2 - (boxes[:, 2:] - boxes[:, :2]).prod(dim=1) / (size[0] * size[1])
