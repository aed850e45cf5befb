"""Every kind of image against Pillow's own conversions or arithmetic, and every kind of broken file."""

from __future__ import annotations

import io
import pickle
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from opsin.data import images
from opsin.data.images import MAX_PIXELS, UnreadableImage, decode, read_header, read_image
from opsin.errors import InputError

RANDOM = np.random.RandomState(0)
COLOUR = Image.fromarray(RANDOM.randint(0, 256, (5, 7, 3), dtype=np.uint8)).resize((70, 50), Image.Resampling.BICUBIC)
GREY = COLOUR.convert("L")


def encoded(image: Image.Image, encoding: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, encoding, **options)
    return stream.getvalue()


def pixels(image: Image.Image) -> torch.Tensor:
    array = torch.from_numpy(np.array(image))
    return array[None] if array.ndim == 2 else array.permute(2, 0, 1)


@pytest.mark.parametrize("image", [COLOUR, GREY], ids=["colour", "grey"])
@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0, "quality": 97}, {"quality": 20}], ids=str
)
def test_jpeg_equals_pillow(image: Image.Image, options: dict) -> None:
    data = encoded(image, "JPEG", **options)
    decoded = decode(data, "x.jpg")
    assert decoded.dtype == torch.uint8
    assert torch.equal(decoded, pixels(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("data", [encoded(COLOUR, "JPEG"), encoded(GREY, "JPEG")], ids=["colour", "grey"])
def test_fast_path_changes_nothing(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    assert images._jpeg_decoder(images._MANY) is not None  # which imports it, so that it serves the first one too
    fast = decode(data, "x.jpg")
    assert images._jpeg_decoder(0) is not None
    monkeypatch.setattr(images, "_jpeg_decoder", lambda number: None)
    assert torch.equal(decode(data, "x.jpg"), fast)


def test_jpeg_in_other_colour_spaces() -> None:
    for data in (encoded(COLOUR.convert("CMYK"), "JPEG"), encoded(COLOUR, "JPEG", keep_rgb=True)):
        assert torch.equal(decode(data, "x.jpg"), pixels(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("encoding", ["PNG", "BMP", "TIFF", "PPM", "GIF", "WEBP"])
def test_lossless_encodings_keep_grey_and_colour(encoding: str) -> None:
    options = {"lossless": True} if encoding == "WEBP" else {}
    few = COLOUR.quantize(100).convert("RGB")  # a GIF holds 256 colours
    assert torch.equal(decode(encoded(few, encoding, **options), "x"), pixels(few))
    grey = decode(encoded(GREY, encoding, **options), "x")
    assert torch.equal(grey if encoding != "WEBP" else grey[:1], pixels(GREY))  # WebP has no grey


@pytest.mark.parametrize("encoding", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(encoding: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(COLOUR, encoding, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    image = decode(data, "x")
    assert torch.equal(image, pixels(expected))
    assert image.shape[1:] == ((70, 50) if orientation >= 5 else (50, 70))


def test_damaged_exif_counts_as_none() -> None:
    data = encoded(COLOUR, "PNG", exif=b"Exif\0\0MM\0*\0\0\xff\xff garbage")
    assert torch.equal(decode(data, "x.png"), pixels(COLOUR))


def test_alpha_is_laid_over_white() -> None:
    alpha = np.linspace(0, 255, 70 * 50).reshape(50, 70).astype(np.uint8)
    colour = np.asarray(COLOUR)
    rgba = Image.fromarray(np.dstack([colour, alpha]))
    share = alpha[..., None] / 255
    expected = colour * share + 255 * (1 - share)
    for encoding in ("PNG", "TIFF"):
        image = decode(encoded(rgba, encoding), "x")
        assert np.abs(image.permute(1, 2, 0).numpy() - expected).max() <= 1
    grey = Image.merge("LA", [GREY, Image.fromarray(alpha)])
    image = decode(encoded(grey, "PNG"), "x.png")
    assert image.shape[0] == 1
    assert np.abs(image[0].numpy() - (np.asarray(GREY) * share[..., 0] + 255 * (1 - share[..., 0]))).max() <= 1


def test_palette() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putdata([0, 1])
    image = decode(encoded(palette, "PNG"), "x.png")
    assert image[:, 0].T.tolist() == [[10, 20, 30], [200, 100, 50]]
    image = decode(encoded(palette, "PNG", transparency=1), "x.png")
    assert image[:, 0].T.tolist() == [[10, 20, 30], [255, 255, 255]]


def test_one_bit_becomes_black_and_white() -> None:
    image = decode(encoded(GREY.convert("1"), "PNG"), "x.png")
    assert image.shape[0] == 1
    assert torch.equal(image, pixels(GREY.convert("1").convert("L")))
    assert set(image.unique().tolist()) == {0, 255}


@pytest.mark.parametrize(("encoding", "mode"), [("PNG", "I;16"), ("TIFF", "I;16"), ("TIFF", "I;16B"), ("PPM", "I;16")])
def test_sixteen_bits_are_scaled_not_clipped(encoding: str, mode: str) -> None:
    values = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    values[-1, -1] = 65535
    stored = values.astype(">u2") if mode == "I;16B" else values
    data = encoded(Image.frombytes(mode, (64, 64), stored.tobytes()), encoding)
    image = decode(data, "x")
    assert image.shape == (1, 64, 64)
    assert np.array_equal(image[0].numpy(), np.rint(values / 257).astype(np.uint8))
    assert (image.min(), image.max()) == (0, 255)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def test_sixteen_bit_colour_keeps_its_high_byte() -> None:
    image = decode(png(1, 1, 16, 2, b"\0" + struct.pack(">HHH", 0xFFFF, 0x8000, 0)), "x.png")
    assert image.flatten().tolist() == [255, 128, 0]


ANIMATION = [GREY, GREY.rotate(90), GREY.rotate(180)]


def jpeg_of_size(height: int, width: int) -> bytes:
    """A JPEG that claims another size than it has."""
    data = bytearray(encoded(GREY, "JPEG"))
    frame = data.index(b"\xff\xc0") + 5
    data[frame : frame + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def damaged_png() -> bytes:
    data = bytearray(encoded(COLOUR, "PNG"))
    data[len(data) // 2] ^= 0xFF
    return bytes(data)


def signed_tiff() -> bytes:
    """Two by two pixels of int16."""
    tags = {256: 2, 257: 2, 258: 16, 259: 1, 262: 1, 273: 8, 277: 1, 278: 2, 279: 8, 339: 2}
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, v) for tag, v in tags.items())
    return b"II*\0" + struct.pack("<I", 16) + bytes(8) + struct.pack("<H", len(tags)) + entries + bytes(4)


BROKEN = {
    "empty.jpg": (b"", "empty (0 bytes)"),
    "text.jpg": (b"hello, this is a text", "it looks like text"),
    "page.png": (b"<!DOCTYPE html><html></html>", "a web page"),
    "magic.jpg": (b"\xff\xd8\xff", "a damaged JPEG"),
    "truncated.jpg": (encoded(COLOUR, "JPEG")[:-300], "truncated"),
    "no_end.jpg": (encoded(COLOUR, "JPEG")[:-2], "truncated"),
    "header_only.jpg": (encoded(COLOUR, "JPEG")[:200], "truncated"),
    "truncated.png": (encoded(COLOUR, "PNG")[:-900], "truncated"),
    "damaged.png": (damaged_png(), "PNG"),
    "truncated.gif": (encoded(GREY, "GIF")[:500], "GIF"),
    "truncated.webp": (encoded(COLOUR, "WEBP")[:60], ""),
    "truncated.tif": (encoded(COLOUR, "TIFF")[:2000], "TIFF"),
    "truncated.bmp": (encoded(COLOUR, "BMP")[:500], "BMP"),
    "moving.gif": (encoded(GREY, "GIF", save_all=True, append_images=ANIMATION[1:]), "3 frames"),
    "moving.webp": (encoded(GREY, "WEBP", save_all=True, append_images=ANIMATION[1:]), "3 frames"),
    "moving.png": (encoded(GREY, "PNG", save_all=True, append_images=ANIMATION[1:]), "3 frames"),
    "pages.tif": (encoded(GREY, "TIFF", save_all=True, append_images=ANIMATION[1:]), "3 pages"),
    "secret.png": (b"root:x:0:0", "it looks like text"),
    "short.tif": (signed_tiff(), "signed 16-bit integers"),
    "wide.tif": (encoded(GREY.convert("I"), "TIFF"), "32-bit integers"),
    "float.tif": (encoded(GREY.convert("F"), "TIFF"), "floating-point"),
    "bomb.png": (png(40_000, 40_000, 8, 0, b"\0"), f"{MAX_PIXELS:,}"),
    "bomb.jpg": (jpeg_of_size(60_000, 60_000), f"{MAX_PIXELS:,}"),
    "no_pixels.jpg": (jpeg_of_size(0, 0), ""),
    "drawing.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "PostScript"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_broken_file_is_named_with_its_reason(name: str, tmp_path: Path) -> None:
    data, reason = BROKEN[name]
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(UnreadableImage) as caught:
        read_image(path)
    assert caught.value.path == str(path)
    assert reason in caught.value.reason
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert "root" not in str(caught.value).replace(str(tmp_path), "")  # what a file holds is not shown


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_image(tmp_path / "absent.png")
    with pytest.raises(InputError, match="directory"):
        read_image(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        read_header(tmp_path / "absent.png", "absent.png")


def test_first_image_of_a_camera_file_is_taken() -> None:
    data = encoded(COLOUR, "MPO", save_all=True, append_images=[COLOUR.rotate(180)])
    assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == 2
    assert torch.equal(decode(data, "x.jpg"), pixels(Image.open(io.BytesIO(data))))
    assert read_header(data, "x.jpg").encoding == "MPO"


def test_header_is_read_without_decoding(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(encoded(COLOUR, "PNG")[:-900])  # truncated, which the header does not know
    header = read_header(path, "x.png")
    assert (header.encoding, header.mode, header.height, header.width) == ("PNG", "RGB", 50, 70)


def test_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(UnreadableImage("cat.jpg", "it is a dog")))
    assert (error.path, error.reason, str(error)) == ("cat.jpg", "it is a dog", "cannot read cat.jpg: it is a dog")


def test_random_damage_never_escapes() -> None:
    random = np.random.RandomState(1)
    read = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for encoding in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM"):
            whole = encoded(COLOUR.resize((20, 16)), encoding)
            for _ in range(60):
                data = bytearray(whole)
                for place in random.randint(0, len(data), random.randint(1, 8)):
                    data[place] = random.randint(256)
                try:
                    image = decode(bytes(data[: random.randint(1, 2 * len(data))]), "x")
                except UnreadableImage:
                    continue
                read += 1
                assert image.dtype == torch.uint8 and image.shape[0] in (1, 3)
    assert read > 20
