"""WIDER FACE: `wider_face_train_bbx_gt.txt`, an image's name, its number of faces, and a line for each. Yang 2016.

A line is `x1 y1 w h blur expression illumination invalid occlusion pose`, pixels from 0: (x1, y1, x1 + w, y1 + h) in
our convention. `invalid` faces are regions to ignore (label -1). An image of 0 faces has one line of zeros. The test
split has no boxes, and is left out.
"""

from __future__ import annotations

import re
from pathlib import Path

from opsin.data.allowed_folders import trust
from opsin.data.formats.annotations import Annotation, build
from opsin.data.formats.folders import SPLIT_NAMES
from opsin.data.formats.format import Claim, Format
from opsin.data.formats.values import find_inside, is_file, read_flag, read_head, read_number, read_text, read_whole
from opsin.data.source import Source
from opsin.data.truth import Problem
from opsin.errors import InputError
from opsin.image_files import first_files, list_folder

_CLASS = "face"
_NAME = re.compile(r"wider_?face_(\w+?)_bbx_gt\.txt", re.IGNORECASE)


def open_wider_face(path: Path) -> Source:
    """A folder with wider_face_split and WIDER_train, WIDER_val; or one of the lists."""
    problems: list[Problem] = []
    parts: dict[str, list[Annotation]] = {}
    root = path if path.is_dir() else path.parent
    for split, file in _lists(path).items():
        names = [name for name, meaning in SPLIT_NAMES.items() if meaning == split]
        bases = [root, root.parent] if path.is_file() else [root]
        inside = ["images", ""]
        folders = [base / f"WIDER_{name}" / part for base in bases for name in names for part in inside]
        folders += [base / name / part for base in bases for name in names for part in inside]
        folders += [base / part for base in bases for part in inside]
        folders = [folder for folder in folders if folder.is_dir()]
        for folder in folders:  # of its name, beside the list's own
            if folder not in bases:
                trust(folder)
        parts[split] = _read(file, folders, problems)
    for name in list_folder(root)[1]:
        if name.lower() == "wider_test":
            problems.append(Problem("unlabelled", str(root / name), "it has no boxes, left out", "note"))
    title = path.name if path.is_dir() else path.stem
    return build(title, "WIDER FACE", parts, classes=[_CLASS], problems=problems)


def _read(file: Path, folders: list[Path], problems: list[Problem]) -> list[Annotation]:
    try:
        lines = [line.strip() for line in read_text(file).splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read as text: {error}") from error
    found: list[Annotation] = []
    at = 0
    while at < len(lines):
        name = lines[at]
        if not name:
            at += 1
            continue
        try:
            count = read_whole(lines[at + 1] if at + 1 < len(lines) else None)
        except ValueError as error:
            raise InputError(f"{file} line {at + 2}: the number of faces of an image: {error}") from error
        if count < 0 or at + 2 + count > len(lines):
            raise InputError(f"{file} line {at + 2}: {count} faces, and the file has {len(lines)} lines")
        image = Annotation(str(find_inside(name, folders)), str(file))
        for number in range(at + 2, at + 2 + count):
            try:
                _add(image, lines[number].split(), f"line {number + 1}")
            except ValueError as error:
                problems.append(Problem("broken_annotation", f"{file} line {number + 1}", str(error)))
        at += 2 + count
        if count == 0 and at < len(lines) and lines[at] and set(lines[at].split()) == {"0"}:
            at += 1
        found.append(image)
    return found


def _add(image: Annotation, columns: list[str], place: str) -> None:
    """Give a line's face to its image. Raises ValueError with the reason."""
    if len(columns) not in (4, 10):
        raise ValueError(f"{len(columns)} columns; expected x1 y1 w h and six attributes")
    x, y, width, height = (read_number(value) for value in columns[:4])
    invalid = len(columns) == 10 and read_flag(columns[7])
    image.add((x, y, x + width, y + height), _CLASS, place, ignored=invalid)


def _lists(path: Path) -> dict[str, Path]:
    """From splits to their lists."""
    if path.is_dir():
        folders = [path, *(path / name for name in list_folder(path)[1] if "split" in name.lower())]
        files = [folder / name for folder in folders for name in first_files(folder)]
    else:
        files = [path]
    found: dict[str, Path] = {}
    for file in files:
        match = _NAME.fullmatch(file.name)
        if match and (split := SPLIT_NAMES.get(match[1].lower())):
            found.setdefault(split, file)
    return {key: found[key] for key in ("train", "val", "test") if key in found}


def _claims(path: Path) -> Claim:
    if not path.is_dir() and (path.suffix.lower() != ".txt" or not is_file(path) or not read_head(path, 1)):
        return 0
    return 2 if _lists(path) else 0


FORMAT = Format("WIDER FACE", "boxes", "WIDER FACE (wider_face_train_bbx_gt.txt)", _claims, open_wider_face)
