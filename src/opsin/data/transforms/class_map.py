"""Maps of classes that move with their image, as a TVTensor with kernels for torchvision's transforms.

torchvision's own masks resize by another rule than images (nearest, not nearest-exact), and are filled with 0, which is
a class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

_EXACT = InterpolationMode.NEAREST_EXACT


class ClassMap(tv_tensors.Mask):
    """The class of every pixel, (H, W) or (..., H, W), of integers; or of bool, whether it belongs to one thing.

    What comes in from outside of the image is `ignore`: -1, the label that means it everywhere, which uint8 holds as
    255; False of bool. No pixel gets a class that none had: each is that of the nearest old one.
    """

    @property
    def ignore(self) -> int:
        """What pixels are of which nothing is known."""
        return ignored(self.dtype)


def ignored(dtype: torch.dtype) -> int:
    """The value that says of a pixel in a map of this type that nothing is known of it. Raises ValueError."""
    if dtype in (torch.bool, torch.uint8):
        return 0 if dtype == torch.bool else 255
    if dtype in (torch.int8, torch.int16, torch.int32, torch.int64):
        return -1
    raise ValueError(f"a map of classes is of {dtype}; expected uint8, int64 or another signed integer, or bool")


# The kernels. Each takes what torchvision's functional of that name takes; fill and interpolation are the map's own.


def _as_image(classes: ClassMap, change: Callable[[Tensor], Tensor]) -> ClassMap:
    """A map that `change` changes as an image of one channel: bool goes as uint8, for which there are kernels."""
    plain = classes.as_subclass(Tensor)
    image = plain.to(torch.uint8) if plain.dtype == torch.bool else plain
    changed = change(image[None] if image.ndim < 3 else image)
    changed = changed[0] if image.ndim < 3 else changed
    return tv_tensors.wrap(changed.to(plain.dtype), like=classes)  # type: ignore[call-arg, return-value]


def _resize(classes: ClassMap, size: Any, interpolation: Any = None, max_size: Any = None, **_: Any) -> ClassMap:
    return _as_image(classes, lambda image: F.resize(image, size, _EXACT, max_size=max_size))


def _crop(classes: ClassMap, top: int, left: int, height: int, width: int) -> ClassMap:
    rows, columns = classes.shape[-2:]
    missing = [max(0, -left), max(0, -top), max(0, left + width - columns), max(0, top + height - rows)]
    if any(missing):
        classes, top, left = _pad(classes, missing), top + missing[1], left + missing[0]
    return _as_image(classes, lambda image: F.crop(image, top, left, height, width))


def _center_crop(classes: ClassMap, output_size: Any) -> ClassMap:
    height, width = F.get_size(F.center_crop(torch.empty(1, *classes.shape[-2:], device="meta"), output_size))
    rows, columns = classes.shape[-2:]
    top, left = (
        -((new - old) // 2) if new > old else round((old - new) / 2) for new, old in ((height, rows), (width, columns))
    )
    return _crop(classes, top, left, height, width)


def _resized_crop(
    classes: ClassMap, top: int, left: int, height: int, width: int, size: Any, *_: Any, **__: Any
) -> ClassMap:
    return _resize(_crop(classes, top, left, height, width), size)


def _pad(classes: ClassMap, padding: Any, fill: Any = None, padding_mode: str = "constant") -> ClassMap:
    own = ignored(classes.dtype)
    return _as_image(classes, lambda image: F.pad(image, padding, own, padding_mode))


def _affine(
    classes: ClassMap,
    angle: float,
    translate: Any,
    scale: float,
    shear: Any,
    interpolation: Any = None,
    fill: Any = None,
    center: Sequence[float] | None = None,
) -> ClassMap:
    own: Any = ignored(classes.dtype)
    return _as_image(
        classes,
        lambda image: F.affine(image, angle, translate, scale, shear, fill=own, center=center),  # type: ignore[arg-type]
    )


def _rotate(
    classes: ClassMap,
    angle: float,
    interpolation: Any = None,
    expand: bool = False,
    center: Sequence[float] | None = None,
    fill: Any = None,
) -> ClassMap:
    own: Any = ignored(classes.dtype)
    return _as_image(classes, lambda image: F.rotate(image, angle, expand=expand, center=center, fill=own))  # type: ignore[arg-type]


def _perspective(
    classes: ClassMap,
    startpoints: Any,
    endpoints: Any,
    interpolation: Any = None,
    fill: Any = None,
    coefficients: Any = None,
) -> ClassMap:
    own: Any = ignored(classes.dtype)
    options: dict[str, Any] = {"interpolation": InterpolationMode.NEAREST, "fill": own, "coefficients": coefficients}
    return _as_image(classes, lambda image: F.perspective(image, startpoints, endpoints, **options))


def _elastic(classes: ClassMap, displacement: Tensor, interpolation: Any = None, fill: Any = None) -> ClassMap:
    own: Any = ignored(classes.dtype)
    return _as_image(classes, lambda image: F.elastic(image, displacement, InterpolationMode.NEAREST, own))


for _functional, _kernel in {
    F.resize: _resize,
    F.crop: _crop,
    F.center_crop: _center_crop,
    F.resized_crop: _resized_crop,
    F.pad: _pad,
    F.affine: _affine,
    F.rotate: _rotate,
    F.perspective: _perspective,
    F.elastic: _elastic,
}.items():
    F.register_kernel(_functional, ClassMap)(_kernel)
