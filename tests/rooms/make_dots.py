"""Images of dots, and a table of how many each shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def make_dots(folder: Path, number: int = 60) -> Path:
    """Images of 32x32 pixels with up to eight dots of 2x2; the table that lists them."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["path,count"]
    for i in range(number):
        image, places = np.zeros((32, 32), np.uint8), random.permutation(64)[: random.integers(0, 9)]
        for place in places:
            y, x = divmod(int(place), 8)
            image[4 * y : 4 * y + 2, 4 * x : 4 * x + 2] = 255
        Image.fromarray(image).save(folder / f"{i:02}.png")
        lines.append(f"{i:02}.png,{len(places)}")
    table = folder / "dots.csv"
    table.write_text("\n".join(lines))
    return table
