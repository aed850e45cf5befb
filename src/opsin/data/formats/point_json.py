"""Points in one json file: `{"a.jpg": {"nose": [12, 30], "chin": [11, 44]}, ...}`, or lists in the place of names.

An image's value is an object of points by name, a list of points, or an object whose "points" or "landmarks" is one of
these; or the file is a list of such objects, each with "image". `null` is a point that is not known, and a third number
says whether it is visible. Images are relative to the file, or lie in folders beside it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from opsin.data.formats.format import Claim, Format
from opsin.data.formats.point_source import LARGEST, OPTIONS, PointRows, source_of_points
from opsin.data.formats.table_beside import ImageIndex
from opsin.data.formats.values import as_posix, is_file, read_flag, read_head, read_number, shown
from opsin.data.inputs import ImageFiles
from opsin.data.source import Source
from opsin.errors import InputError
from opsin.files import read_regular
from opsin.image_files import IMAGE_SUFFIXES, list_folder

_INSIDE = ("points", "landmarks", "keypoints")
_IMAGE = ("image", "file", "filename", "file_name", "path")


def _entries(content: Any) -> Iterator[tuple[str, Any]]:
    """The images of a file, each with its value. Raises ValueError for another file."""
    if isinstance(content, dict) and content and all(as_posix(k).suffix.lower() in IMAGE_SUFFIXES for k in content):
        yield from content.items()
    elif isinstance(content, list) and content:
        for one in content:
            name = (
                next((one[key] for key in _IMAGE if isinstance(one.get(key), str)), None)
                if isinstance(one, dict)
                else None
            )
            if name is None:
                raise ValueError(f"{shown(one)} names no image")
            yield name, one
    else:
        raise ValueError("it has no images by name")


def _points(value: Any) -> tuple[list[str] | None, list[Any]]:
    """The names, None where there are none, and the points of an image. Raises ValueError."""
    if isinstance(value, Mapping):
        inside = next((value[key] for key in _INSIDE if key in value), None)
        if inside is not None:
            return _points(inside)
        return [str(key) for key in value], list(value.values())
    if isinstance(value, list) and value:
        return None, value
    raise ValueError(f"expected points by name, or a list of them; got {shown(value)}")


def _place(value: Any) -> tuple[float, float, bool]:
    if value is None:
        return math.nan, math.nan, False
    if not isinstance(value, list) or len(value) not in (2, 3):
        raise ValueError(f"a point is [x, y], or [x, y, visible]; got {shown(value)}")
    x, y = (math.nan if one is None else read_number(one) for one in value[:2])
    if abs(x) > LARGEST or abs(y) > LARGEST:
        raise ValueError(f"{x:g}, {y:g} is no place in an image")
    return x, y, read_flag(value[2]) if len(value) == 3 else True


def read_json(file: Path) -> tuple[PointRows, list[str] | None]:
    """What a file says, and the names of its points. Raises InputError that names the image."""
    try:
        entries = list(_entries(json.loads(read_regular(file))))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} is no json of points: {error}") from None
    names, files, points, visible = None, [], [], []
    for image, value in entries:
        try:
            own, values = _points(value)
            if files and (own is None) != (names is None):
                raise ValueError("its points have names where others have none, or none where others have some")
            if own is not None:
                names = names or own
                if unknown := [name for name in own if name not in names]:
                    raise ValueError(f"the first image has no point {shown(unknown[0])}")
                by_name = dict(zip(own, values, strict=True))
                values = [by_name.get(name) for name in names]
            places = [_place(one) for one in values]
        except (ValueError, RecursionError) as error:
            raise InputError(f"{file}, {shown(image)}: {error}") from None
        files.append(image)
        points.append(np.array([place[:2] for place in places], float))
        visible.append(np.array([place[2] for place in places]))
    return PointRows(ImageFiles(_locate(file, files)), points, visible), names


def _locate(file: Path, names: list[str]) -> list[str]:
    plain = [file.parent / as_posix(name) for name in names]
    if is_file(plain[0]):
        return [str(place) for place in plain]
    index = ImageIndex(file, "all")
    found = (index.find(as_posix(name).name) for name in names)
    return [str(place or other) for place, other in zip(found, plain, strict=True)]


def is_points(file: Path) -> bool:
    """Whether a json file is of this format, by its first image."""
    if file.suffix.lower() != ".json" or not 2 < file.stat().st_size < 1 << 28:
        return False
    head = read_head(file, 1 << 12).decode("utf-8-sig", "replace").lstrip()
    if not any(suffix in head.lower() for suffix in IMAGE_SUFFIXES) or any(key in head for key in _OTHERS):
        return False
    try:
        name, value = next(_entries(json.loads(read_regular(file))))
        own = _points(value)[1]
        return bool(name) and len(own) > 0 and all(_place(one) is not None for one in own)
    except (OSError, ValueError, RecursionError, StopIteration):
        return False


_OTHERS = ('"annotations"', '"regions"', '"shapes"', '"imgHeight"', '"bbox"', '"frames"')


def _file(path: Path) -> Path | None:
    if path.is_file():
        return path if is_points(path) else None
    files = (
        [path / name for name in list_folder(path)[0] if name.lower().endswith(".json")][:4] if path.is_dir() else []
    )
    found = [file for file in files if is_points(file)]
    return found[0] if len(found) == 1 else None


def _claims(path: Path) -> Claim:
    return 2 if _file(path) is not None else 0


def _open(path: Path, **options: Any) -> Source:
    rows, names = read_json(_file(path) or path)
    return source_of_points(
        path.name if path.is_dir() else path.stem, "json of points", {"all": rows}, names, **options
    )


FORMAT = Format("json of points", "named points", "a json of points by image", _claims, _open, OPTIONS)
