"""Texts drawn under the images that they were read in."""

from __future__ import annotations

from typing import Any

from PIL import Image, ImageDraw
from torch import Tensor

from opsin.data.drawing import LIGHT, enlarge, font, shorten, stack, to_pil

_NARROWEST = 320  # pixels: the least width in which an image and its text can be read
_ROOM = 30  # pixels of height of the text under an image
_INK, _WEAK = (20, 20, 20), (213, 94, 0)
_SURE = 0.5  # a character below is drawn in orange


def annotate(image: Tensor, answer: Any) -> Image.Image:
    """The image, uint8 (C, H, W), over its text; each character stands where it was read, in orange where unsure."""
    drawn, factor = enlarge(to_pil(image), _NARROWEST)
    strip = Image.new("RGB", (drawn.width, _ROOM), LIGHT)
    canvas = ImageDraw.Draw(strip)
    characters = list(answer["characters"])
    placed = bool(characters) and all(one["left"] is not None for one in characters)
    if not placed:
        text = shorten(answer["text"], max(8, drawn.width // 10)) or "no text"
        canvas.text((4, _ROOM // 2), text, _INK if characters else _WEAK, font(18), anchor="lm")
        return stack(drawn, strip)
    for one in characters:
        middle = factor * (one["left"] + one["right"]) / 2
        room = factor * (one["right"] - one["left"])
        size = int(min(22.0, max(8.0, 1.4 * room)))
        colour = _INK if one["score"] >= _SURE else _WEAK
        canvas.text((middle, _ROOM // 2), one["text"], colour, font(size), anchor="mm")
    return stack(drawn, strip)
