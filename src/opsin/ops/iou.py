"""Overlap of boxes: IoU, GIoU, DIoU and CIoU of pairs and of all with all, of shapes alone, and with regions to ignore.

Boxes are xyxy in continuous pixels. Beside the general forms stand those that a hot place needs: by column, where the
four coordinates of all boxes lie each in a row of their own, and in NumPy, for suppression and for metrics.
"""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from opsin.errors import InputError, unknown
from opsin.ops.boxes import box_area, check_boxes

Array: TypeAlias = NDArray[Any]
Overlap: TypeAlias = Literal["iou", "giou", "diou", "ciou"]
Corners: TypeAlias = tuple[Tensor, Tensor]  # upper left and lower right, (..., 2) each

_PAIRWISE = MappingProxyType(  # torchvision's functions, imported when they are used: that takes over a second
    {
        "iou": "box_iou",
        "giou": "generalized_box_iou",
        "diou": "distance_box_iou",
        "ciou": "complete_box_iou",
    }
)
# Boxes at a time that many others are held against: 64 times 22,743 places of a YOLO are 6 MB.
_CHUNK = 64


def pairwise_iou(boxes: Tensor, others: Tensor, kind: Overlap = "iou") -> Tensor:
    """Overlap of every box with every other: (N, 4), (M, 4) -> (N, M). torchvision's; see `iou` for the kinds.

    Flat and inverted boxes, for which torchvision may divide 0 by 0, get what `iou` says. For gradients use `iou`.
    """
    check_boxes("boxes", boxes)
    check_boxes("others", others)
    if kind not in _PAIRWISE:
        raise unknown("kind of overlap", kind, _PAIRWISE)
    if boxes.ndim != 2 or others.ndim != 2:
        raise InputError(
            f"boxes must be (N, 4) and (M, 4), got {tuple(boxes.shape)} and {tuple(others.shape)}; use iou"
        )
    import torchvision.ops

    values = getattr(torchvision.ops, _PAIRWISE[kind])(boxes, others)
    flat, flat_others = box_area(boxes) == 0, box_area(others) == 0
    if flat.any():
        values[flat] = iou(boxes[flat, None], others, kind).to(values)
    if flat_others.any():
        values[:, flat_others] = iou(boxes[:, None], others[flat_others], kind).to(values)
    return values


def iou(boxes: Tensor, others: Tensor, kind: Overlap = "iou") -> Tensor:
    """Overlap of boxes with their partners: (..., 4) and (..., 4) that broadcast -> (...), with gradients.

    iou: intersection over union, in [0, 1]; 0 for two flat boxes.
    giou: IoU - |C - union| / |C|, C the smallest box around both, in [-1, 1]. Rezatofighi et al. 2019,
    arXiv:1902.09630.
    diou: IoU - d^2 / c^2, d between the centres, c the diagonal of C, in [-1, 1]. Zheng et al. 2020, arXiv:1911.08287.
    ciou: DIoU - alpha v, v = 4 / pi^2 (difference of arctan w / h)^2, alpha = v / (1 - IoU + v), a constant for the
    gradient. The same paper.
    Half precision and integers are computed in float32. It is `pairwise_iou` but for the 1e-7 that torchvision adds to
    the denominators of DIoU and CIoU. An inverted box has no area.
    """
    check_boxes("boxes", boxes)
    check_boxes("others", others)
    if kind not in _PAIRWISE:
        raise unknown("kind of overlap", kind, _PAIRWISE)
    precision = torch.promote_types(torch.promote_types(boxes.dtype, others.dtype), torch.float32)
    boxes, others = boxes.to(precision), others.to(precision)
    corners, other_corners = (boxes[..., :2], boxes[..., 2:]), (others[..., :2], others[..., 2:])
    overlap, *penalties = overlap_terms(corners, other_corners, kind)
    for penalty in penalties:
        overlap = overlap - penalty
    return overlap


