"""TensoRF: Tensorial Radiance Fields. Chen et al. 2022, arXiv:2203.09517: a grid as a sum of planes times lines.

The idea: a grid of N^3 numbers, for density and for features of colour, is a sum of products: of a plane over (x, y)
and a line over z, and of the two other pairs. A place is looked up in three small planes instead of in one large grid.

Why it is the fast field here. A processor without a graphics card pays for memory that is out of its cache: a place in
a grid or in a table of hashes is 8 to 128 rows anywhere in tens of megabytes, some 60 ns each. Three planes of 128 x
128 x 16 numbers are 3 MB, their rows are 64 bytes, one line of the cache, and a place is 12 of them. The gradient is
added row by row by a product with a sparse matrix, in the order of the samples, so that it is the same at every run.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

_PAIRS = ((0, 1, 2), (0, 2, 1), (1, 2, 0))  # of a plane's two axes, and its line's


class _Rows(torch.autograd.Function):
    """Weighted sums of rows of a table: index and weight (N, K), table (R, C) -> (N, C). No gradient of the weights."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(index, weight)
        ctx.rows = len(table)
        return F.embedding_bag(index, table, per_sample_weights=weight, mode="sum")

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        index, weight = ctx.saved_tensors
        return add_rows(grads[0], index, weight, ctx.rows), None, None


def add_rows(values: Tensor, index: Tensor, weight: Tensor, rows: int) -> Tensor:
    """A table (rows, C) to whose rows `index` (N, K) values (N, C) were added, `weight` (N, K) times."""
    if values.device.type != "cpu" or values.dtype != torch.float32:
        spread = (weight[..., None] * values[:, None]).flatten(0, 1)
        return values.new_zeros(rows, values.shape[1]).index_add_(0, index.flatten(), spread)
    from scipy.sparse import csr_matrix  # a product with its transpose is one pass, of 10 ns a row, and never sorts

    count, k = index.shape
    begins = np.arange(0, count * k + 1, k, dtype=np.int32)
    parts = (weight.numpy().ravel(), index.numpy().ravel(), begins)
    found = csr_matrix(parts, shape=(count, rows)).T @ np.ascontiguousarray(values.detach().numpy())
    return torch.from_numpy(found)


def sum_rows(table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """(N, C): `weight` (N, K) times the rows `index` (N, K), int32, of a table (R, C)."""
    found: Any = _Rows.apply(table, index, weight)
    return found


class Places:
    """Where points (N, 3) in [0, 1] lie in planes and lines of a resolution: rows and bilinear weights.

    For all three pairs of axes one below the other: plane (3 N, 4), line (3 N, 2).
    """

    def __init__(self, points: Tensor, resolution: int) -> None:
        n = resolution
        scaled = points.t() * (n - 1)
        cell = scaled.floor().clamp_(0, n - 2)
        part, cell = scaled - cell, cell.to(torch.int32)
        rows, weights, line_rows, line_weights = [], [], [], []
        for k, (a, b, c) in enumerate(_PAIRS):
            base = cell[a] * n + cell[b] + k * n * n
            rows.append(torch.stack([base, base + 1, base + n, base + n + 1], dim=-1))
            both = part[a] * part[b]
            weights.append(torch.stack([1 - part[a] - part[b] + both, part[b] - both, part[a] - both, both], dim=-1))
            start = cell[c] + k * n
            line_rows.append(torch.stack([start, start + 1], dim=-1))
            line_weights.append(torch.stack([1 - part[c], part[c]], dim=-1))
        self.plane, self.plane_weight = torch.cat(rows), torch.cat(weights)
        self.line, self.line_weight = torch.cat(line_rows), torch.cat(line_weights)

    def select(self, chosen: Tensor) -> Places:
        """Those of some points (M,)."""
        found = object.__new__(Places)
        count = len(self.plane) // 3
        every = torch.cat([chosen, chosen + count, chosen + 2 * count])
        for name, value in vars(self).items():
            setattr(found, name, value[every])
        return found


class FactoredGrid(nn.Module):
    """A grid of (resolution^3) places with 3 * components numbers each, as planes times lines.

    gain: what parameters are multiplied by, which is how many times faster they learn than the layers behind, as
    published (0.02 to 0.001), under one learning rate.
    """

    def __init__(self, resolution: int, components: int, gain: float, spread: float = 0.1) -> None:
        super().__init__()
        self.resolution, self.components, self.gain = resolution, components, gain
        self.planes = nn.Parameter(torch.randn(3 * resolution**2, components) * (spread / gain))
        self.lines = nn.Parameter(torch.randn(3 * resolution, components) * (spread / gain))

    def products(self, at: Places) -> Tensor:
        """(3, N, components): of each pair of axes the plane's numbers times the line's."""
        plane = sum_rows(self.planes, at.plane, at.plane_weight)
        line = sum_rows(self.lines, at.line, at.line_weight)
        return (plane * line).view(3, -1, self.components) * (self.gain * self.gain)
