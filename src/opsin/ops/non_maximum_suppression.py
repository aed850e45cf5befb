"""Non-maximum suppression: exact, class-aware, by the distance of centres too, and soft."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
import torchvision.ops
from numpy.typing import NDArray
from torch import Tensor

from opsin.errors import InputError, unknown
from opsin.ops.iou import numpy_columns, numpy_iou_by_column, pairwise_iou
from opsin.ops.overlapping_pairs import Grid, Pairs, stable_order

Array: TypeAlias = NDArray[Any]

_kernel = torch.ops.torchvision.nms.default
_call = getattr(_kernel, "_op", _kernel)  # the same without a Python frame around it

# Up to here torchvision's kernel is called as it is: the ways below cost some 0.1 ms before they save anything.
_FEW = 1500
# The fate of the best boxes tells how crowded all are. Where hardly any of them is kept, or a box has very many
# neighbours, the kernel skips nearly all comparisons itself. Measured for 10,000 boxes in 1 to 2,000 heaps.
_HEAD = 256
_CROWDED = 0.3
_NEIGHBOURS = 0.04
# Up to so many possible pairs for a box, looking at all of them, 10 ns each, beats first removing what the best
# boxes suppress.
_PAIRS = 32
# Several groups of up to so many boxes are looked at together, pair by pair: a call of the kernel for each costs as
# much as 2,000 pairs.
_SMALL = 64


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices of the boxes that no better kept box overlaps with IoU > threshold, by falling score: torchvision's.

    boxes: (N, 4) float, xyxy. scores: (N,) float. iou_threshold: in [0, 1]. Boxes of equal score rank in their order.
    On a GPU, within torch.compile, and for few boxes it is torchvision's kernel. For many boxes on a CPU that kernel
    compares all pairs; here only boxes that are close enough are, with the same arithmetic: the same indices.
    Raises InputError for shapes that do not fit and for NaN.
    """
    if torch.compiler.is_compiling():
        return _kernel(boxes, scores, iou_threshold)
    if boxes.numel() <= 4 * _FEW:
        try:
            # The kernel takes 15 microseconds for 100 boxes: nothing around it may take one. It copies strided columns
            # one by one, and spares itself that where they come whole; a sum of squares is NaN only where a value is.
            by_column = boxes.numpy().copy("F")
            flat = by_column.ravel("K")
            if flat.dot(flat) >= 0 and torch.equal(scores, scores) and 0 <= iou_threshold <= 1:
                return _call(torch.from_numpy(by_column), scores, iou_threshold)
        except (RuntimeError, TypeError):
            pass  # another device, a gradient, shapes or types that the kernel refuses: named below, or made to fit
    boxes, scores = _checked(boxes, scores, iou_threshold)
    if len(boxes) <= _FEW or not boxes.is_cpu:
        return _kernel(boxes, scores, iou_threshold)
    order = _falling(scores.detach())
    kept = _survivors(boxes.detach().numpy().take(order, axis=0), iou_threshold)
    return torch.from_numpy(order[kept])


