"""SSD's default boxes: of several sides and ratios at every cell of every map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from opsin.errors import InputError
from opsin.ops import grid_anchors


class DefaultBoxes:
    """Of map k a square of side s_k, one of sqrt(s_k s_{k+1}), and for each ratio r two, s_k sqrt(r) by s_k / sqrt(r).

    Liu et al. 2015, arXiv:1512.02325, section 2.2. Sides are fractions of the image's width and height.
    scales: one for each map, the finest first, and one more. ratios: of each map. steps: from cell to cell in pixels,
    where they are not the image's side divided by the cells. clip: no side exceeds the image's, as in torchvision
    and ssd.pytorch; a box may reach beyond it all the same.
    """

    def __init__(
        self,
        scales: Sequence[float],
        ratios: Sequence[Sequence[float]],
        steps: Sequence[float] | None = None,
        clip: bool = False,
    ) -> None:
        if len(scales) < 2 or not all(0 < small <= large for small, large in pairwise(scales)):
            raise InputError(f"scales are fractions of the image that grow from above 0, got {list(scales)}")
        for name, values, count in (("ratios", ratios, len(scales) - 1), ("steps", steps, len(scales) - 1)):
            if values is not None and len(values) != count:
                raise InputError(f"{count + 1} scales are for {count} maps, but there are {len(values)} {name}")
        if not all(isinstance(r, int | float) and r > 1 for of_map in ratios for r in of_map):
            raise InputError(f"ratios are above 1, each stands for its inverse too; got {[list(r) for r in ratios]}")
        self.sides = [_sides(*pair, of_map, clip) for pair, of_map in zip(pairwise(scales), ratios, strict=True)]
        self.steps = steps

    def __len__(self) -> int:
        return len(self.sides)

    @property
    def per_cell(self) -> tuple[int, ...]:
        """How many there are at a cell of each map."""
        return tuple(map(len, self.sides))

    def lay_out(self, maps: Sequence[Sequence[int]], size: Sequence[int], device: torch.device) -> Tensor:
        """(A, 4), xyxy in pixels, map by map, row by row, cell by cell. maps: (H, W) of each; size: of the image."""
        height, width = size
        levels = []
        for place, (sides, cells) in enumerate(zip(self.sides, maps, strict=True)):
            halves = torch.tensor(sides, device=device) * torch.tensor([width, height], device=device) / 2
            step = (height / cells[0], width / cells[1]) if self.steps is None else self.steps[place]
            levels.append(grid_anchors(torch.cat([-halves, halves], dim=1), cells, step))
        return torch.cat(levels)


def evenly_spaced(smallest: float, largest: float, count: int) -> tuple[float, ...]:
    """Equation 4: s_k = s_min + (s_max - s_min) (k - 1) / (m - 1)."""
    return tuple(smallest + (largest - smallest) * place / max(1, count - 1) for place in range(count))


def _sides(scale: float, following: float, ratios: Sequence[float], clip: bool) -> list[tuple[float, float]]:
    """Widths and heights."""
    between = math.sqrt(scale * following)
    pairs = [(scale, scale), (between, between)]
    for ratio in ratios:
        long, short = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
        pairs += [(long, short), (short, long)]
    return [(min(w, 1.0), min(h, 1.0)) for w, h in pairs] if clip else pairs
