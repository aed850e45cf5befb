"""Images of any size for networks that take some sizes only, or that see less than they are given: mirrored borders.

Ronneberger, Fischer and Brox 2015 (U-Net, arXiv:1505.04597), section 2: the network has no padding, so that each answer
is made of true pixels alone; at the border of an image, where there are none, the image is mirrored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from opsin.errors import InputError

Size = tuple[int, int]
_FURTHER = 4096  # pixels beyond the side that is wanted, in which a side is looked for that the network takes


@dataclass(frozen=True)
class Fitted:
    """The input that a network is to be given for an answer of a size.

    input: (height, width) of it. margin: the rows above and the columns left of what it answers on, and as many below
    and right. output: (height, width) of what it answers on, at least what was wanted.
    """

    input: Size
    margin: Size
    output: Size


def fit_input(model: Any, wanted: Size) -> Fitted:
    """The smallest input of a `Segmenter` whose answer covers (height, width), its first pixel the first wanted one.

    Raises InputError where there is none.
    """
    (height, top, rows), (width, left, columns) = (_fit_side(model, side) for side in wanted)
    return Fitted((height, width), (top, left), (rows, columns))


def _fit_side(model: Any, wanted: int) -> tuple[int, int, int]:
    """The side of an input, its margin and the side of what is answered."""
    reason = ""
    for side in range(max(wanted, model.min_size), wanted + _FURTHER):
        if side % model.divisor:
            continue
        try:
            found = int(model.output_size((side, side))[0])
        except InputError as error:
            reason = reason or f": {error}"
            continue
        if found >= wanted:
            return side, (side - found) // 2, found
    raise InputError(f"{type(model).__name__} takes no input of which it answers on {wanted} pixels of a side{reason}")


def find_sides(model: Any) -> tuple[int, int, int]:
    """The least side of an input of a `Segmenter`, how far it is to the next one, and the margin of its answer."""
    first = fit_input(model, (1, 1))
    further = fit_input(model, (first.output[0] + 1, 1))
    return first.input[0], further.input[0] - first.input[0], first.margin[0]


def mirror(images: Tensor, fitted: Fitted) -> Tensor:
    """Images (..., H, W) -> (..., *fitted.input), the first pixel at its margin, all beyond the borders mirrored."""
    if images.shape[-2:] == fitted.input and fitted.margin == (0, 0):
        return images
    return take(images, -fitted.margin[0], -fitted.margin[1], fitted.input)


def take(images: Tensor, top: int, left: int, size: Size) -> Tensor:
    """The window (..., height, width) at (top, left) of images (..., H, W); where it reaches out, they are mirrored."""
    height, width = images.shape[-2:]
    inside = top >= 0 and left >= 0 and top + size[0] <= height and left + size[1] <= width
    if inside:
        return images[..., top : top + size[0], left : left + size[1]]
    rows = reflected(top, size[0], height).to(images.device)
    columns = reflected(left, size[1], width).to(images.device)
    return images.index_select(-2, rows).index_select(-1, columns)


def reflected(start: int, count: int, length: int) -> Tensor:
    """The places of pixels start, start + 1, ... of a line of `length`, int64 (count,), mirrored about its end pixels.

    NumPy's "reflect", for lines that are shorter than what is added to them too.
    """
    places = torch.arange(start, start + count)
    if length == 1:
        return torch.zeros_like(places)
    period = 2 * (length - 1)
    places = places % period
    return torch.where(places < length, places, period - places)


def cut(outputs: Mapping[str, Tensor], size: Size) -> dict[str, Tensor]:
    """Outputs (B, K, H, W) of a mirrored input, as far as the image reached."""
    return {name: value[..., : size[0], : size[1]] for name, value in outputs.items()}


def answer_whole(model: Any, images: Tensor) -> dict[str, Tensor]:
    """What a `Segmenter` says of every pixel of normalised images (B, C, H, W), which it is given mirrored.

    Of a size that it takes, and answers on as a whole, these are its outputs.
    """
    size = (images.shape[-2], images.shape[-1])
    return cut(model(mirror(images, fit_input(model, size))), size)