def batched_nms(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float) -> Tensor:
    """`nms` within each group, the indices of all of them by falling score.

    groups: (N,) int, what may suppress each other: classes, or images and classes. Unlike torchvision's trick of moving
    each class to its own place, which rounds the coordinates, it is exact; its result for equal scores is stable.
    """
    boxes, scores = _checked(boxes, scores, iou_threshold)
    _check_groups(groups, scores)
    if not boxes.is_cpu:
        return torchvision.ops.batched_nms(boxes, scores, groups, iou_threshold)
    order = _falling(scores.detach())
    names = groups.numpy()[order]
    grouped = np.argsort(names, kind="stable")  # places in the order, group after group
    sorted_boxes = boxes.detach().numpy()[order[grouped]]
    bounds = np.concatenate([[0], np.flatnonzero(np.diff(names[grouped])) + 1, [len(order)]])
    sizes = np.diff(bounds)
    small = sizes <= _SMALL
    small &= np.count_nonzero(small) > 1
    alive = np.ones(len(order), bool)
    if small.any():
        ends = np.repeat(bounds[1:], sizes)
        queries = np.flatnonzero(np.repeat(small, sizes))
        pairs = Pairs(numpy_columns(sorted_boxes), np.arange(len(order)), queries, queries + 1, ends[queries])
        alive = _greedy(len(order), *pairs.above(iou_threshold))
    for begin, end in zip(bounds[:-1][~small], bounds[1:][~small], strict=True):
        alive[begin:end] = False
        alive[begin + _survivors(sorted_boxes[begin:end], iou_threshold)] = True
    kept = np.empty(len(order), bool)
    kept[grouped] = alive
    return torch.from_numpy(order[kept])


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    method: Literal["linear", "gaussian"] = "gaussian",
    *,
    groups: Tensor | None = None,
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    score_threshold: float = 0.001,
) -> tuple[Tensor, Tensor]:
    """Lower the scores of boxes that overlap a better one, instead of removing them. Bodla et al. 2017,
    arXiv:1704.04503, section 3.

    boxes: (N, 4) float, xyxy. scores: (N,) float. The best box is taken, the scores of the others are multiplied, and
    so on: linear, by 1 - IoU where IoU >= iou_threshold; gaussian, by exp(-IoU^2 / sigma). Boxes that fall below
    score_threshold are left out. groups: (N,) int, only boxes of one group touch each other.
    Gives the indices in the order they were taken, and their new scores, which fall. On the CPU, in float64.
    """
    if method not in ("linear", "gaussian"):
        raise unknown("method of soft-NMS", method, ("linear", "gaussian"))
    if not sigma > 0:
        raise InputError(f"sigma must be above 0, got {sigma}; 0.5 is the paper's")
    _checked(boxes, scores, iou_threshold)
    rows = numpy_columns(boxes.detach().cpu().double().numpy())
    left = scores.detach().cpu().double().numpy().copy()
    if groups is None:
        groups = torch.zeros(len(boxes), dtype=torch.int64)
    _check_groups(groups, scores)
    names = groups.cpu().numpy()
    indices, values = [], []
    alive = np.flatnonzero(left >= score_threshold)
    while len(alive):
        place = int(left[alive].argmax())
        best = int(alive[place])
        indices.append(best)
        values.append(left[best])
        alive = np.delete(alive, place)
        overlap = np.nan_to_num(numpy_iou_by_column(rows[:, best, None], rows[:, alive]))
        decay = np.exp(overlap**2 / -sigma) if method == "gaussian" else 1 - overlap * (overlap >= iou_threshold)
        left[alive] *= np.where(names[alive] == names[best], decay, 1)
        alive = alive[left[alive] >= score_threshold]
    return torch.tensor(indices, dtype=torch.int64, device=boxes.device), torch.tensor(values).to(scores)


def diou_nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, *, groups: Tensor | None = None, beta: float = 1.0
) -> Tensor:
    """Indices of the boxes that no better kept box suppresses, by falling score, where centres that are far apart keep
    boxes that overlap: two objects, one behind the other. Zheng et al. 2020, arXiv:1911.08287, section 3.4.

    boxes: (N, 4) float, xyxy. scores: (N,) float; boxes of equal score rank in their order. A box goes where
    IoU - (d^2 / c^2)^beta > iou_threshold, d between the centres, c the diagonal of what encloses both. beta: 1 in the
    paper, 0.6 in Darknet's YOLOv4. groups: (N,) int, only boxes of one group touch each other. On the CPU, in float64.
    """
    if not beta > 0:
        raise InputError(f"beta must be above 0, got {beta}; 1 is the paper's")
    _checked(boxes, scores, iou_threshold)
    names = (torch.zeros(len(boxes), dtype=torch.int64) if groups is None else groups).cpu()
    _check_groups(names.to(scores.device), scores)
    alive = torch.from_numpy(_falling(scores.detach().cpu()))
    exact, kept = boxes.detach().cpu().double(), []
    while len(alive):
        best, alive = alive[0], alive[1:]
        kept.append(int(best))
        one, others = exact[best], exact[alive]
        centres = (one[:2] + one[2:]) / 2 - (others[:, :2] + others[:, 2:]) / 2
        around = torch.maximum(one[2:], others[:, 2:]) - torch.minimum(one[:2], others[:, :2])
        apart = (centres.square().sum(1) / around.square().sum(1).clamp(min=1e-300)) ** beta
        overlap = pairwise_iou(one[None], others)[0].nan_to_num() - apart
        alive = alive[~((overlap > iou_threshold) & (names[alive] == names[best]))]
    return torch.tensor(kept, dtype=torch.int64, device=boxes.device)


