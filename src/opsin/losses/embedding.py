"""Losses of embeddings: the same identity near, another far, by pairs, triplets and ranks.

`opsin.losses.centre` has the one that holds a centre for each class.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from opsin.checks import check_number
from opsin.errors import InputError, unknown
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

Mining: TypeAlias = Literal["batch_all", "batch_all_nonzero", "batch_hard", "semi_hard"]


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


def triplet_loss(
    embeddings: Tensor,
    labels: Tensor,
    *,
    margin: float | Literal["soft"] = 0.2,
    mining: Mining = "batch_hard",
    squared: bool = False,
) -> Tensor:
    """[d(anchor, positive) - d(anchor, negative) + margin]+ over triplets that are found in the batch, averaged.

    FaceNet: Schroff et al. 2015, arXiv:1503.03832, sec. 3.1; batch mining: Hermans et al. 2017, arXiv:1703.07737, eq. 5
    and 6. embeddings: (B, D). labels: (B,) int64 identities, -1 is ignored. margin "soft" is softplus(d_ap - d_an)
    instead of the hinge. squared: of Euclidean distances; FaceNet squares them, on embeddings of length 1.

    mining: "batch_all", every triplet, B^3 numbers in memory; "batch_all_nonzero", the same averaged over the triplets
    that still violate the margin only; "batch_hard", for each anchor its farthest positive and nearest negative;
    "semi_hard", for each anchor and positive the nearest negative that is farther than the positive, and the farthest
    where none is. A batch without a triplet has a loss of 0.
    """
    if margin != "soft":
        margin = check_number("margin", margin)
    gaps, valid = mined_gaps(embeddings, labels, mining=mining, squared=squared)
    terms = torch.where(valid, F.softplus(gaps) if margin == "soft" else F.relu(gaps + margin), 0)
    return divide(terms.sum(), (terms > 0).sum() if mining == "batch_all_nonzero" else valid.sum())


def mined_gaps(
    embeddings: Tensor, labels: Tensor, *, mining: Mining = "batch_hard", squared: bool = False
) -> tuple[Tensor, Tensor]:
    """d(anchor, positive) - d(anchor, negative) of the triplets of a batch, and where there is one, of the same shape.

    Arguments: as of `triplet_loss`. (B, B, B) of all, (B,) of batch_hard, (B, B) of the others.
    """
    if mining not in _MINERS:
        raise unknown("mining", mining, _MINERS)
    distances, positive, negative = _compared(embeddings, labels, squared=squared)
    if len(embeddings) == 0:
        return distances.sum(dim=1), positive.any(dim=1)
    return _MINERS[mining](distances, positive, negative)


def _compared(embeddings: Tensor, labels: Tensor, *, squared: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Distances (B, B), and which pairs are of the same identity, of two examples, and which of two identities."""
    if embeddings.ndim != 2:
        raise InputError(f"embeddings are (B, D), got {tuple(embeddings.shape)}")
    check_shape(labels, embeddings.shape[:1], embeddings, "embeddings")
    check_labels(labels, 2**63 - 1)
    embeddings = full_precision(embeddings)
    # Exact distances: the faster way by a matrix product loses half the digits of those that matter, the small ones.
    distances = torch.cdist(embeddings, embeddings, compute_mode="donot_use_mm_for_euclid_dist")
    seen = labels != -1
    pairs = seen[:, None] & seen[None, :]
    same = labels[:, None] == labels[None, :]
    positive = same & pairs & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    return distances.square() if squared else distances, positive, ~same & pairs


def soft_ratio_loss(embeddings: Tensor, labels: Tensor, *, mining: Mining = "batch_all") -> Tensor:
    """The share of a softmax of distances that the positive has, squared. Hoffer and Ailon 2015, section 3.2.

    arXiv:1412.6622: with d+ = exp(d_ap) / (exp(d_ap) + exp(d_an)), which is sigmoid(d_ap - d_an), and d- = 1 - d+, the
    mean squared error of (d+, d-) against (0, 1) is d+^2. It asks for a ratio, and needs no margin. Euclidean
    distances. embeddings, labels, mining: as of `triplet_loss`; the paper draws triplets at random, as batch_all has
    them all.
    """
    gaps, valid = mined_gaps(embeddings, labels, mining=mining)
    return divide(torch.where(valid, gaps.sigmoid().square(), 0).sum(), valid.sum())


def batch_contrastive_loss(embeddings: Tensor, labels: Tensor, *, margin: float = 1.0) -> Tensor:
    """`contrastive_loss` of all pairs of a batch: the mean of those of the same, and that of two, in equal parts.

    Hadsell et al. 2006, eq. 4; a batch of P identities has (P - 1) times as many pairs of two, which would drown the
    others. embeddings: (B, D). labels: (B,) int64 identities, -1 is ignored. Of a kind that has no pair nothing is
    added.
    """
    margin = check_number("margin", margin, above=True)
    distances, positive, negative = _compared(embeddings, labels, squared=False)
    same = divide(torch.where(positive, distances.square(), 0).sum() / 2, positive.sum())
    other = divide(torch.where(negative, F.relu(margin - distances).square(), 0).sum() / 2, negative.sum())
    return (same + other) / 2


def _batch_all(distances: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    """d_ap - d_an of every (anchor, positive, negative), (B, B, B), and which of them are triplets."""
    return distances[:, :, None] - distances[:, None, :], positive[:, :, None] & negative[:, None, :]


def _batch_hard(distances: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    """The hardest triplet of each anchor: (B,)."""
    farthest = distances.masked_fill(~positive, -torch.inf).amax(dim=1)
    nearest = distances.masked_fill(~negative, torch.inf).amin(dim=1)
    valid = positive.any(dim=1) & negative.any(dim=1)
    return torch.where(valid, farthest - nearest, 0), valid


def _semi_hard(distances: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    """For each (anchor, positive) one negative: (B, B). Sorting each row once avoids the B^3 of looking at all."""
    count = negative.sum(dim=1, keepdim=True)
    ascending = distances.masked_fill(~negative, torch.inf).sort(dim=1).values
    farther = torch.searchsorted(ascending.detach(), distances.detach().contiguous(), right=True)
    chosen = ascending.gather(1, torch.minimum(farther, count - 1).clamp(min=0))
    valid = positive & (count > 0)
    return torch.where(valid, distances - chosen, 0), valid


_MINERS = {
    "batch_all": _batch_all,
    "batch_all_nonzero": _batch_all,
    "batch_hard": _batch_hard,
    "semi_hard": _semi_hard,
}
