"""Tables of numbers, of which the last column is what is to be found: files that end in `.rows`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opsin.data.formats.format import Claim, Format
from opsin.data.inputs import Inputs
from opsin.data.source import Source, Split
from opsin.data.truth import Size, Summary, Truth
from opsin.errors import InputError


@dataclass(frozen=True, eq=False)
class Rows(Inputs):
    """rows: (N, K) float32."""

    rows: np.ndarray
    key = "row"
    noun = "row"

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, i: int) -> str:
        return f"row {i}"

    def read(self, i: int) -> Tensor:
        return torch.from_numpy(self.rows[i])

    def select(self, places: np.ndarray) -> Rows:
        return Rows(self.rows[places])


@dataclass(frozen=True, eq=False)
class Values(Truth):
    """values: (N,) float32."""

    values: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def select(self, places: np.ndarray) -> Values:
        return Values(self.values[places])

    def read(self, i: int, size: Size | None) -> dict[str, Any]:
        return {"value": self.values[i]}

    def summary(self) -> Summary:
        return Summary("a number a row")


def _open(path: Path) -> Source:
    try:
        table = np.loadtxt(path, np.float32, delimiter=",", ndmin=2)
    except ValueError as error:
        raise InputError(f"{path} is no table of numbers: {error}") from None
    return Source(path.stem, "rows", {"all": Split(Rows(table[:, :-1]), Values(table[:, -1]))})


def _claims(path: Path) -> Claim:
    return 2 if path.suffix == ".rows" else 0


FORMAT = Format("table of numbers", "a number", "a file .rows", _claims, _open)
