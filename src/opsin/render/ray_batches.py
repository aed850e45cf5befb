"""Rays of many views as the examples of a training: each example is as many rays as one step takes, drawn at random."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opsin.data import Split
from opsin.data.inputs import Inputs
from opsin.data.source import map_threads
from opsin.data.truth import Size, Truth
from opsin.errors import InputError
from opsin.ops.cameras import PIXEL_CENTRE, pixel_rays

KEY = "rays"
RAY = 8  # numbers of a ray, see `opsin.render.radiance_field.RadianceField`


@dataclass(frozen=True, eq=False)
class RayBatches(Inputs):
    """`count` draws of `rays` rays each from all pixels of all views, with their colours: float32 (rays, 11).

    A draw is of the random numbers that the loader seeds by (seed, epoch, example), so that a resumed training draws
    what an uninterrupted one does. colours: uint8 (P, 3) of all pixels, view after view, row by row. begins: (N + 1,),
    where each view begins. widths: (N,). poses (N, 4, 4), intrinsics (N, 4), distortion (N, 4).
    """

    colours: Tensor
    begins: Tensor
    widths: Tensor
    poses: Tensor
    intrinsics: Tensor
    distortion: Tensor
    near: float
    far: float
    rays: int
    count: int

    key = KEY
    noun = "batch of rays"
    draws = True

    def __len__(self) -> int:
        return self.count

    def name(self, i: int) -> str:
        return f"rays[{i}]"

    def read(self, i: int) -> Tensor:
        pixel = torch.randint(len(self.colours), (self.rays,))
        view = torch.searchsorted(self.begins, pixel, right=True) - 1
        place, width = pixel - self.begins[view], self.widths[view]
        at = torch.stack([place % width, torch.div(place, width, rounding_mode="floor")], dim=-1) + PIXEL_CENTRE
        distortion = self.distortion[view] if bool(self.distortion.any()) else None
        origins, directions = pixel_rays(at.float(), self.poses[view], self.intrinsics[view], distortion)
        depths = torch.tensor([self.near, self.far]).expand(self.rays, 2)
        return torch.cat([origins, directions, depths, self.colours[pixel].float() / 255], dim=1)

    def select(self, places: np.ndarray) -> RayBatches:
        return replace(self, count=len(places))


@dataclass(frozen=True, eq=False)
class OfViews(Truth):
    """What is known of draws of rays: the views that they are of. views: their truth, a `PosedViews`."""

    views: Any
    count: int

    @property
    def meaning(self) -> Mapping[str, Any]:
        return self.views.meaning

    def __len__(self) -> int:
        return self.count

    def select(self, places: np.ndarray) -> OfViews:
        return replace(self, count=len(places))

    def read(self, i: int, size: Size | None) -> dict[str, Any]:
        return {}


def ray_batches(split: Split, rays: int, count: int) -> RayBatches:
    """The rays of a split of posed views. Raises InputError for views of which no image can be read."""
    truth: Any = split.kind
    images = map_threads(split.inputs.read, range(len(split)), 1)
    for i, image in enumerate(images):
        if reason := truth.misfit(i, (image.shape[-2], image.shape[-1])):
            raise InputError(f"{split.name(i)}: {reason}")
    colours = [image.expand(3, -1, -1).flatten(1).t() for image in images]
    begins = torch.tensor([0, *np.cumsum([len(one) for one in colours]).tolist()])
    cameras: Mapping[str, Tensor] = {
        name: torch.from_numpy(np.asarray(getattr(truth, name), np.float32))
        for name in ("poses", "intrinsics", "distortion")
    }
    widths = torch.tensor([image.shape[-1] for image in images])
    return RayBatches(
        torch.cat(colours).contiguous(),
        begins,
        widths,
        **cameras,
        near=truth.near,
        far=truth.far,
        rays=rays,
        count=count,
    )
