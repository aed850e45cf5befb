"""300-W's .pts files, one beside each image: the number of points, and x and y of each in a line between braces.

Sagonas et al. 2013. MATLAB wrote them, whose first pixel has its middle at (1, 1): in continuous coordinates that is
(0.5, 0.5), and half a pixel is taken off. A folder may have split folders, or folders by the data's parts, all of which
are read.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from opsin.data.formats.format import Claim, Format
from opsin.data.formats.point_source import LARGEST, OPTIONS, PointRows, source_of_points
from opsin.data.formats.tree import SPLIT_NAMES
from opsin.data.formats.values import read_text
from opsin.data.formats.write_points import write_pts
from opsin.data.inputs import ImageFiles
from opsin.data.source import Source
from opsin.errors import InputError
from opsin.image_files import IMAGE_SUFFIXES, find_files, first_files

_MIDDLE = 0.5  # of the first pixel lies at 1
_MOST = 10_000


def read_pts(file: Path) -> np.ndarray:
    """The points of a file, (P, 2), continuous. Raises InputError that names the line."""
    try:
        lines = read_text(file).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read: {error}") from None
    opening = next((k for k, line in enumerate(lines) if line.strip() == "{"), None)
    closing = next((k for k, line in enumerate(lines) if line.strip() == "}"), None)
    if opening is None or closing is None or closing < opening:
        raise InputError(
            f"{file} has no points between braces; expected version, n_points and one point a line in {{ }}"
        )
    points = []
    for k in range(opening + 1, closing):
        if not lines[k].strip():
            continue
        try:
            x, y = map(float, lines[k].split())
        except ValueError:
            raise InputError(f"{file} line {k + 1}: expected x and y of a point") from None
        if not (abs(x) <= LARGEST and abs(y) <= LARGEST):
            raise InputError(f"{file} line {k + 1}: {x:g} {y:g} is no place in an image")
        points.append((x - _MIDDLE, y - _MIDDLE))
    said = next(
        (int(m[1]) for line in lines[:opening] if (m := re.match(r"\s*n_points\s*:\s*(\d{1,5})\s*$", line))), None
    )
    if not 0 < len(points) <= _MOST or said not in (None, len(points)):
        raise InputError(f"{file} has {len(points)} points and says n_points: {said}")
    return np.array(points)


def _image_of(file: Path) -> Path:
    """The image of the same name beside it."""
    for suffix in sorted(IMAGE_SUFFIXES):
        for place in (file.with_suffix(suffix), file.with_suffix(suffix.upper())):
            if place.is_file():
                return place
    return file.with_suffix(".png")  # which is then named as missing


def _claims(path: Path) -> Claim:
    if path.is_file():
        return 2 if path.suffix.lower() == ".pts" else 0
    folders = [path, *sorted(one for one in path.iterdir() if one.is_dir())[:24]] if path.is_dir() else []
    return 2 if any(name.lower().endswith(".pts") for folder in folders for name in first_files(folder)) else 0


def _open(path: Path, **options: Any) -> Source:
    files = [path] if path.is_file() else find_files(path, (".pts",))
    rows: dict[str, PointRows] = {}
    for file in files:
        parts = file.relative_to(path).parts[:-1] if path.is_dir() else ()
        split = next((SPLIT_NAMES[part.lower()] for part in parts if part.lower() in SPLIT_NAMES), "all")
        own = rows.setdefault(split, PointRows(ImageFiles([])))
        assert isinstance(own.inputs, ImageFiles)
        own.inputs.files.append(str(_image_of(file)))
        own.points.append(read_pts(file))
    if "all" in rows and len(rows) > 1:
        raise InputError(f"{path} has .pts files in split folders and beside them; move all into train, val and test")
    ordered = {key: rows[key] for key in ("train", "val", "test", "all") if key in rows}
    return source_of_points(path.name, "300-W .pts", ordered, **options)


FORMAT = Format(
    "300-W .pts",
    "named points",
    "images with .pts files beside them",
    _claims,
    _open,
    OPTIONS,
    written="pts",
    write=write_pts,
)
