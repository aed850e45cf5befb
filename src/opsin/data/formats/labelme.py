"""labelme: a JSON file beside each image, with its shapes. https://github.com/wkentaro/labelme

Points are in continuous pixels from 0, as in our convention. A rectangle is two corners; a circle its centre and a
point on it; a polygon, an oriented rectangle and a circle are kept as outlines, with the box around them; so is a mask,
a PNG in its box. Points and lines are no objects of a detector: a note counts those left out.

Classes are the lines of a labels.txt or classes.txt in the folder (labelme's `__ignore__` and `_background_` are none),
else the sorted names found. Images lie beside their JSON, in a folder `images`, or where `imagePath` leads within the
folder.
"""

from __future__ import annotations

import base64
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from opsin.data.formats.annotations import Annotation, build, note_unannotated
from opsin.data.formats.folders import split_bases
from opsin.data.formats.format import Claim, Format
from opsin.data.formats.npz import read_classes
from opsin.data.formats.values import find_inside, read_head, read_number, read_text, read_whole, shown
from opsin.data.images import MAX_PIXELS, UnreadableImage, decode_values
from opsin.data.masks import Outline, encode_masks
from opsin.data.source import Source
from opsin.data.truth import Problem
from opsin.errors import InputError
from opsin.files import read_regular
from opsin.image_files import IMAGE_SUFFIXES, find_files, first_files, list_folder

_LEFT_OUT = ("point", "points", "line", "linestrip")
_TABLES = ("annotations", "labels", "labelme", "json", "jsons", "ann")  # folders of JSON files beside those of images
_IMAGES = ("", "images", "imgs", "img", "JPEGImages")
_CORNERS = 72  # of a circle's outline
_NO_CLASSES = ("__ignore__", "_background_")


def open_labelme(path: Path) -> Source:
    """A folder of JSON files, beside their images or in a folder beside those'; or train, val and test of such."""
    problems: list[Problem] = []
    parts: dict[str, list[Annotation]] = {}
    for split, base in split_bases(path, _holds).items():
        folder, left_out, used = _json_folder(base), Counter[str](), set[Path]()
        parts[split] = []
        for file in find_files(folder, (".json",)):
            if not is_labelme(file) or (annotation := _read(file, base, problems, left_out)) is None:
                continue
            parts[split].append(annotation)
            used.add(Path(annotation.file))
        if left_out:
            counts = ", ".join(f"{count} {shape}" for shape, count in sorted(left_out.items()))
            problems.append(Problem("no_objects", str(base), f"no boxes or outlines, left out: {counts}", "note"))
        images = [str(image) for image in find_files(base, IMAGE_SUFFIXES) if image not in used]
        problems += note_unannotated(str(base), images, "have no JSON file")
    return build(path.name, "labelme", parts, classes=_classes(path), declared="its list of labels", problems=problems)


def is_labelme(file: Path) -> bool:
    """Whether a JSON file is labelme's, by its first bytes; they begin with the version, the flags and the shapes."""
    head = read_head(file, 1 << 16)
    if b'"shapes"' in head and b'"annotations"' not in head:
        return True
    return b'"imageData"' in head and b'"imagePath"' in head


