"""Data that comes with the installation and needs no network."""

from __future__ import annotations

import numpy as np
import torch

from opsin.data.source import ArraySplit, Source
from opsin.data.splits import stratify


def digits() -> Source:
    """1,797 handwritten digits of 8x8 grey pixels: scikit-learn's, by the 13 writers of the test part of UCI's.

    Alpaydin and Kaynak 1998.
    Pixels 0..16 become 0..255. One fixed stratified fifth, 360 digits, is the test split, whatever the recipe's seed.
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(np.rint(pixels.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8))
    everything = ArraySplit(images, labels.astype(np.int64), "digits")
    test, train = stratify(everything.labels, [0.2], seed=0)
    splits = {"train": everything.subset(train), "test": everything.subset(test)}
    return Source("digits", "built in", [str(k) for k in range(10)], splits)  # type: ignore[arg-type]


BUILTIN = {"digits": digits}
