"""CSV tables of boxes: one row an object, `path,x1,y1,x2,y2,label`, in our convention: pixels from 0, x2, y2 exclusive.

A header is optional; it names the columns in any order (see _ROLES): corners x1, y1, x2, y2 or xmin, ymin, xmax, ymax,
or x, y, width, height of the box, or one column bbox of "[x, y, width, height]"; label; optionally split, the image's
width and height, and ignore, 0 or 1 (also iscrowd, difficult), for regions to ignore. A row with a path alone is an
image without objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from opsin.data.formats import csv_labels
from opsin.data.formats.annotations import Annotation, build
from opsin.data.formats.folders import SPLIT_NAMES, files_by_split, list_files, split_bases
from opsin.data.formats.format import Claim, Format
from opsin.data.formats.npz import read_classes
from opsin.data.formats.values import read_flag, read_number
from opsin.data.source import Source
from opsin.data.truth import Problem
from opsin.errors import InputError

_ROLES = {
    "path": ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "image_id", "img"),
    "x1": ("x1", "xmin", "x_min", "left"),
    "y1": ("y1", "ymin", "y_min", "top"),
    "x2": ("x2", "xmax", "x_max", "right"),
    "y2": ("y2", "ymax", "y_max", "bottom"),
    "x": ("x",),
    "y": ("y",),
    "width": ("width", "w"),
    "height": ("height", "h"),
    "bbox": ("bbox", "box"),
    "label": ("label", "class", "name", "class_name", "category", "labelname"),
    "split": ("split", "set", "subset"),
    "ignore": ("ignore", "iscrowd", "crowd", "difficult"),
}
_ANSWERS = {  # of tables of detections besides
    "score": ("score", "confidence", "conf", "probability", "prob"),
    "class_id": ("class_id", "category_id", "classid"),
    "frame": ("frame",),
    "error": ("error",),
}
_PLAIN = ("path", "x1", "y1", "x2", "y2", "label")
_CORNERS, _SIDES = ("x1", "y1", "x2", "y2"), ("x", "y", "width", "height")
_EXPECTED = "expected path,x1,y1,x2,y2,label, or a header that names them"


def open_boxes(files: Mapping[str, Path], name: str, stated: bool = False) -> Source:
    """One CSV file for each split; "all" for one that may have a column of splits."""
    problems: list[Problem] = []
    parts: dict[str, dict[str, Annotation]] = {}
    for split, table in files.items():
        _read(table, split, parts, problems)
    order = [key for key in ("train", "val", "test", "all") if key in parts]
    images = {key: list(parts[key].values()) for key in order}
    classes = read_classes(next(iter(files.values())).parent)
    return build(
        name, "CSV of boxes", images, classes=classes, declared="classes.txt", problems=problems, stated=stated
    )


def is_boxes(table: Path) -> bool:
    """Whether a table's first row is a header of boxes; or a path, four numbers, not all 0 or 1, and a label."""
    try:
        first = [cell.strip().lower() for cell in csv_labels.read_cells(table)[0][1]]
        return _columns(table, first) is not None or any(float(cell) not in (0, 1) for cell in first[1:5])
    except (InputError, ValueError):
        return False


def _read(table: Path, split: str, parts: dict[str, dict[str, Annotation]], problems: list[Problem]) -> None:
    cells = csv_labels.read_cells(table)
    columns = _columns(table, [cell.strip().lower() for cell in cells[0][1]])
    if columns is None:
        columns = {role: k for k, role in enumerate(_PLAIN)}
    else:
        cells = cells[1:]
    if not cells:
        raise InputError(f"{table} lists no images; {_EXPECTED}")
    folders = [table.parent, table.parent / "images", table.parent / split]
    known: dict[str, str] = {}
    for line, row in cells:
        row = [cell.strip() for cell in row]
        values = {role: row[k] for role, k in columns.items() if k < len(row)}
        place = f"line {line}"
        path = values.get("path", "")
        key = SPLIT_NAMES.get(values["split"].lower(), "") if values.get("split") else split
        if not path or not key:
            reason = (
                "the path is empty" if not path else f"unknown split {values['split']!r}; expected train, val or test"
            )
            problems.append(Problem("broken_annotation", f"{table} {place}", reason))
            continue
        if path not in known:
            known[path] = str(csv_labels.locate(path, folders))
        image = parts.setdefault(key, {}).setdefault(path, Annotation(known[path], str(table), _size(values)))
        try:
            _add(image, values, place, width=len(row), expected=max(columns.values()) + 1)
        except ValueError as error:
            problems.append(Problem("broken_annotation", f"{table} {place}", str(error)))


