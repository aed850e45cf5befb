"""Images of bright discs and dark squares on noise, for tests that train: three classes, known to the pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from opsin.data.class_maps import ClassMaps, MapArray
from opsin.data.formats.format import Claim, Format
from opsin.data.inputs import ImageArray
from opsin.data.source import Source, Split

CLASSES = ("ground", "disc", "square")


def draw(count: int, size: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (N, 3, size, size) and maps uint8 (N, size, size)."""
    random = np.random.default_rng(seed)
    images = random.integers(90, 110, (count, 3, size, size)).astype(np.uint8)
    maps = np.zeros((count, size, size), np.uint8)
    y, x = np.mgrid[:size, :size]
    for image, map_ in zip(images, maps, strict=True):
        row, column = random.integers(6, size - 6, 2)
        disc = (y - row) ** 2 + (x - column) ** 2 < 25
        top, left = random.integers(0, size - 8, 2)
        square = (y >= top) & (y < top + 8) & (x >= left) & (x < left + 8)
        image[:, disc], map_[disc] = 220, 1
        image[:, square], map_[square] = 10, 2
    return images, maps


def _open(path: Path) -> Source:
    count = int(str(path).partition(":")[2] or 16)
    images, maps = draw(count)
    split = Split(
        ImageArray(torch.from_numpy(images), "blobs"), ClassMaps(MapArray(maps, "blobs", len(CLASSES)), CLASSES)
    )
    return Source(str(path), "blobs", {"all": split})


def _claims(path: Path) -> Claim:
    return 3 if str(path).partition(":")[0] == "blobs" else 0


FORMAT = Format("blobs", "a class of each pixel", "", _claims, _open, names=("blobs",))
