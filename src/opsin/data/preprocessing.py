"""How a picture becomes a network's input: the same in training, evaluation, prediction and export."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from opsin.errors import InputError, unknown

INTERPOLATIONS = {
    "nearest": InterpolationMode.NEAREST_EXACT,
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
}


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Sizing, channels and normalisation. It is saved with the model, and nothing else prepares its input.

    size: (height, width). channels: 1 or 3; grey is repeated, colour is weighted 0.299, 0.587, 0.114.
    fit: how a picture of another shape gets there. "squash": both sides are resized. "crop": resized until it covers
    size / crop_ratio, then the centre is cut out. "pad": shrunk until it fits, never enlarged, and set amid black.
    mean, std: of each channel, of pictures scaled to [0, 1].
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
        if len(self.size) != 2 or any(not isinstance(n, int) or n < 1 for n in self.size):
            raise InputError(f"size is {self.size}; expected (height, width) in pixels")
        if self.channels not in (1, 3):
            raise InputError(f"channels is {self.channels}; expected 1 for grey or 3 for colour")
        if len(self.mean) != self.channels or len(self.std) != self.channels or min(self.std) <= 0:
            raise InputError(f"mean {self.mean} and std {self.std} must be {self.channels} numbers each, std above 0")
        if self.fit not in ("squash", "crop", "pad"):
            raise unknown("fit", self.fit, ("squash", "crop", "pad"))
        if self.interpolation not in INTERPOLATIONS:
            raise unknown("interpolation", self.interpolation, INTERPOLATIONS)
        if not 0 < self.crop_ratio <= 1:
            raise InputError(f"crop_ratio is {self.crop_ratio}; expected a number above 0 and at most 1")

    def prepare(self, image: Tensor) -> Tensor:
        """A picture, uint8 (C, H, W) of any size -> uint8 (channels, height, width)."""
        if image.shape[0] > self.channels:  # fewer channels first: there is less to resize
            image = self.match_channels(image)
        image = self.resize(image, *self.size) if self.fit == "squash" else self._fitted(image)
        return self.match_channels(image)

    def match_channels(self, image: Tensor) -> Tensor:
        """Grey to colour, or colour to grey, where the picture is not what the network takes."""
        if image.shape[0] == self.channels:
            return image
        return image.expand(3, -1, -1) if self.channels == 3 else F.rgb_to_grayscale(image)

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
        return F.resize(image, [height, width], INTERPOLATIONS[self.interpolation], antialias=True)

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

    def _fitted(self, image: Tensor) -> Tensor:
        (height, width), (h, w) = self.size, image.shape[-2:]
        if self.fit == "crop":
            image = cut_long(image, height, width)
            h, w = image.shape[-2:]
            # The longer side is rounded down as in torchvision's Resize, so that published results carry over.
            least_h, least_w = round(height / self.crop_ratio), round(width / self.crop_ratio)
            if least_h * w >= least_w * h:
                image = self.resize(image, least_h, max(least_w, least_h * w // h))
            else:
                image = self.resize(image, max(least_h, least_w * h // w), least_w)
            top, left = round((image.shape[-2] - height) / 2), round((image.shape[-1] - width) / 2)
            return image[..., top : top + height, left : left + width]
        scale = min(1.0, height / h, width / w)
        image = self.resize(image, max(1, round(h * scale)), max(1, round(w * scale)))
        top, left = (height - image.shape[-2]) // 2, (width - image.shape[-1]) // 2
        canvas = image.new_zeros(image.shape[0], height, width)
        canvas[..., top : top + image.shape[-2], left : left + image.shape[-1]] = image
        return canvas


def cut_long(image: Tensor, height: int, width: int) -> Tensor:
    """The middle of a picture that is over 8 times as long as height x width would have it; others are left alone.

    Resized until its short side fits, a picture of 1x10000 pixels would fill gigabytes.
    """
    h, w = image.shape[-2:]
    longest_h, longest_w = 8 * math.ceil(w * height / width), 8 * math.ceil(h * width / height)
    if h <= longest_h and w <= longest_w:
        return image
    return F.center_crop(image, [min(h, longest_h), min(w, longest_w)])
