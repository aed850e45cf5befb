"""Encoding x colour type x transparency x orientation: pixels, size and header are those of Pillow's upright image."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from opsin.data.images import UnreadableImage, decode, read_header, read_image, read_size

MODES = {
    "JPEG": ["L", "RGB", "CMYK"],
    "PNG": ["1", "L", "LA", "P", "P+trns", "L+trns", "RGB", "RGB+trns", "RGBA", "I;16"],
    "TIFF": ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "RGB+lzw"],
    "WEBP": ["RGB", "RGBA"],
    "AVIF": ["RGB", "RGBA"],
}
CASES = [(encoding, mode) for encoding, modes in MODES.items() for mode in modes]
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:Description %s/></x:xmpmeta>"


def image_of(mode: str) -> Image.Image:
    """37 wide and 23 high, no two places of it alike under any turn."""
    random = np.random.default_rng(3)
    smooth = np.add.outer(np.arange(23) * 4, np.arange(37) * 3).astype(np.uint8)
    channels = np.stack([smooth, smooth[::-1], random.integers(0, 256, (23, 37), dtype=np.uint8)], axis=2)
    alpha = Image.fromarray(random.integers(0, 256, (23, 37), dtype=np.uint8))
    colour = Image.fromarray(channels)
    if mode == "I;16":
        wide = smooth.astype(np.uint16) * 257 + 100
        return Image.frombytes("I;16", (37, 23), wide.tobytes())
    if mode in ("LA", "RGBA"):
        made = colour.convert(mode[:-1])
        made.putalpha(alpha)
        return made
    return colour.convert(mode)


def encoded(encoding: str, mode: str, orientation: int) -> bytes:
    name, _, extra = mode.partition("+")
    options: dict[str, Any] = {"lossless": True} if encoding == "WEBP" else {}
    if extra == "trns":
        options["transparency"] = (12, 77, 200) if name == "RGB" else 3
    if extra == "lzw":
        options["compression"] = "tiff_lzw"
    if orientation > 1:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    file = io.BytesIO()
    image_of(name).save(file, encoding, **options)
    return file.getvalue()


def expected(data: bytes) -> np.ndarray:
    """Pillow's upright image by our rule: alpha over white, grey of one channel, 16 bits divided by 257."""
    with Image.open(io.BytesIO(data)) as opened:
        image = ImageOps.exif_transpose(opened)
    if image.mode == "I;16":
        return np.round(np.asarray(image) / 257).astype(np.uint8)[None]
    grey = image.mode in ("1", "L", "LA")
    if image.has_transparency_data:
        layered = np.asarray(image.convert("RGBA")).astype(np.float64)
        share = layered[..., 3:] / 255
        flat = np.round(layered[..., :3] * share + 255 * (1 - share)).astype(np.uint8)
        return flat.transpose(2, 0, 1)[: 1 if grey else 3]
    array = np.asarray(image.convert("L" if grey else "RGB"))
    return array[None] if grey else array.transpose(2, 0, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("encoding", "mode"), CASES)
def test_upright_pixels_size_and_header(encoding: str, mode: str, orientation: int, tmp_path: Path) -> None:
    if encoding == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    data = encoded(encoding, mode, orientation)
    wanted = expected(data)
    assert wanted.shape[1:] == ((37, 23) if orientation > 4 else (23, 37))
    found = decode(data, "x").numpy()
    assert found.shape == wanted.shape
    assert np.abs(found.astype(int) - wanted).max() <= (1 if mode[-1] == "A" else 0)  # blending rounds
    (tmp_path / "x").write_bytes(data)
    assert np.array_equal(read_image(tmp_path / "x").numpy(), found)
    for given in (data, tmp_path / "x"):
        header = read_header(given, "x")
        assert read_size(given) == (header.height, header.width) == wanted.shape[1:]
        assert header.stored in ((23, 37), wanted.shape[1:])  # AVIF is turned by its decoder
        assert header.encoding == encoding


def with_segment(jpeg: bytes, body: bytes) -> bytes:
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_a_jpeg_wherever_it_stands(orientation: int) -> None:
    plain, turned = encoded("JPEG", "RGB", 1), encoded("JPEG", "RGB", orientation)
    xmp = b"http://ns.adobe.com/xap/1.0/\0"
    cases = {
        "XMP before EXIF": with_segment(turned, xmp + XMP % b""),
        "XMP alone": with_segment(plain, xmp + XMP % (b'tiff:Orientation="%d"' % orientation)),
        "EXIF wins": with_segment(turned, xmp + XMP % b'tiff:Orientation="3"') if orientation > 1 else turned,
        "another APP1": with_segment(turned, b"something else\0"),
    }
    for case, data in cases.items():
        assert np.array_equal(decode(data, "x").numpy(), expected(data)), case
        assert np.array_equal(expected(data), expected(turned)), case
        assert read_size(data) == expected(data).shape[1:], case


def test_broken_exif_counts_as_none() -> None:
    data = with_segment(encoded("JPEG", "RGB", 1), b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert np.array_equal(decode(data, "x").numpy(), expected(encoded("JPEG", "RGB", 1)))


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "zero.png"):
        for read in (read_image, read_size):
            with pytest.raises(UnreadableImage, match=f"cannot read .*{name}: not a regular file$"):
                read(tmp_path / name)
    with pytest.raises(UnreadableImage, match="directory"):
        read_image(tmp_path)
