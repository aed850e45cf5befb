"""Words of a few strokes for tests that train: each letter of a, b and c is a bar of its own height, in black."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from opsin.data.formats.format import Claim, Format
from opsin.data.inputs import ImageArray
from opsin.data.source import Source, Split
from opsin.data.texts import PackedTexts, Texts

LETTERS = "abc"
HEIGHT, WIDTH = 12, 32


def draw(count: int, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Images uint8 (N, 1, 12, 32) and their texts, one to four letters; each letter has 8 pixels."""
    random = np.random.default_rng(seed)
    images, texts = np.full((count, 1, HEIGHT, WIDTH), 230, np.uint8), []
    images -= random.integers(0, 20, images.shape).astype(np.uint8)
    for image in images:
        text = "".join(random.choice(list(LETTERS), random.integers(1, 5)))
        for place, letter in enumerate(text):
            height = 3 + 3 * LETTERS.index(letter)
            image[0, HEIGHT - height :, 8 * place + 1 : 8 * place + 6] = 20
        texts.append(text)
    return images, texts


def _open(path: Path) -> Source:
    count = int(str(path).partition(":")[2] or 64)
    images, texts = draw(count)
    lexicon = PackedTexts.pack(sorted({*texts, "abcab"}))
    truth = Texts.of(texts, lexicons=np.zeros(count, np.int64), words=[lexicon])
    return Source(str(path), "tiny words", {"all": Split(ImageArray(torch.from_numpy(images), "words"), truth)})


def _claims(path: Path) -> Claim:
    return 3 if str(path).partition(":")[0] == "tinywords" else 0


FORMAT = Format("tiny words", "one text an image", "", _claims, _open, names=("tinywords",))
