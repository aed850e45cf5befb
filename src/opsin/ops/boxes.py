"""Boxes: forms, areas, and their coding as offsets from anchors.

Boxes are xyxy in continuous pixels, x2 and y2 exclusive, as everywhere: the area is (x2 - x1)(y2 - y1), nothing adds 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from opsin.errors import InputError, unknown

Form: TypeAlias = Literal["xyxy", "xywh", "cxcywh"]

_FORMS = ("xyxy", "xywh", "cxcywh")

# No box grows past the anchor times this: e^dw of an untrained network would overflow. From an anchor of 16 pixels, the
# stride of the classic detectors, to 1,000 pixels, the side of the images they are trained on.
_LARGEST_GROWTH = 1000 / 16


def convert_boxes(boxes: Tensor, source: Form, target: Form) -> Tensor:
    """Boxes (..., 4) in another form. xywh: corner and sides; cxcywh: centre and sides. torchvision's."""
    check_boxes("boxes", boxes)
    for form in (source, target):
        if form not in _FORMS:
            raise unknown("form of boxes", form, _FORMS)
    from torchvision.ops import box_convert  # here: importing it takes over a second

    return box_convert(boxes, source, target)


def clip_boxes(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """The parts of boxes (..., 4) within an image of (height, width); one outside becomes flat."""
    check_boxes("boxes", boxes)
    height, width = size
    x, y = boxes[..., 0::2].clamp(0, int(width)), boxes[..., 1::2].clamp(0, int(height))
    return torch.stack([x, y], dim=-1).reshape(boxes.shape)


def box_area(boxes: Tensor) -> Tensor:
    """(..., 4) -> (...). An inverted side counts as 0."""
    check_boxes("boxes", boxes)
    return _sides(boxes).prod(dim=-1)


def encode_boxes(boxes: Tensor, anchors: Tensor, variances: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """Boxes as offsets from anchors: (..., 4), (..., 4) that broadcast -> (..., 4). Girshick et al. 2014, appendix C.

    dx = (x - x_a) / w_a / v_x, dw = log(w / w_a) / v_w, and so for y and h, of centres and sides. The offsets, of
    largely different sizes, are divided by `variances`: SSD's are (0.1, 0.1, 0.2, 0.2), Fast R-CNN's weights
    (10, 10, 5, 5) are their inverses. Raises InputError for boxes or anchors without width and height.
    """
    check_boxes("boxes", boxes)
    check_boxes("anchors", anchors)
    scale = _variances(variances, boxes)
    centres, sides = _centres_and_sides("box", boxes)
    anchor_centres, anchor_sides = _centres_and_sides("anchor", anchors)
    shifts = (centres - anchor_centres) / anchor_sides
    growths = torch.log(sides / anchor_sides)
    return torch.cat([shifts, growths], dim=-1) / scale


def decode_boxes(offsets: Tensor, anchors: Tensor, variances: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """The inverse of `encode_boxes`. A side grows to 62.5 times the anchor's at most."""
    check_boxes("offsets", offsets)
    check_boxes("anchors", anchors)
    offsets = offsets * _variances(variances, offsets)
    anchor_centres, anchor_sides = _centres_and_sides("anchor", anchors)
    centres = offsets[..., :2] * anchor_sides + anchor_centres
    halves = offsets[..., 2:].clamp(max=math.log(_LARGEST_GROWTH)).exp() * anchor_sides / 2
    return torch.cat([centres - halves, centres + halves], dim=-1)


def check_boxes(name: str, boxes: Tensor) -> None:
    """Raise InputError unless boxes are (..., 4)."""
    if boxes.ndim < 1 or boxes.shape[-1] != 4:
        raise InputError(f"{name} must be (..., 4), got {tuple(boxes.shape)}")


def _sides(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)


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
