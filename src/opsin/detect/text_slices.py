"""Lines of text cut into columns of a map, and which anchors of a column are matched to a slice.

CTPN's truth (Tian, Huang, He, He and Qiao 2016, arXiv:1609.03605, section 3.1): where a line ends is hard to see from
the middle of it, so that nothing is learned of whole lines. A line is cut at the borders of the map's cells, every 16
pixels, and of each slice only the top and the bottom are to be found.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from opsin.ops.matching import BACKGROUND, IGNORED
from opsin.structures import Instances


class Slices(NamedTuple):
    """Slices of lines of text, S in all.

    lines: (S,) int64, of which line each is. columns: (S,) int64, in which column of the map. tops, bottoms: (S,), in
    pixels.
    """

    lines: Tensor
    columns: Tensor
    tops: Tensor
    bottoms: Tensor


class SliceMatches(NamedTuple):
    """What each anchor of an image is matched to. A anchors, row by row, place by place.

    matched: (A,) int64, a slice, -1 for background, -2 where the loss ignores it. nearest: (A,) int64, the slice that
    the anchor overlaps most, -1 if none. overlap: (A,), their IoU.
    """

    matched: Tensor
    nearest: Tensor
    overlap: Tensor


def cut_lines(lines: Instances, stride: float, columns: int, coverage: float = 0.5) -> Slices:
    """The slices of lines within a map of so many columns, each `stride` pixels wide.

    lines: their polygons where there are any, so that a slanted line has slices at different heights, else their boxes.
    coverage: what share of a column a line covers at least, to be text there. A line that covers no column so far has a
    slice in that of its middle. Lines without width or height have none.
    """
    boxes = lines.boxes.float()
    solid = ((boxes[:, 2:] > boxes[:, :2]).all(dim=1) & boxes.isfinite().all(dim=1)).nonzero()[:, 0]
    left, right = boxes[solid, 0] / stride, boxes[solid, 2] / stride
    first = left.floor().clamp(0, columns).long()
    end = right.ceil().clamp(0, columns).long()
    counts = (end - first).clamp(min=0)
    rows = torch.repeat_interleave(torch.arange(len(solid), device=boxes.device), counts)
    within = torch.arange(len(rows), device=boxes.device) - (counts.cumsum(0) - counts)[rows]
    places = first[rows] + within
    covered = torch.minimum(right[rows], places + 1.0) - torch.maximum(left[rows], places.float())
    middle = ((left + right) / 2).floor().long()[rows]
    enough = covered >= coverage
    lacking = torch.zeros(len(solid), dtype=torch.int64, device=boxes.device).index_add_(0, rows, enough.long()) == 0
    kept = enough | (lacking[rows] & (places == middle))
    rows, places = rows[kept], places[kept]
    found = solid[rows]
    if lines.polygons is None:
        return Slices(found, places, boxes[found, 1], boxes[found, 3])
    tops, bottoms = boxes[found, 1].clone(), boxes[found, 3].clone()
    for line in found.unique().tolist():
        own = found == line
        spans = _extents(lines.polygons[line].to(boxes), places[own] * stride, (places[own] + 1) * stride)
        inside = (torch.minimum(spans[1], bottoms[own]) - torch.maximum(spans[0], tops[own])) > 0
        chosen = own.nonzero()[:, 0][inside]
        tops[chosen] = torch.maximum(tops[chosen], spans[0][inside])  # cut where its box is
        bottoms[chosen] = torch.minimum(bottoms[chosen], spans[1][inside])
    return Slices(found, places, tops, bottoms)


def _extents(polygon: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest and the highest y of a polygon (P, 2) between each left and right, (C,): (C,), (C,).

    Along an edge y has its extremes at the ends of what lies between. inf and -inf where the polygon does not reach.
    """
    start, end = polygon, polygon.roll(-1, dims=0)
    turned = (start[:, 0] > end[:, 0])[:, None]
    start, end = torch.where(turned, end, start)[:, None], torch.where(turned, start, end)[:, None]
    low, high = torch.maximum(start[..., 0], left), torch.minimum(end[..., 0], right)  # (P, C)
    slope = (end[..., 1] - start[..., 1]) / (end[..., 0] - start[..., 0]).clamp(min=1e-6)
    rises = slope * (torch.stack([low, high]) - start[..., 0])
    upright = (end[..., 0] - start[..., 0] < 1e-6).expand_as(low)
    ys = torch.where(upright, torch.stack([start[..., 1], end[..., 1]]).expand_as(rises), start[..., 1] + rises)
    there = low <= high
    tops = torch.where(there, ys, torch.inf).amin(dim=(0, 1))
    return tops, torch.where(there, ys, -torch.inf).amax(dim=(0, 1))


