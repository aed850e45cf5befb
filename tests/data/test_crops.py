"""Lines cut out of pages: each page is decoded once, and what is kept stays within its bound."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from opsin.data import crops
from opsin.data.crops import Crops
from opsin.data.inputs import ImageArray


class Counted(ImageArray):
    """Three pages that note which of them was read."""

    def __init__(self) -> None:
        super().__init__(torch.arange(3 * 20 * 30, dtype=torch.int64).to(torch.uint8).view(3, 1, 20, 30), "pages")
        self.seen: list[int] = []

    def read(self, i: int) -> torch.Tensor:
        self.seen.append(i)
        return super().read(i)


def lines() -> tuple[Counted, Crops]:
    """Two lines of each page, those of the pages in turn."""
    pages = Counted()
    boxes = [(0, 0, 10, 5), (4, 8, 24, 14)]
    quads = np.array([[(a, b), (c, b), (c, d), (a, d)] for a, b, c, d in boxes for _ in range(3)], np.float64)
    return pages, Crops(pages, np.tile(np.arange(3), 2), quads, [f"line {k}" for k in range(6)])


def test_a_page_is_decoded_once_for_all_its_lines() -> None:
    pages, cut = lines()
    whole = pages.images
    for _ in range(2):
        for i in range(6):
            y, x = (slice(0, 5), slice(0, 10)) if i < 3 else (slice(8, 14), slice(4, 24))
            assert torch.equal(cut.read(i), whole[i % 3, :, y, x])
            assert cut.size(i) == cut.read(i).shape[1:]
    cut.read(0).fill_(7)  # the caller's own
    assert torch.equal(cut.select(np.array([4, 0])).read(1), whole[0, :, :5, :10])
    assert pages.seen == [0, 1, 2]
    copy = pickle.loads(pickle.dumps(cut))
    assert torch.equal(copy.read(5), cut.read(5)) and copy.name(5) == "pages[2] line 5"


def test_the_pages_used_last_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crops, "_KEPT_BYTES", 2 * (50 + 120))  # two pages' lines
    pages, cut = lines()
    for i in (0, 1, 0, 2, 0, 1):
        cut.read(i)
    assert pages.seen == [0, 1, 2, 1]
