"""What all processes of a training hold, seen by each of them, with the gradient that one process would find."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed


def gather(values: Tensor) -> Tensor:
    """Rows (B, ...) of every process, joined in the order of their ranks; the values themselves of one process alone.

    The numbers of rows may differ. Each process then finds the loss of all rows. The gradient of a row is the sum of
    what all processes have for it, since a mean over processes follows (that of DistributedDataParallel): without that
    sum it would be too small by their number, and with none through the rows of others the negatives would not move.
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return values
    counts = torch.zeros(distributed.get_world_size(), dtype=torch.int64, device=values.device)
    counts[distributed.get_rank()] = len(values)
    distributed.all_reduce(counts)
    sizes: list[int] = counts.tolist()
    if not values.is_floating_point():
        return _gather_rows(values, sizes)
    found: Any = _Gathering.apply(values, sizes)
    return found


class _Gathering(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        return _gather_rows(values, sizes)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = gradients[0].contiguous()
        distributed.all_reduce(gradient)
        return gradient.split(ctx.sizes)[distributed.get_rank()], None


def _gather_rows(values: Tensor, sizes: list[int]) -> Tensor:
    padded = values.new_zeros(max(sizes), *values.shape[1:])
    padded[: len(values)] = values.detach()
    parts = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])
