"""Photographs that synthetic images take their colours and textures from."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from opsin.data.images import UnreadableImage, decode, read_bytes
from opsin.data.sample_files import PHOTOGRAPHS, read_photograph
from opsin.errors import InputError
from opsin.image_files import IMAGE_SUFFIXES, list_folder

_SCALES = (1.0, 0.5, 0.25)
_LONGEST = 640  # pixels of the longer side; larger ones are shrunk
_MOST = 200  # photographs of a folder, evenly spaced
_PALETTES = 256


@cache
def photographs(folder: str = "") -> list[np.ndarray]:
    """Those of a folder, or the built-in ones: uint8 (H, W, 3), each at three scales. InputError if none."""
    images = [_built_in(name) for name in sorted(PHOTOGRAPHS)] if not folder else _of(Path(folder).expanduser())
    found = []
    for image in images:
        for scale in _SCALES:
            size = (max(8, round(image.width * scale)), max(8, round(image.height * scale)))
            found.append(np.asarray(image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)))
    return found


def crop(folder: str, draws: random.Random, height: int, width: int) -> np.ndarray:
    """A part of a photograph, float32 (height, width, 3) in [0, 1], mirrored on where it is smaller."""
    known = photographs(folder)
    image = known[int(draws.random() * len(known))]
    rows = _places(draws, image.shape[0], height)
    columns = _places(draws, image.shape[1], width)
    found = image[rows][:, columns]
    return found[:, :: -1 if draws.random() < 0.5 else 1].astype(np.float32) * np.float32(1 / 255)


@cache
def palettes(folder: str = "") -> np.ndarray:
    """Three colours of each of 256 parts of photographs, by k-means, as in the paper: float32 (256, 3, 3)."""
    draws = random.Random(0)
    found = [_clusters(crop(folder, draws, 40, 80)[::3, ::3].reshape(-1, 3)) for _ in range(_PALETTES)]
    return np.stack(found)


def _clusters(pixels: np.ndarray) -> np.ndarray:
    """Three means of colours (M, 3), by Lloyd's algorithm from the quantiles of brightness: (3, 3)."""
    order = pixels.sum(axis=1).argsort(kind="stable")
    centres = pixels[order[[len(order) // 10, len(order) // 2, len(order) * 9 // 10]]]
    for _ in range(5):
        nearest = ((pixels[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
        centres = np.stack(
            [pixels[nearest == k].mean(axis=0) if (nearest == k).any() else centres[k] for k in range(3)]
        )
    return centres.astype(np.float32)


def _places(draws: random.Random, extent: int, wanted: int) -> slice | np.ndarray:
    """Rows or columns, `wanted` of `extent`."""
    if wanted <= extent:
        first = int(draws.random() * (extent - wanted + 1))
        return slice(first, first + wanted)
    there_and_back = (np.arange(wanted) + int(draws.random() * extent)) % (2 * extent)
    return np.minimum(there_and_back, 2 * extent - 1 - there_and_back)


def _built_in(name: str) -> Image.Image:
    return Image.fromarray(read_photograph(name)).convert("RGB")


def _of(folder: Path) -> list[Image.Image]:
    if not folder.is_dir():
        raise InputError(f"photographs={folder} is no folder; expected one with images")
    names = sorted(name for name in list_folder(folder)[0] if Path(name).suffix.lower() in IMAGE_SUFFIXES)
    images = []
    for name in names[:: 1 + len(names) // _MOST]:
        try:
            pixels = decode(read_bytes(folder / name), str(folder / name))
        except UnreadableImage as error:
            raise InputError(f"photographs={folder}: {error}") from error
        shown = Image.fromarray(pixels.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy())
        shown.thumbnail((_LONGEST, _LONGEST))
        images.append(shown)
    if not images:
        raise InputError(f"photographs={folder} has no images; expected JPEG, PNG or another common format")
    return images
