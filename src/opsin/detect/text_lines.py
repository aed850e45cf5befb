"""Lines of text from narrow proposals: CTPN's connector. Tian et al. 2016, arXiv:1609.03605, sections 3.1 and 3.3.

Each proposal is as wide as a column of the map. Two are neighbours if each is the other's nearest at the same height;
chains of neighbours are lines. A straight line is fitted to the tops of a chain and one to its bottoms, and its ends
are those of the first and the last column, or where these two say the line ends, by side refinement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from opsin.detect.postprocess import Selection, suppressed
from opsin.ops import batched_nms, clip_boxes
from opsin.structures import Instances


@dataclass(frozen=True)
class LineRules:
    """How proposals become lines.

    stride: width of a column. text_threshold: the least score of a proposal. proposal_iou: of two of a column that
    overlap by more, the less certain one is left out. gap: the farthest neighbour, in pixels. overlap: what two
    neighbours share of the height of the lower one, at least. similarity: the lower height over the larger, at least.
    least: proposals of a line. upright: tops and bottoms are level, at the mean of a chain. refined: whether the ends
    are those that side refinement says.
    """

    stride: int = 16
    text_threshold: float = 0.7
    proposal_iou: float = 0.2
    gap: float = 50.0
    overlap: float = 0.7
    similarity: float = 0.7
    least: int = 1
    upright: bool = False
    refined: bool = True


def decode_lines(
    dense: Mapping[str, Tensor], rules: LineRules, selection: Selection, size: tuple[int, int]
) -> list[Instances]:
    """`find_lines` of each image. dense: boxes (B, A, 4), scores (B, A, 1), and sides (B, A) where there are any."""
    boxes, scores = dense["boxes"].float(), dense["scores"].float()
    sides = list(dense["sides"].float()) if "sides" in dense else [None] * len(boxes)
    strips = zip(boxes, scores, sides, strict=True)
    return [find_lines(one, certain[:, 0], ends, rules, selection, size) for one, certain, ends in strips]


def find_lines(
    boxes: Tensor, scores: Tensor, sides: Tensor | None, rules: LineRules, selection: Selection, size: tuple[int, int]
) -> Instances:
    """The lines of an image of (height, width), best first: boxes, labels of 0, scores, and quads as polygons.

    boxes: (A, 4), scores: (A,), of proposals. sides: (A,), x of the end of the line that is nearest, None without side
    refinement. A quad is (4, 2), from its upper left corner on clockwise; a line's score is the mean of its proposals'.
    selection: `candidates` proposals go into the suppression within a column; of lines that overlap by more than its
    iou_threshold the less certain one is left out; score_threshold and limit are of lines.
    """
    kept = (scores > rules.text_threshold).nonzero()[:, 0]
    if len(kept) > selection.candidates:
        kept = kept[scores[kept].topk(selection.candidates).indices]
    columns = (boxes[kept, 0] / rules.stride).round().long()
    solid = boxes[kept, 3] - boxes[kept, 1] >= 1
    kept, columns = kept[solid], columns[solid]
    alive = batched_nms(boxes[kept], scores[kept], columns, rules.proposal_iou)
    kept, columns = kept[alive], columns[alive]
    order = columns.argsort(stable=True)  # from left to right, and of a column the most certain first
    kept, columns = kept[order], columns[order]
    chains = connect(columns, boxes[kept, 1], boxes[kept, 3], scores[kept], rules)
    ends = None if sides is None or not rules.refined else sides[kept]
    quads, certain = fit_quads(chains, boxes[kept], scores[kept], ends, rules)
    return _choose(quads, certain, selection, size)


def connect(columns: Tensor, tops: Tensor, bottoms: Tensor, scores: Tensor, rules: LineRules) -> Tensor:
    """Of each proposal the number of its line: (N,) each -> (N,) int64, from 0 on by its first proposal.

    columns: rising. Those in the nearest column with any that fits are candidates, and the most certain one of them is
    the neighbour, to the right as to the left; only pairs that agree are connected.
    """
    count = len(columns)
    if not count:
        return columns
    after, before = (_neighbours(columns, tops, bottoms, scores, rules, step) for step in (1, -1))
    numbers = torch.arange(count, device=columns.device)
    agree = (after >= 0) & (before[after.clamp(min=0)] == numbers)
    line = numbers.tolist()
    for one, other in zip(numbers[agree].tolist(), after[agree].tolist(), strict=True):
        line[other] = line[one]  # what stands before it is connected already
    return torch.unique(columns.new_tensor(line), return_inverse=True)[1]


def _neighbours(columns: Tensor, tops: Tensor, bottoms: Tensor, scores: Tensor, rules: LineRules, step: int) -> Tensor:
    """Of each proposal its neighbour to the right, step 1, or to the left, -1: (N,) int64, -1 where there is none."""
    counts = torch.bincount(columns)
    starts = counts.cumsum(0) - counts
    found = torch.full_like(columns, -1)
    heights, slots = bottoms - tops, torch.arange(int(counts.max()), device=columns.device)
    for distance in range(1, int(rules.gap // rules.stride) + 1):
        target = columns + step * distance
        there = (target >= 0) & (target < len(counts)) & (found < 0)
        target = target.clamp(0, len(counts) - 1)
        others = starts[target][:, None] + slots  # (N, most of a column)
        usable = there[:, None] & (slots < counts[target][:, None])
        others = others.clamp(max=len(columns) - 1)
        shared = torch.minimum(bottoms[:, None], bottoms[others]) - torch.maximum(tops[:, None], tops[others])
        lower = torch.minimum(heights[:, None], heights[others])
        larger = torch.maximum(heights[:, None], heights[others])
        usable &= (shared >= rules.overlap * lower) & (lower >= rules.similarity * larger)
        best, slot = torch.where(usable, scores[others], -1.0).max(dim=1)
        found = torch.where(best >= 0, others.gather(1, slot[:, None])[:, 0], found)
    return found


def fit_quads(
    chains: Tensor, boxes: Tensor, scores: Tensor, ends: Tensor | None, rules: LineRules
) -> tuple[Tensor, Tensor]:
    """Quads (L, 4, 2) and scores (L,) of lines. chains: (N,), the line of each proposal, boxes (N, 4) from left to
    right. ends: (N,), x of the nearest end of the line by each; it moves an end by one column at most.
    """
    lines = int(chains.max()) + 1 if len(chains) else 0
    counts = torch.zeros(lines, device=boxes.device).index_add_(0, chains, torch.ones_like(scores))
    kept = counts >= rules.least

    def mean(values: Tensor) -> Tensor:
        return boxes.new_zeros(lines, *values.shape[1:]).index_add_(0, chains, values) / counts.view(
            -1, *[1] * (values.ndim - 1)
        )

    middles, heights = (boxes[:, 0] + boxes[:, 2]) / 2, boxes[:, [1, 3]]
    centre, level = mean(middles), mean(heights)
    away = middles - centre[chains]
    spread = mean(away.square())[:, None]
    slope = mean(away[:, None] * (heights - level[chains])) / spread.clamp(min=1.0)
    if rules.upright:
        slope = torch.zeros_like(slope)
    left = boxes.new_full((lines,), torch.inf).scatter_reduce_(0, chains, boxes[:, 0], "amin")
    right = boxes.new_full((lines,), -torch.inf).scatter_reduce_(0, chains, boxes[:, 2], "amax")
    if ends is not None:
        left, right = _refine(chains, boxes, ends, left, right)
    x = torch.stack([left, right], dim=1)
    y = level[:, None] + slope[:, None] * (x - centre[:, None])[..., None]  # (L, 2 ends, top and bottom)
    y = torch.stack([y[..., 0], torch.maximum(y[..., 1], y[..., 0] + 1)], dim=-1)
    corners = [(0, 0), (1, 0), (1, 1), (0, 1)]
    quads = torch.stack([torch.stack([x[:, end], y[:, end, edge]], dim=-1) for end, edge in corners], dim=1)
    return quads[kept], mean(scores)[kept]


def _refine(chains: Tensor, boxes: Tensor, ends: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The ends (L,) of lines as their first and last proposals say. Of a line of one column only the nearer end."""
    width = boxes[:, 2] - boxes[:, 0]
    middles = (boxes[:, 0] + boxes[:, 2]) / 2
    said = torch.minimum(torch.maximum(ends, middles - width), middles + width)
    starts, stops = boxes[:, 0] == left[chains], boxes[:, 2] == right[chains]
    alone = starts & stops
    starts &= ~alone | (said < middles)
    stops &= ~alone | (said >= middles)
    first = left.index_copy(0, chains[starts], said[starts])
    last = right.index_copy(0, chains[stops], said[stops])
    wide = last - first >= 1  # what two proposals say of a short line may cross
    return torch.where(wide, first, left), torch.where(wide, last, right)


def _choose(quads: Tensor, scores: Tensor, selection: Selection, size: tuple[int, int]) -> Instances:
    """The best lines of (L, 4, 2) and (L,), with the boxes around them, cut at the border of the image."""
    quads = torch.stack([quads[..., 0].clamp(0, size[1]), quads[..., 1].clamp(0, size[0])], dim=-1)
    boxes = clip_boxes(torch.cat([quads.amin(dim=1), quads.amax(dim=1)], dim=1), size)
    certain = (scores > selection.score_threshold) & ((boxes[:, 2:] - boxes[:, :2]) > 0).all(dim=1)
    quads, boxes, scores = quads[certain], boxes[certain], scores[certain]
    labels = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    kept, scores = suppressed(boxes, labels, scores, selection)
    return Instances(boxes[kept], labels[kept], scores, polygons=list(quads[kept]))
