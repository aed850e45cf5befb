"""Losses of triplets that are found within a batch: an anchor, one of its own identity, and one of another.

Which triplets count is found without gradient, by all distances of the batch; only the chosen ones are then measured
with it, by differences, which is exact and costs little.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from opsin.checks import check_number
from opsin.errors import InputError, unknown
from opsin.losses.distances import euclidean_distances, squared_distances
from opsin.losses.terms import check_labels, check_shape, divide, full_precision

Mining: TypeAlias = Literal["batch_all", "batch_all_nonzero", "batch_hard", "semi_hard", "semi_hard_all", "facenet"]
_AT_ONCE = 1 << 22  # numbers of a piece of the search for negatives


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
    where none is, as in TensorFlow Addons; "facenet", the same where it is less than the margin farther, and else no
    triplet, as the paper has it (section 3.2); "semi_hard_all", all such negatives in the place of the nearest, as the
    miner of pytorch-metric-learning has it. A batch without a triplet has a loss of 0.
    """
    if margin != "soft":
        margin = check_number("margin", margin)
    elif mining in ("facenet", "semi_hard_all"):
        raise InputError(f"mining={mining} takes triplets within the margin, which is to be a number, not soft")
    if mining == "semi_hard_all":
        return _all_within(*_compared(embeddings, labels), float(margin), squared)
    gaps, valid = mined_gaps(embeddings, labels, mining=mining, squared=squared)
    if mining == "facenet":
        valid = valid & (gaps > -float(margin))
    terms = torch.where(valid, F.softplus(gaps) if margin == "soft" else F.relu(gaps + margin), 0)
    return divide(terms.sum(), (terms > 0).sum() if mining == "batch_all_nonzero" else valid.sum())


def soft_ratio_loss(embeddings: Tensor, labels: Tensor, *, mining: Mining = "batch_all") -> Tensor:
    """The share of a softmax of two distances that the positive has, squared. Hoffer and Ailon 2014, section 3.1.

    arXiv:1412.6622: with d+ = exp(d_ap) / (exp(d_ap) + exp(d_an)), which is sigmoid(d_ap - d_an), and d- = 1 - d+, the
    squared error of (d+, d-) against (0, 1) is a constant times d+^2. It asks for a ratio, and needs no margin.
    Euclidean distances. embeddings, labels, mining: as of `triplet_loss`, of those that need no margin; the paper draws
    triplets at random, where batch_all has them all.
    """
    gaps, valid = mined_gaps(embeddings, labels, mining=mining)
    return divide(torch.where(valid, gaps.sigmoid().square(), 0).sum(), valid.sum())


def mined_gaps(
    embeddings: Tensor, labels: Tensor, *, mining: Mining = "batch_hard", squared: bool = False
) -> tuple[Tensor, Tensor]:
    """d(anchor, positive) - d(anchor, negative) of the triplets of a batch, and where there is one, of the same shape.

    Arguments: as of `triplet_loss`. (B, B, B) of batch_all, (B,) of batch_hard; of semi_hard and facenet (M,) for M
    pairs of the same, where facenet has the negatives beyond the margin too. Raises InputError for other minings.
    """
    if mining not in _MINERS:
        raise unknown("mining", mining, _MINERS)
    embeddings, same, seen = _compared(embeddings, labels)
    if len(embeddings) == 0:
        return embeddings.sum(dim=1), seen
    return _MINERS[mining](embeddings, same, seen, squared)


