"""What a camera and a file do to an image: blur, lost resolution, noise, and JPEG."""

from __future__ import annotations

import io
import random
from functools import cache

import numpy as np
from PIL import Image, ImageFilter

_TABLE = 1 << 18  # values of noise that all images are given parts of


def degrade(image: np.ndarray, draws: random.Random, strength: float, unit: float | None = None) -> np.ndarray:
    """An image, float32 (H, W, 3) in [0, 1], blurred, resampled, noisy and compressed, each by chance: uint8 (H, W, 3).

    strength: 0 leaves it as it is, 1 is much. unit: pixels, of which a blur has about one; a 32nd of the height if
    None. Nothing moves.
    """
    if draws.random() < 0.6 * strength:
        amount = draws.random() ** 2 * 0.08 * strength
        image = image + _noise(draws, image.size).reshape(image.shape) * np.float32(amount)
    values = (np.clip(image, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    height, width = values.shape[:2]
    blurs, shrinks, packs = (draws.random() < share * strength for share in (0.35, 0.3, 0.5))
    if not (blurs or shrinks or packs):
        return values
    shown = Image.fromarray(values)
    if blurs:
        radius = draws.uniform(0.2, 1.1) * (height / 32 if unit is None else unit) * strength
        shown = shown.filter(ImageFilter.BoxBlur((radius, radius) if draws.random() < 0.7 else (radius * 2, 0)))
    if shrinks:
        scale = draws.uniform(0.4, 0.9)
        way = draws.choice((Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.BOX))
        small = (max(4, round(width * scale)), max(4, round(height * scale)))
        shown = shown.resize(small, way).resize((width, height), Image.Resampling.BICUBIC)
    if packs:
        packed = io.BytesIO()
        shown.save(packed, "JPEG", quality=draws.randint(25, 92))
        shown = Image.open(packed)
    return np.asarray(shown)


def _noise(draws: random.Random, count: int) -> np.ndarray:
    """Normal values, (count,) float32: a part of a table, as drawing them takes as long as all else."""
    table = _table()
    first = int(draws.random() * _TABLE)
    return table[first : first + count] if first + count <= len(table) else np.resize(table[first:], count)


@cache
def _table() -> np.ndarray:
    drawn = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(0))).standard_normal(_TABLE)
    return np.concatenate([drawn, drawn]).astype(np.float32)
