"""Losses of classifiers: one class of many, or any number of classes at once.

Softmax or sigmoid and logarithm are merged into one safe step: log p = z - logsumexp(z) for a softmax, and
-log p = max(-z, 0) + log(1 + exp(-|z|)) for a sigmoid, so that no exponential overflows and no logarithm meets 0. The
gradient with respect to a logit is p - y, whatever the logit.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.checks import check_probability
from opsin.losses.terms import (
    Reduction,
    any_of_many,
    check_probabilities,
    check_shape,
    class_weights,
    divide,
    fit_weights,
    full_precision,
    one_of_many,
    reduce,
)


def cross_entropy(logits: Tensor, targets: Tensor, weight: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of softmax, averaged. Label smoothing: Szegedy et al. 2015, arXiv:1512.00567, section 7.

    logits: (B, K). targets: (B,) int64, -1 is ignored, or (B, K) float that sum to 1 in each row. weight: (K,).
    The average is over the weight of the targets: equal to torch's for int64 targets. For float ones torch divides by B
    even with weights, so that a one-hot target and its class differ; here they are the same.
    """
    logits = full_precision(logits)
    weight = fit_weights("weight", weight, logits)
    if targets.is_floating_point():
        check_shape(targets, logits.shape, logits)
        targets = targets.to(logits.dtype)
        check_probabilities(targets)
        mass = targets.sum() if weight is None else (targets * weight).sum()
    else:
        targets, seen = one_of_many(logits, targets)
        mass = seen.sum() if weight is None else (weight[targets.clamp(min=0)] * seen).sum()
    total = F.cross_entropy(logits, targets, weight, ignore_index=-1, reduction="sum", label_smoothing=smoothing)
    return divide(total, mass)


def binary_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy of a sigmoid for each class, averaged over classes and examples.

    logits: (B, K). targets: (B, K) in [0, 1], or (B,) int64 class indices, taken as one-hot; -1 is ignored in both.
    weight: (K,) scales each class. pos_weight: (K,) scales the term of the positives, negatives / positives balances
    them. smoothing moves targets towards 1/2: 0 becomes smoothing / 2.
    """
    logits = full_precision(logits)
    targets, seen = any_of_many(logits, targets)
    soft = targets * (1 - smoothing) + smoothing / 2
    weight, pos_weight = fit_weights("weight", weight, logits), fit_weights("pos_weight", pos_weight, logits)
    terms = F.binary_cross_entropy_with_logits(logits, soft, pos_weight=pos_weight, reduction="none")
    if weight is not None:
        terms = terms * weight
    return divide((terms * seen).sum(), seen.sum())


def softmax_cross_entropy(logits: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Cross-entropy of softmax for each place of a dense output, softmax and logarithm merged.

    logits: (..., K), classes last. targets: (...) int64, -1 is ignored, or (..., K) float that sum to 1. The terms are
    (...); the mean is over those that are not ignored. For (B, K) it is `cross_entropy` without weights.
    """
    logits = full_precision(logits)
    if targets.is_floating_point():
        check_shape(targets, logits.shape, logits)
        check_probabilities(targets)
        return reduce(-(targets.to(logits.dtype) * logits.log_softmax(dim=-1)).sum(dim=-1), reduction)
    targets, seen = one_of_many(logits, targets)
    rows = logits.flatten(end_dim=-2) if logits.ndim > 1 else logits[None]
    terms = F.cross_entropy(rows, targets.flatten(), ignore_index=-1, reduction="none").view(targets.shape)
    return reduce(terms, reduction, seen.sum())


def sigmoid_cross_entropy(logits: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Cross-entropy of a sigmoid for each logit of a dense output, sigmoid and logarithm merged.

    logits: (..., K). targets: (..., K) in [0, 1], or (...) int64 taken as one-hot; -1 is ignored in both. The terms are
    (..., K); the mean is over those that are not ignored. For (B, K) it is `binary_cross_entropy` without weights.
    """
    logits = full_precision(logits)
    targets, seen = any_of_many(logits, targets)
    terms = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return reduce(torch.where(seen, terms, 0), reduction, seen.sum())


def kl_divergence(logits: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Kullback-Leibler divergence KL(targets || softmax(logits)): the cross-entropy less the targets' own entropy.

    logits: (..., K). targets: (..., K) probabilities that sum to 1, not logarithms. The terms are (...), a sum over
    classes in nats, and their mean is torch's "batchmean"; torch's "mean" divides by K once more.
    """
    logits = full_precision(logits)
    check_shape(targets, logits.shape, logits)
    check_probabilities(targets)
    terms = F.kl_div(logits.log_softmax(dim=-1), targets.to(logits.dtype), reduction="none")
    return reduce(terms.sum(dim=-1), reduction)


class CrossEntropy(nn.Module):
    """`cross_entropy` with its weights. They come from the recipe or the data, so they are not in the state dict."""

    weight: Tensor | None

    def __init__(self, smoothing: float = 0.0, weight: Tensor | None = None) -> None:
        super().__init__()
        self.smoothing = check_probability("smoothing", smoothing)
        self.register_buffer("weight", class_weights("weight", weight), persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(logits, targets, self.weight, self.smoothing)

    def extra_repr(self) -> str:
        return f"smoothing={self.smoothing}, weighted={self.weight is not None}"


class BinaryCrossEntropy(nn.Module):
    """`binary_cross_entropy` with its weights. They are not in the state dict."""

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(self, smoothing: float = 0.0, weight: Tensor | None = None, pos_weight: Tensor | None = None) -> None:
        super().__init__()
        self.smoothing = check_probability("smoothing", smoothing)
        self.register_buffer("weight", class_weights("weight", weight), persistent=False)
        self.register_buffer("pos_weight", class_weights("pos_weight", pos_weight), persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return binary_cross_entropy(logits, targets, self.weight, self.pos_weight, self.smoothing)

    def extra_repr(self) -> str:
        weighted = self.weight is not None or self.pos_weight is not None
        return f"smoothing={self.smoothing}, weighted={weighted}"
