"""Images: which are accepted, which are refused and why, and how each kind becomes a uint8 tensor (C, H, W).

Grey images (also 1-bit, grey palettes and grey with alpha) give C = 1, all others C = 3. Alpha is laid over white.
16-bit grey is divided by 257, so 65535 is 255. The orientation that the EXIF, or without it the XMP, asks for is
applied. Of a multi-image JPEG the first is taken. Refused: animations, several pages, 32-bit and floating-point samples
(their range is unknown), signed ones, more than MAX_PIXELS, and what is no regular file.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import count
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from opsin.data.decoder_messages import in_loop, say_once, watch
from opsin.errors import InputError
from opsin.files import check_regular, read_regular
from opsin.image_files import ENDINGS

T = TypeVar("T")
_MANY = 50  # JPEGs from which on a faster decoder is worth the second or more that importing it takes
MAX_PIXELS = 178_956_970  # twice Image.MAX_IMAGE_PIXELS, where Pillow refuses too: half a gigabyte once decoded
MAX_BYTES = 1 << 31  # of an encoded image: more than MAX_PIXELS of 16 bits and three channels take without encoding
_TOO_LARGE = f"it has more than {MAX_PIXELS:,} pixels; make it smaller"

_MAGIC = {  # how other files begin, in lower case
    b"<!doctype html": "a web page",
    b"<html": "a web page",
    b"<svg": "a drawing (SVG)",
    b"<?xml": "XML",
    b"%!ps": "PostScript",
    b"%pdf": "a PDF",
    b"pk\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"\xff\xd8\xff": "a damaged JPEG",
    b"gif8": "a damaged GIF",
    b"\x89png": "a damaged PNG",
    b"ii*\x00": "a TIFF of a kind that is not read, such as more than four channels; save three of them",
    b"mm\x00*": "a TIFF of a kind that is not read, such as more than four channels; save three of them",
    b"version https://git-lfs": "a pointer of Git LFS in place of the file; fetch it with `git lfs pull`",
}

_decoded = count()  # JPEGs that this process has read
_ORIENTATION = 0x0112
_WIDTH, _HEIGHT, _BITS, _SAMPLE_FORMAT = 256, 257, 258, 339  # tags of TIFF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (_TURNS[5], _TURNS[6], _TURNS[7], _TURNS[8])  # those that swap height and width


class UnreadableImage(InputError):  # noqa: N818
    """An image that cannot be used: `path` names it, `reason` says why."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)  # both are args, so that the exception survives pickling
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"cannot read {self.path}: {self.reason}"


@dataclass(frozen=True)
class Header:
    """What an image file says of itself. encoding: Pillow's name, as "JPEG". mode: Pillow's, as "RGB".

    height, width: once decoded, turned as its orientation asks. stored: (height, width) before that.
    """

    encoding: str
    mode: str
    height: int
    width: int
    stored: tuple[int, int]


def read_image(path: str | PathLike[str]) -> Tensor:
    """The image in a file: uint8 (C, H, W). Raises UnreadableImage with the path and the reason."""
    return decode(read_bytes(path), str(path))


def read_bytes(path: str | PathLike[str]) -> bytes:
    """The content of an image file. Raises UnreadableImage where there is none."""
    try:
        return read_regular(path, MAX_BYTES)
    except FileNotFoundError as error:
        raise UnreadableImage(str(path), "there is no such file") from error
    except OSError as error:
        raise UnreadableImage(str(path), _reason(error)) from error


def _reason(error: OSError, otherwise: str = "") -> str:
    """Why a file could not be read: the system's words in lower case; of another OSError its own, after `otherwise`."""
    return error.strerror.lower() if error.strerror else f"{otherwise}{' '.join(str(error).split())}"


def decode(data: bytes, path: str) -> Tensor:
    """An encoded image -> uint8 (C, H, W), in the memory layout of its decoder. path: its name in messages.

    Raises UnreadableImage. What a decoder says of an image that it reads all the same is said in one line, see
    `opsin.data.decoder_messages`.
    """
    return _decode(data, path) if in_loop() else _heard(path, _decode, data, path)


