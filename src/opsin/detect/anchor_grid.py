"""Anchors of RetinaNet and of the RPN: the same at every place of every map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from opsin.errors import unknown
from opsin.ops import cell_anchors, grid_anchors

AnchorForm: TypeAlias = Literal["paper", "torchvision"]


class AnchorGrid:
    """Anchors of some sides and ratios at every place of maps of some strides.

    sides: of each map, in pixels. ratios: height / width. form: "paper", around the middle of a cell, side by side,
    each in all ratios; or "torchvision", ratio by ratio, rounded, around the corner of a cell and with whole distances.
    Raises InputError for another form.
    """

    def __init__(
        self, strides: Sequence[int], sides: Sequence[Sequence[float]], ratios: Sequence[float], form: AnchorForm
    ) -> None:
        if form not in ("paper", "torchvision"):
            raise unknown("anchors", form, ("paper", "torchvision"))
        self.strides, self.form = tuple(strides), form
        if form == "paper":
            self.cells = [cell_anchors(of_level, ratios) for of_level in sides]
        else:
            self.cells = [torch.cat([cell_anchors(s, [ratio]) for ratio in ratios]).round() for s in sides]

    @property
    def count(self) -> int:
        """Anchors at a place."""
        return len(self.cells[0])

    def lay_out(self, maps: Sequence[Sequence[int]], size: Sequence[int], device: torch.device) -> list[Tensor]:
        """The anchors (A_l, 4) of each map, row by row. maps: (H, W) of each; size: (height, width) of the input."""
        levels = []
        for cell, stride, cells in zip(self.cells, self.strides, maps, strict=True):
            boxes = cell.to(device)
            if self.form == "paper":
                levels.append(grid_anchors(boxes, cells, stride))
            else:  # whole pixels: 114 for the 7 rows of P7 in an image of 800
                steps = (size[0] // cells[0], size[1] // cells[1])
                levels.append(grid_anchors(boxes, cells, steps, offset=0.0))
        return levels
