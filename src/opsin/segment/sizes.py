"""Images of any size for networks that halve them: padded to whole cells before, and cut back behind.

In an exported program, whose sizes may be open, a slice or a padding asks which of two sizes is larger, and would fix
the answer; there rows and columns are taken by their numbers instead.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def pad_to_multiple(x: Tensor, step: int, rest: int = 0) -> Tensor:
    """(B, C, H, W) with the last row and column repeated below and to the right, to sides of k * step + rest."""
    height, width = x.shape[-2:]
    below, right = (rest - height) % step, (rest - width) % step
    if torch.compiler.is_compiling():
        for axis, size, more in ((2, height, below), (3, width, right)):
            x = x.index_select(axis, torch.arange(size + more, device=x.device).clamp(max=size - 1))
        return x
    return F.pad(x, (0, right, 0, below), mode="replicate") if below or right else x


def cut(x: Tensor, size: tuple[int, int] | torch.Size, start: int = 0) -> Tensor:
    """The (height, width) of (B, C, H, W) that begin at row and column `start`."""
    height, width = size
    if torch.compiler.is_compiling():
        rows, columns = (torch.arange(side, device=x.device) + start for side in (height, width))
        return x.index_select(2, rows).index_select(3, columns)
    return x[..., start : start + height, start : start + width]


class CeilMaxPool2d(nn.MaxPool2d):
    """A 2x2 pooling of stride 2 that rounds up, as Caffe's does: the last window may have one row, and one column."""

    def __init__(self) -> None:
        super().__init__(2, ceil_mode=True)

    def forward(self, input: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            # One row and column more, repeated: the last window's maximum is the same, or there is none to fill.
            return F.max_pool2d(F.pad(input, (0, 1, 0, 1), mode="replicate"), 2)
        return F.max_pool2d(input, 2, ceil_mode=True)