def _heard(path: str, read: Callable[..., T], *given: Any) -> T:
    """What a reader gives, while what its libraries say becomes a part of the reason, or a line of ours."""
    try:
        found, heard = watch(path, read, *given)
    except UnreadableImage as error:
        if text := getattr(error, "heard", ""):
            raise UnreadableImage(error.path, f"{error.reason} ({text})") from error
        raise
    if heard:
        say_once(heard)
    return found


def _decode(data: bytes, path: str) -> Tensor:
    if data[:3] == b"\xff\xd8\xff":
        image = _decode_jpeg(data)
        if image is not None:
            return image
    with _opened(data, path) as opened:
        array = _to_uint8(_upright(opened), path)
    return _channels_first(array)


def decode_values(data: bytes, path: str) -> tuple[np.ndarray, Header, np.ndarray | None]:
    """The values that an encoded image stores: (H, W) uint8 or uint16, of a palette its indices, or (H, W, 3) uint8.

    And its header, and the colours of a palette, (n, 3) uint8, None without one. For maps, whose values are numbers of
    things: nothing is scaled and no palette looked up; alpha is left out. path: its name in messages. Raises
    UnreadableImage.
    """
    return _decode_values(data, path) if in_loop() else _heard(path, _decode_values, data, path)


def _decode_values(data: bytes, path: str) -> tuple[np.ndarray, Header, np.ndarray | None]:
    with _opened(data, path) as opened:
        stored = _stored_size(opened)
        values, palette = _stored_values(opened, path)
        header = Header(opened.format or "?", opened.mode, values.shape[0], values.shape[1], stored)
    return values, header, palette


def decode_alpha(data: bytes, path: str) -> tuple[Tensor, Tensor | None]:
    """The colours of an encoded image as they are stored, uint8 (3, H, W), and its alpha, uint8 (H, W), if it has one.

    Nothing is laid over white. path: its name in messages. Raises UnreadableImage.
    """
    return _decode_alpha(data, path) if in_loop() else _heard(path, _decode_alpha, data, path)


def _decode_alpha(data: bytes, path: str) -> tuple[Tensor, Tensor | None]:
    with _opened(data, path) as opened:
        image = _upright(opened)
        if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
            values = torch.from_numpy(np.array(image.convert("RGBA"))).permute(2, 0, 1)
            return values[:3], values[3]
        array = _to_uint8(image, path)
    return _channels_first(array).expand(3, -1, -1).contiguous(), None


