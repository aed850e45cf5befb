"""CVAT's XML for images: one `annotations.xml` of `<image>` elements, each with its shapes.

Pixels count from 0 and corners are continuous, as in our convention. A rotated box, an ellipse, a polygon and a mask
are kept as outlines, with the box around them. `occluded` objects are objects. Tags, points and lines are no objects of
a detector: a note counts those left out. `subset`, or a folder of a split's name, says the split. CVAT's other XML,
"for video", has tracks, and is refused. https://docs.cvat.ai/docs/manual/advanced/xml_format/

Classes are the labels of the task, in their order; else the sorted names found.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias
from xml.parsers import expat

import numpy as np
import torch

from opsin.data.formats.annotations import Annotation, build
from opsin.data.formats.folders import SPLIT_NAMES, split_bases
from opsin.data.formats.format import Claim, Format
from opsin.data.formats.values import find_inside, read_head, read_number, read_whole, shown
from opsin.data.images import MAX_PIXELS
from opsin.data.masks import Outline, encode_masks
from opsin.data.source import Source
from opsin.data.truth import Problem
from opsin.errors import InputError
from opsin.files import read_regular
from opsin.image_files import first_files

_SHAPES = ("box", "polygon", "mask", "ellipse")
_LEFT_OUT = ("polyline", "points", "cuboid", "skeleton", "tag")
_Attributes: TypeAlias = Mapping[str, str]


def open_cvat(files: Mapping[str, Path], name: str) -> Source:
    """One XML file for each split; "all" for one whose images may name their `subset`."""
    problems: list[Problem] = []
    parts: dict[str, list[Annotation]] = {}
    labels: dict[str, None] = {}
    for split, file in files.items():
        read = _parse(file, problems)
        labels.update(dict.fromkeys(read.labels))
        folders = [file.parent / inside for inside in ("images", "", "data")]
        for found in read.images:
            key = SPLIT_NAMES.get(found.subset.lower(), split) if split == "all" else split
            inside = [base / found.subset for base in folders] if found.subset else []
            image = find_inside(found.name, [*folders, *inside])
            annotation = Annotation(str(image), str(file), found.size)
            for line, shape, values in found.shapes:
                _add(annotation, shape, values, f"line {line}", problems)
            parts.setdefault(key, []).append(annotation)
        if read.left_out:
            counts = ", ".join(f"{count} {shape}" for shape, count in sorted(read.left_out.items()))
            problems.append(Problem("no_objects", str(file), f"no boxes or outlines, left out: {counts}", "note"))
    if "all" in parts and len(parts) > 1:
        rest = parts.pop("all")
        reason = f"{len(rest)} images of no subset train, val or test are left out"
        problems.append(Problem("unlisted", str(next(iter(files.values()))), reason, "warning"))
    parts = {key: parts[key] for key in ("train", "val", "test", "all") if key in parts}
    if not parts:
        raise InputError(f"{next(iter(files.values()))} lists no images; export the task as CVAT for images")
    return build(name, "CVAT", parts, classes=list(labels) or None, declared="its labels", problems=problems)


@dataclass
class _Image:
    name: str
    subset: str
    size: tuple[int, int] | None
    shapes: list[tuple[int, str, _Attributes]] = field(default_factory=list)


@dataclass
class _Parsed:
    images: list[_Image] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def _parse(file: Path, problems: list[Problem]) -> _Parsed:
    """What a file says, with the line of each shape. Raises InputError for what is no such XML."""
    parsed, path, text = _Parsed(), [], []
    parser = expat.ParserCreate()
    parser.buffer_text = True

    def start(tag: str, attributes: dict[str, str]) -> None:
        path.append(tag)
        text.clear()
        if tag == "track" and len(path) == 2:
            raise InputError(f"{file} has tracks, CVAT's XML for video; export the task as CVAT for images")
        if tag == "image" and len(path) == 2:
            parsed.images.append(_image(file, parser.CurrentLineNumber, attributes, problems))
        elif path[1:2] == ["image"] and len(path) == 3 and tag in _SHAPES:
            parsed.images[-1].shapes.append((parser.CurrentLineNumber, tag, attributes))
        elif path[1:2] == ["image"] and len(path) == 3 and tag in _LEFT_OUT:
            parsed.left_out[tag] += 1

    def end(tag: str) -> None:
        if path[1:2] == ["meta"] and path[-3:] == ["labels", "label", "name"] and (name := "".join(text).strip()):
            parsed.labels.append(name)
        path.pop()
        text.clear()

    def refuse(*_: object) -> None:
        raise InputError(f"{file} declares an entity, which CVAT never does; it is not read")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.EntityDeclHandler = text.append, refuse
    try:
        parser.Parse(read_regular(file), True)
    except (expat.ExpatError, OSError) as error:
        place = f"{file} line {error.lineno}" if isinstance(error, expat.ExpatError) else str(file)
        raise InputError(f"{place}: not readable XML: {getattr(error, 'strerror', None) or error}") from error
    return parsed


def _image(file: Path, line: int, attributes: _Attributes, problems: list[Problem]) -> _Image:
    size = None
    try:
        size = read_whole(attributes.get("height")), read_whole(attributes.get("width"))
    except ValueError as error:
        problems.append(Problem("broken_annotation", f"{file} line {line}", f"the size of an image: {error}"))
    name = attributes.get("name", "").strip()
    if not name:
        problems.append(Problem("broken_annotation", f"{file} line {line}", "an image without a name"))
    return _Image(name or f"image at line {line}", attributes.get("subset", ""), size)


def _add(annotation: Annotation, shape: str, values: _Attributes, place: str, problems: list[Problem]) -> None:
    """A shape, or what is wrong with it, into `problems`."""
    try:
        label = values.get("label", "").strip()
        if not label:
            raise ValueError(f"a {shape} without a label")
        if shape == "mask":
            box, outline = _mask(values, annotation.size)
            annotation.add(box, label, place, outline=outline)
        elif shape == "box" and not _number(values, "rotation", 0.0):
            x1, y1, x2, y2 = (_number(values, key) for key in ("xtl", "ytl", "xbr", "ybr"))
            annotation.add((x1, y1, x2, y2), label, place)
        else:
            annotation.add_outline(_OUTLINES[shape](values), label, place)
    except ValueError as error:
        problems.append(Problem("broken_annotation", f"{annotation.where} {place}", str(error)))


def _number(values: _Attributes, key: str, default: float | None = None) -> float:
    if key not in values and default is not None:
        return default
    try:
        return read_number(values.get(key))
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error


def _polygon(values: _Attributes) -> list[float]:
    numbers = []
    for pair in values.get("points", "").split(";"):
        x, comma, y = pair.partition(",")
        if not comma:
            raise ValueError(f"points hold {shown(pair)}; expected x,y;x,y;x,y")
        numbers += [read_number(x), read_number(y)]
    return numbers


def _rotated(values: _Attributes) -> list[float]:
    """Corners of a box turned about its centre, clockwise as people see it, since y points down."""
    x1, y1, x2, y2 = (_number(values, key) for key in ("xtl", "ytl", "xbr", "ybr"))
    angle = math.radians(_number(values, "rotation"))
    x, y, cos, sin = (x1 + x2) / 2, (y1 + y2) / 2, math.cos(angle), math.sin(angle)
    corners = [(x1 - x, y1 - y), (x2 - x, y1 - y), (x2 - x, y2 - y), (x1 - x, y2 - y)]
    return [value for dx, dy in corners for value in (x + dx * cos - dy * sin, y + dx * sin + dy * cos)]


def _ellipse(values: _Attributes, corners: int = 72) -> list[float]:
    cx, cy, rx, ry = (_number(values, key) for key in ("cx", "cy", "rx", "ry"))
    turn = math.radians(_number(values, "rotation", 0.0))
    found: list[float] = []
    for k in range(corners):
        dx, dy = rx * math.cos(2 * math.pi * k / corners), ry * math.sin(2 * math.pi * k / corners)
        found += [cx + dx * math.cos(turn) - dy * math.sin(turn), cy + dx * math.sin(turn) + dy * math.cos(turn)]
    return found


_OUTLINES: Mapping[str, Callable[[_Attributes], list[float]]] = {
    "polygon": _polygon,
    "box": _rotated,
    "ellipse": _ellipse,
}


def _mask(values: _Attributes, size: tuple[int, int] | None) -> tuple[tuple[float, float, float, float], Outline]:
    """The box and the runs of a mask: row by row within its own box, the first run off."""
    left, top, width, height = (read_whole(values.get(key)) for key in ("left", "top", "width", "height"))
    counts = [read_whole(one) for one in values.get("rle", "").split(",")]
    if size is None or min(size) < 1 or size[0] * size[1] > MAX_PIXELS:
        raise ValueError("a mask in an image of no known size")
    inside = 0 <= left < left + width <= size[1] and 0 <= top < top + height <= size[0]
    if not inside or min(counts) < 0 or sum(counts) != width * height:
        raise ValueError("a mask whose runs do not fill its box, or whose box is not within its image")
    drawn = torch.zeros(1, *size, dtype=torch.bool)
    pixels = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(height, width)
    drawn[0, top : top + height, left : left + width] = torch.from_numpy(pixels)
    return (float(left), float(top), float(left + width), float(top + height)), encode_masks(drawn)[0]


def is_cvat(file: Path) -> bool:
    """Whether an XML file is CVAT's: its root is `annotations`, with a version, images or tracks in it."""
    head = read_head(file)
    return b"<annotations" in head and any(sign in head for sign in (b"<version", b"<meta", b"<image ", b"<track "))


def _find(folder: Path) -> Path | None:
    named = folder / "annotations.xml"
    if named.is_file():
        return named if is_cvat(named) else None
    files = [folder / name for name in first_files(folder) if name.lower().endswith(".xml")]
    return files[0] if len(files) == 1 and is_cvat(files[0]) else None


def _files(path: Path) -> dict[str, Path]:
    if path.is_dir():
        bases = split_bases(path, lambda folder: _find(folder) is not None)
        return {key: file for key, base in bases.items() if (file := _find(base)) is not None}
    return {"all": path} if path.suffix.lower() == ".xml" and is_cvat(path) else {}


def _claims(path: Path) -> Claim:
    return 2 if _files(path) else 0


def _open(path: Path) -> Source:
    return open_cvat(_files(path), path.name if path.is_dir() else path.stem)


FORMAT = Format("CVAT", "boxes", "CVAT for images (annotations.xml)", _claims, _open)
