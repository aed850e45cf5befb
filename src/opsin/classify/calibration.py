"""Temperature scaling: make a network's confidence mean what it says, without changing any answer."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from scipy.optimize import brentq
from torch import Tensor

LOWEST, HIGHEST = 0.05, 20.0
_ROWS = 4096  # at a time in float64, so that 50,000 x 1,000 logits need no second copy


def fit_temperature(logits: Tensor, labels: Tensor, multi_label: bool = False) -> float:
    """The T in [0.05, 20] that gives softmax(logits / T) the lowest NLL. Guo et al. 2017, arXiv:1706.04599, sec. 4.2.

    logits: (N, K) of validation data. labels: (N,) int64, or (N, K) in [0, 1] with `multi_label` (sigmoid); -1 is left
    out. The NLL is convex in 1/T, so the root of its slope is the optimum: no optimizer and no learning rate, unlike
    the paper's code. 1.0 where it cannot be fitted: no labels, a logit that is not finite, or every answer right, when
    the NLL falls for ever as T goes to 0 and the data say nothing.
    """
    known = (labels != -1).any(dim=1) if multi_label else labels != -1
    logits, labels = logits.detach()[known].cpu(), labels.detach()[known].cpu()
    if not len(logits) or not bool(logits.isfinite().all()) or _separated(logits, labels, multi_label):
        return 1.0

    def slope(log_inverse: float) -> float:
        return _slope(logits, labels, math.exp(log_inverse), multi_label)

    low, high = -math.log(HIGHEST), -math.log(LOWEST)
    if slope(low) >= 0:
        return HIGHEST
    if slope(high) <= 0:
        return LOWEST
    root = brentq(slope, low, high, xtol=1e-6)
    return min(HIGHEST, max(LOWEST, math.exp(-root)))  # type: ignore[operator]


def _separated(logits: Tensor, labels: Tensor, multi_label: bool) -> bool:
    """Whether no answer is wrong, so that more confidence is never worse."""
    if multi_label:
        sided = torch.where(labels > 0.5, logits, -logits)
        return bool(((sided >= 0) | (labels == -1)).all())
    return bool((logits.gather(1, labels.long()[:, None])[:, 0] == logits.max(dim=1).values).all())


def _slope(logits: Tensor, labels: Tensor, inverse: float, multi_label: bool) -> float:
    """d NLL / d (1/T), summed: how much larger the expected logit is than the true one. Rises with 1/T."""
    total = 0.0
    for z, y in _chunks(logits, labels):
        if multi_label:
            terms = (torch.sigmoid(z * inverse) - y) * z
            total += torch.where(y == -1, 0, terms).sum().item()
        else:
            z = z - z.max(dim=1, keepdim=True).values  # differences alone count; keeps the sums exact
            expected = (torch.softmax(z * inverse, dim=1) * z).sum()
            total += (expected - z.gather(1, y.long()[:, None]).sum()).item()
    return total


def _chunks(logits: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for z, y in zip(logits.split(_ROWS), labels.split(_ROWS), strict=True):
        yield z.double(), y.double()
