"""Focal losses: cross-entropy with less weight on what is right already."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from opsin.checks import check_number
from opsin.errors import InputError
from opsin.losses.terms import (
    Reduction,
    any_of_many,
    check_probabilities,
    check_shape,
    full_precision,
    one_of_many,
    reduce,
)


def focal_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    alpha: float | None = 0.25,
    gamma: float = 2.0,
    reduction: Reduction = "sum",
) -> Tensor:
    """Sigmoid focal loss, summed. Lin et al. 2017, arXiv:1708.02002, eq. 5.

    logits: (..., K). targets: (..., K) in [0, 1], or (...) int64 taken as one-hot; -1 is ignored in both. Divide by the
    number of positives outside. alpha weighs the positives, 1 - alpha the negatives; None weighs neither.
    gamma=0, alpha=0.5 is half of binary cross-entropy (tested).
    """
    logits = full_precision(logits)
    targets, seen = any_of_many(logits, targets)
    return reduce(torch.where(seen, sigmoid_terms(logits, targets, alpha, gamma), 0), reduction, seen.sum())


def sigmoid_terms(logits: Tensor, targets: Tensor, alpha: float | None, gamma: float) -> Tensor:
    """The terms of `focal_loss`, of logits and targets of one shape and type, none of them ignored."""
    gamma = check_number("gamma", gamma)
    # 1 - p_t from both sigmoids. torchvision's subtracts instead: 0 at a logit of 20, where 0^gamma has no slope.
    miss = logits.sigmoid() * (1 - targets) + (-logits).sigmoid() * targets
    terms = modulate(miss, gamma) * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    if alpha is None:
        return terms
    if not 0 <= check_number("alpha", alpha) <= 1:
        raise InputError(f"alpha={alpha} is the share of the positives, at most 1; None weighs nothing")
    return terms * (alpha * targets + (1 - alpha) * (1 - targets))


def softmax_focal_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma: float = 2.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Focal loss for one class of many: the cross-entropy of each class times |y - p|^gamma.

    logits: (..., K), classes last. targets: y, (...) int64, -1 is ignored, or (..., K) float that sum to 1. weight:
    (K,), the alpha of each class. The terms are (...); the mean is over those that are not ignored, whatever their
    weight. For a class index |y - p| is 1 - p of that class, the paper's factor. gamma=0 is `cross_entropy` (tested).
    """
    gamma = check_number("gamma", gamma)
    logits = full_precision(logits)
    seen = None
    if targets.is_floating_point():
        check_shape(targets, logits.shape, logits)
        check_probabilities(targets)
        targets = targets.to(logits.dtype)
    else:
        labels, seen = one_of_many(logits, targets)
        targets = F.one_hot(labels.clamp(min=0), logits.shape[-1]) * seen[..., None]
    log_p = logits.log_softmax(dim=-1)
    terms = -targets * modulate((targets - log_p.exp()).abs(), gamma) * log_p
    if weight is not None:
        if not isinstance(weight, Tensor) or weight.shape != logits.shape[-1:]:
            shape = f"shape {tuple(weight.shape)}" if isinstance(weight, Tensor) else repr(weight)
            raise InputError(f"weight is one number for each class, {logits.shape[-1]} of them, got {shape}")
        terms = terms * weight.to(logits)
    return reduce(terms.sum(dim=-1), reduction, None if seen is None else seen.sum())


def modulate(miss: Tensor, gamma: float) -> Tensor:
    """miss^gamma with a slope of 0, not infinity, where miss is 0."""
    return miss.clamp(min=torch.finfo(miss.dtype).tiny) ** gamma
