"""An image in whatever form a person has it, as uint8 (C, H, W): file, address, PIL, array, tensor, bytes, open file.

Values are read by one rule, that of files (`opsin.data.images`): uint8 as it is; uint16 divided by 257, so that 65535
is 255; float, finite and in [0, 1], times 255; bool as 0 and 255. Alpha is laid over white. Arrays are RGB and channels
last, tensors RGB and channels first.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from opsin.data.images import decode, from_pillow, read_image
from opsin.engine.inputs import ReadOnce, is_address, is_live, is_video
from opsin.errors import InputError

TAKEN = (
    "a path, an http(s) address, bytes, an open file, a PIL image, an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), "
    "a tensor (C, H, W) with C of 1, 3 or 4"
)
_VALUES = "its values must be uint8, uint16, bool, or float in [0, 1] without NaN"


def load_image(given: Any) -> Tensor:
    """An image as uint8 (C, H, W), C of 1 or 3. Raises InputError, which names what was given, for all that is none."""
    if isinstance(given, ReadOnce):
        return decode(given.read(), "standard input" if given == "-" else str(given))
    if isinstance(given, os.PathLike) and not isinstance(given, Path):
        given = os.fspath(given)
    if isinstance(given, str | Path):
        return _from_name(given)
    if isinstance(given, Image.Image):
        return from_pillow(given, _shown(given))
    if isinstance(given, bytes | bytearray | memoryview):
        return decode(bytes(given), _shown(given))
    if isinstance(given, Tensor):
        return _from_tensor(given)
    if callable(getattr(given, "read", None)):
        return _from_file(given)
    if isinstance(given, np.ndarray) or _is_array(given):
        return _from_array(given)
    raise InputError(f"{_shown(given)} is no image; taken are {TAKEN}, or several of these in a list")


def from_bgr(given: Any) -> Any:
    """An array (..., C) or tensor (..., C, H, W) in OpenCV's order, C of 3 or 4, as RGB; anything else as it is.

    Files, bytes and PIL images say themselves which of their channels is red.
    """
    if isinstance(given, np.ndarray) and given.ndim in (3, 4) and given.shape[-1] in (3, 4):
        return given[..., [2, 1, 0, 3][: given.shape[-1]]]
    if isinstance(given, Tensor) and given.ndim in (3, 4) and given.shape[-3] in (3, 4):
        return given.index_select(-3, torch.tensor([2, 1, 0, 3][: given.shape[-3]], device=given.device))
    return given


def _from_name(given: str | Path) -> Tensor:
    if is_address(given) and not is_video(given):
        return decode(ReadOnce(given).read(), str(given))
    if is_video(given):
        what = "a camera" if is_live(given) else "a video"
        raise InputError(f"{given} is {what}, not an image; give it alone, not in a list")
    if "\0" in str(given):
        raise InputError(f"{str(given)!r} is no image; it holds a null character, so it can be no file's name")
    if not str(given):
        raise InputError("an empty text is no image; expected a path or an address")
    path = Path(given)
    if not os.path.lexists(path) and str(given).startswith("~"):
        path = Path(os.path.expanduser(given))  # noqa: PTH111  # leaves an unknown user as it is, where Path raises
    return read_image(path)


def _from_file(file: Any) -> Tensor:
    """An open file, from where it stands; it is set back to there, so that it can be read again."""
    name = getattr(file, "name", None)
    shown = str(name) if isinstance(name, str) else _shown(file)
    try:
        place = file.tell() if file.seekable() else None
        data = file.read()
        if place is not None:
            file.seek(place)
    except Exception as error:  # whatever an object raises that has `read`
        raise InputError(f"cannot read {shown}: {_first_line(error)}") from error
    if isinstance(data, str):
        raise InputError(f"{shown} is opened as text; open it with mode 'rb'")
    if not isinstance(data, bytes | bytearray | memoryview):
        raise InputError(f"{shown} gives {type(data).__name__}, not bytes; an open file must give an image's bytes")
    if not data and place:
        raise InputError(f"{shown} has been read to its end; file.seek(0) first")
    return decode(bytes(data), shown)


def _from_array(given: Any) -> Tensor:
    shown = _shown(given)
    try:
        array = np.asarray(given)
    except Exception as error:  # whatever an object raises that claims to be an array
        raise InputError(f"{shown} cannot be read as an array: {_first_line(error)}") from error
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


def _from_tensor(given: Tensor) -> Tensor:
    shown = _shown(given)
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
        raise InputError(f"{shown} is no image; its values cannot be read: {_first_line(error)}") from error
    return _from_array(array if array.ndim == 2 else array.transpose(1, 2, 0))


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


def _is_array(given: Any) -> bool:
    return any(callable(getattr(type(given), name, None)) for name in ("__array__", "__array_interface__"))


def _shown(given: Any) -> str:
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


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