def pillow_values(image: Image.Image, path: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The values that a Pillow image stores and the colours of a palette, by the rules of `decode_values`.

    path: its name in messages. Raises UnreadableImage.
    """
    with _pillows_failures(path):
        return _stored_values(image, path)


def _stored_values(image: Image.Image, path: str) -> tuple[np.ndarray, np.ndarray | None]:
    image = _upright(image)
    palette = image.getpalette("RGB") if image.mode in ("P", "PA") else None
    if image.mode == "F":
        raise UnreadableImage(path, "its pixels are floating-point numbers; save it with 8 or 16 bits")
    if image.mode not in ("1", "L", "P", "I", "RGB") and not image.mode.startswith("I;16"):
        image = image.getchannel(0) if image.mode in ("LA", "PA") else image.convert("RGB")
    values = np.array(image)
    if image.mode == "I" and values.size and not 0 <= values.min() <= values.max() <= 65535:
        raise UnreadableImage(path, f"it holds numbers from {values.min()} to {values.max()}; at most 16 bits fit")
    values = values.astype(np.uint8 if values.dtype.itemsize == 1 else np.uint16, copy=False)
    return values, None if palette is None else np.array(palette, np.uint8).reshape(-1, 3)


def from_pillow(image: Image.Image, path: str) -> Tensor:
    """A Pillow image -> uint8 (C, H, W), by the rules of files: EXIF, alpha, 16 bits, animations refused.

    path: its name in messages. Raises UnreadableImage.
    """
    with _pillows_failures(path):
        if 0 in image.size:
            raise UnreadableImage(path, f"it is {image.width}x{image.height} pixels large")
        _refuse_several(image, path)
        return _channels_first(_to_uint8(_upright(image), path))


@contextmanager
def _pillows_failures(path: str) -> Iterator[None]:
    """What Pillow raises of an image, as UnreadableImage."""
    try:
        yield
    except UnreadableImage:
        raise
    except Exception as error:  # as of files: whatever Pillow stumbles over, a closed file among it
        raise UnreadableImage(path, f"not to be decoded: {' '.join(str(error).split())}") from error


def _channels_first(array: np.ndarray) -> Tensor:
    image = torch.from_numpy(array)
    return image[None] if image.ndim == 2 else image.permute(2, 0, 1)


def read_header(data: bytes | Path, path: str) -> Header:
    """What an encoded image, or the file at a Path, says of itself, not decoded. Raises UnreadableImage."""
    return _read_header(data, path) if in_loop() else _heard(path, _read_header, data, path)


def _read_header(data: bytes | Path, path: str) -> Header:
    with _opened(data, path) as image:
        turn, (height, width) = _turn(image), _stored_size(image)
        sides = (width, height) if turn in _SIDEWAYS else (height, width)
        return Header(image.format or "?", image.mode, *sides, (height, width))


def read_size(data: bytes | str | PathLike[str], path: str | None = None) -> tuple[int, int]:
    """(height, width) of an encoded image, or the one in a file, once decoded: turned as its orientation asks.

    path: its name in messages, the file's own if None. Raises UnreadableImage.
    """
    opened = data if isinstance(data, bytes) else Path(data)
    header = read_header(opened, path or str(data))
    return header.height, header.width


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """(height, width) as they are stored. Of a TIFF, Pillow says those it will have once it is turned."""
    tags: Any = getattr(image, "tag_v2", {})
    return (tags[_HEIGHT], tags[_WIDTH]) if _WIDTH in tags and _HEIGHT in tags else (image.height, image.width)


def _decode_jpeg(data: bytes) -> Tensor | None:
    """The common JPEG, bit for bit as Pillow decodes it but faster; None if uncommon, and then Pillow's turn.

    0.54 ms where Pillow takes 0.75 (500x375), 21 us for 73 (32x32), 4 ms for 20 (1600x1200), each on one core.
    """
    height, width, components, described = _jpeg_frame(data)
    decode_image = _jpeg_decoder(next(_decoded))
    if decode_image is None or components not in (1, 3) or not 0 < height * width <= MAX_PIXELS:
        return None
    try:
        turn = _jpeg_turn(data) if described else None
        encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        image = decode_image(encoded, apply_exif_orientation=False)
    except (RuntimeError, DeprecationWarning):  # a warning is raised where they are errors
        return None  # Pillow says in words what is wrong
    return image if turn is None else torch.from_numpy(_turned(image.numpy(), turn))


def _jpeg_decoder(number: int) -> Callable[..., Tensor] | None:
    """torchvision's decoder, if it is there and torchvision is in use already, or many images are read. number: so far.

    None: Pillow, which gives the same pixels, only slower.
    """
    return _torchvision_decoder() if number >= _MANY or "torchvision.io" in sys.modules else None


@cache
def _torchvision_decoder() -> Callable[..., Tensor] | None:
    try:
        from torchvision.io import decode_image
    except ImportError:  # announced in torchvision 0.29: it will move elsewhere
        return None
    return decode_image


def _jpeg_turn(data: bytes) -> Image.Transpose | None:
    """How a JPEG wants to be turned, by its EXIF wherever it stands, else by its XMP. Raises RuntimeError."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            return _turn(image)
    except Exception as error:  # whatever Pillow's reader stumbles over
        raise RuntimeError from error


def _turned(image: np.ndarray, turn: Image.Transpose) -> np.ndarray:
    """An image (C, H, W) turned as Pillow's `transpose` does it; a fresh array."""
    if turn in (_TURNS[5], _TURNS[7]):
        image = image.swapaxes(1, 2)
    quarters = {_TURNS[3]: 2, _TURNS[6]: 3, _TURNS[7]: 2, _TURNS[8]: 1}
    axis = {_TURNS[2]: 2, _TURNS[4]: 1}.get(turn)
    image = np.rot90(image, quarters.get(turn, 0), (1, 2)) if axis is None else np.flip(image, axis)
    return np.ascontiguousarray(image)


def _jpeg_frame(data: bytes) -> tuple[int, int, int, bool]:
    """Height, width and number of components in a JPEG's frame header, zeros where none is found.

    And whether an APP1 segment, EXIF or XMP, stands before it.
    """
    place, described = 2, False
    while place + 10 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        described = described or marker == 0xE1
        if marker == 0xFF:  # a fill byte
            place += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height = int.from_bytes(data[place + 5 : place + 7], "big")
            width = int.from_bytes(data[place + 7 : place + 9], "big")
            return height, width, data[place + 9], described
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return 0, 0, 0, described


@cache
def _readers() -> tuple[str, ...]:
    """Those of our encodings that this Pillow was built with; it fails on the name of another."""
    Image.init()
    return tuple(encoding for encoding in ENDINGS if encoding in Image.OPEN)


def _looks_like(data: bytes | Path) -> str:
    """What a file is by its first bytes, which are never shown themselves: they may be somebody's secret."""
    start = (data if isinstance(data, bytes) else read_bytes(data))[:512]
    known = next((what for magic, what in _MAGIC.items() if start.lstrip().lower().startswith(magic)), None)
    if known is not None:
        return known
    if start[4:8] == b"ftyp":
        return "a video or HEIC"
    return "text" if all(byte >= 32 or byte in b"\t\r\n" for byte in start) else "binary data in no encoding of images"


@contextmanager
def _opened(data: bytes | Path, path: str) -> Iterator[Image.Image]:
    """A Pillow image; whatever goes wrong inside becomes an UnreadableImage."""
    encoding = "file"
    try:
        if not isinstance(data, bytes):
            check_regular(data, MAX_BYTES)
        if not (data if isinstance(data, bytes) else data.stat().st_size):
            raise UnreadableImage(path, "the file is empty (0 bytes)")
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data, formats=_readers()) as image:
            encoding = image.format or encoding
            _refuse_several(image, path)
            yield image
    except UnreadableImage:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImage(path, f"not an image that can be read; it looks like {_looks_like(data)}") from error
    except Image.DecompressionBombError as error:
        raise UnreadableImage(path, _TOO_LARGE) from error
    except FileNotFoundError as error:
        raise UnreadableImage(path, "there is no such file") from error
    except OSError as error:
        raise UnreadableImage(path, _reason(error, f"damaged or truncated {encoding}: ")) from error
    # Pillow's readers raise whatever they stumble over: OSError, SyntaxError, ValueError, struct.error, EOFError...
    except Exception as error:
        raise UnreadableImage(path, f"damaged or truncated {encoding}: {' '.join(str(error).split())}") from error


