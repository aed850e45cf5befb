"""Losses of box regression that are what the metric measures: overlap, and what to do where there is none.

Boxes are xyxy in continuous pixels, (..., 4), predictions and targets pair by pair; the terms are (...): in [0, 1] for
IoU, in [0, 2] for GIoU and DIoU, in [0, 3] for CIoU. Unlike a distance of coordinates they do not depend on the scale.

A network may predict boxes without width or height, or turned over; they count as a few rounding steps wide and high.
torchvision's CIoU is NaN for the first, its GIoU is 0 for some of the second, as if they were perfect, and all its box
losses pick the overlapping pairs with a mask, which makes an accelerator wait. Elsewhere they are these (tested).
"""

from __future__ import annotations

import torch
from torch import Tensor

from opsin.errors import InputError
from opsin.losses.terms import Reduction, matching, reduce
from opsin.ops.iou import Corners, Overlap, overlap_terms


def iou_loss(predictions: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """1 - IoU. Boxes that do not overlap have a loss of 1 and no gradient; see `giou_loss`."""
    return reduce(_terms(predictions, targets, "iou"), reduction)


def giou_loss(predictions: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """1 - IoU + the share of the smallest enclosing box that neither covers. Rezatofighi et al. 2019, arXiv:1902.09630.

    It pulls boxes together that do not overlap; where one box holds the other it is IoU again.
    """
    return reduce(_terms(predictions, targets, "giou"), reduction)


def diou_loss(predictions: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """1 - IoU + (distance of the centres / diagonal of the enclosing box)^2. Zheng et al. 2019, arXiv:1911.08287.

    Equation 7. It moves the centre at once, where GIoU first grows the box.
    """
    return reduce(_terms(predictions, targets, "diou"), reduction)


def ciou_loss(predictions: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """DIoU + alpha v, where v compares the aspect ratios. Zheng et al. 2019, arXiv:1911.08287, eq. 8 to 11.

    v = 4 / pi^2 (atan(w' / h') - atan(w / h))^2 and alpha = v / (1 - IoU + v), which is not differentiated.
    """
    return reduce(_terms(predictions, targets, "ciou"), reduction)


def _terms(predictions: Tensor, targets: Tensor, kind: Overlap) -> Tensor:
    """The loss of each pair of boxes, (...)."""
    if predictions.ndim == 0 or predictions.shape[-1] != 4:
        raise InputError(f"boxes are (..., 4), x1 y1 x2 y2; got {tuple(predictions.shape)}")
    predictions, targets = matching(predictions, targets)
    _check_order(targets)
    overlap, *penalties = overlap_terms(_corners(predictions), _corners(targets), kind, solid=True)
    terms = 1 - overlap
    for penalty in penalties:
        terms = terms + penalty
    return terms


def _corners(boxes: Tensor) -> Corners:
    """Upper left and lower right, the second at least 8 rounding steps further: no area and no side is 0."""
    low, high = boxes.split(2, dim=-1)
    return low, torch.maximum(high, low + 8 * torch.finfo(boxes.dtype).eps * (1 + low.detach().abs()))


def _check_order(targets: Tensor) -> None:
    if targets.device.type != "cpu" or torch.compiler.is_compiling():
        return
    turned = (targets[..., 2:] < targets[..., :2]).any(dim=-1)
    if turned.any():
        place = tuple(turned.nonzero()[0].tolist())
        raise InputError(
            f"the target box at {place} is {targets[place].tolist()}; expected x1 <= x2 and y1 <= y2: x1 y1 x2 y2"
        )
