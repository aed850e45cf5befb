"""Points on images: those that are seen filled, hidden ones as rings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from opsin.data.drawing import DARK, PALETTE, Color

_SEEN: Color = (86, 230, 120)


def draw_points(
    image: Image.Image,
    points: np.ndarray,
    visible: np.ndarray | None = None,
    colour: Color = _SEEN,
    radii: Sequence[float] | None = None,
) -> Image.Image:
    """The image, RGB, with points (P, 2) in its pixels; NaN are left out.

    visible: (P,) bool, of hidden ones a ring is drawn. radii: of a circle around each, in pixels, such as how far it is
    expected to be off.
    """
    drawn = image.convert("RGB")
    canvas = ImageDraw.Draw(drawn)
    radius = max(1.0, min(image.size) / 90)
    for place, (x, y) in enumerate(points.tolist()):
        if x != x or y != y:
            continue
        if radii is not None and radii[place] > radius:
            around = radii[place]
            canvas.ellipse((x - around, y - around, x + around, y + around), outline=PALETTE[1])
        box = (x - radius, y - radius, x + radius, y + radius)
        if visible is None or visible[place]:
            canvas.ellipse(box, fill=colour, outline=DARK)
        else:
            canvas.ellipse(box, outline=colour, width=max(1, round(radius / 2)))
    return drawn
