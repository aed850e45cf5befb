"""The weight map that makes a network learn the borders between things that touch.

Ronneberger, Fischer and Brox 2015 (U-Net, arXiv:1505.04597), equation 2: w(x) = w_c(x) + w0 exp(-(d1 + d2)^2 / 2
sigma^2), d1 and d2 the distances of x to the nearest thing and to the second nearest. w_c, which balances the classes,
is `loss.class_weights` of a recipe; here it is 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from opsin.data import Preprocessing
from opsin.data.transforms.augmentation import prepare_sample

_SMALL = 1e-4  # a weight that may be left out


def border_weights(class_map: np.ndarray, background: int, w0: float = 10.0, sigma: float = 5.0) -> np.ndarray:
    """What each pixel's loss counts: float32 (H, W), 1 or more.

    class_map: (H, W) of class numbers. Things are the connected parts, by their sides, of all classes but `background`;
    what lies between two of them weighs more, of which nothing is known too. Pixels that are so far from two things
    that they would get no more than 0.0001 get nothing. With fewer than two things, all weigh 1.
    """
    found = np.ones(class_map.shape, np.float32)
    things = _things(class_map, background)
    boxes = ndimage.find_objects(things)
    if len(boxes) < 2 or w0 <= 0:
        return found
    reach = math.ceil(sigma * math.sqrt(2 * math.log(max(w0 / _SMALL, 1.0 + 1e-9))))
    nearest = np.full((2, *class_map.shape), np.inf, np.float32)
    for number, (rows, columns) in enumerate(boxes, 1):
        window = _grown(rows, reach, class_map.shape[0]), _grown(columns, reach, class_map.shape[1])
        away: Any = ndimage.distance_transform_edt(things[window] != number)
        first, second = nearest[0][window], nearest[1][window]
        np.minimum(second, np.maximum(first, away), out=second)
        np.minimum(first, away, out=first)
    between = (things == 0) & np.isfinite(nearest[1])
    found[between] += w0 * np.exp(-((nearest[0] + nearest[1])[between] ** 2) / (2 * sigma**2))
    return found


def _things(class_map: np.ndarray, background: int) -> np.ndarray:
    """(H, W) int32: of each pixel the number of the thing that it belongs to, 0 for none."""
    found = np.zeros(class_map.shape, np.int32)
    count = 0
    for number in np.unique(class_map):
        if number == background or number < 0 or (class_map.dtype == np.uint8 and number == 255):
            continue
        parts: Any = ndimage.label(class_map == number)
        found = np.where(parts[0] > 0, parts[0] + count, found)
        count += int(parts[1])
    return found


def _grown(span: slice, reach: int, length: int) -> slice:
    return slice(max(0, span.start - reach), min(length, span.stop + reach))


@dataclass(frozen=True)
class WithBorderWeights:
    """An augmentation that gives each sample `pixel_weights` too, of its map as it then is, in the worker.

    augmentation: what changes samples before; None where nothing does.
    """

    augmentation: Callable[..., Any] | None
    preprocessing: Preprocessing
    background: int
    w0: float
    sigma: float

    @property
    def partners(self) -> int:
        """The other samples that the augmentation wants."""
        return getattr(self.augmentation, "partners", 0)

    def __call__(self, sample: dict[str, Any], partners: Sequence[Any] = ()) -> dict[str, Any]:
        changed = (
            prepare_sample(sample, self.preprocessing)
            if self.augmentation is None
            else self.augmentation(sample, partners)
        )
        weights = border_weights(changed["class_map"].as_subclass(Tensor).numpy(), self.background, self.w0, self.sigma)
        return {**changed, "pixel_weights": torch.from_numpy(weights)}
