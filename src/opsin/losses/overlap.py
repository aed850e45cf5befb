"""Losses of segmentation that measure overlap of regions, so that a small region counts as much as a large one."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from opsin.checks import check_number
from opsin.errors import InputError
from opsin.losses.terms import Reduction, any_of_many, check_shape, divide, full_precision, one_of_many, reduce


def dice_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    smooth: float = 1.0,
    squared: bool = True,
    reduction: Reduction = "mean",
) -> Tensor:
    """1 - (2 sum p y + smooth) / (sum p^2 + sum y^2 + smooth), one term for each image and class.

    Milletari et al. 2016, arXiv:1606.04797, section 3, which has no `smooth`: it keeps a class that is absent from a
    image from being a loss of 1 for whatever is predicted. squared=False sums p and y themselves in the denominator.

    logits: (B, K, ...). targets: (B, ...) int64 class indices for a softmax over K, or (B, K, ...) in [0, 1] for K
    sigmoids; -1 is ignored in both. The terms are (B, K). With hard predictions, squared or not, 1 - loss is the F1
    score (tested).
    """
    smooth = check_number("smooth", smooth)
    if logits.ndim < 2:
        raise InputError(f"logits are (B, K, ...), got {tuple(logits.shape)}")
    logits = full_precision(logits)
    if not targets.is_floating_point() and targets.ndim == logits.ndim - 1:
        check_shape(targets, logits[:, 0].shape, logits)
        labels, seen = one_of_many(logits.movedim(1, -1), targets)
        probabilities = logits.softmax(dim=1)
        targets = F.one_hot(labels.clamp(min=0), logits.shape[1]).movedim(-1, 1).to(logits.dtype)
        seen = seen[:, None]
    else:
        targets, seen = any_of_many(logits, targets)
        probabilities = logits.sigmoid()
    probabilities, targets = probabilities * seen, targets * seen
    sizes = probabilities**2 + targets**2 if squared else probabilities + targets
    places = tuple(range(2, logits.ndim))
    if places:
        sizes, shared = sizes.sum(dim=places), (probabilities * targets).sum(dim=places)
    else:
        shared = probabilities * targets
    # 1 - (2 shared + smooth) / (sizes + smooth) in one fraction: 0, not 1, where both are empty and smooth is 0
    return reduce(divide(sizes - 2 * shared, sizes + smooth), reduction)
