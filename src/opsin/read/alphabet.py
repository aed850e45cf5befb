"""Between texts and labels: which characters a recognizer knows, in which order, and what it makes of case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opsin.data.texts import FILL
from opsin.errors import InputError

DIGITS = "0123456789"
LOWER = "abcdefghijklmnopqrstuvwxyz"
ALPHANUMERIC = DIGITS + LOWER  # the 36 of the field's benchmarks, in their order


@dataclass(frozen=True)
class Alphabet:
    """characters: one label each, in order from 0. fold_case: upper and lower case are one, the lower.

    only: characters that are no part of a text are left out of it before it is learned or compared, as punctuation in
    the alphanumeric protocol; otherwise they are what the recognizer cannot read.

    Labels here count characters alone; what else a network's outputs stand for, a blank or an end, and where, is the
    recognizer's.
    """

    characters: str
    fold_case: bool = False
    only: bool = False

    def __post_init__(self) -> None:
        twice = sorted({one for one in self.characters if self.characters.count(one) > 1})
        if twice:
            raise InputError(f"the alphabet has {', '.join(map(repr, twice[:5]))} twice")
        if not self.characters:
            raise InputError("the alphabet is empty")

    def __len__(self) -> int:
        return len(self.characters)

    @classmethod
    def from_meaning(cls, meaning: Mapping[str, Any]) -> Alphabet:
        """That of a model, whose facts say what its labels mean."""
        return cls(str(meaning["alphabet"]), bool(meaning.get("fold_case")), bool(meaning.get("only")))

    def normalise(self, text: str) -> str:
        """A text as it is compared: in lower case where cases are one, without what is no part of it."""
        text = text.lower() if self.fold_case else text
        return "".join(one for one in text if one in self._places) if self.only else text

    def encode(self, text: str) -> list[int]:
        """The labels of a text, -1 for a character that is unknown."""
        return [self._places.get(one, -1) for one in self.normalise(text)]

    def text_of(self, labels: Sequence[int]) -> str:
        """The text of labels."""
        return "".join(self.characters[label] for label in labels)

    def unknown(self, text: str) -> str:
        """The characters of a text that it lacks, each once."""
        return "".join(dict.fromkeys(one for one in self.normalise(text) if one not in self._places))

    def labels(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Of a batch's code points (B, L) filled up with -1: labels (B, L) int64 likewise, and lengths (B,).

        An unknown character is left out, as it is in a training that was allowed to go on with some.
        """
        rows = [
            [label for label in self.encode("".join(map(chr, row[row != FILL].tolist()))) if label >= 0]
            for row in text.cpu().numpy().astype(np.int64)
        ]
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        filled = torch.full((len(rows), int(lengths.max()) if len(rows) else 0), FILL, dtype=torch.int64)
        for place, row in zip(filled, rows, strict=True):
            place[: len(row)] = torch.tensor(row, dtype=torch.int64)
        return filled, lengths

    @cached_property
    def _places(self) -> dict[str, int]:
        return {one: place for place, one in enumerate(self.characters)}