def overlap_terms(boxes: Corners, others: Corners, kind: Overlap, *, solid: bool = False) -> list[Tensor]:
    """IoU of boxes and their partners, and what a kind of overlap takes from it, one (...) after the other.

    IoU less all others is the overlap of that kind, 1 less IoU plus all others the loss; see `iou` for the formulas.
    solid: all boxes have width and height, so that nothing needs a guard against 0 / 0.
    """
    product, divide, angle = (_product, torch.div, _angle) if solid else (_any_product, _divide, _any_angle)
    (low, high), (other_low, other_high) = boxes, others
    shared = product((torch.minimum(high, other_high) - torch.maximum(low, other_low)).clamp(min=0))
    if solid:
        union = product(high - low) + product(other_high - other_low) - shared
    else:
        union = product((high - low).clamp(min=0)) + product((other_high - other_low).clamp(min=0)) - shared
    overlap = divide(shared, union)
    if kind == "iou":
        return [overlap]
    outer = torch.maximum(high, other_high) - torch.minimum(low, other_low)
    if kind == "giou":
        enclosing = product(outer)
        return [overlap, divide(enclosing - union, enclosing)]
    between = (low + high - other_low - other_high) / 2
    distance = divide(between.square().sum(dim=-1), outer.square().sum(dim=-1))
    if kind == "diou":
        return [overlap, distance]
    v = 4 / math.pi**2 * (angle(high - low) - angle(other_high - other_low)).square()
    with torch.no_grad():
        alpha = v / (1 - overlap + v).clamp(min=torch.finfo(v.dtype).tiny)  # the very same box: 0 / 0
    return [overlap, distance, alpha * v]


def shape_iou(sides: Tensor, others: Tensor) -> Tensor:
    """IoU of every box with every other, all on one centre, by their widths and heights: (N, 2), (M, 2) -> (N, M)."""
    (width, height), (other_width, other_height) = sides.T[..., None], others.T
    shared = torch.minimum(width, other_width) * torch.minimum(height, other_height)
    return shared / (width * height + other_width * other_height - shared)


def iou_by_column(boxes: Tensor, columns: Tensor) -> Tensor:
    """IoU of boxes (N, 4) and anchors by column (4, A): (N, A), 0 for boxes without area.

    The arithmetic is torchvision's `box_iou`, in place and without its pairs of coordinates side by side, a third of
    the time.
    """
    x1, y1, x2, y2 = boxes.T[:, :, None]
    shared = _shared_by_column((x1, y1, x2, y2), columns)
    areas = (columns[2] - columns[0]) * (columns[3] - columns[1])
    union = ((x2 - x1) * (y2 - y1) + areas).sub_(shared)
    # The smallest number stands for no area: 0 / 0 would be NaN, which is above every threshold for `max`.
    return shared.div_(union.clamp_(min=torch.finfo(union.dtype).tiny))


def overlap_any(boxes: Tensor, others: Tensor, threshold: float) -> Tensor:
    """Which boxes (P, 4) have an IoU above the threshold with any of the others (T, 4): (P,) bool.

    For very many boxes, such as all predictions of a grid: by column, and without the division.
    """
    columns, areas = _columns_and_areas(boxes)
    found = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    for part in others.split(_CHUNK):
        x1, y1, x2, y2 = part.T[..., None]
        shared = _shared_by_column((x1, y1, x2, y2), columns)
        other_areas = (x2 - x1) * (y2 - y1)
        found |= (shared * (1 + threshold) > threshold * (areas + other_areas)).any(dim=0)
    return found


def lie_within(boxes: Tensor, regions: Tensor, share: float = 0.5) -> Tensor:
    """Which boxes (P, 4) have more than a share of their own area within one of the regions (T, 4): (P,) bool."""
    columns, areas = _columns_and_areas(boxes)
    found = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    for part in regions.split(_CHUNK):
        x1, y1, x2, y2 = part.T[..., None]
        found |= (_shared_by_column((x1, y1, x2, y2), columns) > share * areas).any(dim=0)
    return found


