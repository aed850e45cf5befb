"""Bending a line of text by its borders: points along the upper and the lower one move, and the rest follows.

Luo, Zhu, Jin and Wang 2020 (Learn to Augment, arXiv:2003.06606), section 3.1, with random moves. An agent that learns
them is `opsin.read.learned_augmentation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from opsin.data.transforms.geometry import follow
from opsin.ops.moving_least_squares import KINDS, border_points, moving_least_squares

HEIGHT = 32.0  # of the images for which the paper gives a radius
_MOST = 0.45  # of a patch's width, so that no two neighbours change places


class MovingLeastSquares(v2.Transform):
    """Move 2 (patches + 1) points on the upper and lower borders at random, and all pixels by moving least squares.

    patches: of equal width; 3 in the paper. radius: how far each point moves at most, across and down, in pixels of an
    image that is 32 high, in proportion for others; 10 in the paper. kind: "similarity" or "rigid", what a patch does
    locally. fill: what comes in from outside; None repeats the border. mask_fill: of masks.
    """

    def __init__(
        self,
        patches: int = 3,
        radius: float = 10.0,
        kind: str = "similarity",
        interpolation: Any = InterpolationMode.BILINEAR,
        fill: float | Sequence[float] | None = None,
        mask_fill: float = 0,
    ) -> None:
        super().__init__()
        if isinstance(patches, bool) or not isinstance(patches, int) or patches < 1:
            raise ValueError(f"patches is {patches}; expected 1 or more")
        if not 0 <= radius < HEIGHT / 2:
            raise ValueError(f"radius is {radius}; expected less than {HEIGHT / 2:g}, half the height")
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r}; expected similarity or rigid")
        self.patches, self.radius, self.kind, self.interpolation = patches, radius, kind, interpolation
        self.fill, self.mask_fill = fill, mask_fill

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        found = next(x for x in flat_inputs if isinstance(x, Tensor))
        height, width = v2.functional.get_size(found)
        moves = 2 * torch.rand(1, 2 * (self.patches + 1), 2) - 1
        displacement = displace(moves, (height, width), self.radius, self.kind)
        if self.fill is None:
            displacement = stay_inside(displacement)
        return {"displacement": displacement}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        displacement = params["displacement"]
        if isinstance(inpt, tv_tensors.BoundingBoxes):
            return follow(inpt, displacement)
        fill = self.mask_fill if isinstance(inpt, tv_tensors.Mask) else self.fill or 0
        return v2.functional.elastic(inpt, displacement, self.interpolation, fill=fill)  # type: ignore[arg-type]


def displace(moves: Tensor, size: tuple[int, int], radius: float, kind: Any = "similarity") -> Tensor:
    """Where an image of (height, width) is read when its border points move: (B, H, W, 2) to be added to each place.

    moves: (B, 2 (patches + 1), 2) in [-1, 1], across and down, in units of `reach`. In torch's units, 2 the whole side.
    """
    height, width = size
    fiducials = border_points(moves.shape[1] // 2 - 1, height, width).to(moves)
    moved = fiducials + moves * reach(moves.shape[1] // 2 - 1, size, radius).to(moves)
    rows, columns = ((torch.arange(side) + 0.5).to(moves) for side in (height, width))
    centres = torch.cartesian_prod(rows, columns).flip(1)
    read = moving_least_squares(centres, moved, fiducials.expand_as(moved), kind=kind)
    shift = (read - centres) * 2 / torch.tensor([width, height]).to(moves)
    return shift.view(-1, height, width, 2)


def reach(patches: int, size: tuple[int, int], radius: float) -> Tensor:
    """How far a border point moves at most, (across, down), in pixels of an image of (height, width)."""
    scaled = radius * size[0] / HEIGHT
    return torch.tensor([min(scaled, _MOST * size[1] / patches), scaled])


def stay_inside(displacement: Tensor) -> Tensor:
    """A field (B, H, W, 2) that reads nowhere beyond the centres of the pixels at the border."""
    height, width = displacement.shape[1:3]
    rows, columns = ((torch.arange(side) + 0.5).to(displacement) for side in (height, width))
    own = torch.stack([columns.expand(height, width), rows[:, None].expand(height, width)], dim=-1)
    own = own * 2 / torch.tensor([width, height]).to(displacement) - 1
    limit = 1 - 1 / torch.tensor([width, height]).to(displacement)
    return torch.minimum(torch.maximum(own + displacement, -limit), limit) - own
