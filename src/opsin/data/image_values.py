"""Images that lie in memory as values, arrays and tensors, as uint8 (C, H, W).

Values are read by one rule, that of files (`opsin.data.images`): uint8 as it is; uint16 divided by 257, so that 65535
is 255; float, finite and in [0, 1], times 255; bool as 0 and 255. Alpha is laid over white. Arrays are RGB and channels
last, tensors RGB and channels first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from opsin.errors import InputError

_VALUES = "its values must be uint8, uint16, bool, or float in [0, 1] without NaN"


def from_array(given: Any) -> Tensor:
    """An array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4). Raises InputError for any other."""
    shown = describe_value(given)
    try:
        array = np.asarray(given)
    except Exception as error:  # whatever an object raises that claims to be an array
        raise InputError(f"{shown} cannot be read as an array: {first_line(error)}") from error
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        raise InputError(
            f"{shown} has its channels first; an array is (H, W, C): array.transpose(1, 2, 0), or a tensor of it"
        )
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or 0 in array.shape:
        raise InputError(f"{shown} is no image; an array must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), not empty")
    pixels = _to_uint8(array, shown)
    if pixels.ndim == 2:
        return torch.from_numpy(pixels)[None]
    if pixels.shape[2] == 4:
        flat = Image.alpha_composite(Image.new("RGBA", pixels.shape[1::-1], "white"), Image.fromarray(pixels))
        pixels = np.array(flat.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def from_tensor(given: Tensor) -> Tensor:
    """A tensor (H, W) or (C, H, W), C of 1, 3 or 4. Raises InputError for any other."""
    shown = describe_value(given)
    if given.ndim == 3 and given.shape[2] in (1, 3, 4) and given.shape[0] not in (1, 3, 4):
        raise InputError(f"{shown} has its channels last; a tensor is (C, H, W): tensor.permute(2, 0, 1), or an array")
    if given.ndim not in (2, 3) or (given.ndim == 3 and given.shape[0] not in (1, 3, 4)) or 0 in given.shape:
        raise InputError(f"{shown} is no image; a tensor must be (H, W) or (C, H, W), C of 1, 3 or 4, and not empty")
    if given.dtype == torch.uint8 and given.layout == torch.strided and given.ndim == 3 and given.shape[0] != 4:
        return given.detach().cpu()
    try:
        plain = given.detach().cpu()
        plain = plain.float() if plain.dtype == torch.bfloat16 else plain  # NumPy has none
        array = plain.numpy()
    except (RuntimeError, TypeError, NotImplementedError, ValueError) as error:
        raise InputError(f"{shown} is no image; its values cannot be read: {first_line(error)}") from error
    return from_array(array if array.ndim == 2 else array.transpose(1, 2, 0))


def _to_uint8(array: np.ndarray, shown: str) -> np.ndarray:
    """Values as uint8, in an array that torch takes: of its own where the given one is read-only or runs backwards."""
    if array.dtype == np.uint8:
        taken = array.flags.writeable and all(stride >= 0 for stride in array.strides)
        return array if taken and type(array) is np.ndarray else np.array(array, subok=False)
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return np.rint(array.astype(np.float32) / 257).astype(np.uint8)
    if array.dtype.kind != "f":
        raise InputError(f"{shown} is no image; {_VALUES}")
    low, high = array.min(), array.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(f"{shown} is no image; {_VALUES}, and it holds NaN or infinity")
    if low < 0 or high > 1:
        raise InputError(f"{shown} is no image; {_VALUES}, and its are from {low:.4g} to {high:.4g}")
    return np.rint(array * array.dtype.type(255)).astype(np.uint8)


def is_array(given: Any) -> bool:
    """Whether something is an array, of whatever library."""
    return any(callable(getattr(type(given), name, None)) for name in ("__array__", "__array_interface__"))


def describe_value(given: Any) -> str:
    """What was given, in a few words: its type, and its shape and kind of values where it has them."""
    if given is None or isinstance(given, bool | int | float | complex):
        return repr(given)
    if isinstance(given, Image.Image):
        name = getattr(given, "filename", "")
        return str(name) if name else f"a PIL image of mode {given.mode}, {given.width}x{given.height}"
    if isinstance(given, bytes | bytearray | memoryview):
        return f"{len(bytes(given)):,} {type(given).__name__}"
    name = type(given).__name__
    shape, kind = getattr(given, "shape", None), getattr(given, "dtype", None)
    if shape is not None and kind is not None:
        word = "a tensor" if isinstance(given, Tensor) else "an array" if isinstance(given, np.ndarray) else f"a {name}"
        return f"{word} of shape {tuple(shape)} and type {str(kind).removeprefix('torch.')}"
    if isinstance(given, list | tuple):
        return f"a {name} of {len(given)} within a list" if given else f"an empty {name}"
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def first_line(error: BaseException) -> str:
    """What an exception says, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]
