"""Pages annotated with CVAT or labelme: shapes whose text stands in an attribute or in a description.

CVAT's annotations.xml: `<polygon points="x,y;x,y">` or `<box xtl ytl xbr ybr>` with `<attribute name="text">`, also
transcription, or the only one of a shape. labelme: `description` of a shape; where no shape of a folder has one, its
label is the text, as tools for text write it. What has neither is to ignore. To a detector such files are boxes of
their labels, see `opsin.data.formats.cvat` and `labelme`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from opsin.data.formats import cvat, labelme
from opsin.data.formats.folders import split_bases
from opsin.data.formats.format import Claim, Format
from opsin.data.formats.text_regions import Page, Pages, open_lines, ordered
from opsin.data.formats.tree import SPLIT_NAMES
from opsin.data.formats.values import find_inside, read_number, shown
from opsin.data.formats.xml_tree import Element, read_elements
from opsin.data.source import Source
from opsin.data.truth import Problem
from opsin.files import read_regular
from opsin.image_files import find_files, first_files, list_folder

_TEXTS = ("text", "transcription", "transcript", "value", "ocr", "word", "words")
_IMAGES = ("", "images", "imgs", "img", "data")


def _said(shape: Element) -> str | None:
    attributes = {one.attributes.get("name", "").lower(): one.text for one in shape.children if one.tag == "attribute"}
    named = next((attributes[name] for name in _TEXTS if name in attributes), None)
    return named if named is not None or len(attributes) != 1 else next(iter(attributes.values()))


def _corners(shape: Element) -> list[float]:
    values = shape.attributes
    if shape.tag == "box":
        return [read_number(values.get(side)) for side in ("xtl", "ytl", "xbr", "ybr")]
    return [read_number(one) for one in values.get("points", "").replace(";", ",").split(",")]


def _read_cvat(path: Path) -> tuple[Pages, list[Problem]]:
    problems: list[Problem] = []
    parts: dict[str, list[Page]] = {}
    for split, file in _cvat_files(path).items():
        for image in read_elements(file, "image", problems):
            subset = image.attributes.get("subset", "")
            homes = [file.parent / home for home in _IMAGES]
            folders = [*homes, *(home / subset for home in homes if subset)]
            page = Page(str(find_inside(image.attributes.get("name", ""), folders)), str(file))
            for shape in image.children:
                if shape.tag in ("box", "polygon"):
                    _add(page, shape, problems)
            key = SPLIT_NAMES.get(subset.lower(), split) if split == "all" else split
            parts.setdefault(key, []).append(page)
    return ordered(parts), problems


def _add(page: Page, shape: Element, problems: list[Problem]) -> None:
    try:
        text = _said(shape)
        page.add(_corners(shape), text, f"line {shape.line}", ignored=not text)
    except ValueError as error:
        problems.append(Problem("broken_annotation", f"{page.where} line {shape.line}", str(error)))


def _cvat_files(path: Path) -> dict[str, Path]:
    if path.is_file():
        return {"all": path} if cvat.is_cvat(path) else {}

    def find(folder: Path) -> Path | None:
        names = [folder / name for name in first_files(folder) if name.lower().endswith(".xml")]
        return next((file for file in names if cvat.is_cvat(file)), None)

    bases = split_bases(path, lambda base: find(base) is not None)
    return {split: file for split, base in bases.items() if (file := find(base)) is not None}


def _read_labelme(path: Path) -> tuple[Pages, list[Problem]]:
    problems: list[Problem] = []
    read = {split: _shapes(base, problems) for split, base in _labelme_bases(path).items()}
    described = any(one.get("description") for some in read.values() for _, shapes in some for one in shapes)
    for some in read.values():
        for page, shapes in some:
            for number, shape in enumerate(shapes):
                text, place = shape.get("description" if described else "label"), f"shapes[{number}]"
                try:
                    points = [read_number(one) for point in shape["points"] for one in point]
                    page.add(points, text or None, place, ignored=not text)
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    problems.append(Problem("broken_annotation", f"{page.where} {place}", f"a shape: {error}"))
    return ordered({split: [page for page, _ in some] for split, some in read.items()}), problems


def _shapes(base: Path, problems: list[Problem]) -> list[tuple[Page, list[dict[str, Any]]]]:
    found = []
    for file in [one for one in find_files(base, (".json",)) if labelme.is_labelme(one)]:
        try:
            content = json.loads(read_regular(file))
            shapes = content["shapes"]
            if not isinstance(shapes, list) or not all(isinstance(one, dict) for one in shapes):
                raise ValueError(f"its shapes are {shown(shapes)}")
        except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
            problems.append(Problem("broken_annotation", str(file), f"not labelme's JSON: {error}"))
            continue
        named = content.get("imagePath")
        folders = [file.parent, *(base / name for name in ("images", "imgs", "img"))]
        image = find_inside(named if isinstance(named, str) and named else f"{file.stem}.jpg", folders)
        found.append((Page(str(image), str(file)), [one for one in shapes if len(one.get("points") or ()) > 1]))
    return found


def _labelme_bases(path: Path) -> dict[str, Path]:
    def holds(base: Path) -> bool:
        folders = [base, *(base / name for name in list_folder(base)[1])]
        files = [folder / name for folder in folders for name in first_files(folder) if name.endswith(".json")]
        return any(labelme.is_labelme(file) for file in files[:5])

    return split_bases(path, holds) if path.is_dir() else {}


def _claims_cvat(path: Path) -> Claim:
    return 1 if (path.is_dir() or path.suffix.lower() == ".xml") and _cvat_files(path) else 0


def _open_cvat(path: Path) -> Source:
    return open_lines(path.stem, "lines of CVAT", *_read_cvat(path), root=path if path.is_dir() else path.parent)


def _open_labelme(path: Path) -> Source:
    return open_lines(path.name, "lines of labelme", *_read_labelme(path), root=path)


CVAT = Format("lines of CVAT", "texts", "CVAT with a text of each shape", _claims_cvat, _open_cvat)
LABELME = Format(
    "lines of labelme",
    "texts",
    "labelme with a text of each shape",
    lambda path: 1 if _labelme_bases(path) else 0,
    _open_labelme,
)
