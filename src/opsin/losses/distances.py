"""All distances within a batch, as exact as differences and as fast as a matrix product."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def squared_distances(embeddings: Tensor) -> Tensor:
    """The squared Euclidean distances of all pairs: (B, D) -> (B, B), without a gradient, to be compared.

    A matrix product loses half the digits of the small distances, which are those that matter: here it is one of twice
    the digits. That is as exact as differences, and about 50 times as fast on a CPU. Embeddings that have these digits
    themselves, and devices that have none, take differences. Of two at one place it is 0 but for the rounding.
    """
    embeddings = embeddings.detach()
    if embeddings.dtype == torch.float64 or embeddings.device.type == "mps":
        return torch.cdist(embeddings, embeddings, compute_mode="donot_use_mm_for_euclid_dist").square()
    wide = embeddings.double()
    lengths = wide.square().sum(dim=1)
    return (wide @ (-2 * wide).T).add_(lengths).add_(lengths[:, None]).to(embeddings.dtype)


class _Distances(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, embeddings: Tensor) -> Tensor:
        squared = squared_distances(embeddings)
        # what is less than the rounding of float32 is none: equal embeddings are at 0
        least = 1e-14 * embeddings.square().sum(dim=1).amax() if len(embeddings) else 0
        distances = torch.where(squared > least, squared, 0).sqrt_()
        ctx.save_for_backward(embeddings, distances)
        return distances

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        embeddings, distances = ctx.saved_tensors
        slopes = (gradients[0] + gradients[0].T).div_(distances).masked_fill_(distances == 0, 0).double()
        wide = embeddings.double()
        return (slopes.sum(dim=1, keepdim=True) * wide).sub_(slopes @ wide).to(embeddings.dtype)


def euclidean_distances(embeddings: Tensor) -> Tensor:
    """The distances of all pairs: (B, D) -> (B, B), with a slope of 0 where two are at one place.

    By `squared_distances`; embeddings in double precision and devices without it take differences.
    """
    if embeddings.dtype == torch.float64 or embeddings.device.type == "mps":
        return torch.cdist(embeddings, embeddings, compute_mode="donot_use_mm_for_euclid_dist")
    found: Any = _Distances.apply(embeddings)
    return found
