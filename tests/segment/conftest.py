"""Segmenters of a few layers, with padding and without, and data that they learn in a second."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import opsin
from opsin import registry, rooms
from opsin.errors import InputError
from opsin.registry import Entry, Published
from opsin.segment.room import ROOM
from opsin.segment.segmenter import Segmenter, resize_logits

from . import tiny_blobs


class TinySegmenter(Segmenter):
    """Three convolutions, the middle one at half the size."""

    def __init__(self, *, num_classes: int = 3, in_channels: int = 3, width: int = 8) -> None:
        super().__init__(num_classes, in_channels)
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(width, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Conv2d(width, num_classes, 3, padding=1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        self._check(images)
        return {"logits": resize_logits(self.head(self.body(images)), images.shape[-2:])}


class TinyValid(Segmenter):
    """A U of one step without padding: what it says of an image is 10 pixels smaller on each side, of sides of 2k."""

    def __init__(self, *, num_classes: int = 3, in_channels: int = 3, width: int = 8) -> None:
        super().__init__(num_classes, in_channels)
        self.first = nn.Sequential(nn.Conv2d(in_channels, width, 3), nn.ReLU())
        self.low = nn.Sequential(nn.Conv2d(width, width, 3), nn.ReLU())
        self.up = nn.ConvTranspose2d(width, width, 2, 2)
        self.last = nn.Conv2d(2 * width, num_classes, 3)

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        for side in size:
            if side % 2 or side < 12:
                raise InputError(f"TinyValid takes even sides of 12 or more, got {side}; {max(12, side + side % 2)}")
        return size[0] - 8, size[1] - 8

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        self._check(images)
        first = self.first(images)
        low = self.up(self.low(nn.functional.max_pool2d(first, 2)))
        reach = (first.shape[-2] - low.shape[-2]) // 2
        joined = torch.cat([first[..., reach:-reach, reach:-reach], low], dim=1)
        return {"logits": self.last(joined)}


NETWORKS = {"tiny_segmenter": TinySegmenter, "tiny_valid": TinyValid}


@pytest.fixture
def segmenters(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two networks by name, and the data `blobs:N`, while a test runs."""
    registry.list_models()
    published = Published("none", 2026, (3, 32, 32), 0)
    for name, network in NETWORKS.items():
        entry = Entry(name, "segment", network, published, MappingProxyType({}))
        monkeypatch.setitem(registry._models, name, entry)
    own = replace(ROOM, formats=(f"{tiny_blobs.__name__}:FORMAT", *ROOM.formats))
    monkeypatch.setitem(rooms._rooms, "segment", own)


RECIPE: dict[str, Any] = {
    "task": "segment",
    "model": {"name": "tiny_segmenter"},
    "data": {"source": "blobs:16", "size": 32, "mean": [0.4] * 3, "std": [0.2] * 3},
    "optim": {"name": "adamw", "lr": 0.02},
    "schedule": {"name": "poly"},
    "train": {"epochs": 3, "batch_size": 4, "accelerator": "cpu"},
}


@pytest.fixture
def run(segmenters: None, tmp_path: Path) -> Path:
    """A trained run of the network with padding."""
    opsin.train(RECIPE, out=tmp_path / "run")
    return tmp_path / "run"
