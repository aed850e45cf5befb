"""Images at another size and in grey, bit for bit as torchvision's transforms v2 give them, without importing it.

Importing torchvision takes over a second, most of it for a compiler, which using a model on an image has no need of.
"""

from __future__ import annotations

import platform
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

MODES = {"nearest": "nearest-exact", "bilinear": "bilinear", "bicubic": "bicubic"}  # torch's names


def resize(image: Tensor, height: int, width: int, interpolation: str) -> Tensor:
    """An image (C, H, W) at another size, in its own type. interpolation: of `MODES`; all but nearest antialias."""
    mode, kind = MODES[interpolation], image.dtype
    smooth = interpolation != "nearest"
    exact = kind == torch.uint8 and not (smooth and _rounds_late(image, interpolation))
    batch = image[None]
    if batch.is_contiguous(memory_format=torch.channels_last):
        # A batch of one has no stride that says so, and only with one that does torch keeps the layout of a decoder.
        batch = image.as_strided((1, *image.shape), (image.numel(), *image.stride()))
    if not exact and not image.is_floating_point():
        batch = batch.float()
    corners = False if smooth else None
    resized = F.interpolate(batch, (height, width), mode=mode, align_corners=corners, antialias=smooth)[0]
    if exact or image.is_floating_point():
        return resized
    if interpolation == "bicubic" and kind == torch.uint8:  # which overshoots
        resized = resized.clamp_(0, 255)
    return resized.round_().to(kind)


def to_grey(image: Tensor) -> Tensor:
    """A colour image (3, H, W) as (1, H, W): 0.2989 red + 0.587 green + 0.114 blue, a fraction cut off."""
    red, green, blue = image.unbind(-3)
    grey = torch.add(torch.add(red * 0.2989, green, alpha=0.587), blue, alpha=0.114)
    return grey[..., None, :, :].to(image.dtype)


def _rounds_late(image: Tensor, interpolation: str) -> bool:
    """Whether uint8 is computed as float: off the CPU, and where torch's integer kernel would be the slower one."""
    return not image.is_cpu or (interpolation == "bilinear" and not _vectorised())


@cache
def _vectorised() -> bool:
    capability = torch.backends.cpu.get_cpu_capability()
    return capability in ("AVX2", "AVX512") or platform.machine() in ("aarch64", "arm64")
