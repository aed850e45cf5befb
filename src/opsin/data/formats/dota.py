"""DOTA's oriented boxes: `images/P0000.png` and `labelTxt/P0000.txt`, a line an object. Xia et al. 2018.

A line is `x1 y1 x2 y2 x3 y3 x4 y4 class difficult`, corners in pixels from 0, clockwise, which are kept as an outline
with the box around them. Lines `imagesource:...` and `gsd:...` before them say where an image is from. `difficult`
objects (1, or 2 in later releases) are regions to ignore (label -1), as DOTA's evaluation has them.
"""

from __future__ import annotations

from pathlib import Path

from opsin.data.formats.annotations import Annotation, build, note_oriented, note_unannotated
from opsin.data.formats.folders import split_bases
from opsin.data.formats.format import Claim, Format
from opsin.data.formats.npz import read_classes
from opsin.data.formats.values import read_head, read_number, read_text, read_whole
from opsin.data.source import Source
from opsin.data.truth import Problem
from opsin.image_files import IMAGE_SUFFIXES, find_files, first_files, list_folder

_HEADER = ("imagesource:", "gsd:")
_IMAGES = ("images", "Images", "image", "")


def open_dota(path: Path) -> Source:
    """A folder with images and labelTxt, or train, val and test folders of such."""
    problems: list[Problem] = [note_oriented(str(path))]
    parts: dict[str, list[Annotation]] = {}
    for split, base in split_bases(path, _holds).items():
        folder = _labels(base)
        assert folder is not None
        home = next(base / name for name in _IMAGES if (base / name).is_dir())
        images = {file.stem: file for file in find_files(home, IMAGE_SUFFIXES)}
        files = find_files(folder, (".txt",))
        parts[split] = [_read(one, images.get(one.stem, home / f"{one.stem}.png"), problems) for one in files]
        unlabelled = [str(file) for stem, file in images.items() if stem not in {one.stem for one in files}]
        problems += note_unannotated(str(base), unlabelled, f"have no text file in {folder.name}")
    return build(path.name, "DOTA", parts, classes=read_classes(path), declared="classes.txt", problems=problems)


def _read(file: Path, image: Path, problems: list[Problem]) -> Annotation:
    annotation = Annotation(str(image), str(file))
    try:
        lines = read_text(file).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem("broken_annotation", str(file), f"cannot be read as text: {error}"))
        return annotation
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.strip().lower().startswith(_HEADER):
            continue
        columns = line.split()
        try:
            if len(columns) not in (9, 10):
                raise ValueError(f"{len(columns)} columns; expected x1 y1 x2 y2 x3 y3 x4 y4 class difficult")
            difficult = read_whole(columns[9]) if len(columns) == 10 else 0
            if difficult not in (0, 1, 2):
                raise ValueError(f"difficult is {difficult}; expected 0, 1 or 2")
            points = [read_number(value) for value in columns[:8]]
            annotation.add_outline(points, columns[8], f"line {number}", ignored=difficult > 0)
        except ValueError as error:
            problems.append(Problem("broken_annotation", f"{file} line {number}", str(error)))
    return annotation


def is_dota(file: Path) -> bool:
    """Whether a text file begins as DOTA's do: by its header, or eight numbers and a name."""
    for line in read_head(file).decode("utf-8-sig", "replace").splitlines()[:4]:
        if line.strip().lower().startswith(_HEADER):
            return True
        columns = line.split()
        if len(columns) in (9, 10) and all(map(_is_number, columns[:8])) and not _is_number(columns[8]):
            return True
    return False


def _is_number(text: str) -> bool:
    try:
        read_number(text)
    except ValueError:
        return False
    return True


def _labels(base: Path) -> Path | None:
    """The folder of a base's text files."""
    names = list_folder(base)[1]
    likely = [name for name in names if name.lower().startswith(("labeltxt", "labels", "annfiles", "annotations"))]
    for folder in [*(base / name for name in likely), base]:
        texts = [name for name in first_files(folder) if name.lower().endswith(".txt")]
        if any(is_dota(folder / name) for name in texts[:5]):
            return folder
    return None


def _holds(base: Path) -> bool:
    return _labels(base) is not None


def _claims(path: Path) -> Claim:
    return 2 if path.is_dir() and split_bases(path, _holds) else 0


FORMAT = Format("DOTA", "boxes", "DOTA (labelTxt/*.txt)", _claims, open_dota)