def numpy_iou(boxes: Array, others: Array) -> Array:
    """`pairwise_iou` of arrays: (N, 4), (M, 4) -> (N, M), in their precision; 0 for two flat boxes."""
    shared, areas = _numpy_shared(boxes, others), _numpy_areas(boxes)
    return _numpy_divide(shared, areas[:, None] + _numpy_areas(others)[None] - shared)


def numpy_ioa(boxes: Array, regions: Array) -> Array:
    """The share of each box's own area within each region: (N, 4), (M, 4) -> (N, M). COCO's overlap with a crowd."""
    shared = _numpy_shared(boxes, regions)
    return _numpy_divide(shared, np.broadcast_to(_numpy_areas(boxes)[:, None], shared.shape))


def numpy_columns(boxes: Array) -> Array:
    """Boxes (N, 4), xyxy, as rows of x1, y1, x2, y2 and area: (5, N)."""
    rows = np.empty((5, len(boxes)), boxes.dtype)
    rows[:4] = boxes.T
    with np.errstate(all="ignore"):  # infinite boxes
        np.multiply(rows[2] - rows[0], rows[3] - rows[1], out=rows[4])
    return rows


def numpy_iou_by_column(first: Array, second: Array) -> Array:
    """IoU of boxes as `numpy_columns` gives them; (5, ...) that broadcast. 0 / 0 is NaN, which is above no threshold.

    It is torchvision's kernel operation for operation: the same bits, so that no comparison with a threshold differs.
    """
    width = np.minimum(first[2], second[2])
    width -= np.maximum(first[0], second[0])
    height = np.minimum(first[3], second[3])
    height -= np.maximum(first[1], second[1])
    np.maximum(width, 0, out=width)
    np.maximum(height, 0, out=height)
    width *= height
    union = first[4] + second[4]
    union -= width
    with np.errstate(all="ignore"):
        width /= union
    return width


def _product(sides: Tensor) -> Tensor:
    return sides[..., 0] * sides[..., 1]


def _any_product(sides: Tensor) -> Tensor:
    return sides.prod(dim=-1)


def _divide(above: Tensor, below: Tensor) -> Tensor:
    """above / below, and 0 with a gradient of 0 where `below` is 0."""
    zero = below == 0
    return torch.where(zero, 0, above / torch.where(zero, 1, below))


def _angle(sides: Tensor) -> Tensor:
    return torch.atan(sides[..., 0] / sides[..., 1])


def _any_angle(sides: Tensor) -> Tensor:
    """arctan(w / h). A point, which has none, gets that of a vertical line, as atan2 has no gradient there."""
    width, height = sides.clamp(min=0).unbind(-1)
    return torch.atan2(width, torch.where((width == 0) & (height == 0), 1, height))


def _columns_and_areas(boxes: Tensor) -> tuple[Tensor, Tensor]:
    x1, y1, x2, y2 = columns = boxes.T.contiguous()
    return columns, (x2 - x1).clamp(min=0) * (y2 - y1).clamp(min=0)


def _shared_by_column(box: tuple[Tensor, ...], columns: Tensor) -> Tensor:
    """The shared area of boxes, four columns (N, 1), with others by column (4, A): (N, A)."""
    x1, y1, x2, y2 = box
    shared = torch.minimum(columns[2], x2).sub_(torch.maximum(columns[0], x1)).clamp_(min=0)
    shared *= torch.minimum(columns[3], y2).sub_(torch.maximum(columns[1], y1)).clamp_(min=0)
    return shared


def _numpy_shared(boxes: Array, others: Array) -> Array:
    sides = np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - np.maximum(boxes[:, None, :2], others[None, :, :2])
    return sides.clip(min=0).prod(axis=2)


def _numpy_areas(boxes: Array) -> Array:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _numpy_divide(above: Array, below: Array) -> Array:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)