def _classes(path: Path) -> list[str] | None:
    listed = path / "labels.txt"
    if not listed.is_file():
        return read_classes(path)
    try:
        lines = [line.strip() for line in read_text(listed).splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{listed} cannot be read as text: {error}") from error
    return [line for line in dict.fromkeys(lines) if line and line not in _NO_CLASSES] or None


def _read(file: Path, base: Path, problems: list[Problem], left_out: Counter[str]) -> Annotation | None:
    """An image's annotation; None, and a problem, where the JSON is broken."""
    try:
        content = json.loads(read_regular(file))
        if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
            raise ValueError("no list of shapes")
        size = None
        if content.get("imageHeight") is not None and content.get("imageWidth") is not None:
            size = read_whole(content["imageHeight"]), read_whole(content["imageWidth"])
    except (ValueError, OSError, RecursionError) as error:
        line = f" line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        reason = getattr(error, "strerror", None) or str(error)
        problems.append(Problem("broken_annotation", f"{file}{line}", f"not labelme's JSON: {reason}"))
        return None
    annotation = Annotation(str(_image(file, base, content.get("imagePath"))), str(file), size)
    for number, shape in enumerate(content["shapes"]):
        try:
            _add(annotation, shape, f"shapes[{number}]", left_out)
        except ValueError as error:
            problems.append(Problem("broken_annotation", f"{file} shapes[{number}]", str(error)))
    return annotation


def _image(file: Path, base: Path, named: Any) -> Path:
    folders = [file.parent, *(base / name for name in _IMAGES)]
    if isinstance(named, str) and named.strip() and (found := find_inside(named, folders)).is_file():
        return found
    beside = [folder / f"{file.stem}{end}" for folder in folders for end in (".jpg", ".png", ".jpeg", ".JPG", ".bmp")]
    known = next((image for image in beside if image.is_file()), None)
    return known or (find_inside(named, folders) if isinstance(named, str) and named.strip() else beside[0])


def _add(annotation: Annotation, shape: Any, place: str, left_out: Counter[str]) -> None:
    """Give a shape to its image. Raises ValueError with the reason where it cannot be."""
    if not isinstance(shape, dict):
        raise ValueError(f"{shown(shape)} stands where a shape is expected")
    label, kind = shape.get("label"), shape.get("shape_type") or "polygon"
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"its label is {shown(label)}; expected a name")
    if kind in _LEFT_OUT:
        left_out[kind] += 1
        return
    given = shape.get("points")
    if not isinstance(given, list) or not all(isinstance(point, list) and len(point) == 2 for point in given):
        raise ValueError(f"its points are {shown(given)}; expected [[x, y], [x, y], ...]")
    points = [read_number(value) for point in given for value in point]
    if kind in ("rectangle", "mask") and len(points) == 4:
        x1, y1, x2, y2 = points
        box = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
        outline = _stamp(shape, box, annotation.size) if kind == "mask" else None
        annotation.add(box, label.strip(), place, outline=outline)
    elif kind == "circle" and len(points) == 4:
        annotation.add_outline(_circle(*points), label.strip(), place)
    elif kind in ("polygon", "rectangle", "oriented_rectangle") and len(points) >= 6:
        annotation.add_outline(points, label.strip(), place)
    else:
        raise ValueError(f"a {shown(kind)} of {len(points) // 2} points; expected a rectangle, polygon or circle")


def _stamp(shape: Mapping[str, Any], box: Sequence[float], size: tuple[int, int] | None) -> Outline | None:
    """The pixels of a mask, a PNG of base64 whose first pixel is at a corner; None where there is none to be drawn.

    Raises ValueError for one that cannot be read.
    """
    if size is None or not isinstance(shape.get("mask"), str) or not 0 < size[0] * size[1] <= MAX_PIXELS:
        return None
    try:
        values, _, _ = decode_values(base64.b64decode(shape["mask"], validate=True), "its mask")
    except UnreadableImage as error:
        raise ValueError(str(error)) from error
    left, top = (round(value) for value in box[:2])
    if values.ndim != 2 or left < 0 or top < 0:
        return None
    drawn = np.zeros(size, bool)
    part = values[: max(0, size[0] - top), : max(0, size[1] - left)] > 0
    drawn[top : top + part.shape[0], left : left + part.shape[1]] = part
    return encode_masks(torch.from_numpy(drawn)[None])[0]


def _circle(x: float, y: float, px: float, py: float) -> list[float]:
    radius = math.hypot(px - x, py - y)
    turns = [2 * math.pi * k / _CORNERS for k in range(_CORNERS)]
    return [value for turn in turns for value in (x + radius * math.cos(turn), y + radius * math.sin(turn))]


def _json_folder(base: Path) -> Path:
    """Where a base's JSON files lie: beside its images, or in a folder of their own."""
    for folder in (base, *(base / name for name in list_folder(base)[1] if name.lower() in _TABLES)):
        names = [name for name in first_files(folder) if name.lower().endswith(".json")]
        if any(is_labelme(folder / name) for name in names[:3]):
            return folder
    images = base / "images"
    return images if images.is_dir() else base


def _holds(folder: Path) -> bool:
    inside = [name for name in list_folder(folder)[1] if name.lower() in (*_TABLES, "images", "img", "imgs")]
    for place in (folder, *(folder / name for name in inside)):
        names = [name for name in first_files(place) if name.lower().endswith(".json")]
        if any(is_labelme(place / name) for name in names[:3]):
            return True
    return False


def _claims(path: Path) -> Claim:
    return 2 if path.is_dir() and split_bases(path, _holds) else 0


FORMAT = Format("labelme", "boxes", "labelme (a JSON beside each image)", _claims, open_labelme)
