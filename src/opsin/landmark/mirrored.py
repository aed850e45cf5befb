"""Samples whose points get each other's names where an augmentation has mirrored the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from opsin.data import Preprocessing
from opsin.data.transforms.points import Points
from opsin.errors import InputError

_FRAME = "frame_of_points"


@dataclass(frozen=True)
class WithFlipPairs:
    """An augmentation that exchanges the points of each pair where it has made a mirror image.

    Whether it has, three corners of the image say, which move with it: they then turn the other way round. So every
    step is covered, an upside-down flip too, which is a turn of a mirror image; a turn alone exchanges nothing.

    flip: of each point the one that it becomes. None: not known; a mirror image raises InputError.
    """

    augmentation: Callable[..., Any]
    preprocessing: Preprocessing
    flip: tuple[int, ...] | None

    @property
    def partners(self) -> int:
        """The other samples that the augmentation wants."""
        return getattr(self.augmentation, "partners", 0)

    def __call__(self, sample: dict[str, Any], partners: Sequence[Any] = ()) -> dict[str, Any]:
        height, width = sample["image"].shape[-2:]
        corners = Points([[0.0, 0.0], [width, 0.0], [0.0, height]], canvas_size=(height, width))
        changed = self.augmentation({**sample, _FRAME: corners}, partners)
        frame = changed.pop(_FRAME).as_subclass(Tensor)
        if not is_mirrored(frame):
            return changed
        if self.flip is None:
            raise InputError(
                "an image was mirrored, and it is not known which points change places; give landmark.flip_pairs, or "
                "leave the flips out of augment"
            )
        order = torch.tensor(self.flip)
        points = changed["points"]
        moved = Points(points.as_subclass(Tensor)[order], canvas_size=points.canvas_size)
        return {**changed, "points": moved, "visible": changed["visible"][order.numpy()]}


def is_mirrored(corners: Tensor) -> bool:
    """Whether an image's left upper, right upper and left lower corner (3, 2) turn the other way round."""
    across, down = corners[1] - corners[0], corners[2] - corners[0]
    return bool(across[0] * down[1] - across[1] * down[0] < 0)
