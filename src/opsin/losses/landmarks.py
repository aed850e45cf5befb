"""Losses of landmark localisation: Wing on coordinates, adaptive Wing on heatmaps."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from opsin.checks import check_number
from opsin.losses.terms import Reduction, check_probabilities, matching, reduce


def wing_loss(
    predictions: Tensor, targets: Tensor, *, width: float = 10.0, epsilon: float = 2.0, reduction: Reduction = "mean"
) -> Tensor:
    """w ln(1 + |e| / epsilon) for |e| < w, else |e| - C. Feng et al. 2018, arXiv:1711.06753, eq. 5.

    predictions, targets: coordinates in pixels, of one shape, as are the terms. width is the paper's w; C makes the two
    pieces meet. The slope falls from w / epsilon at zero to w / (epsilon + w) at w and is 1 beyond: small errors pull
    most, and an outlier no more than in L1. Both constants are lengths: scale them with the
    coordinates.
    """
    width, epsilon = check_number("width", width, above=True), check_number("epsilon", epsilon, above=True)
    predictions, targets = matching(predictions, targets)
    error = (predictions - targets).abs()
    offset = width - width * math.log1p(width / epsilon)
    return reduce(torch.where(error < width, width * torch.log1p(error / epsilon), error - offset), reduction)


def adaptive_wing_loss(
    predictions: Tensor,
    targets: Tensor,
    *,
    omega: float = 14.0,
    theta: float = 0.5,
    epsilon: float = 1.0,
    alpha: float = 2.1,
    reduction: Reduction = "mean",
) -> Tensor:
    """Wing for heatmaps: omega ln(1 + |e / epsilon|^(alpha - y)) for |e| < theta, else linear. Wang et al. 2019.

    arXiv:1904.07399, section 4. predictions: heatmaps. targets: y in [0, 1], of one shape, as are the terms. On the
    background (y = 0) the exponent alpha is near 2 and the loss like L2; on a peak (y = 1) it is near 1 and the loss
    like Wing. alpha is above 2, so that the slope is continuous at zero everywhere.
    """
    omega, theta = check_number("omega", omega, above=True), check_number("theta", theta, above=True)
    epsilon, alpha = check_number("epsilon", epsilon, above=True), check_number("alpha", alpha, 2.0, above=True)
    predictions, targets = matching(predictions, targets)
    check_probabilities(targets)
    error, power = (predictions - targets).abs(), alpha - targets
    edge = (theta / epsilon) ** power  # of theta, where the two pieces meet in value and slope
    slope = omega * power * edge / (theta * (1 + edge))
    beyond = slope * (error - theta) + omega * torch.log1p(edge)
    return reduce(torch.where(error < theta, omega * torch.log1p((error / epsilon) ** power), beyond), reduction)
