"""What is read: texts, rows of numbers, and images row by row or pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opsin.data.inputs import Inputs
from opsin.data.texts import PackedTexts
from opsin.errors import InputError

KEY = "source"  # of a batch, what a network of this task is given


@dataclass(frozen=True, eq=False)
class TextInputs(Inputs):
    """Texts in memory. names: of their file and line, as "pairs.tsv line"; numbers: (N,) int64, of each its line."""

    texts: PackedTexts
    prefix: str
    numbers: np.ndarray

    key = KEY
    noun = "text"
    held = True

    def __len__(self) -> int:
        return len(self.texts)

    def name(self, i: int) -> str:
        return f"{self.prefix}{self.numbers[i]}"

    def read(self, i: int) -> Tensor:
        """Its code points, (n,) int32."""
        return torch.from_numpy(self.texts.codes_of(i).astype(np.int32))

    def select(self, places: np.ndarray) -> TextInputs:
        return TextInputs(self.texts.select(places), self.prefix, self.numbers[places])

    @property
    def lengths(self) -> np.ndarray:
        """(N,) int64, of each its characters."""
        return self.texts.lengths

    def strings(self) -> Sequence[str]:
        """The texts."""
        return self.texts


@dataclass(frozen=True, eq=False)
class NumberInputs(Inputs):
    """Rows of numbers in memory. rows: (total, C) float32, of all examples one after the other.

    starts, lengths: (N,) int64, where each begins in `rows`, and its steps. prefix, numbers: as of `TextInputs`.
    """

    rows: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    prefix: str
    numbers: np.ndarray

    key = KEY
    noun = "sequence"
    held = True

    @classmethod
    def pack(cls, series: Sequence[np.ndarray], prefix: str, numbers: np.ndarray | None = None) -> NumberInputs:
        """Of series (T, C), each of its own length."""
        lengths = np.array([len(one) for one in series], np.int64)
        rows = np.concatenate(series).astype(np.float32) if len(series) else np.zeros((0, 1), np.float32)
        own = np.arange(1, len(series) + 1) if numbers is None else numbers
        return cls(rows, np.cumsum(lengths) - lengths, lengths, prefix, own)

    @property
    def channels(self) -> int:
        """Numbers of a step."""
        return self.rows.shape[1]

    def __len__(self) -> int:
        return len(self.lengths)

    def name(self, i: int) -> str:
        return f"{self.prefix}{self.numbers[i]}"

    def read(self, i: int) -> Tensor:
        """(T, C) float32."""
        return torch.from_numpy(self.rows[self.starts[i] : self.starts[i] + self.lengths[i]])

    def select(self, places: np.ndarray) -> NumberInputs:
        own = self.starts[places], self.lengths[places]
        return NumberInputs(self.rows, *own, self.prefix, self.numbers[places])


@dataclass(frozen=True, eq=False)
class ImageSteps(Inputs):
    """Images as sequences of numbers in [0, 1]: a step is a row (W x C numbers), or with `pixels` a pixel (C).

    Le et al. 2015, arXiv:1504.00941, section 4.2, read MNIST pixel by pixel. steps: (T, C) of every image.
    """

    images: Inputs
    pixels: bool
    steps: tuple[int, int]

    key = KEY
    noun = "image"

    @classmethod
    def of(cls, images: Inputs, pixels: bool) -> ImageSteps:
        """Raises InputError for a split without images."""
        if not len(images):
            raise InputError("no image in the split; a sequence of rows or pixels is read from images")
        channels, height, width = images.read(0).shape
        return cls(images, pixels, (height * width, channels) if pixels else (height, width * channels))

    @property
    def stored(self) -> bool:  # type: ignore[override]
        return self.images.stored

    @property
    def held(self) -> bool:  # type: ignore[override]
        return self.images.held

    @property
    def channels(self) -> int:
        """Numbers of a step."""
        return self.steps[1]

    @property
    def lengths(self) -> np.ndarray:
        """(N,) int64, of each its steps."""
        return np.full(len(self), self.steps[0], np.int64)

    def __len__(self) -> int:
        return len(self.images)

    def name(self, i: int) -> str:
        return self.images.name(i)

    def read(self, i: int) -> Tensor:
        """(T, C) float32. Raises InputError for an image of another size than the first."""
        found = steps_of(self.images.read(i), self.pixels)
        if tuple(found.shape) != self.steps:
            raise InputError(
                f"{self.name(i)} has {found.shape[0]} steps of {found.shape[1]} numbers, the first image has "
                f"{self.steps[0]} of {self.steps[1]}; all must be of one size"
            )
        return found

    def select(self, places: np.ndarray) -> ImageSteps:
        return ImageSteps(self.images.select(places), self.pixels, self.steps)

    def encoded(self, i: int) -> bytes | None:
        return self.images.encoded(i)

    def stamp(self, i: int) -> tuple[int, int]:
        return self.images.stamp(i)

    def paths(self) -> Sequence[str]:
        return self.images.paths()


def steps_of(image: Tensor, pixels: bool) -> Tensor:
    """An image, uint8 (C, H, W), as (T, numbers of a step) float32 in [0, 1]: by rows, or by pixels."""
    rows = image.permute(1, 2, 0).float() / 255  # (H, W, C)
    return rows.flatten(0, 1) if pixels else rows.flatten(1)


def text_of(codes: Tensor) -> str:
    """A text from its code points, (n,) int32."""
    return codes.cpu().numpy().astype(np.uint32).tobytes().decode("utf-32-le", "surrogatepass")


def pad(rows: Sequence[Any], fill: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Rows (n,) or (n, C) of any lengths as one tensor (B, longest, ...), filled up behind, and their lengths (B,)."""
    tensors = [torch.as_tensor(row, dtype=dtype) for row in rows]
    lengths = torch.tensor([len(row) for row in tensors])
    filled = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=fill)
    return filled, lengths
