"""Maps of classes on images: each class in its colour, with a legend; and as the index images that other tools read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from opsin.data.drawing import IGNORED, PALETTE, Color, add_legend, enlarge, to_pil

_NARROWEST = 320  # pixels: the least width in which a map and its legend can be read
_ROWS = 256  # of an image tinted at a time


def colours_of(meaning: Mapping[str, Any], count: int) -> list[Color]:
    """The colour of each class: the data's own where it has said them, else those of all drawings."""
    own = meaning.get("colours")
    if own is not None and len(own) == count:
        return [(int(r), int(g), int(b)) for r, g, b in own]
    return [PALETTE[number % len(PALETTE)] for number in range(count)]


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


def index_image(class_map: np.ndarray, colours: Sequence[Color]) -> Image.Image:
    """A map as an image whose pixels are class numbers: with a palette; of int16 with 16 bits; of bool 0 and 255."""
    if class_map.dtype == bool:
        return Image.fromarray(class_map.astype(np.uint8) * 255)
    if class_map.dtype != np.uint8:
        return Image.fromarray(class_map.astype(np.uint16))  # -1 becomes 65535
    found = Image.fromarray(class_map).convert("L")
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(colours)] = np.array(colours, np.uint8).reshape(-1, 3)
    palette[255] = (224, 224, 192)  # that of VOC's 255
    indexed = Image.frombytes("P", found.size, found.tobytes())
    indexed.putpalette(palette.ravel().tolist())
    return indexed


def file_name(name: str) -> str:
    """A class's name as a part of a file's."""
    return re.sub(r'[\\/:*?"<>|\x00-\x1f]', "_", name).strip(". ") or "_"
