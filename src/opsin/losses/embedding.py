"""Losses of pairs of embeddings and of their ranks: the same identity near, another far.

`opsin.losses.triplets` has those of triplets, `opsin.losses.centre` the one that holds a centre for each class.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from opsin.checks import check_number
from opsin.errors import InputError
from opsin.losses.distances import euclidean_distances
from opsin.losses.terms import (
    Reduction,
    check_labels,
    check_shape,
    check_values,
    divide,
    full_precision,
    matching,
    reduce,
)


def contrastive_loss(
    first: Tensor, second: Tensor, same: Tensor, *, margin: float = 1.0, reduction: Reduction = "mean"
) -> Tensor:
    """D^2 / 2 for a pair of the same identity, max(0, margin - D)^2 / 2 for two. Hadsell et al. 2006, eq. 4.

    doi:10.1109/CVPR.2006.100. first, second: (B, D) embeddings; D is their Euclidean distance. same: (B,) of 0 and 1 or
    bool; the paper's Y is 1 - same. The terms are (B,).
    """
    margin = check_number("margin", margin, above=True)
    first, second = matching(first, second)
    check_shape(same, first.shape[:1], first, "embeddings")
    check_values("same", same.to(first.dtype), 0, 1, "0 or 1")
    distance = torch.linalg.vector_norm(first - second, dim=1)
    terms = torch.where(same.bool(), distance, F.relu(margin - distance)).square() / 2
    return reduce(terms, reduction)


def margin_ranking_loss(
    first: Tensor, second: Tensor, order: Tensor, *, margin: float = 0.0, reduction: Reduction = "mean"
) -> Tensor:
    """max(0, margin - order (first - second)): the score that should be higher, higher by a margin.

    first, second, order: of one shape, as are the terms; order is 1 where `first` should be higher, -1 where `second`.
    """
    margin = check_number("margin", margin)
    first, second = matching(first, second)
    check_shape(order, first.shape, first, "scores")
    order = order.to(first.dtype)
    check_values("order", order, -1, 1, "1 or -1")
    return reduce(F.margin_ranking_loss(first, second, order, margin, reduction="none"), reduction)


def batch_contrastive_loss(embeddings: Tensor, labels: Tensor, *, margin: float = 1.0) -> Tensor:
    """`contrastive_loss` of all pairs of a batch: the mean of those of the same, and that of two, in equal parts.

    Hadsell et al. 2006, eq. 4; a batch of P identities has (P - 1) times as many pairs of two, which would drown the
    others. embeddings: (B, D). labels: (B,) int64 identities, -1 is ignored. Of a kind that has no pair nothing is
    added.
    """
    margin = check_number("margin", margin, above=True)
    if embeddings.ndim != 2:
        raise InputError(f"embeddings are (B, D), got {tuple(embeddings.shape)}")
    check_shape(labels, embeddings.shape[:1], embeddings, "embeddings")
    check_labels(labels, 2**63 - 1)
    distances, seen = euclidean_distances(full_precision(embeddings)), labels != -1
    equal, pairs = labels[:, None] == labels[None, :], seen[:, None] & seen
    positive = equal & pairs & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    negative = ~equal & pairs
    same = divide(torch.where(positive, distances.square(), 0).sum() / 2, positive.sum())
    other = divide(torch.where(negative, F.relu(margin - distances).square(), 0).sum() / 2, negative.sum())
    return (same + other) / 2
