"""KITTI's object detection: `image_2/000000.png` and `label_2/000000.txt`, a line an object. Geiger et al. 2012.

A line has 15 columns: type, truncated, occluded, alpha, the box (left, top, right, bottom: pixels from 0, continuous,
as in our convention), three sizes, three places and a rotation in space, of which type and box are read; a 16th is a
score. `DontCare` marks regions to ignore (label -1).

Splits are lists of names in ImageSets (train.txt, val.txt), or folders; `training` alone is all one split, and
`testing`, which has no labels, is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from opsin.data.formats.annotations import Annotation, build, note_unannotated
from opsin.data.formats.folders import SPLIT_NAMES, split_bases
from opsin.data.formats.format import Claim, Format
from opsin.data.formats.npz import read_classes
from opsin.data.formats.values import read_head, read_number, read_text, shown
from opsin.data.source import Source
from opsin.data.truth import Problem
from opsin.image_files import IMAGE_SUFFIXES, find_files, first_files

_FOLDERS = (("image_2", "label_2"), ("image_02", "label_02"), ("images", "labels"), ("images", "label_2"))
_COLUMNS = (15, 16)
_IGNORED = "DontCare"


def open_kitti(path: Path) -> Source:
    """A folder with image_2 and label_2, or with training and testing folders of such, or train and val."""
    problems: list[Problem] = []
    parts: dict[str, list[Annotation]] = {}
    bases = split_bases(path, _holds)
    for split, base in bases.items():
        images_in, labels_in = next((base / i, base / t) for i, t in _FOLDERS if (base / t).is_dir())
        images = {file.stem: file for file in find_files(images_in, IMAGE_SUFFIXES, below=False)}
        found = {}
        for file in find_files(labels_in, (".txt",), below=False):
            image = images.get(file.stem, images_in / f"{file.stem}.png")
            found[file.stem] = _read(file, image, problems)
        unlabelled = [str(file) for stem, file in images.items() if stem not in found]
        problems += note_unannotated(str(base), unlabelled, f"have no text file in {labels_in.name}")
        only = "all" if len(bases) == 1 and split == "train" and base.name.lower() == "training" else split
        lists = _lists([path, base], problems, set(found)) if only == "all" else {}
        for key, names in (lists or {only: list(found)}).items():
            parts.setdefault(key, []).extend(found[name] for name in names)
    if (path / "testing").is_dir() and "test" not in bases:
        problems.append(Problem("unlabelled", str(path / "testing"), "it has no labels, left out", "note"))
    named = {name for images in parts.values() for one in images for name in one.names}
    classes = read_classes(path) or sorted(named - {_IGNORED})
    return build(path.name, "KITTI", parts, classes=classes, declared="classes.txt", problems=problems)


def is_kitti(file: Path) -> bool:
    """Whether a text file's first line is an object of KITTI's."""
    first = read_head(file).split(b"\n", 1)[0].decode("utf-8", "replace").split()
    try:
        return len(first) in _COLUMNS and not _is_number(first[0]) and len([float(one) for one in first[1:]]) > 0
    except ValueError:
        return False


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _lists(folders: Sequence[Path], problems: list[Problem], known: set[str]) -> dict[str, list[str]]:
    """From splits to the names in ImageSets; those that have no labels are noted."""
    home = next((base / "ImageSets" for base in folders if (base / "ImageSets").is_dir()), None)
    found: dict[str, list[str]] = {}
    for file in [] if home is None else find_files(home, (".txt",), below=False):
        split = SPLIT_NAMES.get(file.stem.lower())
        if split is None:
            continue
        try:
            names = [Path(line.strip()).stem for line in read_text(file).splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            problems.append(Problem("broken_annotation", str(file), f"cannot be read as text: {error}"))
            continue
        missing = [name for name in names if name not in known]
        if missing and len(missing) < len(names):  # of the test split there are no labels at all
            reason = f"{len(missing)} names have no file of labels, {missing[0]!r} the first"
            problems.append(Problem("missing_annotation", str(file), reason))
        if kept := [name for name in names if name in known]:
            found[split] = kept
    return {key: found[key] for key in ("train", "val", "test") if key in found} if "train" in found else {}


def _read(file: Path, image: Path, problems: list[Problem]) -> Annotation:
    annotation = Annotation(str(image), str(file))
    try:
        lines = read_text(file).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem("broken_annotation", str(file), f"cannot be read as text: {error}"))
        return annotation
    for number, line in enumerate(lines, 1):
        columns = line.split()
        if not columns:
            continue
        try:
            if len(columns) not in _COLUMNS:
                raise ValueError(f"{len(columns)} columns; expected KITTI's 15, the box in 5 to 8")
            x1, y1, x2, y2 = (read_number(value) for value in columns[4:8])
            if _is_number(columns[0]):
                raise ValueError(f"the type is {shown(columns[0])}; expected a name, as Car")
        except ValueError as error:
            problems.append(Problem("broken_annotation", f"{file} line {number}", str(error)))
        else:
            annotation.add((x1, y1, x2, y2), columns[0], f"line {number}", ignored=columns[0] == _IGNORED)
    return annotation


def _holds(base: Path) -> bool:
    for images, labels in _FOLDERS:
        if (base / images).is_dir() and (base / labels).is_dir():
            names = [name for name in first_files(base / labels) if name.lower().endswith(".txt")]
            return any(is_kitti(base / labels / name) for name in names[:5])
    return False


def _claims(path: Path) -> Claim:
    return 2 if path.is_dir() and split_bases(path, _holds) else 0


FORMAT = Format("KITTI", "boxes", "KITTI (image_2 and label_2)", _claims, open_kitti)