def find_columns(first: Sequence[str]) -> dict[str, int]:
    """From roles to the places of columns, of a header in small letters; those of detections too."""
    roles = {**_ROLES, **_ANSWERS}
    return {role: first.index(name) for role, names in roles.items() for name in reversed(names) if name in first}


def _columns(table: Path, first: list[str]) -> dict[str, int] | None:
    """From roles to the places of columns; None where the first row is no header."""
    found = {role: place for role, place in find_columns(first).items() if role in _ROLES}
    if "path" not in found:
        if len(first) != len(_PLAIN):
            raise InputError(f"{table} has {len(first)} columns in its first row, no header among them; {_EXPECTED}")
        return None
    if "label" not in found or not any(all(role in found for role in roles) for roles in (_CORNERS, _SIDES, ("bbox",))):
        raise InputError(f"{table} has the columns {', '.join(first)}; {_EXPECTED}")
    return found


def _add(image: Annotation, values: Mapping[str, str], place: str, *, width: int, expected: int) -> None:
    """Give a row's object to its image. Raises ValueError with the reason."""
    roles = _CORNERS if "x1" in values else _SIDES
    box = [values.get(role, "") for role in roles]
    if "bbox" in values and "x1" not in values:
        box = values["bbox"].strip("[]() ").replace(",", " ").split()
    if not any(box) and not values.get("label"):
        return  # an image without objects
    if width < expected:
        raise ValueError(f"{width} columns, expected {expected}")
    if not values["label"]:
        raise ValueError("the label is empty")
    try:
        a, b, c, d = (read_number(value) for value in box)
    except ValueError:
        raise ValueError(f"its box is {','.join(box)}; expected four numbers, {', '.join(roles)}") from None
    corners = (a, b, c, d) if roles == _CORNERS else (a, b, a + c, b + d)
    image.add(corners, values["label"], place, ignored=read_flag(values.get("ignore")))


def _size(values: Mapping[str, str]) -> tuple[int, int] | None:
    if "x1" not in values and "bbox" not in values:
        return None  # width and height are the box's
    try:
        return int(values["height"]), int(values["width"])
    except (KeyError, ValueError):
        return None


def _find_tables(folder: Path) -> dict[str, Path]:
    """The tables of a folder, by split, or one as "all", or of its split folders; none where it is not clear which."""
    files = list_files(folder)
    if "train" in (parts := files_by_split(files, ".csv")):
        return parts
    if (table := _only_table(files)) is not None:
        return {"all": table}
    bases = split_bases(folder, lambda base: base != folder and _boxes_in(base) is not None)
    return {split: table for split, base in bases.items() if (table := _boxes_in(base)) is not None}


def _only_table(files: Mapping[str, Path]) -> Path | None:
    tables = [file for name, file in files.items() if name.lower().endswith((".csv", ".tsv"))]
    named = [file for file in tables if file.stem.lower() in ("labels", "annotations", "boxes", "_annotations")]
    chosen = named or tables
    return chosen[0] if len(chosen) == 1 else None


def _boxes_in(folder: Path) -> Path | None:
    """The one table of boxes of a split's folder."""
    table = _only_table(list_files(folder))
    return table if table is not None and is_boxes(table) else None


def _claims(path: Path) -> Claim:
    if path.is_dir():
        tables = list(_find_tables(path).values())
    else:
        tables = [path] if path.suffix.lower() in (".csv", ".tsv") else []
    return 0 if not tables else 2 if all(map(is_boxes, tables)) else 1


def _open(path: Path, stated: bool = False) -> Source:
    tables = _find_tables(path) if path.is_dir() else {"all": path}
    return open_boxes(tables, path.name if path.is_dir() else path.stem, stated)


FORMAT = Format("CSV of boxes", "boxes", "a CSV of path,x1,y1,x2,y2,label", _claims, _open, ("stated",))
