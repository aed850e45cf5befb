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

from opsin.data.image_values import describe_value, first_line, from_array, from_tensor, is_array
from opsin.data.images import decode, from_pillow, read_image
from opsin.engine.inputs import ReadOnce, is_address, is_live, is_video
from opsin.engine.pdf_pages import PdfPage
from opsin.errors import InputError

TAKEN = (
    "a path, an http(s) address, bytes, an open file, a PIL image, an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), "
    "a tensor (C, H, W) with C of 1, 3 or 4"
)


def load_image(given: Any) -> Tensor:
    """An image as uint8 (C, H, W), C of 1 or 3. Raises InputError, which names what was given, for all that is none."""
    if isinstance(given, ReadOnce):
        return decode(given.read(), "standard input" if given == "-" else str(given))
    if isinstance(given, PdfPage):
        return from_array(given.draw())
    if isinstance(given, os.PathLike) and not isinstance(given, Path):
        given = os.fspath(given)
    if isinstance(given, str | Path):
        return _from_name(given)
    if isinstance(given, Image.Image):
        return from_pillow(given, describe_value(given))
    if isinstance(given, bytes | bytearray | memoryview):
        return decode(bytes(given), describe_value(given))
    if isinstance(given, Tensor):
        return from_tensor(given)
    if callable(getattr(given, "read", None)):
        return _from_file(given)
    if isinstance(given, np.ndarray) or is_array(given):
        return from_array(given)
    raise InputError(f"{describe_value(given)} is no image; taken are {TAKEN}, or several of these in a list")


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
    shown = str(name) if isinstance(name, str) else describe_value(file)
    try:
        place = file.tell() if file.seekable() else None
        data = file.read()
        if place is not None:
            file.seek(place)
    except Exception as error:  # whatever an object raises that has `read`
        raise InputError(f"cannot read {shown}: {first_line(error)}") from error
    if isinstance(data, str):
        raise InputError(f"{shown} is opened as text; open it with mode 'rb'")
    if not isinstance(data, bytes | bytearray | memoryview):
        raise InputError(f"{shown} gives {type(data).__name__}, not bytes; an open file must give an image's bytes")
    if not data and place:
        raise InputError(f"{shown} has been read to its end; file.seek(0) first")
    return decode(bytes(data), shown)
