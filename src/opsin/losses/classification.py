"""Losses of classifiers: one class of many, or any number of classes at once.

Both compute in float32 or better whatever the precision of the logits, and are 0, with a gradient of 0, where there is
no target to learn from.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.errors import InputError


def cross_entropy(logits: Tensor, targets: Tensor, weight: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of softmax, averaged. Label smoothing: Szegedy et al. 2015, arXiv:1512.00567, section 7.

    logits: (B, K). targets: (B,) int64, -1 is ignored, or (B, K) float that sum to 1 in each row. weight: (K,).
    The average is over the weight of the targets: equal to torch's for int64 targets. For float ones torch divides by B
    even with weights, so that a one-hot target and its class differ; here they are the same.
    """
    logits = _full_precision(logits)
    weight = _fit("weight", weight, logits)
    if targets.is_floating_point():
        _check(logits, targets, logits.shape)
        targets = targets.to(logits.dtype)
        mass = targets.sum() if weight is None else (targets * weight).sum()
    else:
        _check(logits, targets, logits.shape[:1])
        seen = targets != -1
        mass = seen.sum() if weight is None else (weight[targets.clamp(min=0)] * seen).sum()
    total = F.cross_entropy(logits, targets, weight, ignore_index=-1, reduction="sum", label_smoothing=smoothing)
    return _divide(total, mass)


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
    logits = _full_precision(logits)
    if targets.ndim == 1 and not targets.is_floating_point():
        _check(logits, targets, logits.shape[:1])
        one_hot = F.one_hot(targets.clamp(min=0), logits.shape[1])
        targets = torch.where(targets[:, None] == -1, -1, one_hot)
    _check(logits, targets, logits.shape)
    seen = targets != -1
    soft = torch.where(seen, targets, 0).to(logits.dtype) * (1 - smoothing) + smoothing / 2
    weight, pos_weight = _fit("weight", weight, logits), _fit("pos_weight", pos_weight, logits)
    terms = F.binary_cross_entropy_with_logits(logits, soft, pos_weight=pos_weight, reduction="none")
    if weight is not None:
        terms = terms * weight
    return _divide((terms * seen).sum(), seen.sum())


class CrossEntropy(nn.Module):
    """`cross_entropy` with its weights. They come from the recipe or the data, so they are not in the state dict."""

    weight: Tensor | None

    def __init__(self, smoothing: float = 0.0, weight: Tensor | None = None) -> None:
        super().__init__()
        self.smoothing = _fraction(smoothing)
        self.register_buffer("weight", _weights("weight", weight), persistent=False)

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
        self.smoothing = _fraction(smoothing)
        self.register_buffer("weight", _weights("weight", weight), persistent=False)
        self.register_buffer("pos_weight", _weights("pos_weight", pos_weight), persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return binary_cross_entropy(logits, targets, self.weight, self.pos_weight, self.smoothing)

    def extra_repr(self) -> str:
        weighted = self.weight is not None or self.pos_weight is not None
        return f"smoothing={self.smoothing}, weighted={weighted}"


def _full_precision(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _divide(total: Tensor, mass: Tensor) -> Tensor:
    """total / mass, and 0 with a gradient of 0 where there is no mass; without a synchronisation of the device."""
    return total / torch.where(mass == 0, torch.ones_like(mass), mass)


def _fit(name: str, weight: Tensor | None, logits: Tensor) -> Tensor | None:
    if weight is None:
        return None
    if len(weight) != logits.shape[1]:
        raise InputError(
            f"{name} has {len(weight)} numbers, the model {logits.shape[1]} classes; give one for each class"
        )
    return weight.to(logits)


def _check(logits: Tensor, targets: Tensor, expected: torch.Size) -> None:
    if targets.shape != expected:
        raise InputError(
            f"targets of shape {tuple(targets.shape)} do not fit logits of shape {tuple(logits.shape)}; "
            f"expected {tuple(expected)} of {targets.dtype}"
        )


def _fraction(smoothing: float) -> float:
    if not 0 <= smoothing < 1:
        raise InputError(f"smoothing={smoothing} must be at least 0 and below 1, for example 0.1")
    return float(smoothing)


def _weights(name: str, weight: Tensor | None) -> Tensor | None:
    if weight is None:
        return None
    if weight.ndim != 1 or not bool((weight >= 0).all()) or not bool(weight.isfinite().all()):
        raise InputError(f"{name} must be one finite number >= 0 for each class, got {weight.tolist()}")
    return weight.detach().clone().float()
