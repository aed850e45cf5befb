"""Five points of each face, by which crops are aligned before they are embedded: a CSV, path,x1,y1,...,x5,y5.

Both eyes, the nose and both corners of the mouth, the left of the image first, in continuous pixels; a header is
optional. Paths are from the table's folder.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from opsin.errors import InputError
from opsin.files import read_regular
from opsin.ops.similarity import align_face

_COLUMNS = 11


@dataclass(frozen=True)
class FacePoints:
    """The points of images by their real paths. file: where they are from, for messages."""

    file: Path
    points: Mapping[str, Tensor]

    def align(self, given: Any, image: Tensor) -> Tensor:
        """The aligned crop of an image, uint8 (C, 112, 112). Raises InputError where its points are not known."""
        found = self.points.get(os.path.realpath(given)) if isinstance(given, str | Path) else None
        if found is None:
            name = given if isinstance(given, str | Path) else "an image without a path"
            raise InputError(f"{self.file} has no points of {name}; add a line for it, or leave --points out")
        return align_face(image, found)


def read_points(path: str | Path) -> FacePoints:
    """The points of a table. Raises InputError, with the line, for what is no row of a path and ten numbers."""
    file = Path(path).expanduser()
    try:
        text = read_regular(file).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the points {file}: {getattr(error, 'strerror', None) or error}") from None
    found: dict[str, Tensor] = {}
    for number, cells in enumerate(csv.reader(text.splitlines()), 1):
        if not any(cell.strip() for cell in cells) or (number == 1 and not _are_numbers(cells[1:])):
            continue
        if len(cells) != _COLUMNS or not _are_numbers(cells[1:]):
            raise InputError(f"{file} line {number}: expected a path and ten numbers, x1,y1,...,x5,y5")
        values = torch.tensor([float(cell) for cell in cells[1:]], dtype=torch.float64)
        found[os.path.realpath(file.parent / cells[0].strip())] = values.view(5, 2)
    if not found:
        raise InputError(f"{file} has no points; expected rows path,x1,y1,...,x5,y5")
    return FacePoints(file, found)


def _are_numbers(cells: list[str]) -> bool:
    try:
        return all(math.isfinite(float(cell)) for cell in cells)
    except ValueError:
        return False
