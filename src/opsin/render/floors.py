"""What trivial answers reach, so that a PSNR can be read: white, the mean training view, the nearest training view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from opsin.engine.membership import divide_as_trained
from opsin.engine.recipe import Recipe
from opsin.engine.recipe_data import open_own
from opsin.errors import InputError
from opsin.render.image_metrics import psnr

_MOST = 200  # training views that are kept, evenly spread
_PIXELS = 1 << 19  # of a view, up to which they are kept


@dataclass(frozen=True)
class Floors:
    """images: (N, 3, H, W) in [0, 1], of the training. poses: (N, 4, 4)."""

    images: Tensor
    poses: Tensor

    def of(self, truth: Tensor, pose: Tensor) -> dict[str, float]:
        """PSNR of white, and where the sizes are equal of the mean view and of that whose camera is nearest.

        Nearest is by where it stands.
        """
        found = {"white": psnr(torch.ones_like(truth), truth)}
        if self.images.shape[1:] == truth.shape and len(self.images):
            found["mean"] = psnr(self.images.mean(0), truth)
            nearest = (self.poses[:, :3, 3] - pose[:3, 3].float()).norm(dim=1).argmin()
            found["nearest"] = psnr(self.images[nearest], truth)
        return found


def find_floors(recipe: Recipe, members: bytes | None = None) -> Floors:
    """Of the training views of a recipe's own data; of none of them where it is not here, or too large.

    members: what was trained on, as a model knows it; the recipe divides the data once more if None.
    """
    nothing = Floors(torch.zeros(0, 3, 1, 1), torch.zeros(0, 4, 4))
    try:
        split = divide_as_trained(recipe, open_own(recipe), members, lambda line: None).get("train")
        if split is None or not len(split):
            return nothing
        step = -(-len(split) // _MOST)
        split = split.subset(range(0, len(split), step))
        first = split.read(0)
        if first.shape[-2] * first.shape[-1] > _PIXELS:
            return nothing
        images = [split.read(i).expand(3, -1, -1).float() / 255 for i in range(len(split))]
    except InputError:
        return nothing
    truth: Any = split.kind
    if len({image.shape for image in images}) > 1 or not hasattr(truth, "poses"):
        return nothing
    return Floors(torch.stack(images), torch.as_tensor(truth.poses).float())