def _survivors(boxes: Array, threshold: float) -> Array:
    """Places of the boxes that greedy NMS keeps, rising. boxes: (N, 4) by falling score."""
    if len(boxes) <= _HEAD:
        return _by_kernel(boxes, threshold)
    rows = numpy_columns(boxes)
    # Flat and inverted boxes overlap nothing, as the kernel sees them, and no grid could hold them.
    solid = (rows[2] > rows[0]) & (rows[3] > rows[1])
    if not solid.all():
        kept = ~solid
        places = np.flatnonzero(solid)
        kept[places[_survivors(boxes[places], threshold)]] = True
        return np.flatnonzero(kept)
    limit = np.finfo(boxes.dtype)
    if not (rows[4].min() >= limit.tiny / limit.eps and rows[4].max() <= limit.max):
        # Areas that overflow, or are so small that they lost digits, say little about distances.
        return _by_kernel(boxes, threshold)
    kept, left = [], np.arange(len(boxes))
    while len(left) > _HEAD:
        size = max(_HEAD, len(left) // 40)
        head = _by_kernel(boxes[left[:size]], threshold)
        if len(head) < _CROWDED * size:
            break
        grid = Grid(rows.take(left, axis=1), threshold)
        pairs = grid.pairs()
        if pairs.count <= _PAIRS * len(left):
            one, other = pairs.above(threshold)
            kept.append(left[_greedy(len(left), np.minimum(one, other), np.maximum(one, other))])
            return np.concatenate(kept)
        if pairs.count > _NEIGHBOURS * len(left) ** 2:
            break
        kept.append(left[head])
        alive = np.arange(len(left)) >= size
        for pairs in grid.pairs_between(head, np.arange(size, len(left))):
            for places in pairs.above(threshold):
                alive[places] = False
        left = left[alive]
    kept.append(left[_by_kernel(boxes.take(left, axis=0), threshold)])
    return np.concatenate(kept)


def _by_kernel(boxes: Array, threshold: float) -> Array:
    ranked = torch.from_numpy(boxes)
    # The kernel's sort is stable: equal scores leave the boxes as they are.
    return _kernel(ranked, ranked.new_zeros(len(boxes)), threshold).numpy()


def _greedy(count: int, better: Array, worse: Array) -> Array:
    """Which of `count` ranked boxes are kept, where `better` suppresses `worse` if it is kept itself: (count,) bool."""
    alive = np.ones(count, bool)
    pairs = math.inf
    # Whole rounds at a time while that halves the work: what nothing better touches is kept, and what it touches goes.
    while len(better) < pairs / 2:
        pairs = len(better)
        touched = np.zeros(count, bool)
        touched[worse] = True
        free = ~touched[better]
        alive[worse[free]] = False
        undecided = alive[better] & alive[worse] & ~free
        better, worse = better[undecided], worse[undecided]
    # A chain of boxes would take a round for each of its links; here a link is a step.
    order = stable_order(better)
    states = alive.tolist()
    for one, other in zip(better[order].tolist(), worse[order].tolist(), strict=True):
        if states[one]:
            states[other] = False
    return np.array(states, bool)


def _falling(scores: Tensor) -> Array:
    """The order of falling scores, stable."""
    if scores.dtype is not torch.float32:
        return scores.argsort(descending=True, stable=True).numpy()
    # The bits of floats, read as integers, sort like the floats, but for those below 0, which run backwards. Adding 0
    # makes -0 and 0 equal.
    bits = (scores.numpy() + np.float32(0)).view(np.int32)
    return stable_order(~np.where(bits < 0, bits ^ 0x7FFFFFFF, bits))


def _checked(boxes: Tensor, scores: Tensor, iou_threshold: float) -> tuple[Tensor, Tensor]:
    """Boxes and scores in one precision that the kernel takes."""
    if boxes.shape[1:] != (4,) or scores.shape != boxes.shape[:1]:
        raise InputError(
            f"boxes must be (N, 4) and scores (N,), got {tuple(boxes.shape)} and {tuple(scores.shape)}; "
            "give one image's boxes with a score each"
        )
    if boxes.dtype is not scores.dtype or boxes.dtype not in (torch.float32, torch.float64):
        if not boxes.is_floating_point() or not scores.is_floating_point():
            raise InputError(f"boxes and scores must be floating point, got {boxes.dtype} and {scores.dtype}")
        dtype = torch.promote_types(torch.promote_types(boxes.dtype, scores.dtype), torch.float32)
        boxes, scores = boxes.to(dtype), scores.to(dtype)
    if not 0 <= iou_threshold <= 1:
        raise InputError(f"iou_threshold={iou_threshold} must be in [0, 1], for example 0.5")
    for name, values in (("box", boxes), ("score", scores)):
        if not torch.equal(values, values):
            place = int(values.isnan().view(len(values), -1).any(dim=1).nonzero()[0])
            raise InputError(f"{name} {place} is {values[place].tolist()}; did the model diverge?")
    return boxes, scores


def _check_groups(groups: Tensor, scores: Tensor) -> None:
    if groups.shape != scores.shape or groups.is_floating_point():
        raise InputError(
            f"groups must be {len(scores)} integers, one for each box; got {groups.dtype} {tuple(groups.shape)}"
        )