def _compared(embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings in full precision, pairs of one label (B, B), each with itself too, and which have a label."""
    if embeddings.ndim != 2:
        raise InputError(f"embeddings are (B, D), got {tuple(embeddings.shape)}")
    check_shape(labels, embeddings.shape[:1], embeddings, "embeddings")
    check_labels(labels, 2**63 - 1)
    return full_precision(embeddings), labels[:, None] == labels[None, :], labels != -1


def _between(embeddings: Tensor, first: Tensor, second: Tensor, squared: bool) -> Tensor:
    """The distances of pairs by their places, with a gradient."""
    return _length(embeddings[first] - embeddings[second], squared)


def _length(errors: Tensor, squared: bool) -> Tensor:
    return errors.square().sum(dim=-1) if squared else torch.linalg.vector_norm(errors, dim=-1)


def _positives(same: Tensor, seen: Tensor) -> Tensor:
    return (same & seen).fill_diagonal_(False)


def _batch_all(embeddings: Tensor, same: Tensor, seen: Tensor, squared: bool) -> tuple[Tensor, Tensor]:
    """d_ap - d_an of every (anchor, positive, negative), (B, B, B), and which of them are triplets."""
    distances = euclidean_distances(embeddings)
    distances = distances.square() if squared else distances
    valid = _positives(same, seen)[:, :, None] & (~same & seen[:, None] & seen)[:, None, :]
    return distances[:, :, None] - distances[:, None, :], valid


def _batch_hard(embeddings: Tensor, same: Tensor, seen: Tensor, squared: bool) -> tuple[Tensor, Tensor]:
    """The hardest triplet of each anchor: (B,)."""
    with torch.no_grad():
        distances = squared_distances(embeddings)
        apart, away = same | ~seen, ~_positives(same, seen)
        nearest = _least(distances.masked_fill(apart, torch.inf))
        farthest = _least(distances.neg_().masked_fill_(away, torch.inf))
        places = torch.arange(len(seen), device=seen.device)
        valid = ~(apart[places, nearest] | away[places, farthest])
    own, other = (_length(embeddings - embeddings[one], squared) for one in (farthest, nearest))
    return own - other, valid


def _least(values: Tensor) -> Tensor:
    """The place of the least of each row, (B,). NumPy's search is ten times as fast as torch's on a CPU."""
    if values.device.type == "cpu" and not torch.compiler.is_compiling():
        return torch.from_numpy(values.numpy().argmin(axis=1))
    return values.argmin(dim=1)


def _facenet(embeddings: Tensor, same: Tensor, seen: Tensor, squared: bool) -> tuple[Tensor, Tensor]:
    """For each (anchor, positive) the nearest negative that is farther."""
    return _next_farther(embeddings, same, seen, squared, else_farthest=False)


def _semi_hard(embeddings: Tensor, same: Tensor, seen: Tensor, squared: bool) -> tuple[Tensor, Tensor]:
    """The same, and the farthest negative where none is farther."""
    return _next_farther(embeddings, same, seen, squared, else_farthest=True)


def _next_farther(
    embeddings: Tensor, same: Tensor, seen: Tensor, squared: bool, *, else_farthest: bool
) -> tuple[Tensor, Tensor]:
    if seen.device.type != "cpu":
        return _next_farther_sorted(embeddings, same, seen, squared, else_farthest=else_farthest)
    with torch.no_grad():
        distances = squared_distances(embeddings)
        anchors, others = _positives(same, seen).nonzero(as_tuple=True)
        negatives = distances.masked_fill(same | ~seen, torch.inf)
        own, count = distances[anchors, others], max(1, _AT_ONCE // len(seen))
        places, farther = anchors.clone(), torch.zeros_like(anchors, dtype=torch.bool)
        for k in range(0, len(anchors), count):  # pairs of the same are few: a look at a row each, and no sorting
            rows = negatives[anchors[k : k + count]]
            rows.masked_fill_(rows <= own[k : k + count, None], torch.inf)
            nearest, places[k : k + count] = rows.min(dim=1)
            farther[k : k + count] = nearest < torch.inf
        valid = farther
        if else_farthest:
            most, farthest = distances.masked_fill(same | ~seen, -1).max(dim=1)
            places = torch.where(farther, places, farthest[anchors])
            valid = (most >= 0)[anchors]
        places = torch.where(valid, places, anchors)
    return _between(embeddings, anchors, others, squared) - _between(embeddings, anchors, places, squared), valid


def _next_farther_sorted(
    embeddings: Tensor, same: Tensor, seen: Tensor, squared: bool, *, else_farthest: bool
) -> tuple[Tensor, Tensor]:
    """The same where the number of pairs cannot be read without waiting for the device: of all pairs, (B, B)."""
    distances = euclidean_distances(embeddings)
    distances = distances.square() if squared else distances
    negative = ~same & seen
    count = negative.sum(dim=1, keepdim=True)
    ascending, order = distances.detach().masked_fill(~negative, torch.inf).sort(dim=1)
    place = torch.searchsorted(ascending, distances.detach().contiguous(), right=True)
    farther = place < count
    chosen = distances.gather(1, order.gather(1, torch.minimum(place, count - 1).clamp(min=0)))
    valid = _positives(same, seen) & ((count > 0) if else_farthest else farther)
    return torch.where(valid, distances - chosen, 0), valid


def _all_within(embeddings: Tensor, same: Tensor, seen: Tensor, margin: float, squared: bool) -> Tensor:
    """The hinge of every triplet with d_ap < d_an < d_ap + margin, averaged.

    The sum is one of distances, each with the number of triplets that it is in: these are counted, and no triplet made.
    """
    distances = euclidean_distances(embeddings)
    distances = distances.square() if squared else distances
    with torch.no_grad():
        weights = torch.zeros_like(distances)
        anchors, others = _positives(same, seen).nonzero(as_tuple=True)
        negatives = distances.masked_fill(same | ~seen, torch.inf)
        own, count = distances[anchors, others], max(1, _AT_ONCE // max(1, len(seen)))
        for k in range(0, len(anchors), count):
            rows, near = anchors[k : k + count], own[k : k + count, None]
            there = negatives[rows]
            inside = ((there > near) & (there < near + margin)).to(weights.dtype)
            weights.index_add_(0, rows, inside, alpha=-1)
            weights[rows, others[k : k + count]] += inside.sum(dim=1)
        mass = weights.clamp(min=0).sum()
    return divide((weights * distances).sum() + margin * mass, mass)


_MINERS: dict[str, Callable[[Tensor, Tensor, Tensor, bool], tuple[Tensor, Tensor]]] = {
    "batch_all": _batch_all,
    "batch_all_nonzero": _batch_all,
    "batch_hard": _batch_hard,
    "facenet": _facenet,
    "semi_hard": _semi_hard,
}
