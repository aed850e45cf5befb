"""Boxes: forms, areas, overlaps, and their coding as offsets from anchors.

Boxes are xyxy in continuous pixels, x2 and y2 exclusive, as everywhere: the area is (x2 - x1)(y2 - y1), nothing adds 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Literal, TypeAlias

import torch
import torchvision.ops
from torch import Tensor

from opsin.errors import InputError, unknown

Overlap: TypeAlias = Literal["iou", "giou", "diou", "ciou"]
Form: TypeAlias = Literal["xyxy", "xywh", "cxcywh"]

_FORMS = ("xyxy", "xywh", "cxcywh")
_PAIRWISE: MappingProxyType[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        "iou": torchvision.ops.box_iou,
        "giou": torchvision.ops.generalized_box_iou,
        "diou": torchvision.ops.distance_box_iou,
        "ciou": torchvision.ops.complete_box_iou,
    }
)

# No box grows past the anchor times this: e^dw of an untrained network would overflow. From an anchor of 16 pixels, the
# stride of the classic detectors, to 1,000 pixels, the side of the images they are trained on.
_LARGEST_GROWTH = 1000 / 16


def convert_boxes(boxes: Tensor, source: Form, target: Form) -> Tensor:
    """Boxes (..., 4) in another form. xywh: corner and sides; cxcywh: centre and sides. torchvision's."""
    _check_boxes("boxes", boxes)
    for form in (source, target):
        if form not in _FORMS:
            raise unknown("form of boxes", form, _FORMS)
    return torchvision.ops.box_convert(boxes, source, target)


