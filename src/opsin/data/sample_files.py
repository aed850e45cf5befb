"""The images that come with the installation: handwritten digits, and photographs.

The files are in `samples`, where NOTICE.md says whose they are and under which licence. They are scikit-learn's and
scikit-image's, pixel for pixel; a test holds them equal.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SAMPLES = Path(__file__).parent / "samples"
_SUFFIXES = {
    ".png": ("brick", "camera", "grass", "gravel", "moon"),  # grey
    ".webp": ("astronaut", "chelsea", "coffee", "immunohistochemistry"),  # colour, without loss: smaller than PNG
    ".jpg": ("retina", "rocket"),  # the files as they were published
}
PHOTOGRAPHS = {name: SAMPLES / f"{name}{suffix}" for suffix, names in _SUFFIXES.items() for name in names}


def read_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (1797, 8, 8) of 0..16, and their labels (1797,) of 0..9."""
    with np.load(SAMPLES / "digits.npz") as arrays:
        return arrays["images"], arrays["labels"].astype(np.int64)


def read_photograph(name: str) -> NDArray[np.uint8]:
    """One of PHOTOGRAPHS: (H, W) if it is grey, (H, W, 3) if it is coloured."""
    with Image.open(PHOTOGRAPHS[name]) as image:
        return np.array(image)
