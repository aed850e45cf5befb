"""An image with its answer written under it."""

from __future__ import annotations

from typing import Any

from PIL import Image
from torch import Tensor

from opsin.data.drawing import Line, add_caption, enlarge, to_pil

_NARROWEST = 224  # pixels: the least width in which a class and its probability can be read
_MOST_LINES = 5


def annotate(image: Tensor, answer: dict[str, Any]) -> Image.Image:
    """The image over a strip with class and probability: "7  99.3 %".

    image: uint8 (C, H, W), C 1 or 3. answer: {"label", "score"}, label None where there is none, or {"labels":
    [{"label", "score"}, ...]} of a multi-label model, maybe empty; five are shown. Tiny images are enlarged by a whole
    factor, pixel by pixel, and narrow ones get margins; a class name that is too long is cut.
    """
    drawn, _ = enlarge(to_pil(image).convert("RGB"), _NARROWEST)
    found = answer.get("labels", [answer] if answer.get("label") is not None else [])
    lines = [
        Line(str(one["label"]), f"{100 * float(one['score']):.1f} %", float(one["score"]))
        for one in found[:_MOST_LINES]
    ]
    if len(found) > len(lines):
        lines.append(Line(f"and {len(found) - len(lines)} more"))
    return add_caption(drawn, lines or [Line("none of the classes")], _NARROWEST)
