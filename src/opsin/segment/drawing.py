"""Maps of classes on images: each class in its colour, with a legend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from opsin.data.drawing import IGNORED, Color, add_legend, distinct_colours, enlarge, to_pil

_NARROWEST = 320  # pixels: the least width in which a map and its legend can be read
_ROWS = 256  # of an image tinted at a time


def colours_of(meaning: Mapping[str, Any], count: int) -> list[Color]:
    """The colour of each class: the data's own where it has said them, else those of all drawings, no two the same."""
    own = meaning.get("colours")
    if own is not None and len(own) == count:
        return [(int(r), int(g), int(b)) for r, g, b in own]
    return distinct_colours(count)


def overlay(image: Tensor, class_map: np.ndarray, colours: Sequence[Color]) -> Tensor:
    """An image, uint8 (C, H, W), whose pixels are half of their class's colour: uint8 (3, H, W).

    class_map: (H, W) of class numbers, grey where nothing is known; or (K, H, W) bool, one over the other.
    """
    image = image.expand(3, -1, -1) if image.shape[0] == 1 else image
    found = image.clone()
    table = torch.tensor([*colours, IGNORED], dtype=torch.int16)
    for start in range(0, image.shape[1], _ROWS):
        rows = slice(start, start + _ROWS)
        if class_map.dtype == bool:
            for plane, colour in zip(class_map, table, strict=False):
                mask = torch.from_numpy(np.ascontiguousarray(plane[rows]))
                half = (found[:, rows].to(torch.int16) + colour[:, None, None]) // 2
                found[:, rows] = torch.where(mask, half.to(torch.uint8), found[:, rows])
            continue
        numbers = torch.from_numpy(class_map[rows].astype(np.int64))
        numbers = torch.where((numbers < 0) | (numbers >= len(colours)), len(colours), numbers)
        tinted = (image[:, rows].to(torch.int16) + table[numbers].permute(2, 0, 1)) // 2
        found[:, rows] = tinted.to(torch.uint8)
    return found


def annotate(
    image: Tensor, class_map: np.ndarray, classes: Sequence[str], colours: Sequence[Color], shown: Sequence[int]
) -> Image.Image:
    """The image with every class in its colour, over a legend of those `shown`. Tiny images are enlarged."""
    drawn, _ = enlarge(to_pil(overlay(image, class_map, colours)), _NARROWEST)
    return add_legend(drawn, [(classes[number], colours[number]) for number in shown]) if shown else drawn
