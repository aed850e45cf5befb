"""Built-in views of scenes in closed form: spheres_views, boxes_views, csg_views, cloud_views, each also as name:SIZE.

60 views for training, 10 for validation and 20 for testing, from around and above, without a light that moves.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from opsin.data.formats.format import Claim, Format
from opsin.data.inputs import Inputs
from opsin.data.source import Source, Split
from opsin.errors import InputError
from opsin.ops.cameras import look_at
from opsin.render.posed_views import PosedViews
from opsin.render.scenes import SCENES, render_scene

_NAME = re.compile(rf"({'|'.join(SCENES)})_views(?::(\d{{1,4}}))?")
_COUNTS = {"train": 60, "val": 10, "test": 20}
_SIDE, _SIDES = 64, (8, 1024)  # pixels
_DISTANCE, _ANGLE = 4.0, 0.6  # of the cameras from the middle; radians that an image spans
_STEPS = 0.7548776662466927, 0.5698402909980532  # 1 / g and 1 / g^2 with g^3 = g + 1


@dataclass(frozen=True, eq=False)
class SceneImages(Inputs):
    """Views drawn when they are read. scene: its name. size: (height, width). prefix: of names."""

    scene: str
    size_: tuple[int, int]
    poses: np.ndarray
    intrinsics: np.ndarray
    prefix: str
    places: np.ndarray

    held = True

    def __len__(self) -> int:
        return len(self.poses)

    def name(self, i: int) -> str:
        return f"{self.prefix}[{self.places[i]}]"

    def read(self, i: int) -> Tensor:
        """uint8 (3, H, W), over white."""
        return _drawn(self.scene, self.size_, self.poses[i].tobytes(), self.intrinsics[i].tobytes())

    def size(self, i: int) -> tuple[int, int]:
        return self.size_

    def select(self, places: np.ndarray) -> SceneImages:
        poses, intrinsics = self.poses[places], self.intrinsics[places]
        return SceneImages(self.scene, self.size_, poses, intrinsics, self.prefix, self.places[places])


@lru_cache(maxsize=512)
def _drawn(scene: str, size: tuple[int, int], pose: bytes, intrinsics: bytes) -> Tensor:
    own = np.frombuffer(pose).reshape(4, 4), np.frombuffer(intrinsics)
    colours = render_scene(scene, size, *own, with_depth=False)[0]
    return (colours * 255).round().to(torch.uint8).permute(2, 0, 1).contiguous()


def _eyes(first: int, count: int) -> Tensor:
    """Places on the upper half of a sphere and a little below, evenly spread by Roberts's R2 sequence: (count, 3)."""
    k = torch.arange(first, first + count, dtype=torch.float64)
    height = 0.92 - 1.12 * (k * _STEPS[0] % 1)  # from nearly above to a little below the middle
    flat, turn = torch.sqrt(1 - height**2), 2 * math.pi * (k * _STEPS[1] % 1)
    return _DISTANCE * torch.stack([flat * torch.cos(turn), flat * torch.sin(turn), height], dim=-1)


def open_scene(name: str, side: int = _SIDE) -> Source:
    """The views of a scene, of `SCENES`, with images of side x side pixels."""
    focal = 0.5 * side / math.tan(0.5 * _ANGLE)
    splits, first = {}, 0
    for split, count in _COUNTS.items():
        eyes = _eyes(first, count)
        poses = look_at(eyes, torch.zeros(3, dtype=torch.float64), torch.tensor([0.0, 0.0, 1.0])).numpy()
        intrinsics = np.tile([focal, focal, side / 2, side / 2], (count, 1))
        inputs = SceneImages(name, (side, side), poses, intrinsics, f"{name}_views/{split}", np.arange(count))
        sizes = np.full((count, 2), side, np.int64)
        truth = PosedViews(
            poses, intrinsics, np.zeros((count, 4)), sizes, near=0.5 * _DISTANCE, far=1.5 * _DISTANCE, scene=name
        )
        splits[split] = Split(inputs, truth)
        first += count
    return Source(f"{name}_views", "built-in", splits)


def _claims(path: Path) -> Claim:
    return 3 if _NAME.fullmatch(str(path)) else 0


def _open(path: Path) -> Source:
    found = _NAME.fullmatch(str(path))
    assert found is not None
    side = int(found[2] or _SIDE)
    if not _SIDES[0] <= side <= _SIDES[1]:
        raise InputError(f"{path}: images of {side} pixels; expected {_SIDES[0]} to {_SIDES[1]}")
    return open_scene(found[1], side)


FORMAT = Format("built-in scenes", "posed views", "", _claims, _open, names=[f"{name}_views" for name in SCENES])
