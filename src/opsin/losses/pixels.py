"""Losses of every pixel: classes are the second dimension, and pixels may be weighted.

Each takes (logits, labels, pixel_weights=None): logits (B, K, H, W); labels (B, H, W) int64 of one class each, -1
ignored, or (B, K, H, W) bool where classes overlap; pixel_weights (B, H, W) float, what a pixel's term counts. The mean
is over the weights of the pixels that are known, and 0 where none is. `opsin.losses.overlap` has those of regions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.checks import check_number, check_probability
from opsin.errors import InputError
from opsin.losses.focal import modulate, sigmoid_terms
from opsin.losses.terms import check_labels, check_shape, class_weights, divide, fit_weights, full_precision


def pixel_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    pixel_weights: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy of a softmax over the classes of each pixel, or of a sigmoid for each class where these overlap.

    weight: (K,), of each class; of one class each the mean is over these weights too, as torch's. smoothing: of labels,
    as of `cross_entropy` and `binary_cross_entropy`. With no weights it is the mean of torch's over the known pixels.
    """
    logits = full_precision(logits)
    weight = _fit(weight, logits)
    if labels.dtype == torch.bool:
        check_shape(labels, logits.shape, logits)
        soft = labels.to(logits.dtype) * (1 - smoothing) + smoothing / 2
        return _mean_of_decisions(
            F.binary_cross_entropy_with_logits(logits, soft, reduction="none"), pixel_weights, weight
        )
    known = _check(labels, logits)
    terms = F.cross_entropy(logits, labels, weight, ignore_index=-1, reduction="none", label_smoothing=smoothing)
    mass = known.to(terms.dtype) if weight is None else known * weight[labels.clamp(min=0)]
    return _weighted_mean(terms, mass, pixel_weights)


def pixel_focal_loss(
    logits: Tensor,
    labels: Tensor,
    pixel_weights: Tensor | None = None,
    *,
    gamma: float = 2.0,
    weight: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of each pixel times (1 - p)^gamma of its class. Lin et al. 2017, arXiv:1708.02002, eq. 4.

    weight: (K,), the alpha of each class. The mean is over the pixels, whatever their class's weight. Where classes
    overlap, it is `pixel_sigmoid_focal_loss` without alpha. gamma=0 is `pixel_cross_entropy` without weights (tested).
    """
    if labels.dtype == torch.bool:
        return pixel_sigmoid_focal_loss(logits, labels, pixel_weights, gamma=gamma, alpha=None, weight=weight)
    gamma, logits = check_number("gamma", gamma), full_precision(logits)
    weight, known = _fit(weight, logits), _check(labels, logits)
    classes = labels.clamp(min=0)
    log_p = logits.log_softmax(dim=1)
    own = log_p.gather(1, classes[:, None])[:, 0]
    # what the other classes have: 1 - p loses its digits, and its slope, where p is near 1
    others = log_p.exp().scatter(1, classes[:, None], 0.0).sum(dim=1)
    terms = -modulate(others, gamma) * own * known
    return _weighted_mean(terms if weight is None else terms * weight[classes], known.to(terms.dtype), pixel_weights)


def pixel_sigmoid_focal_loss(
    logits: Tensor,
    labels: Tensor,
    pixel_weights: Tensor | None = None,
    *,
    gamma: float = 2.0,
    alpha: float | None = 0.25,
    weight: Tensor | None = None,
) -> Tensor:
    """Focal loss of a sigmoid for each class of each pixel, the mean over both. Lin et al. 2017, eq. 5.

    alpha: as of `focal_loss`. weight: (K,), of each class. Labels of one class each are taken as one-hot.
    """
    logits = full_precision(logits)
    weight, known = _fit(weight, logits), None
    if labels.dtype != torch.bool:
        known = _check(labels, logits)
        labels = F.one_hot(labels.clamp(min=0), logits.shape[1]).movedim(-1, 1)
    check_shape(labels, logits.shape, logits)
    terms = sigmoid_terms(logits, labels.to(logits.dtype), alpha, gamma)
    return _mean_of_decisions(terms, pixel_weights, weight, known)


class PixelCrossEntropy(nn.Module):
    """`pixel_cross_entropy` as a module. weight: (K,), of each class; it is not in the state dict."""

    weight: Tensor | None

    def __init__(self, smoothing: float = 0.0, weight: Tensor | None = None) -> None:
        super().__init__()
        self.smoothing = check_probability("smoothing", smoothing)
        self.register_buffer("weight", class_weights("weight", weight), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor, pixel_weights: Tensor | None = None) -> Tensor:
        return pixel_cross_entropy(logits, labels, pixel_weights, weight=self.weight, smoothing=self.smoothing)

    def extra_repr(self) -> str:
        return f"smoothing={self.smoothing}, weighted={self.weight is not None}"


def _check(labels: Tensor, logits: Tensor) -> Tensor:
    """Where something is known, (B, H, W) bool. Raises InputError for labels that do not fit."""
    check_shape(labels, logits[:, 0].shape, logits)
    check_labels(labels, logits.shape[1])
    return labels >= 0


def _fit(weight: Tensor | None, logits: Tensor) -> Tensor | None:
    if logits.ndim < 3:
        raise InputError(f"logits are (B, K, H, W), got {tuple(logits.shape)}")
    return fit_weights("weight", weight, logits)


def _weighted_mean(terms: Tensor, mass: Tensor, pixel_weights: Tensor | None) -> Tensor:
    """Of terms (B, H, W), over what each counts."""
    if pixel_weights is not None:
        check_shape(pixel_weights, terms.shape, terms, "the loss of pixels")
        terms, mass = terms * pixel_weights, mass * pixel_weights
    return divide(terms.sum(), mass.sum())


def _mean_of_decisions(
    terms: Tensor, pixel_weights: Tensor | None, weight: Tensor | None, known: Tensor | None = None
) -> Tensor:
    """Of terms (B, K, H, W) of yes or no, over the classes and what each pixel counts."""
    if weight is not None:
        terms = terms * weight.view(1, -1, *[1] * (terms.ndim - 2))
    mass = torch.ones_like(terms[:, 0]) if known is None else known.to(terms.dtype)
    return _weighted_mean(terms.mean(dim=1) * mass, mass, pixel_weights)