def _refuse_several(image: Image.Image, path: str) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableImage(path, _TOO_LARGE)
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        what = "pages" if image.format == "TIFF" else "frames of an animation"
        raise UnreadableImage(path, f"it holds {frames} {what}; save the one that is meant as an image of its own")


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its orientation asks. Unreadable EXIF counts as none."""
    image.load()
    turn = _turn(image)
    return image if turn is None else image.transpose(turn)


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # whatever a damaged EXIF makes Pillow raise
        return None


def _to_uint8(image: Image.Image, path: str) -> np.ndarray:
    """Pixels as uint8, (H, W) for grey and (H, W, 3) for colour; a fresh array."""
    mode = image.mode
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        flat = Image.alpha_composite(white, image.convert("RGBA"))
        return np.array(flat.getchannel(0) if mode in ("1", "L", "LA", "La") else flat.convert("RGB"))
    if mode in ("1", "L") or (mode == "P" and _is_grey(image)):
        return np.array(image.convert("L"))
    if mode.startswith("I;16") or (mode == "I" and image.format in ("PNG", "PPM")):
        return np.rint(np.asarray(image).astype(np.float32) / 257).clip(0, 255).astype(np.uint8)
    if mode in ("I", "F"):
        kind = f"{_integers(image)} integers" if mode == "I" else "floating-point numbers"
        raise UnreadableImage(path, f"its pixels are {kind} of unknown range; save it with 8 or 16 bits")
    return np.array(image.convert("RGB"))


def _integers(image: Image.Image) -> str:
    """The integers of a TIFF in words, which Pillow widens to 32 bits."""
    tags: Any = getattr(image, "tag_v2", {})
    bits, signed = tags.get(_BITS, (32,))[0], tags.get(_SAMPLE_FORMAT, (1,))[0] == 2  # 2: two's complement
    return f"{'signed ' if signed else ''}{bits}-bit"


def _is_grey(image: Image.Image) -> bool:
    """Whether a palette holds nothing but greys."""
    colours = np.array(image.getpalette("RGB") or [0, 0, 1]).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())
