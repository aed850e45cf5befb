"""Clustering: whether groups that are found among embeddings are the identities."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from opsin.checks import check_count
from opsin.errors import InputError
from opsin.ops.nearest_neighbours import nearest_neighbours

Array = np.ndarray
_ROUNDS = 50  # after which moving centres is given up


def mutual_information(labels: Array, clusters: Array) -> float:
    """Normalised mutual information of two groupings: 2 I(labels; clusters) / (H(labels) + H(clusters)), in [0, 1].

    labels, clusters: (N,) int64. 1 where both are one group each, as scikit-learn has it. Independent groupings of few
    examples have more than 0.
    """
    if labels.shape != clusters.shape or not len(labels):
        raise InputError(f"labels are {labels.shape} and clusters {clusters.shape}; expected as many, one or more")
    _, rows = np.unique(labels, return_inverse=True)
    _, columns = np.unique(clusters, return_inverse=True)
    width, count = int(columns.max()) + 1, len(labels)
    pairs, joint = np.unique(rows.astype(np.int64) * width + columns, return_counts=True)
    one, other = np.bincount(rows), np.bincount(columns)
    expected = one[pairs // width].astype(np.float64) * other[pairs % width]
    shared = float((joint / count * np.log(joint * count / expected)).sum())
    entropies = _entropy(one) + _entropy(other)
    return 1.0 if entropies == 0 else float(np.clip(2 * shared / entropies, 0.0, 1.0))


def _entropy(counts: Array) -> float:
    share = counts / counts.sum()
    return float(-(share * np.log(share)).sum())


def cluster(embeddings: Tensor, count: int, *, seed: int = 0) -> Array:
    """k-means: of each embedding its cluster, (N,) int64. Lloyd 1982, doi:10.1109/TIT.1982.1056489.

    embeddings: (N, D). count: of clusters, at most N. Centres begin at embeddings that are drawn with k-means++, Arthur
    and Vassilvitskii 2007, and one that nobody is near to any more stays where it was. Deterministic by the seed.
    """
    if check_count("count", count) > len(embeddings):
        raise InputError(f"{count} clusters of {len(embeddings)} embeddings; give as many at most")
    embeddings = embeddings.detach().float()
    centres, before = _spread(embeddings, count, np.random.RandomState(seed)), None
    for _ in range(_ROUNDS):
        nearest = nearest_neighbours(embeddings, centres, 1).places[:, 0]
        if before is not None and bool((nearest == before).all()):
            break
        before = nearest
        sums = torch.zeros_like(centres).index_add_(0, nearest, embeddings)
        sizes = torch.bincount(nearest, minlength=count)[:, None]
        centres = torch.where(sizes > 0, sums / sizes.clamp(min=1), centres)
    assert before is not None
    return before.cpu().numpy()


def _spread(embeddings: Tensor, count: int, random: np.random.RandomState) -> Tensor:
    """k-means++: embeddings, each drawn with a probability by its squared distance to those drawn before."""
    chosen = [int(random.randint(len(embeddings)))]
    nearest = (embeddings - embeddings[chosen[0]]).square().sum(dim=1).double()
    for _ in range(count - 1):
        reach = nearest.cumsum(dim=0)
        at = torch.searchsorted(reach, random.random_sample() * float(reach[-1]), right=True)
        chosen.append(min(int(at), len(embeddings) - 1))
        torch.minimum(nearest, (embeddings - embeddings[chosen[-1]]).square().sum(dim=1).double(), out=nearest)
    return embeddings[chosen]
