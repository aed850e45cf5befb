"""Words on images: a font, text that fits, and tiny images made large enough to carry it."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import matplotlib
from PIL import Image, ImageFont

_LARGEST = 1024  # pixels: a tiny image is not enlarged beyond it


def shorten(text: str, length: int) -> str:
    """At most `length` characters on one line, with an ellipsis where some were cut."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: max(0, length - 1)].rstrip() + "…"


def fit(text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    """The longest beginning of the text that fits in `room` pixels."""
    text = shorten(text, 200)
    for length in range(len(text), 1, -1):
        if font.getlength(shorten(text, length)) <= room:
            return shorten(text, length)
    return text[:1]


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans: comes with matplotlib, has Latin, Greek, Cyrillic and more where Pillow's own has Latin alone."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


def enlarge(image: Image.Image, width: int) -> tuple[Image.Image, int]:
    """The image pixel by pixel, by the whole factor that makes it at least `width` wide; and that factor."""
    wanted = math.ceil(width / image.width)
    factor = max(1, min(wanted, _LARGEST // max(image.size)))
    if factor == 1:
        return image, 1
    return image.resize((factor * image.width, factor * image.height), Image.Resampling.NEAREST), factor