def clip_boxes(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """The parts of boxes (..., 4) within an image of (height, width); one outside becomes flat. torchvision's."""
    _check_boxes("boxes", boxes)
    height, width = size
    return torchvision.ops.clip_boxes_to_image(boxes, (int(height), int(width)))


def box_area(boxes: Tensor) -> Tensor:
    """(..., 4) -> (...). An inverted side counts as 0."""
    _check_boxes("boxes", boxes)
    return _sides(boxes).prod(dim=-1)


def pairwise_iou(boxes: Tensor, others: Tensor, kind: Overlap = "iou") -> Tensor:
    """Overlap of every box with every other: (N, 4), (M, 4) -> (N, M). torchvision's; see `iou` for the kinds.

    Flat and inverted boxes, for which torchvision may divide 0 by 0, get what `iou` says. For gradients use `iou`.
    """
    _check_boxes("boxes", boxes)
    _check_boxes("others", others)
    if kind not in _PAIRWISE:
        raise unknown("kind of overlap", kind, _PAIRWISE)
    if boxes.ndim != 2 or others.ndim != 2:
        raise InputError(
            f"boxes must be (N, 4) and (M, 4), got {tuple(boxes.shape)} and {tuple(others.shape)}; use iou"
        )
    values = _PAIRWISE[kind](boxes, others)
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
    _check_boxes("boxes", boxes)
    _check_boxes("others", others)
    if kind not in _PAIRWISE:
        raise unknown("kind of overlap", kind, _PAIRWISE)
    precision = torch.promote_types(torch.promote_types(boxes.dtype, others.dtype), torch.float32)
    boxes, others = boxes.to(precision), others.to(precision)
    shared = torch.minimum(boxes[..., 2:], others[..., 2:]) - torch.maximum(boxes[..., :2], others[..., :2])
    intersection = shared.clamp(min=0).prod(dim=-1)
    union = box_area(boxes) + box_area(others) - intersection
    overlap = _divide(intersection, union)
    if kind == "iou":
        return overlap
    outer = torch.maximum(boxes[..., 2:], others[..., 2:]) - torch.minimum(boxes[..., :2], others[..., :2])
    if kind == "giou":
        enclosing = outer.prod(dim=-1)
        return overlap - _divide(enclosing - union, enclosing)
    between = (boxes[..., :2] + boxes[..., 2:] - others[..., :2] - others[..., 2:]) / 2
    distance = overlap - _divide(between.square().sum(dim=-1), outer.square().sum(dim=-1))
    if kind == "diou":
        return distance
    difference = _angle(boxes) - _angle(others)
    v = 4 / math.pi**2 * difference.square()
    with torch.no_grad():
        alpha = _divide(v, 1 - overlap + v)
    return distance - alpha * v


def encode_boxes(boxes: Tensor, anchors: Tensor, variances: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """Boxes as offsets from anchors: (..., 4), (..., 4) that broadcast -> (..., 4). Girshick et al. 2014, appendix C.

    dx = (x - x_a) / w_a / v_x, dw = log(w / w_a) / v_w, and so for y and h, of centres and sides. The offsets, of
    largely different sizes, are divided by `variances`: SSD's are (0.1, 0.1, 0.2, 0.2), Fast R-CNN's weights
    (10, 10, 5, 5) are their inverses. Raises InputError for boxes or anchors without width and height.
    """
    _check_boxes("boxes", boxes)
    _check_boxes("anchors", anchors)
    scale = _variances(variances, boxes)
    centres, sides = _centres_and_sides("box", boxes)
    anchor_centres, anchor_sides = _centres_and_sides("anchor", anchors)
    shifts = (centres - anchor_centres) / anchor_sides
    growths = torch.log(sides / anchor_sides)
    return torch.cat([shifts, growths], dim=-1) / scale


def decode_boxes(offsets: Tensor, anchors: Tensor, variances: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """The inverse of `encode_boxes`. A side grows to 62.5 times the anchor's at most."""
    _check_boxes("offsets", offsets)
    _check_boxes("anchors", anchors)
    offsets = offsets * _variances(variances, offsets)
    anchor_centres, anchor_sides = _centres_and_sides("anchor", anchors)
    centres = offsets[..., :2] * anchor_sides + anchor_centres
    halves = offsets[..., 2:].clamp(max=math.log(_LARGEST_GROWTH)).exp() * anchor_sides / 2
    return torch.cat([centres - halves, centres + halves], dim=-1)


def _angle(boxes: Tensor) -> Tensor:
    """arctan(w / h). A point, which has none, gets that of a vertical line, as atan2 has no gradient there."""
    width, height = _sides(boxes).unbind(-1)
    return torch.atan2(width, torch.where((width == 0) & (height == 0), 1, height))


def _sides(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)


def _divide(above: Tensor, below: Tensor) -> Tensor:
    """above / below, and 0 with a gradient of 0 where `below` is 0."""
    zero = below == 0
    return torch.where(zero, 0, above / torch.where(zero, 1, below))


def _centres_and_sides(name: str, boxes: Tensor) -> tuple[Tensor, Tensor]:
    sides = boxes[..., 2:] - boxes[..., :2]
    # Where there are no values, in a program being traced or on the meta device, boxes are anchors, which have sides.
    known = not (boxes.is_meta or torch.compiler.is_compiling())
    if known and not bool((sides > 0).all()):
        wrong = boxes[~(sides > 0).all(dim=-1)][0].tolist()
        raise InputError(f"{name} {wrong} has no width or height; offsets need x1 < x2 and y1 < y2: leave it out")
    return (boxes[..., :2] + boxes[..., 2:]) / 2, sides


def _variances(variances: Sequence[float], like: Tensor) -> Tensor:
    if len(variances) != 4 or not all(value > 0 for value in variances):
        raise InputError(
            f"variances must be four numbers above 0, got {tuple(variances)}; SSD's are 0.1, 0.1, 0.2, 0.2"
        )
    return torch.tensor(variances, dtype=like.dtype, device=like.device)


def _check_boxes(name: str, boxes: Tensor) -> None:
    if boxes.ndim < 1 or boxes.shape[-1] != 4:
        raise InputError(f"{name} must be (..., 4), got {tuple(boxes.shape)}")
