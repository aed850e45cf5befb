"""The built-in scenes with a sentence each: `captions`, "a 7 at the top left and a 3 at the bottom right".

Digits are named in the order of reading: by the third of the height that their centre lies in, then by the third of the
width, then from left to right.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from opsin.data.formats.digit_scenes import SIDE, open_scenes
from opsin.data.formats.format import Claim, Format
from opsin.data.inputs import Inputs
from opsin.data.source import Source, Split
from opsin.errors import InputError
from opsin.sequence.inputs import KEY
from opsin.sequence.truth import SequenceTruth

_NAME = re.compile(r"captions(?::(\d+))?")
_MOST = 1_000_000  # training scenes
_DOWN, _ACROSS = ("top", "middle", "bottom"), ("left", "centre", "right")


@dataclass(frozen=True, eq=False)
class CaptionedImages(Inputs):
    """Images that a text describes. size: height and width of all; channels: of all."""

    images: Inputs
    size_of_all: tuple[int, int]
    channels: int

    key = KEY
    noun = "image"

    def __len__(self) -> int:
        return len(self.images)

    @property
    def lengths(self) -> np.ndarray:
        """(N,) int64: each is read at once."""
        return np.ones(len(self), np.int64)

    def name(self, i: int) -> str:
        return self.images.name(i)

    def read(self, i: int) -> Tensor:
        """uint8 (C, H, W)."""
        return self.images.read(i)

    def size(self, i: int) -> tuple[int, int] | None:
        return self.images.size(i)

    def select(self, places: np.ndarray) -> CaptionedImages:
        return CaptionedImages(self.images.select(places), self.size_of_all, self.channels)


def caption(digits: Sequence[tuple[int, float, float]], side: float) -> str:
    """The sentence of digits, each (which, x, y) of its centre in pixels, in a square of this side.

    >>> caption([(3, 150, 140), (7, 20, 30)], 160)
    'a 7 at the top left and a 3 at the bottom right'
    """
    placed = sorted((int(3 * y / side), int(3 * x / side), x, which) for which, x, y in digits)
    parts = (f"{which} at the {_DOWN[row]} {_ACROSS[column]}" for row, column, _, which in placed)
    return " and ".join(f"{'an' if part[0] == '8' else 'a'} {part}" for part in parts)


def open_captions(name: str) -> Source:
    """The scenes of `opsin.data.formats.digit_scenes` with their sentences. Raises InputError for another name."""
    match = _NAME.fullmatch(name)
    if match is None or not 1 <= int(match[1] or 1) <= _MOST:
        raise InputError(f"data source {name!r}; expected captions, or captions:N with N training scenes, 1 to {_MOST}")
    scenes = open_scenes(f"scenes:{match[1]}" if match[1] else "scenes")
    return Source(name, "built in", {key: _described(split) for key, split in scenes.splits.items()})


def _described(split: Split) -> Split:
    texts, boxes = list[str](), split.kind
    for i in range(len(split)):
        found = boxes.at(i)
        centres = ((found.boxes[:, :2] + found.boxes[:, 2:]) / 2).tolist()
        texts.append(caption([(k, *xy) for k, xy in zip(found.labels.tolist(), centres, strict=True)], SIDE))
    inputs = CaptionedImages(split.inputs, (SIDE, SIDE), 3)
    return Split(inputs, SequenceTruth.of_texts("captions", texts))


def _claims(path: Path) -> Claim:
    return 3 if _NAME.fullmatch(str(path)) and not path.exists() else 0


FORMAT = Format(
    "described scenes", "sentences", "", _claims, lambda path: open_captions(str(path)), names=("captions",)
)
