"""Lists of points in text files, a line an image: WFLW's, and plain ones with the image first or last.

WFLW (Wu et al. 2018, arXiv:1805.10483): 196 numbers of 98 points, the box x1 y1 x2 y2, six flags, and the image,
relative to WFLW_images beside the folder of lists. A plain line is an image and x y of each point, as AFLW and COFW are
often passed on, and has the image first or last; -1 -1 is a point that is not known. Numbers are separated by blanks,
coordinates are continuous pixels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from opsin.data.formats.format import Claim, Format
from opsin.data.formats.point_source import LARGEST, OPTIONS, PointRows, source_of_points
from opsin.data.formats.tree import SPLIT_NAMES
from opsin.data.formats.values import as_posix, find_file, read_head, read_text
from opsin.data.inputs import ImageFiles
from opsin.data.source import Source
from opsin.errors import InputError
from opsin.image_files import IMAGE_SUFFIXES, list_folder

_WFLW = 98
_EXPECTED = "an image and x y of each point, or WFLW's 196 numbers, box, six flags and image"


def read_line(cells: Sequence[str]) -> tuple[str, np.ndarray, np.ndarray | None]:
    """The image, the points (P, 2) and the box (4,) of a line. Raises ValueError for another line."""
    first, last = (as_posix(cell).suffix.lower() in IMAGE_SUFFIXES for cell in (cells[0], cells[-1]))
    if first == last:
        raise ValueError(f"expected {_EXPECTED}")
    name = cells[0] if first else cells[-1]
    values = np.array([float(cell) for cell in (cells[1:] if first else cells[:-1])])
    if not (np.abs(values) <= LARGEST).all():
        raise ValueError("a number is no place in an image")
    if last and len(values) == 2 * _WFLW + 10:
        return name, values[: 2 * _WFLW].reshape(-1, 2), values[2 * _WFLW : 2 * _WFLW + 4]
    if len(values) < 2 or len(values) % 2:
        raise ValueError(f"{len(values)} numbers beside the image, expected x and y of each point")
    points = values.reshape(-1, 2)
    return name, np.where((points == -1).all(axis=1, keepdims=True), np.nan, points), None


def is_list(file: Path) -> bool:
    """Whether a text file is of this format, by its first line."""
    if file.suffix.lower() not in (".txt", ".list", ".lst"):
        return False
    cells = read_head(file, 1 << 14).decode("utf-8-sig", "replace").split("\n", 1)[0].split()
    try:
        return len(cells) >= 7 and len(read_line(cells)[1]) >= 3  # a box has no more than two corners
    except (ValueError, IndexError):
        return False


def _lists(path: Path) -> dict[str, Path]:
    """The lists of a path by split."""
    if path.is_file():
        return {"all": path} if is_list(path) else {}
    if not path.is_dir():
        return {}
    folders = [path, *(path / name for name in list_folder(path)[1][:8])]
    folders += [
        folder / name for folder in folders[1:] for name in list_folder(folder)[1][:8] if "annot" in folder.name.lower()
    ]
    found = [folder / name for folder in folders for name in list_folder(folder)[0][:64] if is_list(folder / name)]
    if len(found) == 1:
        return {"all": found[0]}
    named: dict[str, Path] = {}
    for file in found:
        words = [SPLIT_NAMES[word] for word in re.split(r"[^a-z]+", file.stem.lower()) if word in SPLIT_NAMES]
        named.setdefault(words[-1] if words else "all", file)
    return {key: named[key] for key in ("train", "val", "test") if key in named} if "train" in named else {}


def read_list(file: Path, root: Path) -> PointRows:
    """What a list says. root: of the data, in which images are looked for too. Raises InputError that names a line."""
    try:
        lines = read_text(file).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read: {error}") from None
    bases = [
        file.parent,
        *(
            folder / name
            for folder in (root, file.parent, file.parent.parent)
            for name in ("", "WFLW_images", "images")
        ),
    ]
    files, points, boxes = [], [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            name, own, box = read_line(line.split())
        except ValueError as error:
            raise InputError(f"{file} line {number}: {error}") from None
        files.append(str(find_file(as_posix(name), bases) or file.parent / name))
        points.append(own)
        boxes.append(box)
    stated = [box for box in boxes if box is not None]
    return PointRows(ImageFiles(files), points, boxes=stated if stated and len(stated) == len(files) else None)


def _claims(path: Path) -> Claim:
    return 2 if _lists(path) else 0


def _open(path: Path, **options: Any) -> Source:
    root = path if path.is_dir() else path.parent
    rows = {split: read_list(file, root) for split, file in (_lists(path) or {"all": path}).items()}
    return source_of_points(path.name if path.is_dir() else path.stem, "list of points", rows, **options)


FORMAT = Format("list of points", "named points", "a list of image x y ...", _claims, _open, OPTIONS)
