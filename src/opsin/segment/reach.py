"""How far a segmenter looks around a pixel, and how large tiles follow from it, what it learned, and memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from opsin.data import Preprocessing
from opsin.engine.memory import memory_of
from opsin.engine.tiles import QUANTILES, ObjectSizes
from opsin.errors import InputError
from opsin.nn.gradient_field import field_box, gradient_strength
from opsin.segment.mirroring import Size, fit_input
from opsin.segment.tiling import DenseTiling, grid_of

_SHARE = 0.99  # of the squared gradient within the field that tiles overlap by
_UNKNOWN = 0.25  # of a tile's side: the overlap where the field cannot be measured
_OVERLAPS = 4  # of them a tile is long, at least: half of its pixels are then its own
_PART = 0.25  # of the memory that is left, which tiles that are looked at together may take
_MOST = 2 << 30  # bytes of it, at most
_IMAGES = 4  # of noise, over which the field is averaged


def find_reach(model: Any, size: Size) -> tuple[int, int] | None:
    """How far, down and across, the pixels lie that count for what a segmenter says of one, in its effective field.

    Luo et al. 2016, as `opsin explain` measures it: the box of 99 of 100 of the squared gradient, on noise of (height,
    width). None where no gradient arrives, as in a file that another runtime runs. The theoretical field says more than
    is needed: most of it counts for nothing.
    """
    first = next(model.parameters(), None)
    if first is None:
        return None
    generator = torch.Generator().manual_seed(0)
    shape = (_IMAGES, model.in_channels, *fit_input(model, size).input)
    with torch.inference_mode(False), torch.enable_grad():
        images = torch.randn(shape, generator=generator).to(first).requires_grad_()
        logits = model(images)["logits"]
        row, column = logits.shape[-2] // 2, logits.shape[-1] // 2
        if not logits.requires_grad:
            return None
        strength = gradient_strength(logits[:, :, row, column], images, generator)
    if not strength.max() > 0:
        return None
    x1, y1, x2, y2 = field_box(strength.cpu(), _SHARE)
    row += (shape[-2] - logits.shape[-2]) // 2
    column += (shape[-1] - logits.shape[-1]) // 2
    return max(row - y1, y2 - 1 - row), max(column - x1, x2 - 1 - column)


def choose_dense_tiling(
    tile: str | int, objects: Mapping[str, Any], preprocessing: Preprocessing, model: Any, name: str
) -> tuple[DenseTiling, int]:
    """The tiles of a segmenter, and how many fit into memory at once.

    tile: "auto" or the side of a tile in pixels of the image. objects: `ObjectSizes.to_dict()`, or empty. name: of the
    model. A pixel is looked at as large as those of the training were, where that is known, else as it is. "auto": a
    tile is as large as the input of the training, or as an object and the overlap, or as four times the overlap, what
    is the most; but not larger than memory has room for. Raises InputError for one of which nothing is known.
    """
    known = ObjectSizes.from_dict(objects) if objects else None
    if known is None and tile == "auto":
        raise InputError(
            f"tile=auto goes by the images that a model was trained on, and {name} was saved without their sizes; give "
            f"the side of a tile in pixels, such as tile={max(preprocessing.size)}"
        )
    scale = (1.0, 1.0) if known is None else known.scale
    grid, padded = grid_of(model), fit_input(model, preprocessing.size).margin == (0, 0)
    reach = find_reach(model, preprocessing.size) if padded else (0, 0)
    if tile == "auto":
        assert known is not None
        least = [known.input[QUANTILES.index(0.99)][axis] for axis in (0, 1)]
        own = reach or tuple(_UNKNOWN * side / 2 for side in preprocessing.size)
        wanted = [
            max(side, 2 * far + large, _OVERLAPS * 2 * far)
            for side, far, large in zip(preprocessing.size, own, least, strict=True)
        ]
    else:
        wanted = [int(tile) * factor for factor in scale]
    room = _room(model, preprocessing)
    shrunk = min(1.0, math.sqrt(room / (wanted[0] * wanted[1]))) if tile == "auto" else 1.0
    sides = [max(grid, round(shrunk * side) // grid * grid) for side in wanted]
    if not padded:
        sides = list(fit_input(model, (sides[0], sides[1])).output)
    far = [math.ceil(2 * one / grid) * grid for one in reach] if reach else [_UNKNOWN * side for side in sides]
    overlap = [min(int(one), side // 2) for one, side in zip(far, sides, strict=True)]
    words = _in_words(reach, padded, overlap)
    tiling = DenseTiling((sides[0], sides[1]), (overlap[0], overlap[1]), scale=scale, grid=grid, reach=words)
    return tiling, max(1, int(room / (sides[0] * sides[1])))


def _in_words(reach: Size | None, padded: bool, overlap: list[int]) -> str:
    if not padded:
        return "each with the pixels around it that the network needs"
    if reach is None:
        return "a quarter, where the receptive field cannot be measured"
    cut = "" if 2 * max(reach) <= max(overlap) else ", which the tile is too small for"
    return f"the effective receptive field reaches {max(reach)} pixels to each side{cut}"


def _room(model: Any, preprocessing: Preprocessing) -> float:
    """How many pixels of inputs fit into memory at once: by what one input takes, and what is left."""
    first = next(model.parameters(), None)
    device = torch.device("cpu") if first is None else first.device
    try:
        memory = memory_of(device)
    except InputError:  # a device whose memory cannot be measured
        return float(4 * preprocessing.size[0] * preprocessing.size[1])
    size = fit_input(model, preprocessing.size).input
    images = torch.zeros(
        1, model.in_channels, *size, device=device, dtype=torch.float32 if first is None else first.dtype
    )
    left = memory.available()

    @torch.no_grad()
    def work() -> None:
        model(images)

    taken = memory.measure(work)
    pixel = max(1024.0, (taken or left) / (size[0] * size[1]))  # of a small input the process has room for, unseen
    return min(_PART * left, _MOST) / pixel
