"""Parts of images within boxes as examples of their own: a square around each, which may reach over the border."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from opsin.data.inputs import ImageFiles, Inputs
from opsin.errors import InputError

_LARGEST = 1 << 14  # pixels of a side


def windows_of(boxes: np.ndarray, scale: float) -> np.ndarray:
    """The squares (N, 4) int64, xyxy in whole pixels, about boxes (N, 4): `scale` times the longer side, 2 at least."""
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    sides = np.maximum(np.rint((boxes[:, 2:] - boxes[:, :2]).max(axis=1) * scale), 2)
    if len(sides) and not sides.max() <= _LARGEST:
        raise InputError(f"a box of {sides.max() / scale:g} pixels is larger than {_LARGEST}")
    corner = np.rint(middle - sides[:, None] / 2)
    return np.concatenate([corner, corner + sides[:, None]], axis=1).astype(np.int64)


def cut_window(image: Tensor, window: Sequence[int]) -> Tensor:
    """The pixels of an image (C, H, W) in a window (x1, y1, x2, y2); black where it reaches over the border."""
    x1, y1, x2, y2 = (int(side) for side in window)
    height, width = image.shape[-2:]
    inside = image[..., max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)]
    if x1 >= 0 and y1 >= 0 and x2 <= width and y2 <= height:
        return inside.clone()
    cut = torch.zeros(image.shape[0], y2 - y1, x2 - x1, dtype=image.dtype)
    top, left = max(-y1, 0), max(-x1, 0)
    cut[:, top : top + inside.shape[-2], left : left + inside.shape[-1]] = inside
    return cut


@dataclass(frozen=True, eq=False)
class BoxCrops(Inputs):
    """Parts of images. images: of each example the whole one. windows: (N, 4) int64, xyxy, in its pixels."""

    images: ImageFiles
    windows: np.ndarray

    stored = True

    def __len__(self) -> int:
        return len(self.windows)

    def name(self, i: int) -> str:
        return f"{self.images.name(i)} [{','.join(map(str, self.windows[i].tolist()))}]"

    def read(self, i: int) -> Tensor:
        return cut_window(self.images.read(i), self.windows[i].tolist())

    def size(self, i: int) -> tuple[int, int]:
        x1, y1, x2, y2 = self.windows[i].tolist()
        return y2 - y1, x2 - x1

    def stamp(self, i: int) -> tuple[int, int]:
        return self.images.stamp(i)

    def paths(self) -> Sequence[str]:
        return self.images.paths()

    def select(self, places: np.ndarray) -> BoxCrops:
        return BoxCrops(self.images.select(places), self.windows[places])
