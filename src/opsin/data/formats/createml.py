"""CreateML: one JSON a folder, a list of `{"image": ..., "annotations": [{"label": ..., "coordinates": {...}}]}`.

`x` and `y` are the centre of a box in pixels from 0, at the top left, and `width` and `height` its sides:
(x - w / 2, y - h / 2, x + w / 2, y + h / 2) in our convention.
https://developer.apple.com/documentation/createml/building-an-object-detector-data-source
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from opsin.data.formats.annotations import Annotation, build, note_unannotated
from opsin.data.formats.folders import split_bases
from opsin.data.formats.format import Claim, Format
from opsin.data.formats.npz import read_classes
from opsin.data.formats.values import find_inside, read_head, read_number, shown
from opsin.data.source import Source
from opsin.data.truth import Problem
from opsin.errors import InputError
from opsin.files import read_regular
from opsin.image_files import IMAGE_SUFFIXES, find_files, first_files

_IMAGE, _OBJECTS = ("image", "imagefilename", "filename"), ("annotations", "annotation")


def open_createml(path: Path) -> Source:
    """A JSON with its images beside it, or in `images`; or train, val and test folders of such."""
    problems: list[Problem] = []
    files = _files(path)
    parts = {split: _read(file, problems) for split, file in files.items()}
    for split, file in files.items():
        used = {one.file for one in parts[split]}
        images = [str(image) for image in find_files(file.parent, IMAGE_SUFFIXES) if str(image) not in used]
        problems += note_unannotated(str(file), images, "are not in the JSON")
    classes = read_classes(path) if path.is_dir() else None
    title = path.name if path.is_dir() else path.stem
    return build(title, "CreateML", parts, classes=classes, declared="classes.txt", problems=problems)


def _read(file: Path, problems: list[Problem]) -> list[Annotation]:
    try:
        content = json.loads(read_regular(file))
    except (ValueError, OSError, RecursionError) as error:
        line = f" line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise InputError(f"{file}{line}: not readable JSON: {getattr(error, 'strerror', None) or error}") from error
    if not isinstance(content, list):
        raise InputError(f"{file} has no list at its top; a CreateML file is a list of images")
    folders = [folder for name in ("", "images") if (folder := file.parent / name).is_dir()]
    found: list[Annotation] = []
    for number, one in enumerate(content):
        try:
            name, objects = _first(one, _IMAGE), _first(one, _OBJECTS)
            if not isinstance(name, str) or not name.strip():
                raise ValueError(f"its image is {shown(name)}; expected a name")
            if not isinstance(objects, list):
                raise ValueError(f"its annotations are {shown(objects)}; expected a list")
        except ValueError as error:
            problems.append(Problem("broken_annotation", f"{file} [{number}]", str(error)))
            continue
        image = Annotation(str(find_inside(name, folders)), str(file))
        for place, annotation in ((f"[{number}].annotations[{k}]", value) for k, value in enumerate(objects)):
            try:
                _add(image, annotation, place)
            except ValueError as error:
                problems.append(Problem("broken_annotation", f"{file} {place}", str(error)))
        found.append(image)
    return found


def _first(one: Any, keys: tuple[str, ...]) -> Any:
    """The value of the first of some keys that an object has. Raises ValueError for what is no object."""
    if not isinstance(one, dict):
        raise ValueError(f"{shown(one)} stands where an object is expected")
    return next((one[key] for key in keys if key in one), None)


def _add(image: Annotation, one: Any, place: str) -> None:
    """Give an object to its image. Raises ValueError with the reason."""
    label, where = _first(one, ("label",)), _first(one, ("coordinates",))
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"its label is {shown(label)}; expected a name")
    if not isinstance(where, dict):
        raise ValueError(f"its coordinates are {shown(where)}; expected x, y, width and height")
    x, y, width, height = (read_number(where.get(key)) for key in ("x", "y", "width", "height"))
    box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    image.add(box, label.strip(), place)


def is_createml(file: Path) -> bool:
    """Whether a JSON file is CreateML's, by its name or its first bytes."""
    if file.name.lower().endswith(".createml.json"):
        return True
    head = read_head(file, 1 << 14)
    return head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"[") and b'"coordinates"' in head and b'"label"' in head


def _find(folder: Path) -> Path | None:
    files = [folder / name for name in first_files(folder) if name.lower().endswith(".json")]
    return next((file for file in files[:5] if is_createml(file)), None)


def _files(path: Path) -> dict[str, Path]:
    if not path.is_dir():
        return {"all": path}
    bases = split_bases(path, lambda folder: _find(folder) is not None)
    return {key: file for key, base in bases.items() if (file := _find(base)) is not None}


def _claims(path: Path) -> Claim:
    if path.is_dir():
        return 2 if _files(path) else 0
    return 2 if path.suffix.lower() == ".json" and is_createml(path) else 0


FORMAT = Format("CreateML", "boxes", "CreateML (_annotations.createml.json)", _claims, open_createml)
