"""Tables of images and of how many dots each shows: `path,count`, paths relative to the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from opsin.data.formats.csv_labels import read_cells
from opsin.data.formats.format import Claim, Format
from opsin.data.inputs import ImageFiles
from opsin.data.source import Source, Split
from opsin.data.truth import Problem, Size, Summary, Truth
from opsin.errors import InputError


@dataclass(frozen=True, eq=False)
class Counts(Truth):
    """counts: (N,) float32, of each image."""

    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.counts)

    def select(self, places: np.ndarray) -> Counts:
        return Counts(self.counts[places])

    def read(self, i: int, size: Size | None) -> dict[str, Any]:
        return {"count": self.counts[i]}

    def summary(self) -> Summary:
        return Summary("a count an image")

    def problems(self, sizes: Mapping[int, Size], training: bool = False) -> list[Problem]:
        empty = [] if training else np.flatnonzero(self.counts == 0).tolist()
        return [Problem("no_dots", "", "shows no dots", "note", i) for i in empty]

    def draw(self, image: Image.Image, i: int, scale: tuple[float, float] = (1.0, 1.0)) -> Image.Image:
        ImageDraw.Draw(image).text((1, 1), f"{self.counts[i]:g}", fill="red")
        return image


def _claims(path: Path) -> Claim:
    if path.suffix != ".csv" or not path.is_file():
        return 0
    with path.open(encoding="utf-8", errors="replace") as lines:
        return 2 if lines.readline().strip() == "path,count" else 0


def _open(path: Path) -> Source:
    files, counts = [], []
    for line, cells in read_cells(path)[1:]:
        try:
            name, count = cells[0], float(cells[1])
        except (IndexError, ValueError):
            raise InputError(f"{path} line {line}: {','.join(cells)!r}; expected path,count") from None
        if not 0 <= count < 1e6:
            raise InputError(f"{path} line {line}: a count of {count:g}; expected one from 0 to 1,000,000")
        files.append(str(path.parent / name))
        counts.append(count)
    return Source(path.stem, "dots", {"all": Split(ImageFiles(files), Counts(np.array(counts, np.float32)))})


FORMAT = Format("table of counts", "a count", "a CSV of path,count", _claims, _open)
