"""Matching: which true box each anchor is matched to, by two rules on their overlap."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from opsin.errors import InputError, unknown
from opsin.ops.iou import iou_by_column, lie_within

Rescue: TypeAlias = Literal["own", "last", "ties"] | None

BACKGROUND, IGNORED = -1, -2

# Overlaps in the cache at a time: 64 boxes and 8,732 anchors are 2 MB.
_CHUNK = 64


def match_anchors(
    boxes: Tensor,
    anchors: Tensor,
    *,
    positive: float = 0.5,
    negative: float | None = None,
    rescue: Rescue = "own",
    ignored: Tensor | None = None,
) -> Tensor:
    """The box that each anchor is matched to: (N, 4), (A, 4) -> (A,) int64, its index, -1 background, -2 ignored.

    An anchor is matched to the box that it overlaps most, the first of equal ones, if their IoU is at least `positive`.
    Below `negative`, the same if None, it is background; between them the loss ignores it. A second rule, rescue, is
    for boxes that no anchor overlaps enough:
    "own": the best anchor of each box is matched to it, one for each box. Pairs are made by falling IoU, as in MultiBox
    and SSD (Liu et al. 2015, arXiv:1512.02325, section 2.2, and its Caffe code). "last": the best anchor of each box is
    matched to it; of several boxes with one best anchor the last gets it, as in torchvision, ssd.pytorch and their
    heirs. "ties": the best anchors of each box, all of equal IoU, are matched to what they overlap most, maybe another
    box: Faster R-CNN's RPN, torchvision's and Detectron's RetinaNet. None: no such rule.

    A box that overlaps no anchor, and so one without area, has none. ignored: (M, 4), regions where no prediction is
    wrong: anchors that lie in one by more than half are not background.
    """
    negative = positive if negative is None else negative
    if not 0 <= negative <= positive <= 1:
        raise InputError(f"thresholds must be 0 <= negative <= positive <= 1, got {negative} and {positive}")
    if rescue not in ("own", "last", "ties", None):
        raise unknown("rescue", rescue, ("own", "last", "ties", "null"))
    columns = anchors.T.contiguous()
    matched = torch.full((len(anchors),), BACKGROUND, device=anchors.device)
    if ignored is not None and len(ignored):
        matched[lie_within(columns.T, ignored.to(anchors))] = IGNORED
    if not len(boxes) or not len(anchors):
        return matched
    boxes = boxes.to(anchors)
    parts = [iou_by_column(part, columns) for part in boxes.split(_CHUNK)]
    best, owner = _best_box(parts)
    if negative < positive:
        matched[(best >= negative) & (best < positive)] = IGNORED
    answers = (best >= positive) & (best > 0)
    if rescue == "ties":
        for part in parts:
            reach = part.amax(dim=1, keepdim=True)
            answers |= ((part == reach) & (reach > 0)).any(dim=0)
    matched = torch.where(answers, owner, matched)
    if rescue == "own":
        _give_each_its_own(parts, matched)
    elif rescue == "last":
        _give_best(parts, matched)
    return matched


def _best_box(parts: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Of each anchor the highest overlap and the box that has it, the first of equal ones: (A,), (A,)."""
    best, owner = parts[0].max(dim=0)
    for place, part in enumerate(parts[1:], start=1):
        value, row = part.max(dim=0)
        owner = torch.where(value > best, row + place * _CHUNK, owner)
        best = torch.maximum(best, value)
    return best, owner


def _nearest_anchor(parts: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Of each box the highest overlap and the anchor that has it, the first of equal ones: (N,), (N,)."""
    reach, anchor = (torch.cat(found) for found in zip(*(part.max(dim=1) for part in parts), strict=True))
    return reach, anchor


def _give_each_its_own(parts: list[Tensor], matched: Tensor) -> None:
    """Pairs of a box and an anchor by falling overlap, until no box is left that overlaps a free one."""
    reach, anchor = _nearest_anchor(parts)
    left = (reach > 0).nonzero()[:, 0]
    if len(anchor[left].unique()) == len(left):
        matched[anchor[left]] = left
        return
    taken = torch.zeros_like(matched, dtype=torch.bool)
    waiting = [
        (-overlap, box, place)
        for overlap, box, place in zip(reach[left].tolist(), left.tolist(), anchor[left].tolist(), strict=True)
    ]
    heapify(waiting)
    while waiting:
        _, box, place = heappop(waiting)
        if not taken[place]:
            matched[place] = box
            taken[place] = True
            continue
        overlap, place = parts[box // _CHUNK][box % _CHUNK].masked_fill_(taken, 0).max(dim=0)
        if overlap > 0:
            heappush(waiting, (-float(overlap), box, int(place)))


def _give_best(parts: list[Tensor], matched: Tensor) -> None:
    """The best anchor of each box, the last box where several have one."""
    reach, anchor = _nearest_anchor(parts)
    boxes = (reach > 0).nonzero()[:, 0]
    owner = torch.full_like(matched, -1).scatter_reduce_(0, anchor[boxes], boxes, "amax")
    torch.where(owner >= 0, owner, matched, out=matched)
