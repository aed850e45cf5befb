"""How an image becomes a network's input: the same in training, evaluation, prediction and export."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from opsin.data.resizing import MODES, resize, to_grey
from opsin.errors import InputError, unknown

_MOST_PIXELS = 1 << 26  # 8192 x 8192; a batch of one is a gigabyte of memory before the first layer

INTERPOLATIONS = tuple(MODES)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Sizing, channels and normalisation. It is saved with the model, and nothing else prepares its input.

    size: (height, width). channels: 1 or 3; grey is repeated, colour is weighted 0.299, 0.587, 0.114.
    fit: how an image of another shape gets there. "squash": both sides are resized. "crop": resized until it covers
    size / crop_ratio, then the centre is cut out. "pad": shrunk until it fits, never enlarged, and set amid black.
    mean, std: of each channel, of images scaled to [0, 1].
    """

    size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: Literal["squash", "crop", "pad"] = "squash"
    crop_ratio: float = 0.875
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"

    def __post_init__(self) -> None:
        for name in ("size", "mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.size) != 2 or any(type(n) is not int or n < 1 for n in self.size):
            raise InputError(f"size is {self.size}; expected (height, width) in pixels")
        if self.channels not in (1, 3):
            raise InputError(f"channels is {self.channels}; expected 1 for grey or 3 for colour")
        if math.prod(self.size) > _MOST_PIXELS:
            raise InputError(f"size is {self.size}; expected at most {_MOST_PIXELS:,} pixels")
        positive = all(0 < n < math.inf for n in self.std)
        if len(self.mean) != self.channels or len(self.std) != self.channels or not positive:
            raise InputError(f"mean {self.mean} and std {self.std} must be {self.channels} numbers each, std above 0")
        if self.fit not in ("squash", "crop", "pad"):
            raise unknown("fit", self.fit, ("squash", "crop", "pad"))
        if self.interpolation not in INTERPOLATIONS:
            raise unknown("interpolation", self.interpolation, INTERPOLATIONS)
        if not all(math.isfinite(n) for n in self.mean):
            raise InputError(f"mean is {self.mean}; expected numbers")
        if not 0 < self.crop_ratio <= 1:
            raise InputError(f"crop_ratio is {self.crop_ratio}; expected a number above 0 and at most 1")

    def prepare(self, image: Tensor) -> Tensor:
        """An image, uint8 (C, H, W) of any size -> uint8 (channels, height, width)."""
        if image.shape[0] > self.channels:  # fewer channels first: there is less to resize
            image = self.match_channels(image)
        image = self.resize(image, *self.size) if self.fit == "squash" else self._fitted(image)
        return self.match_channels(image)

    def match_channels(self, image: Tensor) -> Tensor:
        """Grey to colour, or colour to grey, where the image is not what the network takes."""
        if image.shape[0] == self.channels:
            return image
        return image.expand(3, -1, -1) if self.channels == 3 else to_grey(image)

    def normalize(self, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Prepared images, uint8 (B, C, h, w) -> (x / 255 - mean) / std as `dtype`, on the images' device."""
        wide = dtype if dtype == torch.float64 else torch.float32  # half precision would round the scale
        scale = [1 / (255 * std) for std in self.std]
        shift = [-mean / std for mean, std in zip(self.mean, self.std, strict=True)]
        if self.channels == 1:
            return images.to(wide).mul_(scale[0]).add_(shift[0]).to(dtype)
        factors = torch.tensor([scale, shift], dtype=wide, device=images.device)[:, :, None, None]
        return images.to(wide).mul_(factors[0]).add_(factors[1]).to(dtype)

    def resize(self, image: Tensor, height: int, width: int) -> Tensor:
        """An image at another size, with antialiasing."""
        if image.shape[-2:] == (height, width):
            return image
        if type(image) is not Tensor:  # one of torchvision's own, which stays what it is
            from torchvision.transforms.v2.functional import InterpolationMode
            from torchvision.transforms.v2.functional import resize as resize_kind

            return resize_kind(image, [height, width], InterpolationMode(MODES[self.interpolation]))
        return resize(image, height, width, self.interpolation)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """What `to_dict` gave. Raises InputError for an unknown or missing key."""
        names = [field.name for field in fields(cls)]
        for key in values:
            if key not in names:
                raise unknown("key of preprocessing", key, names)
        try:
            return cls(**values)
        except TypeError as error:
            raise InputError(f"the preprocessing is incomplete or damaged: {error}") from error

    def transform(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Where an image's pixels lie in the input: x -> x * scale_x + shift_x, and y likewise.

        Returns (scale_x, scale_y, shift_x, shift_y). In continuous coordinates, as boxes have them, it is what
        `prepare` does to an image of this size, with the rounding of its sides.
        """
        place = self._place(height, width)
        scale_x, scale_y = place.width / place.cut_width, place.height / place.cut_height
        return scale_x, scale_y, place.left - place.cut_left * scale_x, place.top - place.cut_top * scale_y

    def place_boxes(self, boxes: Tensor, size: Sequence[int]) -> Tensor:
        """Boxes (..., 4) in pixels of an image of (height, width) -> in pixels of the input, not cut at its border."""
        scale, shift = self._affine(boxes, size)
        return boxes * scale + shift

    def return_boxes(self, boxes: Tensor, size: Sequence[int]) -> Tensor:
        """The inverse of `place_boxes`: boxes (..., 4) in pixels of the input -> of the image of (height, width).

        What lies amid the black of fit "pad" lies outside of the image; `ops.clip_boxes` cuts it.
        """
        scale, shift = self._affine(boxes, size)
        return (boxes - shift) / scale

    def _affine(self, boxes: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        scale_x, scale_y, shift_x, shift_y = self.transform(int(size[0]), int(size[1]))
        return boxes.new_tensor([scale_x, scale_y] * 2), boxes.new_tensor([shift_x, shift_y] * 2)

    def _place(self, height: int, width: int) -> _Place:
        """How an image of this size is laid into the input."""
        rows, columns = self.size
        if height < 1 or width < 1:
            raise InputError(f"an image of {height}x{width} has no pixels")
        if self.fit == "squash":
            return _Place(0, 0, height, width, rows, columns, 0, 0)
        if self.fit == "pad":
            scale = min(1.0, rows / height, columns / width)
            h, w = max(1, round(height * scale)), max(1, round(width * scale))
            return _Place(0, 0, height, width, h, w, (rows - h) // 2, (columns - w) // 2)
        cut_h, cut_w = _least_long(height, width, rows, columns)
        # The longer side is rounded down as in torchvision's Resize, so that published results carry over.
        h, w = round(rows / self.crop_ratio), round(columns / self.crop_ratio)
        if h * cut_w >= w * cut_h:
            w = max(w, h * cut_w // cut_h)
        else:
            h = max(h, w * cut_h // cut_w)
        top, left = -round((h - rows) / 2), -round((w - columns) / 2)
        cut_top, cut_left = round((height - cut_h) / 2), round((width - cut_w) / 2)
        return _Place(cut_top, cut_left, cut_h, cut_w, h, w, top, left)

    def _fitted(self, image: Tensor) -> Tensor:
        place, (rows, columns) = self._place(*image.shape[-2:]), self.size
        image = image[..., place.cut_top :, place.cut_left :][..., : place.cut_height, : place.cut_width]
        image = self.resize(image, place.height, place.width)
        if self.fit == "crop":
            return image[..., -place.top :, -place.left :][..., :rows, :columns]
        canvas = image.new_zeros(image.shape[0], rows, columns)
        canvas[..., place.top :, place.left :][..., : place.height, : place.width] = image
        return canvas


class _Place(NamedTuple):
    """A part of an image, cut out, resized and laid with its corner at (top, left) of the input."""

    cut_top: int
    cut_left: int
    cut_height: int
    cut_width: int
    height: int
    width: int
    top: int
    left: int


def cut_long(image: Tensor, height: int, width: int) -> Tensor:
    """The middle of an image that is over 8 times as long as height x width would have it; others are left alone.

    Resized until its short side fits, an image of 1x10000 pixels would fill gigabytes.
    """
    h, w = image.shape[-2:]
    size = _least_long(h, w, height, width)
    if size == (h, w):
        return image
    from torchvision.transforms.v2.functional import center_crop  # here: using a model needs no torchvision

    return center_crop(image, list(size))


def _least_long(h: int, w: int, height: int, width: int) -> tuple[int, int]:
    return min(h, 8 * math.ceil(w * height / width)), min(w, 8 * math.ceil(h * width / height))
