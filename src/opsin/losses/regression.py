"""Losses of regression: how far numbers are from numbers.

Their gradients tell them apart, for an error e: L2 has 2e, so an outlier shouts; L1 has the sign of e, so the last
millimetre is as loud as the first metre, and the minimum is overstepped; smooth L1 and Huber have e near zero and a
constant beyond beta.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from opsin.checks import check_number
from opsin.losses.terms import Reduction, matching, reduce


def l1_loss(predictions: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Absolute error |e|; its best constant is the median. predictions, targets: of one shape, as are the terms."""
    predictions, targets = matching(predictions, targets)
    return reduce(F.l1_loss(predictions, targets, reduction="none"), reduction)


def l2_loss(predictions: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Squared error e^2, averaged: the mean squared error (MSE), without the half that some texts put before it.

    predictions, targets: of one shape, as are the terms. The best constant is the mean.
    """
    predictions, targets = matching(predictions, targets)
    return reduce(F.mse_loss(predictions, targets, reduction="none"), reduction)


def sse_loss(predictions: Tensor, targets: Tensor) -> Tensor:
    """Sum of squared errors, over everything, the batch included: `l2_loss` without the division.

    YOLO v1 (Redmon et al. 2015, arXiv:1506.02640, eq. 3) is a weighted one.
    """
    return l2_loss(predictions, targets, reduction="sum")


def smooth_l1_loss(predictions: Tensor, targets: Tensor, *, beta: float = 1.0, reduction: Reduction = "mean") -> Tensor:
    """e^2 / (2 beta) for |e| < beta, else |e| - beta / 2. Girshick 2015, arXiv:1504.08083, eq. 3, where beta is 1.

    The slope beyond beta is 1 for every beta: a smaller one only sharpens the corner, and 0 is L1. It is
    `huber_loss` / beta. predictions, targets: of one shape, as are the terms. Faster R-CNN's first stage has beta 1/9.
    """
    predictions, targets = matching(predictions, targets)
    terms = F.smooth_l1_loss(predictions, targets, reduction="none", beta=check_number("beta", beta))
    return reduce(terms, reduction)


def huber_loss(predictions: Tensor, targets: Tensor, *, beta: float = 1.0, reduction: Reduction = "mean") -> Tensor:
    """e^2 / 2 for |e| < beta, else beta (|e| - beta / 2). Huber 1964, doi:10.1214/aoms/1177703732.

    The curvature at zero is 1 for every beta: a larger one only widens the parabola, and infinity is half of L2. It is
    beta * `smooth_l1_loss`. predictions, targets: of one shape, as are the terms.
    """
    predictions, targets = matching(predictions, targets)
    terms = F.huber_loss(predictions, targets, reduction="none", delta=check_number("beta", beta, above=True))
    return reduce(terms, reduction)
