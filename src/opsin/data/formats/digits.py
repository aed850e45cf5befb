"""Data that comes with the installation and needs no network."""

from __future__ import annotations

import numpy as np
import torch

from opsin.data.formats.format import Format
from opsin.data.inputs import ImageArray
from opsin.data.labels import ClassLabels, as_several
from opsin.data.sample_files import read_digits
from opsin.data.source import Source, Split
from opsin.data.splits import stratify


def digits() -> Source:
    """1,797 handwritten digits of 8x8 grey pixels: scikit-learn's, by the 13 writers of the test part of UCI's.

    Alpaydin and Kaynak 1998.
    Pixels 0..16 become 0..255. One fixed stratified fifth, 360 digits, is the test split, whatever the recipe's seed.
    """
    pixels, labels = read_digits()
    images = torch.from_numpy(np.rint(pixels[:, None] * (255 / 16)).astype(np.uint8))
    truth = ClassLabels(labels, [str(k) for k in range(10)])
    everything = Split(ImageArray(images, "digits"), truth)
    test, train = stratify(truth.labels, [0.2], seed=0)
    return Source("digits", "built in", {"train": everything.subset(train), "test": everything.subset(test)})


FORMAT = Format(
    name="digits",
    truth="class labels",
    expects="",
    claims=lambda path: 3 if str(path) == "digits" else 0,
    open=lambda path, multi_label=False: as_several(digits(), multi_label),
    options=("multi_label",),
    names=("digits",),
)
