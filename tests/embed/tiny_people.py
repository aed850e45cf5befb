"""People whose faces are a few blobs with noise, in folders by identity, which a small network learns at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 32


def draw_person(seed: int, number: int) -> Image.Image:
    """The number-th image of a person."""
    coarse = np.random.RandomState(seed).randint(0, 255, (4, 4)).astype(np.uint8)
    whole = np.asarray(Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.int16)
    noise = np.random.RandomState(1000 * seed + number).randint(-25, 26, whole.shape)
    return Image.fromarray(np.clip(whole + noise, 0, 255).astype(np.uint8))


def write_people(folder: Path, seeds: range, images: int = 5) -> Path:
    """A folder for each person, p<seed>, with images 0.png and so on."""
    for seed in seeds:
        for number in range(images):
            path = folder / f"p{seed}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            draw_person(seed, number).save(path)
    return folder


def write_splits(folder: Path) -> Path:
    """Twelve people to train on, ten to validate with, ten to test with."""
    for split, seeds in (("train", range(12)), ("val", range(20, 30)), ("test", range(40, 50))):
        write_people(folder / split, seeds)
    return folder
