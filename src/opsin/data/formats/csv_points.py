"""CSV tables of points: one row an image, its file and the coordinates of each point, in pixels of the image.

`image,left_eye_x,left_eye_y,...`, with names of points before `_x` and `_y`, and `_visible` of 0 and 1 where that is
known; or numbers, `,0,1,2,...`, for x and y of each point in turn. An empty cell or `nan` is a point that is not known.
Files are relative to the table, or lie in folders beside it. A folder may have a table for each split, by its name, as
`training_frames_keypoints.csv` and `test_frames_keypoints.csv`.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from opsin.data.formats.csv_labels import locate, read_cells
from opsin.data.formats.format import Claim, Format
from opsin.data.formats.point_source import LARGEST, OPTIONS, PointRows, source_of_points
from opsin.data.formats.table_beside import ImageIndex
from opsin.data.formats.tree import SPLIT_NAMES
from opsin.data.formats.values import is_file, read_flag, read_head, read_number
from opsin.data.formats.write_points import write_csv
from opsin.data.inputs import ImageFiles
from opsin.data.source import Source
from opsin.errors import InputError
from opsin.image_files import list_folder

_EXPECTED = "a header such as image,left_eye_x,left_eye_y"
_SEEN = ("visible", "v", "vis", "visibility")
_PATHS = ("image", "path", "file", "filename", "file_name", "image_path", "image_name", "image_id", "name", "id", "")
_MOST_POINTS = 2000


@dataclass(frozen=True)
class Columns:
    """Where a table has what. names: of the points. places: (P, 2), the columns of x and y. visible: of each point, or
    None. path: the column of the image.
    """

    names: tuple[str, ...]
    places: tuple[tuple[int, int], ...]
    visible: tuple[int | None, ...]
    path: int


def find_columns(header: Sequence[str]) -> Columns | None:
    """What the header of a table of points says; None of any other."""
    cells = [cell.strip() for cell in header]
    lower = [cell.lower() for cell in cells]
    numbers = [k for k, cell in enumerate(lower) if cell.isdigit()]
    if len(numbers) >= 4 and len(numbers) == len(cells) - 1 and len(numbers) % 2 == 0:
        path = next(k for k in range(len(cells)) if k not in numbers)
        if [int(lower[k]) for k in numbers] == list(range(len(numbers))):
            pairs = tuple(zip(numbers[::2], numbers[1::2], strict=True))
            return Columns(tuple(map(str, range(len(pairs)))), pairs, (None,) * len(pairs), path)
    found: dict[str, dict[str, int]] = {}
    for k, cell in enumerate(lower):
        if (match := re.fullmatch(rf"(.+)[_ .](x|y|{'|'.join(_SEEN)})", cell)) is not None:
            found.setdefault(match[1], {})["v" if match[2] in _SEEN else match[2]] = k
    points = {name: own for name, own in found.items() if "x" in own and "y" in own}
    if not points or _is_box(points):
        return None
    taken = {k for own in points.values() for k in own.values()}
    path = next((lower.index(name) for name in _PATHS if name in lower and lower.index(name) not in taken), None)
    if path is None:
        return None
    names = tuple(cells[own["x"]][:-2] for own in points.values())
    places = tuple((own["x"], own["y"]) for own in points.values())
    return Columns(names, places, tuple(own.get("v") for own in points.values()), path)


def _is_box(points: dict[str, dict[str, int]]) -> bool:
    """Whether the points are the corners of a box, or its centre."""
    return set(points) <= {"min", "max", "top_left", "bottom_right", "center", "centre", "bbox", "box", "roi"}


def _header(table: Path) -> Columns | None:
    text = read_head(table, 1 << 16).decode("utf-8-sig", "replace")
    first = text.split("\n", 1)[0].rstrip("\r")
    separator = next((sign for sign in "\t,;" if sign in first), ",")
    try:
        return find_columns(next(csv.reader([first], delimiter=separator), []))
    except csv.Error:
        return None


def _tables(path: Path) -> dict[str, Path]:
    """The tables of points of a path by split; "all" of one that is for none."""
    if not path.is_dir():
        return {"all": path} if path.suffix.lower() in (".csv", ".tsv") and _header(path) is not None else {}
    files = [path / name for name in list_folder(path)[0] if name.lower().endswith((".csv", ".tsv"))][:8]
    found = {file: _split_of(file) for file in files if _header(file) is not None}
    if len(found) == 1:
        return {"all": next(iter(found))}
    splits = {split: file for file, split in found.items() if split != "all"}
    ordered = {key: splits[key] for key in ("train", "val", "test") if key in splits}
    return ordered if "train" in splits and len(splits) == len(found) else {}


def _split_of(table: Path) -> str:
    words = [SPLIT_NAMES[word] for word in re.split(r"[^a-z]+", table.stem.lower()) if word in SPLIT_NAMES]
    return words[0] if words else "all"


def read_table(table: Path, split: str) -> tuple[PointRows, tuple[str, ...]]:
    """The rows of a table, and the names of its points. Raises InputError that names the line and the column."""
    (_, first), *cells = read_cells(table, _EXPECTED)
    columns = find_columns(first)
    if columns is None:
        raise InputError(f"{table} is no table of points; expected {_EXPECTED}")
    if len(columns.names) > _MOST_POINTS:
        raise InputError(f"{table} has {len(columns.names)} points an image; expected at most {_MOST_POINTS}")
    files, points, visible = [], [], []
    width = max(k for pair in columns.places for k in pair) + 1
    for line, row in cells:
        if len(row) < max(width, columns.path + 1):
            raise InputError(f"{table} line {line}: {len(row)} columns, expected {max(width, columns.path + 1)}")
        if not (name := row[columns.path].strip()):
            raise InputError(f"{table} line {line}: the name of the image is empty")
        files.append(name)
        points.append(np.array([[_number(table, line, first, row, k) for k in pair] for pair in columns.places]))
        visible.append(np.array([_seen(table, line, first, row, k) for k in columns.visible]))
    if not files:
        raise InputError(f"{table} lists no images; expected {_EXPECTED}, and a row for each image")
    inputs = ImageFiles(_locate(table, files, split))
    return PointRows(inputs, points, visible if any(k is not None for k in columns.visible) else None), columns.names


def _number(table: Path, line: int, header: Sequence[str], row: Sequence[str], k: int) -> float:
    text = row[k].strip()
    if text.lower() in ("", "nan", "na", "none", "null"):
        return math.nan
    try:
        value = read_number(text)
    except ValueError as error:
        raise InputError(f"{table} line {line}, column {header[k].strip()!r}: {error}") from None
    if not abs(value) <= LARGEST:
        raise InputError(f"{table} line {line}, column {header[k].strip()!r}: {value:g} is no place in an image")
    return value


def _seen(table: Path, line: int, header: Sequence[str], row: Sequence[str], k: int | None) -> bool:
    if k is None or k >= len(row):
        return True
    try:
        return read_flag(row[k])
    except ValueError as error:
        raise InputError(f"{table} line {line}, column {header[k].strip()!r}: {error}") from None


def _locate(table: Path, names: Sequence[str], split: str) -> list[str]:
    """The images: relative to the table, or where the first is not there, by their names beside it."""
    plain = [locate(name, [table.parent]) for name in names]
    if is_file(plain[0]):
        return [str(place) for place in plain]
    index = ImageIndex(table, split)
    found = (index.find(PurePosixPath(name.replace("\\", "/")).name) for name in names)
    return [str(place or other) for place, other in zip(found, plain, strict=True)]


def _claims(path: Path) -> Claim:
    return 2 if _tables(path) else 0


def _open(path: Path, **options: Any) -> Source:
    tables = _tables(path) or {"all": path}
    read = {split: read_table(table, split) for split, table in tables.items()}
    names = next(iter(read.values()))[1]
    for (split, (_, own)), table in zip(read.items(), tables.values(), strict=True):
        if own != names:
            raise InputError(
                f"{table} has {len(own)} points by other names than {next(iter(tables.values()))}: {split}"
            )
    rows = {split: rows for split, (rows, _) in read.items()}
    name = path.name if path.is_dir() else path.stem
    return source_of_points(name, "CSV of points", rows, names, **options)


FORMAT = Format(
    "CSV of points",
    "named points",
    "a CSV of image,NAME_x,NAME_y,...",
    _claims,
    _open,
    OPTIONS,
    written="csv",
    write=write_csv,
)
