"""Scores of a network's input brought back to the pixels of the image that it was made of, a few rows at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from opsin.data import Preprocessing

_AT_ONCE = 1 << 22  # scores of a strip of rows: 16 MiB


@dataclass(frozen=True)
class Line:
    """Along one axis, where the pixels of an image lie in scores.

    first, second: int64 (N,), the scores on both sides of each pixel's middle. share: float (N,), of the second.
    known: bool (N,), whether its middle lies within the input at all, which a centre crop may leave out.
    """

    first: Tensor
    second: Tensor
    share: Tensor
    known: Tensor

    @property
    def plain(self) -> bool:
        """Whether each pixel has the score of one place, the same for all."""
        steps = torch.arange(len(self.first))
        return bool((self.share == 0).all() and (self.first == self.first[0] + steps).all())


def find_line(length: int, scale: float, shift: float, side: int) -> Line:
    """Where `length` pixels lie among `side` scores: x -> x * scale + shift, pixel i spanning [i, i + 1).

    Bilinear; what lies within the image takes no part of the border that was set around it.
    """
    places = (torch.arange(length, dtype=torch.float64) + 0.5) * scale + shift - 0.5
    low = max(0, math.ceil(shift - 1e-6))
    high = max(low, min(side, math.floor(shift + length * scale + 1e-6)) - 1)
    known = (places + 0.5 >= 0) & (places + 0.5 <= side)
    places = places.clamp(low, high)
    first = (places + 1e-9).floor().long()
    share = (places - first).clamp(min=0.0)
    return Line(first, (first + 1).clamp(max=high), torch.where(share < 1e-8, 0.0, share), known)


def lines_of(size: tuple[int, int], preprocessing: Preprocessing, side: tuple[int, int]) -> tuple[Line, Line]:
    """The rows and the columns of an image of (height, width) in scores of (height, width)."""
    scale_x, scale_y, shift_x, shift_y = preprocessing.transform(*size)
    return find_line(size[0], scale_y, shift_y, side[0]), find_line(size[1], scale_x, shift_x, side[1])


def strips(scores: Tensor, rows: Line, columns: Line) -> Iterator[tuple[int, Tensor]]:
    """The first row of each strip of an image, and its scores (K, n, W), of scores (K, h, w)."""
    count = max(1, _AT_ONCE // max(1, len(scores) * len(columns.first)))
    for start in range(0, len(rows.first), count):
        yield start, resample_rows(scores, rows, columns, start, min(start + count, len(rows.first)))


def resample_rows(scores: Tensor, rows: Line, columns: Line, start: int, stop: int, offset: int = 0) -> Tensor:
    """The scores (K, stop - start, W) of some rows of an image. offset: the first row that `scores` holds."""
    device, part = scores.device, slice(start, stop)
    first, second = (one[part].to(device) - offset for one in (rows.first, rows.second))
    share = rows.share[part].to(device, scores.dtype)
    band = scores.index_select(1, first)
    if bool((share > 0).any()):
        band = band.lerp(scores.index_select(1, second), share[None, :, None])
    if columns.plain:
        return band[..., int(columns.first[0]) :][..., : len(columns.first)]
    first, second = columns.first.to(device), columns.second.to(device)
    share = columns.share.to(device, scores.dtype)
    return band.index_select(2, first).lerp(band.index_select(2, second), share)
