"""A page with what was read of it: lines outlined in the image, and beside it the same page with their texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from opsin.data.drawing import DARK, LIGHT, PALETTE, font, shorten, to_pil
from opsin.ops.quads import quad_size

_SMALLEST = 8  # pixels of a letter


def annotate(image: Tensor, answer: Mapping[str, Any]) -> Image.Image:
    """The image, uint8 (C, H, W), with every line's outline and number, and beside it what was read, where it stands.

    A line's colour is that of its block; what is less certain is paler on the right. (H, 2 W).
    """
    left = to_pil(image).convert("RGB")
    both = Image.new("RGB", (2 * left.width, left.height), LIGHT)
    canvas = ImageDraw.Draw(left)
    width = max(1, round(min(left.size) / 400))
    for line in answer["lines"]:
        colour = PALETTE[line["block"] % len(PALETTE)]
        corners = [(float(x), float(y)) for x, y in line["quad"]]
        canvas.line([*corners, corners[0]], fill=colour, width=width)
        canvas.line(corners[:2], fill=colour, width=2 * width + 1)  # the upper side, so that a turned page shows
    both.paste(left, (0, 0))
    both.paste(_texts(answer, left.size), (left.width, 0))
    return both


def _texts(answer: Mapping[str, Any], size: tuple[int, int]) -> Image.Image:
    """A white page with the texts in the places of their lines, each as wide as its line."""
    page = Image.new("RGB", size, LIGHT)
    for line in answer["lines"]:
        quad = np.array(line["quad"], np.float64)
        height, width = quad_size(quad)
        letters = font(max(_SMALLEST, round(0.75 * height)))
        text = shorten(line["text"], 400)
        wide, high = max(1, round(letters.getlength(text))), max(round(letters.size) + 4, height)
        written = Image.new("L", (wide, high), 0)
        ImageDraw.Draw(written).text((0, high / 2), text, 255, letters, anchor="lm")
        if wide > width:
            written = written.resize((width, high), Image.Resampling.BILINEAR)
        angle = -np.degrees(np.arctan2(*(quad[1] - quad[0])[::-1]))
        turned = written.rotate(float(angle), Image.Resampling.BILINEAR, expand=True)
        middle = (quad[0] + quad[3]) / 2 + (quad[1] - quad[0]) / 2 * min(1.0, written.width / width)
        corner = (round(float(middle[0] - turned.width / 2)), round(float(middle[1] - turned.height / 2)))
        paleness = 1 - max(0.25, float(line["score"]))
        ink = tuple(round(part + (light - part) * paleness) for part, light in zip(DARK, LIGHT, strict=True))
        page.paste(ink, (*corner, corner[0] + turned.width, corner[1] + turned.height), turned)
    return page