@torch.no_grad()
def match_slices(
    slices: Slices, ignored: Slices, tops: Tensor, bottoms: Tensor, columns: int, *, positive: float, negative: float
) -> SliceMatches:
    """What each anchor is matched to, among the slices of its own column: there an IoU is one of heights.

    tops, bottoms: (R, k), of the anchors of one column, the same in all. As section 3.2 says, an anchor is matched to
    the slice that it overlaps most, if their IoU is at least `positive` or no anchor overlaps that slice more. Below
    `negative` it is background, between them neither. Nor is one that lies in a slice to ignore by more than half.
    Only the anchors of a slice's column are compared with it: a page of a hundred lines has thousands of slices, and a
    table of all pairs would be a hundred times as large.
    """
    rows, kinds = tops.shape
    top, bottom = tops.flatten(), bottoms.flatten()
    best, owner, rescued = _best_of_columns(slices, top, bottom, columns)
    answers = ((best >= positive) | rescued) & (best > 0)
    matched = torch.full_like(owner, BACKGROUND)
    matched[_inside(ignored, top, bottom, columns)] = IGNORED
    matched[(best >= negative) & ~answers] = IGNORED
    matched = torch.where(answers, owner, matched)

    def by_row(values: Tensor) -> Tensor:
        return values.view(columns, rows, kinds).transpose(0, 1).reshape(-1)

    return SliceMatches(by_row(matched), by_row(owner), by_row(best))


def _best_of_columns(slices: Slices, top: Tensor, bottom: Tensor, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """(columns, R * k) each: the highest IoU of an anchor, the slice that has it, and whether it is a slice's best."""
    shape, count = (columns, len(top)), len(slices.columns)
    best, owner = top.new_zeros(shape), torch.full(shape, -1, device=top.device)
    rescued = torch.zeros(shape, dtype=torch.bool, device=top.device)
    if not count:
        return best, owner, rescued
    shared = _shared(slices, top, bottom)
    overlap = shared / ((slices.bottoms - slices.tops)[:, None] + (bottom - top) - shared)
    places = slices.columns[:, None].expand_as(overlap)
    best.scatter_reduce_(0, places, overlap, "amax")
    numbers = torch.arange(count, device=top.device)[:, None].expand_as(overlap)
    first = torch.where((overlap == best[slices.columns]) & (overlap > 0), numbers, count)  # of equal ones
    owner = torch.full(shape, count, device=top.device).scatter_reduce_(0, places, first, "amin")
    owner = torch.where(owner == count, -1, owner)
    reach = overlap.amax(dim=1, keepdim=True)
    highest = ((overlap == reach) & (reach > 0)).long()
    rescued = torch.zeros(shape, dtype=torch.int64, device=top.device).scatter_reduce_(0, places, highest, "amax") > 0
    return best, owner, rescued


def _inside(slices: Slices, top: Tensor, bottom: Tensor, columns: int) -> Tensor:
    """(columns, R * k): which anchors lie by more than half in a slice of their column."""
    share = top.new_zeros(columns, len(top))
    if len(slices.columns):
        own = _shared(slices, top, bottom) / (bottom - top)
        share.scatter_reduce_(0, slices.columns[:, None].expand_as(own), own, "amax")
    return share > 0.5


def _shared(slices: Slices, top: Tensor, bottom: Tensor) -> Tensor:
    """The height that slices and anchors share: (S, R * k)."""
    low, high = torch.maximum(slices.tops[:, None], top), torch.minimum(slices.bottoms[:, None], bottom)
    return (high - low).clamp(min=0)
