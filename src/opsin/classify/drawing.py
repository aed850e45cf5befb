"""An image with its answer written under it."""

from __future__ import annotations

from typing import Any

from PIL import Image, ImageDraw
from torch import Tensor

from opsin.engine.report import to_pil
from opsin.engine.text_drawing import enlarge, fit, font, shorten

__all__ = ["annotate", "shorten"]

_NARROWEST = 224  # pixels: the least width in which a class and its probability can be read
_MOST_LINES = 5
_PAPER, _INK, _BAR = (22, 25, 30), (240, 243, 246), (86, 180, 233)


def annotate(image: Tensor, answer: dict[str, Any]) -> Image.Image:
    """The image over a strip with class and probability: "7  99.3 %".

    image: uint8 (C, H, W), C 1 or 3. answer: {"label", "score"}, or {"labels": [{"label", "score"}, ...]} of a
    multi-label model, maybe empty; five are shown. Tiny images are enlarged by a whole factor, pixel by pixel, and
    narrow ones get margins; a class name that is too long is cut.
    """
    drawn, _ = enlarge(to_pil(image).convert("RGB"), _NARROWEST)
    found = answer.get("labels", [answer])
    lines = [(str(one["label"]), float(one["score"])) for one in found[:_MOST_LINES]]
    more = len(found) - len(lines)
    strip = _strip(lines, more, max(_NARROWEST, drawn.width))
    canvas = Image.new("RGB", (strip.width, drawn.height + strip.height), _PAPER)
    canvas.paste(drawn, ((strip.width - drawn.width) // 2, 0))
    canvas.paste(strip, (0, drawn.height))
    return canvas


def _strip(lines: list[tuple[str, float]], more: int, width: int) -> Image.Image:
    """The caption: a row for each class, over a bar as long as its probability."""
    size = round(min(32, max(14, width / 28)))
    letters, margin, height = font(size), size // 2, round(size * 1.75)
    rows = len(lines) + (more > 0 or not lines)
    strip = Image.new("RGB", (width, rows * height), _PAPER)
    draw = ImageDraw.Draw(strip)
    for row, (label, score) in enumerate(lines):
        top, share = row * height, f"{100 * score:.1f} %"
        room = width - 3 * margin - letters.getlength(share)
        middle = top + (height - 3) / 2
        draw.text((margin, middle), fit(label, letters, room), _INK, letters, anchor="lm")
        draw.text((width - margin, middle), share, _INK, letters, anchor="rm")
        filled = round(width * min(1.0, max(0.0, score)))
        if filled:
            draw.rectangle((0, top + height - 3, filled - 1, top + height - 1), _BAR)
    if rows > len(lines):
        text = f"and {more} more" if more > 0 else "none of the classes"
        middle = len(lines) * height + height / 2
        draw.text((margin, middle), fit(text, letters, width - 2 * margin), _INK, letters, anchor="lm")
    return strip
