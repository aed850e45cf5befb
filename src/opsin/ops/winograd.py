"""Winograd's minimal filtering for 3x3 convolutions. Lavin and Gray 2015, arXiv:1509.09308, section 4.

A tile of m x m outputs needs a = m + 2 inputs a side. In place of its 9 m^2 products for each pair of channels, data d
and filter g are taken to a form where a^2 do:

    Y = A^T [(G g G^T) * (B^T d B)] A

with * the product element by element, summed over the channels, which makes it one matrix product for each of the a^2
elements. F(2x2, 3x3) needs 16 products for 36, F(4x4, 3x3) 36 for 144. The larger the tile, the larger the numbers in
the transforms, and the more digits are lost in sums that cancel.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Transform(NamedTuple):
    """F(m x m, 3x3). Points 0, 1, -1 and infinity for m = 2; 2 and -2 too for m = 4.

    operations: of a tile's data, of a filter, of a tile's outputs; the paper's table 1, times a^2.
    """

    outputs: int
    data: tuple[tuple[float, ...], ...]  # B^T
    filter: tuple[tuple[float, ...], ...]  # G
    inverse: tuple[tuple[float, ...], ...]  # A^T
    operations: tuple[int, int, int]

    @property
    def inputs(self) -> int:
        return self.outputs + 2


TRANSFORMS = {
    "winograd2": Transform(
        outputs=2,
        data=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
        filter=((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
        inverse=((1, 1, 1, 0), (0, 1, -1, -1)),
        operations=(32, 28, 24),
    ),
    "winograd4": Transform(
        outputs=4,
        data=(
            (4, 0, -5, 0, 1, 0),
            (0, -4, -4, 1, 1, 0),
            (0, 4, -4, -1, 1, 0),
            (0, -2, -1, 2, 1, 0),
            (0, 2, -1, -2, 1, 0),
            (0, 4, 0, -5, 0, 1),
        ),
        filter=(
            (1 / 4, 0, 0),
            (-1 / 6, -1 / 6, -1 / 6),
            (-1 / 6, 1 / 6, -1 / 6),
            (1 / 24, 1 / 12, 1 / 6),
            (1 / 24, -1 / 12, 1 / 6),
            (0, 0, 1),
        ),
        inverse=((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
        operations=(156, 72, 100),
    ),
}


def winograd_conv2d(images: Tensor, weight: Tensor, groups: int, transform: Transform) -> Tensor:
    """Convolution of stride 1 without padding. images: (B, C, H, W), H and W >= 3. weight: (K, C / groups, 3, 3)."""
    batch, channels, height, width = images.shape
    kernels = len(weight)
    m, a = transform.outputs, transform.inputs
    down, across = -(-(height - 2) // m), -(-(width - 2) // m)
    images = F.pad(images, (0, across * m + 2 - width, 0, down * m + 2 - height))
    tiles = images.unfold(2, a, m).unfold(3, a, m)  # (B, C, down, across, a, a)
    tiles = tiles.permute(4, 5, 1, 0, 2, 3).reshape(a * a, -1)
    data = (_both_sides(transform.data, images) @ tiles).view(a * a, groups, channels // groups, -1)
    filters = weight.permute(2, 3, 0, 1).reshape(9, -1)
    filters = (_both_sides(transform.filter, images) @ filters).view(a * a, groups, kernels // groups, -1)
    products = (filters @ data).view(a * a, -1)
    outputs = (_both_sides(transform.inverse, images) @ products).view(m, m, kernels, batch, down, across)
    outputs = outputs.permute(3, 2, 4, 0, 5, 1).reshape(batch, kernels, down * m, across * m)
    return outputs[:, :, : height - 2, : width - 2]


def _both_sides(matrix: tuple[tuple[float, ...], ...], like: Tensor) -> Tensor:
    """X -> M X M^T as one matrix on the elements of X in reading order."""
    m = torch.tensor(matrix, dtype=torch.float64)
    return torch.kron(m, m).to(like)
