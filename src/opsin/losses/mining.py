"""Which examples a loss should learn from."""

from __future__ import annotations

import torch
from torch import Tensor

from opsin.checks import check_number
from opsin.errors import InputError


def hard_negatives(losses: Tensor, positive: Tensor, *, ratio: float = 3.0, negative: Tensor | None = None) -> Tensor:
    """Of each image the negatives of the highest loss, `ratio` times as many as it has positives, as a mask.

    SSD: Liu et al. 2015, arXiv:1512.02325, section 2.2, where `losses` are the losses of calling each box background
    and positives are kept with all of them: `(terms * (positive | hard_negatives(terms, positive))).sum()`. losses:
    (..., N), not differentiated. positive: (..., N) bool. negative: (..., N) bool, those to choose from, all that are
    not positive if None. A product that is not whole is rounded down; of equal losses the first come first. An image
    without positives has no negatives.
    """
    ratio = check_number("ratio", ratio)
    for name, mask in (("positive", positive), ("negative", negative)):
        if mask is not None and (mask.shape != losses.shape or mask.dtype is not torch.bool):
            raise InputError(f"{name} is {tuple(mask.shape)} of {mask.dtype}; expected {tuple(losses.shape)} of bool")
    negative = ~positive if negative is None else negative & ~positive
    order = losses.detach().masked_fill(~negative, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    rank = order.argsort(dim=-1)
    wanted = (positive.sum(dim=-1, keepdim=True) * ratio).long()
    return negative & (rank < wanted)
