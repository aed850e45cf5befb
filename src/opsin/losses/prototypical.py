"""The loss of prototypical networks: a batch is an episode, and each query is to be nearest to its class's mean."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from opsin.checks import check_count
from opsin.errors import InputError
from opsin.losses.gathering import gather
from opsin.losses.terms import check_labels, check_shape, divide, full_precision


def prototypical_loss(embeddings: Tensor, labels: Tensor, *, shots: int = 1) -> Tensor:
    """-log softmax(-squared distance) of each query to the prototype of its class. Snell et al. 2017, eq. 2.

    arXiv:1703.05175. embeddings: (B, D). labels: (B,) int64, -1 is ignored. Of each class in the batch the first
    `shots` make its prototype, their mean, and the others are queries. A class with fewer is left out; one without a
    query is a prototype all the same. Averaged over the queries; 0 where there is none, or one class alone.
    """
    check_count("shots", shots)
    if embeddings.ndim != 2:
        raise InputError(f"embeddings are (B, D), got {tuple(embeddings.shape)}")
    check_shape(labels, embeddings.shape[:1], embeddings, "embeddings")
    check_labels(labels, 2**63 - 1)
    embeddings = full_precision(embeddings)
    classes, number, counts = labels.unique(return_inverse=True, return_counts=True)
    usable = (counts >= shots) & (classes >= 0)
    if int(usable.sum()) < 2:
        return embeddings.sum() * 0
    own = F.one_hot(number, len(classes))  # (B, K)
    rank = (own.cumsum(dim=0) * own).sum(dim=1)  # 1 for the first of a class in the batch
    support = own.to(embeddings.dtype) * (rank <= shots)[:, None]
    prototypes = support.T @ embeddings / shots
    queries = (rank > shots) & usable[number]
    asked = embeddings[queries]
    squared = torch.cdist(asked, prototypes, compute_mode="donot_use_mm_for_euclid_dist").square()
    logits = (-squared).masked_fill(~usable, -torch.inf)
    terms = F.cross_entropy(logits, number[queries], reduction="sum")
    return divide(terms, queries.sum().to(terms.dtype)) + embeddings.sum() * 0


class PrototypicalLoss(nn.Module):
    """`prototypical_loss` of the embeddings of all processes together."""

    def __init__(self, shots: int = 1) -> None:
        super().__init__()
        self.shots = check_count("shots", shots)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return prototypical_loss(gather(embeddings), gather(labels), shots=self.shots)

    def extra_repr(self) -> str:
        return f"shots={self.shots}"
