"""Open Images: a CSV of boxes a split, `ImageID,...,LabelName,...,XMin,XMax,YMin,YMax,...`. Kuznetsova et al. 2020.

Corners are fractions of the image's sides: (XMin W, YMin H, XMax W, YMax H) in our convention. `IsGroupOf` marks
regions to ignore (label -1), as COCO's `iscrowd`; objects that are depicted (`IsDepiction`), occluded or truncated are
objects. Classes are those of a class-descriptions CSV (`/m/01g317,Person`) that occur, by its order; without it they
are the codes, sorted.

The tables list millions of images: those that are there are read. An image without rows is left out, since the
tables list every image that was annotated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from opsin.data.formats.annotations import Annotation, build, note_unannotated
from opsin.data.formats.csv_labels import read_cells
from opsin.data.formats.folders import SPLIT_NAMES
from opsin.data.formats.format import Claim, Format
from opsin.data.formats.values import read_flag, read_head, read_number
from opsin.data.source import Source
from opsin.data.truth import Problem
from opsin.errors import InputError
from opsin.image_files import IMAGE_SUFFIXES, find_files, first_files, list_folder

_BOX = ("xmin", "ymin", "xmax", "ymax")
_NEEDED = ("imageid", "labelname", *_BOX)
_FOLDERS = ("", "csv", "csv_folder", "annotations", "labels", "metadata", "boxes")  # where tables lie


def open_openimages(path: Path) -> Source:
    """A folder with tables (train-annotations-bbox.csv) and images in folders by split, or one table alone."""
    root = path if path.is_dir() else path.parent
    tables = _tables(path)
    problems: list[Problem] = []
    codes = _descriptions(root)
    parts: dict[str, list[Annotation]] = {}
    for split, table in tables.items():
        images = _images(root, table, split, alone=len(tables) == 1)
        if not images:
            raise InputError(f"{table}: none of its images is there; expected {root / split}/IMAGEID.jpg")
        found, missing = _read(table, images, codes, problems)
        if missing:
            reason = f"{missing} images of the table are not there and are left out"
            problems.append(Problem("missing_images", str(table), reason, "note"))
        unlisted = [str(file) for stem, file in images.items() if stem not in found]
        problems += note_unannotated(str(table), unlisted, "have no rows in the table")
        parts[split] = list(found.values())
    names = {name for images in parts.values() for one in images for name in one.names}
    classes = [name for name in dict.fromkeys(codes.values()) if name in names]
    classes += sorted(names - set(classes))
    title = path.name if path.is_dir() else path.stem
    return build(title, "Open Images", parts, classes=classes, declared="class-descriptions", problems=problems)


def _read(
    table: Path, images: dict[str, Path], codes: dict[str, str], problems: list[Problem]
) -> tuple[dict[str, Annotation], int]:
    """The annotations of a table's images that are there, and how many are not."""
    cells = read_cells(table, "Open Images' columns ImageID, LabelName, XMin, XMax, YMin, YMax")
    header = [cell.strip().lower() for cell in cells[0][1]]
    place = {name: header.index(name) for name in _NEEDED}
    group = header.index("isgroupof") if "isgroupof" in header else None
    found: dict[str, Annotation] = {}
    missing: set[str] = set()
    for line, row in cells[1:]:
        key = row[place["imageid"]].strip() if len(row) > place["imageid"] else ""
        if key not in images:
            missing.add(key)
            continue
        image = found.setdefault(key, Annotation(str(images[key]), str(table), relative=True))
        try:
            if len(row) < len(header):
                raise ValueError(f"{len(row)} columns, expected {len(header)}")
            code = row[place["labelname"]].strip()
            if not code:
                raise ValueError("the LabelName is empty")
            x1, y1, x2, y2 = (read_number(row[place[corner]]) for corner in _BOX)
            if max(abs(value) for value in (x1, y1, x2, y2)) > 2:
                raise ValueError("its corners are no fractions of the image's sides, 0 to 1")
            # The published tables have -1 where nobody looked.
            crowd = group is not None and row[group].strip() != "-1" and read_flag(row[group])
        except ValueError as error:
            problems.append(Problem("broken_annotation", f"{table} line {line}", str(error)))
        else:
            image.add((x1, y1, x2, y2), codes.get(code, code), f"line {line}", ignored=crowd)
    return found, len(missing)


def is_openimages(table: Path) -> bool:
    """Whether a CSV's header is that of Open Images' boxes."""
    head = read_head(table, 1024).decode("utf-8-sig", "replace").split("\n", 1)[0]
    names = [cell.strip().strip('"').lower() for cell in head.split(",")]
    return all(name in names for name in _NEEDED)


def _candidates(root: Path) -> Iterator[Path]:
    inside = [name for name in list_folder(root)[1] if name.lower() in SPLIT_NAMES]
    places = [*(root / name for name in _FOLDERS), *(root / one / name for one in inside for name in _FOLDERS)]
    for place in places:
        for name in first_files(place) if place.is_dir() else ():
            if name.lower().endswith(".csv"):
                yield place / name


def _tables(path: Path) -> dict[str, Path]:
    """From splits to the tables of boxes, by their names or their folders'; one alone may be all."""
    tables = [file for file in _candidates(path) if is_openimages(file)] if path.is_dir() else [path]
    found: dict[str, Path] = {}
    for file in tables:
        above = file.parent.parts[len(path.parts) :] if path.is_dir() else ()
        words = [*re.split(r"[^a-z]+", file.stem.lower()), *(part.lower() for part in above)]
        split = next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)
        if split is None and len(tables) > 1:
            raise InputError(f"{file} is one of {len(tables)} tables and says no split; name it train-{file.name}")
        if (split or "all") in found:
            raise InputError(f"both {found[split or 'all']} and {file} are for one split; give the one that is meant")
        found[split or "all"] = file
    return {key: found[key] for key in ("train", "val", "test", "all") if key in found}


def _descriptions(root: Path) -> dict[str, str]:
    """From codes to names, of the class-descriptions CSV that there is."""
    inside = [name for name in list_folder(root)[1] if name.lower() in SPLIT_NAMES]
    for place in [*(root / name for name in _FOLDERS), *(root / one / name for one in inside for name in _FOLDERS)]:
        for name in first_files(place) if place.is_dir() else ():
            if re.search(r"class-?descriptions.*\.csv$", name.lower()) or name.lower() == "classes.csv":
                rows = read_cells(place / name, "rows of code,name")
                pairs = [(row[0].strip(), row[1].strip()) for _, row in rows if len(row) == 2]
                return {code: title for code, title in pairs if code.startswith("/") and title}
    return {}


def _images(root: Path, table: Path, split: str, *, alone: bool) -> dict[str, Path]:
    """From ids to image files, of the first folder that has some."""
    same = [name for name, meaning in SPLIT_NAMES.items() if meaning == split]
    folders = [root / name for name in same] + [root / "images" / name for name in same]
    folders += [root / name / inside for name in same for inside in ("data", "images")]
    folders += [table.parent / "images", table.parent, root / "images", root] if alone or table.parent != root else []
    for folder in dict.fromkeys(folders):
        if folder.is_dir() and (files := find_files(folder, IMAGE_SUFFIXES, below=False)):
            return {file.stem: file for file in files}
    return {}


def _claims(path: Path) -> Claim:
    if path.is_dir():
        return 2 if any(map(is_openimages, _candidates(path))) else 0
    return 2 if path.suffix.lower() == ".csv" and is_openimages(path) else 0


FORMAT = Format("Open Images", "boxes", "Open Images (train-annotations-bbox.csv)", _claims, open_openimages)
