"""Recognizers of a few layers, and words that they learn in a second."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from torch import Tensor, nn

import opsin
from opsin import registry, rooms
from opsin.losses.sequence import ctc_loss
from opsin.nn.capabilities import ClassRows
from opsin.ops.decoding import ctc_greedy
from opsin.read.program import ReaderProgram, of_model
from opsin.read.recognizer import Reading, Recognizer
from opsin.read.room import ROOM
from opsin.registry import Entry, Published

from . import tiny_words


class TinyReader(Recognizer):
    """Two convolutions at a quarter of the width, and CTC; the blank is the last class, to see that it may be."""

    free_width = True
    min_size = (4, 4)

    def __init__(self, *, num_classes: int = 4, in_channels: int = 1, width: int = 24) -> None:
        super().__init__(num_classes, in_channels)
        self.blank = num_classes - 1
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, width, 5, (2, 2), 2), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 5, (2, 2), 2), nn.BatchNorm2d(width), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(self.body(images).amax(dim=2).transpose(1, 2))}

    def steps(self, size: tuple[int, int]) -> int:
        return -(-size[1] // 4)

    def loss(self, outputs: dict[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        assert self.blank is not None
        logits = outputs["logits"].transpose(0, 1)
        return {"ctc": ctc_loss(logits, targets["labels"], targets["lengths"], blank=self.blank)}

    def loss_of_each(self, outputs: dict[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        assert self.blank is not None
        logits, lengths = outputs["logits"].transpose(0, 1), targets["lengths"]
        terms = ctc_loss(logits, targets["labels"], lengths, blank=self.blank, zero_infinity=True, reduction="none")
        return terms / lengths.clamp(min=1).to(terms)

    def probabilities(self, outputs: dict[str, Tensor]) -> Tensor:
        return outputs["logits"].softmax(dim=2)

    def read(self, outputs: dict[str, Tensor]) -> tuple[list[Reading], Tensor]:
        assert self.blank is not None
        probabilities = self.probabilities(outputs)
        found = ReaderProgram(lambda _: {}, of_model(self)).decode({"probabilities": probabilities})
        greedy = ctc_greedy(probabilities.log().transpose(0, 1), blank=self.blank)
        assert [one.labels for one in greedy] == [list(one.labels) for one in found]
        return found, probabilities

    def reset_head(self, num_classes: int) -> None:
        self.num_classes, self.blank = num_classes, num_classes - 1
        self.head = nn.Linear(self.head.in_features, num_classes)

    def class_rows(self) -> dict[str, ClassRows]:
        return {"head.weight": ClassRows(after=1), "head.bias": ClassRows(after=1)}


def _lend(patch: pytest.MonkeyPatch) -> None:
    registry.list_models()
    published = Published("none", 2026, (1, tiny_words.HEIGHT, tiny_words.WIDTH), 0)
    entry = Entry("tiny_reader", "read", TinyReader, published, MappingProxyType({}), TinyReader)
    patch.setitem(registry._models, "tiny_reader", entry)
    own = replace(ROOM, formats=(f"{tiny_words.__name__}:FORMAT", *ROOM.formats))
    patch.setitem(rooms._rooms, "read", own)


@pytest.fixture
def readers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network by name, and the data `tinywords:N`, while a test runs."""
    _lend(monkeypatch)


RECIPE: dict[str, Any] = {
    "task": "read",
    "model": {"name": "tiny_reader"},
    "data": {"source": "tinywords:96"},
    "optim": {"name": "adamw", "lr": 0.01},
    "train": {"epochs": 8, "batch_size": 8, "accelerator": "cpu", "keep": "last"},
}


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is trained once."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patch:
        _lend(patch)
        opsin.train(RECIPE, out=folder)
    return folder


@pytest.fixture
def run(readers: None, trained: Path, tmp_path: Path) -> Path:
    """A copy of a trained run."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"
