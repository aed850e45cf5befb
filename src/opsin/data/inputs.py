"""Where examples come from: arrays in memory, files, members of a zip. Of what they show, nothing is known here."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from opsin.data import zips
from opsin.data.images import decode, read_bytes, read_size

T = TypeVar("T", bound="Inputs")


class Inputs(ABC):
    """The examples of a split, in an order. Every method may be called in any process and any thread.

    key: the field of a sample and of a batch that holds them, "image" for images. noun: what one is, for people.
    stored: whether they lie on disk, so that one may turn out to be unreadable. held: whether they lie in memory, so
    that reading costs nothing. draws: whether reading may draw random numbers, which a loader then seeds.
    """

    key: str = "image"
    noun: str = "image"
    stored: bool = False
    held: bool = False
    draws: bool = False

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def name(self, i: int) -> str:
        """Where an example came from: a path, or a place as in "digits[12]"."""

    @abstractmethod
    def read(self, i: int) -> Any:
        """An example; an image is uint8 (C, H, W), C = 1 or 3. Raises UnreadableImage."""

    @abstractmethod
    def select(self: T, places: np.ndarray) -> T:
        """The examples at `places`, (M,) int64, in that order."""

    def size(self, i: int) -> tuple[int, int] | None:
        """(height, width) of an image, without decoding it where that can be; None of what is no image.

        Raises UnreadableImage.
        """
        return None

    def encoded(self, i: int) -> bytes | None:
        """An example as it lies on disk; None where it does not. Raises UnreadableImage."""
        return None

    def read_encoded(self, i: int) -> tuple[Any, bytes | None]:
        """What `read` and `encoded` give, from one reading of the file; None for what costs another."""
        return self.read(i), None

    def stamp(self, i: int) -> tuple[int, int]:
        """The bytes of an example on disk, and what changes with them: a time, a checksum. Zeros where not known."""
        return 0, 0

    def paths(self) -> Sequence[str]:
        """The files that hold the examples, of those that lie on disk each in its own."""
        return ()


@dataclass(frozen=True, eq=False)
class ImageArray(Inputs):
    """Images that lie in memory. images: uint8 (M, C, H, W), shared by selections. prefix: of names, as "digits".

    places: (N,), which of them; all if None.
    """

    images: Tensor
    prefix: str
    places: np.ndarray | None = None

    held = True

    def __len__(self) -> int:
        return len(self.images) if self.places is None else len(self.places)

    def name(self, i: int) -> str:
        return f"{self.prefix}[{i if self.places is None else self.places[i]}]"

    def read(self, i: int) -> Tensor:
        return self.images[i if self.places is None else self.places[i]]

    def size(self, i: int) -> tuple[int, int]:
        return self.images.shape[-2], self.images.shape[-1]

    def select(self, places: np.ndarray) -> ImageArray:
        return ImageArray(self.images, self.prefix, places if self.places is None else self.places[places])


@dataclass(frozen=True, eq=False)
class ImageFiles(Inputs):
    """Images in files, or in the members of a zip archive where `archive` is its path."""

    files: list[str]
    archive: str | None = None

    stored = True

    def __len__(self) -> int:
        return len(self.files)

    def name(self, i: int) -> str:
        return self.files[i] if self.archive is None else f"{self.archive}/{self.files[i]}"

    def read(self, i: int) -> Tensor:
        return decode(self.encoded(i), self.name(i))

    def size(self, i: int) -> tuple[int, int]:
        return read_size(Path(self.files[i]) if self.archive is None else self.encoded(i), self.name(i))

    def encoded(self, i: int) -> bytes:
        file = self.files[i]
        return read_bytes(file) if self.archive is None else zips.read_member(self.archive, file)

    def read_encoded(self, i: int) -> tuple[Tensor, bytes]:
        encoded = self.encoded(i)
        return decode(encoded, self.name(i)), encoded

    def stamp(self, i: int) -> tuple[int, int]:
        if self.archive is not None:
            return zips.stamp_member(self.archive, self.files[i])
        try:
            found = os.stat(self.files[i])  # noqa: PTH116 a Path takes five times as long
        except (OSError, ValueError):
            return 0, 0
        return found.st_size, found.st_mtime_ns

    def paths(self) -> Sequence[str]:
        return self.files if self.archive is None else ()

    def select(self, places: np.ndarray) -> ImageFiles:
        return ImageFiles([self.files[i] for i in places.tolist()], self.archive)


class Concatenated(Inputs):
    """Examples of several inputs as one. places: of all, counted one after the other; all in order if None."""

    def __init__(self, parts: Sequence[Inputs], places: np.ndarray | None = None) -> None:
        self.parts, self.key, self.noun = tuple(parts), parts[0].key, parts[0].noun
        self.stored, self.draws = (any(getattr(part, name) for part in parts) for name in ("stored", "draws"))
        self.ends = np.cumsum([len(part) for part in self.parts])
        self.places = np.arange(self.ends[-1]) if places is None else places

    def __len__(self) -> int:
        return len(self.places)

    def name(self, i: int) -> str:
        part, place = self._find(i)
        return part.name(place)

    def read(self, i: int) -> Any:
        part, place = self._find(i)
        return part.read(place)

    def size(self, i: int) -> tuple[int, int] | None:
        part, place = self._find(i)
        return part.size(place)

    def encoded(self, i: int) -> bytes | None:
        part, place = self._find(i)
        return part.encoded(place)

    def select(self, places: np.ndarray) -> Concatenated:
        return Concatenated(self.parts, self.places[places])

    def paths(self) -> Sequence[str]:
        return [path for part in self.parts for path in part.paths()]

    def _find(self, i: int) -> tuple[Inputs, int]:
        place = int(self.places[i])
        number = int(np.searchsorted(self.ends, place, side="right"))
        return self.parts[number], place - int(self.ends[number] - len(self.parts[number]))
