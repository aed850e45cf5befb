"""A picture with its answer written under it."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from opsin.engine.report import to_pil

_NARROWEST = 224  # pixels: the least width in which a class and its probability can be read
_LARGEST = 1024  # pixels: a tiny picture is not enlarged beyond it
_MOST_LINES = 5
_PAPER, _INK, _BAR = (22, 25, 30), (240, 243, 246), (86, 180, 233)


def annotate(image: Tensor, answer: dict[str, Any]) -> Image.Image:
    """The picture over a strip with class and probability: "7  99.3 %".

    image: uint8 (C, H, W), C 1 or 3. answer: {"label", "score"}, or {"labels": [{"label", "score"}, ...]} of a
    multi-label model, maybe empty; five are shown. Tiny pictures are enlarged by a whole factor, pixel by pixel, and
    narrow ones get margins; a class name that is too long is cut.
    """
    picture = _enlarge(to_pil(image).convert("RGB"))
    found = answer.get("labels", [answer])
    lines = [(str(one["label"]), float(one["score"])) for one in found[:_MOST_LINES]]
    more = len(found) - len(lines)
    strip = _strip(lines, more, max(_NARROWEST, picture.width))
    canvas = Image.new("RGB", (strip.width, picture.height + strip.height), _PAPER)
    canvas.paste(picture, ((strip.width - picture.width) // 2, 0))
    canvas.paste(strip, (0, picture.height))
    return canvas


def shorten(text: str, length: int) -> str:
    """At most `length` characters on one line, with an ellipsis where some were cut."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: max(0, length - 1)].rstrip() + "…"


def _enlarge(picture: Image.Image) -> Image.Image:
    wanted = math.ceil(_NARROWEST / picture.width)
    factor = max(1, min(wanted, _LARGEST // max(picture.size)))
    return picture.resize((factor * picture.width, factor * picture.height), Image.Resampling.NEAREST)


def _strip(lines: list[tuple[str, float]], more: int, width: int) -> Image.Image:
    """The caption: a row for each class, over a bar as long as its probability."""
    size = round(min(32, max(14, width / 28)))
    font, margin, height = _font(size), size // 2, round(size * 1.75)
    rows = len(lines) + (more > 0 or not lines)
    strip = Image.new("RGB", (width, rows * height), _PAPER)
    draw = ImageDraw.Draw(strip)
    for row, (label, score) in enumerate(lines):
        top, share = row * height, f"{100 * score:.1f} %"
        room = width - 3 * margin - font.getlength(share)
        middle = top + (height - 3) / 2
        draw.text((margin, middle), _fit(label, font, room), _INK, font, anchor="lm")
        draw.text((width - margin, middle), share, _INK, font, anchor="rm")
        filled = round(width * min(1.0, max(0.0, score)))
        if filled:
            draw.rectangle((0, top + height - 3, filled - 1, top + height - 1), _BAR)
    if rows > len(lines):
        text = f"and {more} more" if more > 0 else "none of the classes"
        middle = len(lines) * height + height / 2
        draw.text((margin, middle), _fit(text, font, width - 2 * margin), _INK, font, anchor="lm")
    return strip


def _fit(text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    """The longest beginning of the text that fits in `room` pixels."""
    text = shorten(text, 200)
    for length in range(len(text), 1, -1):
        if font.getlength(shorten(text, length)) <= room:
            return shorten(text, length)
    return text[:1]


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # DejaVu Sans comes with matplotlib and has Latin, Greek, Cyrillic and more; Pillow's own has Latin alone.
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)
