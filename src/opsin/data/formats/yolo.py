"""YOLO txt: one text file an image, a line an object: `class cx cy width height`, fractions of the image's sides.

Splits and classes are in a data.yaml (train, val, test, names) or a darknet obj.data (train, valid, names). The box in
our convention is ((cx - w / 2) W, (cy - h / 2) H, (cx + w / 2) W, (cy + h / 2) H); W and H are asked of the image. A
line of an outline, `class x1 y1 x2 y2 x3 y3...`, gives the box around it, and is kept; one of four corners is an
oriented box. The format knows no regions to ignore.

An image without a text file counts as one without objects, as in ultralytics and darknet, and how many do is said; a
split of which none has one is no background: val and test are left out, a training on it is refused.

Without either file, images and text files lie beside one another, or in `images` and `labels`, also in train and val
folders; classes are then the lines of a classes.txt, obj.names or _darknet.labels, or else numbers.

The text file of images/a/1.jpg is labels/a/1.txt, or lies beside the image, or beside the place that a list names;
`Images`, `Labels` and `.TXT` are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from opsin.data.allowed_folders import check_allowed, trust, trust_beside
from opsin.data.formats.annotations import Annotation, build, note_oriented
from opsin.data.formats.dota import is_dota
from opsin.data.formats.folders import SPLIT_NAMES, split_bases
from opsin.data.formats.format import Claim, Format
from opsin.data.formats.kitti import is_kitti
from opsin.data.formats.values import as_posix, find_file, is_file, read_head, read_text, read_whole, shown
from opsin.data.formats.write_boxes import write_yolo
from opsin.data.source import Source
from opsin.data.truth import Problem
from opsin.errors import InputError
from opsin.image_files import IMAGE_SUFFIXES, find_files, first_files, list_folder
from opsin.yaml_text import load_yaml

_MOST_CLASSES = 100_000  # more than any data set has
_CLASS_FILES = ("classes.txt", "obj.names", "predefined_classes.txt", "_darknet.labels")


@dataclass(frozen=True)
class _Layout:
    """Where splits and classes are listed. root: what paths count from. parts: from splits to files, folders or lists.

    points: how many numbers of points follow the box of a row. numbered: nobody named the classes, they are numbers.
    """

    file: Path
    root: Path
    parts: Mapping[str, Sequence[str]]
    classes: dict[int, str]
    points: int = 0
    numbered: bool = False


def find_yolo(path: Path) -> Path | None:
    """The yaml or .data file in a folder, or the folder itself where it holds images and labels."""
    for pattern in ("data.yaml", "data.yml", "dataset.yaml", "*.yaml", "*.yml", "obj.data", "*.data"):
        for file in sorted(path.glob(pattern)):
            if not file.name.startswith(".") and _says_splits(file):
                return file
    return path if _is_pair(path) or _loose_bases(path) else None


def open_yolo(path: Path, stated: bool = False) -> Source:
    """A yaml or .data file, or a folder with images, labels and classes.txt."""
    if path.is_dir():
        layout = _from_folder(path)
    else:
        layout = _from_yaml(path) if path.suffix.lower() in (".yaml", ".yml") else _from_data(path)
    problems: list[Problem] = []
    parts: dict[str, list[Annotation]] = {}
    texts = _TextFiles()
    for split, entries in layout.parts.items():
        pairs = [pair for entry in entries for pair in _pairs(layout, entry, texts)]
        check_allowed((file for pair in pairs for file in pair if file is not None), layout.file)
        if not _unlabelled(split, pairs, layout, problems):
            parts[split] = [_read(image, label, layout, problems) for image, label in pairs]
    name = path.name if path.is_dir() else path.resolve().parent.name
    classes = [layout.classes[number] for number in sorted(layout.classes)]
    if layout.numbered:
        named = [int(one) for images in parts.values() for image in images for one in image.names]
        classes = [str(number) for number in range(max(named, default=-1) + 1)]
        listed = ", ".join(_CLASS_FILES)
        problems.append(Problem("unnamed_classes", str(path), f"no {listed}: classes are numbers", "note"))
    outlines = [one for images in parts.values() for image in images for one in image.outlines if one is not None]
    if outlines and all(isinstance(one, list) and len(one[0]) == 8 for one in outlines):
        problems.append(note_oriented(str(path)))
    declared = layout.file.name
    return build(name, "YOLO txt", parts, classes=classes, declared=declared, problems=problems, stated=stated)


def _says_splits(file: Path) -> bool:
    try:
        if file.suffix == ".data":
            return "names" in _settings(file)
        content = load_yaml(read_text(file), texts=True)
    except (InputError, OSError, UnicodeDecodeError):
        return file.stem in ("data", "dataset")  # it is meant to, and opening it tells what is wrong
    return isinstance(content, dict) and "train" in content and ("names" in content or "nc" in content)


def _from_yaml(file: Path) -> _Layout:
    try:
        content = load_yaml(read_text(file), texts=True)
    except (InputError, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not ("names" in content or "nc" in content):
        raise InputError(f"{file} has no names; expected train, val and names: [cat, dog]")
    classes = _classes(file, content.get("names"), _count(file, content.get("nc")))
    given = {SPLIT_NAMES[key]: content[key] for key in content if key in SPLIT_NAMES and content[key]}
    parts = {key: given[key] if isinstance(given[key], list) else [given[key]] for key in given}
    root = content.get("path") or ""
    for entry in (root, *(entry for entries in parts.values() for entry in entries)):
        if not isinstance(entry, str):
            raise InputError(f"{file}: {shown(entry)} stands where a path is expected")
    trust_beside(file, [root, *(entry for entries in parts.values() for entry in entries)])
    check_allowed([file.parent / root], file)
    return _checked(_Layout(file, file.parent / root, parts, classes, _points(file, content.get("kpt_shape"))))


def _count(file: Path, said: Any) -> int | None:
    """The number of classes that a yaml states."""
    if said is None:
        return None
    try:
        count = read_whole(said)
    except ValueError as error:
        raise InputError(f"{file}: nc: {error}") from error
    if not 0 < count <= _MOST_CLASSES:
        raise InputError(f"{file}: nc is {shown(count)}; expected 1 to {_MOST_CLASSES:,} classes")
    return count


def _classes(file: Path, named: Any, count: int | None) -> dict[int, str]:
    """Names of the classes by their numbers: as they are listed or in the file that is named; else the numbers."""
    classes: dict[int, Any]
    if isinstance(named, str):
        classes = dict(enumerate(_lines(file.parent / named, file)))
    elif named is None and count is not None:
        classes = {k: str(k) for k in range(count)}
    else:
        pairs = named.items() if isinstance(named, dict) else enumerate(named if isinstance(named, list) else [None])
        try:
            classes = {read_whole(number): name for number, name in pairs}
        except ValueError as error:
            raise InputError(f"{file}: the number of a class: {error}; expected {{0: cat, 1: dog}}") from error
        if not all(isinstance(name, str) for name in classes.values()):
            raise InputError(f"{file}: names is {shown(named)}; expected a list of names, or {{0: cat, 1: dog}}")
    if count is not None and count != len(classes):
        raise InputError(f"{file} says nc: {count} but names {len(classes)} classes; make them agree")
    return classes


def _points(file: Path, said: Any) -> int:
    """How many numbers of points follow a row's box: the product of kpt_shape."""
    if said is None:
        return 0
    try:
        points, values = (read_whole(one) for one in (said if isinstance(said, list) else ()))
    except ValueError as error:
        raise InputError(f"{file}: kpt_shape is not [points, 2 or 3]: {error}") from error
    if values not in (2, 3) or not 0 < points <= _MOST_CLASSES:
        raise InputError(f"{file}: kpt_shape is [{points}, {values}]; expected [points, 2 or 3]")
    return points * values


def _from_data(file: Path) -> _Layout:
    settings = _settings(file)
    if "names" not in settings:
        raise InputError(f"{file} has no line names = FILE")
    names = find_file(as_posix(settings["names"]), (file.parent,))
    if names is None:
        raise InputError(f"{file}: there is no file {settings['names']!r} with the names of the classes")
    parts = {SPLIT_NAMES[key]: [settings[key]] for key in settings if key in SPLIT_NAMES}
    return _checked(_Layout(file, file.parent, parts, dict(enumerate(_lines(names, file)))))


def _from_folder(path: Path) -> _Layout:
    bases = {"all": path} if _is_pair(path) else _loose_bases(path)
    homes = [home for base in dict.fromkeys((path, *bases.values())) for home in (base, base / _cased(base, "labels"))]
    listed = next((home / name for home in homes for name in _CLASS_FILES if (home / name).is_file()), None)
    if _is_pair(path):
        images = _cased(path, "images")
        parts = {
            SPLIT_NAMES[name.lower()]: [f"{images}/{name}"]
            for name in list_folder(path / images)[1]
            if name.lower() in SPLIT_NAMES
        }
        parts = parts or {"all": [images]}
    else:
        inside = {split: base / _cased(base, "images") if _is_pair(base) else base for split, base in bases.items()}
        parts = {split: [folder.relative_to(path).as_posix()] for split, folder in inside.items()}
    if listed is None:
        return _checked(_Layout(path, path, parts, {}, numbered=True))
    return _checked(_Layout(listed, path, parts, dict(enumerate(_lines(listed)))))


def _cased(base: Path, name: str) -> str:
    """A folder's name as it is written in a base, in capitals or small letters."""
    return next((one for one in list_folder(base)[1] if one.lower() == name), name)


def _is_pair(base: Path) -> bool:
    """Whether a folder has images and labels, of which the text files, if any, are no other format's."""
    labels = base / _cased(base, "labels")
    if not labels.is_dir() or not (base / _cased(base, "images")).is_dir():
        return False
    folders = [labels, *(labels / name for name in list_folder(labels)[1][:8])]
    files = [folder / name for folder in folders for name in first_files(folder)]
    texts = [file for file in files if file.suffix.lower() == ".txt"]
    return (bool(texts) or not files) and not any(is_kitti(file) or is_dota(file) for file in texts[:5])


def _loose_bases(path: Path) -> dict[str, Path]:
    """The folder, or those of its splits, where images and rows of YOLO lie beside one another, or in two folders."""
    return split_bases(path, lambda base: (base != path and _is_pair(base)) or _is_loose(base))


def _is_loose(folder: Path) -> bool:
    names = first_files(folder, 1000)
    stems = {Path(name).stem for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES}
    texts = [name for name in names if name.lower().endswith(".txt") and name[:-4] in stems]
    return any(_is_row(folder / name) for name in texts[:20])


def _is_row(file: Path) -> bool:
    """Whether a text file's first line is an object of YOLO's."""
    columns = read_head(file).decode("utf-8", "replace").split("\n", 1)[0].split()
    try:
        return columns[0].isdigit() and bool(_parse(columns, {}, 0))
    except (ValueError, IndexError):
        return False


def _checked(layout: _Layout) -> _Layout:
    names = list(layout.classes.values())
    if not layout.parts:
        raise InputError(f"{layout.file} names no train, val or test images")
    if not all(name.strip() for name in names):
        raise InputError(f"{layout.file} has a class without a name; name each class")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{layout.file} names the class {twice[0]!r} twice; each must be named once")
    order = [key for key in ("train", "val", "test", "all") if key in layout.parts]
    return replace(layout, parts={key: layout.parts[key] for key in order})


def _settings(file: Path) -> dict[str, str]:
    pairs = (line.split("=", 1) for line in _lines(file) if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip() for key, value in pairs}


def _lines(file: Path, named_by: Path | None = None) -> list[str]:
    """The lines of a text file that are not blank. named_by: the file that names it."""
    check_allowed([file], named_by or file)
    try:
        return [line.strip() for line in read_text(file).splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read as text: {error}") from error


def _pairs(layout: _Layout, entry: str, texts: _TextFiles) -> list[tuple[Path, Path | None]]:
    """The images that an entry of a split means, each with its text file if it has one."""
    bases = tuple(dict.fromkeys((layout.root, layout.file.parent)))
    found = find_file(as_posix(entry), bases)
    if found is None:
        raise InputError(f"{layout.file}: there is no file or folder {entry!r} with images")
    check_allowed([found], layout.file)
    if found.is_dir():
        images = find_files(found, IMAGE_SUFFIXES)
        if not images:
            raise InputError(f"{layout.file}: {found} holds no images")
        return [(image, texts.find(image)) for image in images]
    lines = [as_posix(line) for line in _lines(found, layout.file)]
    bases = tuple(dict.fromkeys((*bases, found.parent)))
    folders = [base / name for base in (layout.root, layout.root.parent) for name in ("images", "JPEGImages", "")]
    for folder in folders[3:5]:
        trust(folder)
    pairs = []
    for line in lines:
        image = find_file(line, bases) or next((f / line.name for f in folders if (f / line.name).is_file()), None)
        beside = find_file(line.with_suffix(".txt"), bases)
        image = image or layout.root / line
        pairs.append((image, beside or texts.find(image)))
    return pairs


class _TextFiles:
    """Text files by the images that they are of: one look into a folder for all of its images."""

    def __init__(self) -> None:
        self._known: dict[Path, dict[str, Path]] = {}

    def find(self, image: Path) -> Path | None:
        """The text file of an image's name in the folder of labels, whatever its case, else beside the image."""
        folder = image.parent
        if folder not in self._known:
            self._known[folder] = self._look(folder)
        return self._known[folder].get(image.stem)

    def _look(self, folder: Path) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for place in reversed([*self._label_folders(folder), folder]):
            for name in sorted(list_folder(place)[0]) if place.is_dir() else ():  # .TXT before .txt, which stays
                stem, dot, ending = name.rpartition(".")
                if dot and ending.lower() == "txt":
                    found[stem] = place / name
        return found

    def _label_folders(self, folder: Path) -> Iterator[Path]:
        """Where a folder called images, the last of several first, is one called labels instead."""
        parts = folder.parts
        for k in reversed([k for k, part in enumerate(parts) if part.lower() in ("images", "jpegimages")]):
            above = Path(*parts[:k])
            for name in sorted(list_folder(above)[1], reverse=True) if above.is_dir() else ():
                if name.lower() == "labels":
                    yield above.joinpath(name, *parts[k + 1 :])


def _unlabelled(
    split: str, pairs: Sequence[tuple[Path, Path | None]], layout: _Layout, problems: list[Problem]
) -> bool:
    """Say how many images have no text file. True where that is a split to leave out, since none of it has one."""
    missing = [image for image, label in pairs if label is None and is_file(image)]
    if not missing:
        return False
    where, first = str(layout.file), f"{min(missing)} the first"
    if len(missing) < len(pairs):
        reason = (
            f"{len(missing)} of {len(pairs)} {split} images have no text file and count as without objects, {first}"
        )
        problems.append(Problem("unlabelled", where, reason, "warning"))
        return False
    out = split in ("val", "test") and len(layout.parts) > 1
    expected = "expected labels/NAME.txt for images/NAME, or a text file beside it"
    reason = (
        f"none of the {len(pairs)} {split} images has a text file{', left out' if out else ''}; {expected}, {first}"
    )
    problems.append(Problem("unlabelled", where, reason, "warning" if out else "error"))
    return out


def _read(image: Path, label: Path | None, layout: _Layout, problems: list[Problem]) -> Annotation:
    annotation = Annotation(str(image), str(label or image), relative=True)
    if label is None:
        return annotation
    try:
        lines = read_text(label).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem("broken_annotation", str(label), f"cannot be read as text: {error}"))
        return annotation
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            name, values = _parse(line.split(), None if layout.numbered else layout.classes, layout.points)
        except ValueError as error:
            problems.append(Problem("broken_annotation", f"{label} line {number}", str(error)))
            continue
        if len(values) > 4:
            annotation.add_outline(values, name, f"line {number}")
        else:
            x, y, width, height = values
            box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            annotation.add(box, name, f"line {number}")
    return annotation


def _parse(columns: list[str], classes: dict[int, str] | None, points: int) -> tuple[str, list[float]]:
    """A line's class, and its box (cx, cy, width, height) or the corners of its outline, in fractions.

    classes: None where they are numbers. points: numbers that follow the box. Raises ValueError with the reason.
    """
    if points:
        if len(columns) != 5 + points:
            raise ValueError(f"{len(columns)} columns; expected class cx cy width height and {points} of kpt_shape")
        columns = columns[:5]
    if len(columns) != 5 and (len(columns) < 7 or len(columns) % 2 == 0):
        raise ValueError(f"{len(columns)} columns; expected class cx cy width height")
    try:
        number, *values = (float(column) for column in columns)
    except ValueError:
        raise ValueError(
            f"it holds {' '.join(columns[:5])!r}; expected five numbers: class cx cy width height"
        ) from None
    if not number.is_integer():
        raise ValueError(f"the class is {columns[0]}; expected a whole number")
    if classes is None and not 0 <= number < _MOST_CLASSES:
        raise ValueError(f"the class is {columns[0]}; expected 0 to {_MOST_CLASSES - 1:,}")
    name = str(int(number)) if classes is None else classes.get(int(number), f"number {int(number)}")
    if max(abs(value) for value in values) > 2:
        raise ValueError(f"its numbers go to {max(values, key=abs):g}; expected fractions of the image's sides, 0 to 1")
    return name, values


def _claims(path: Path) -> Claim:
    if not path.is_dir():
        return 2 if path.suffix.lower() in (".yaml", ".yml", ".data") else 0
    return 0 if find_yolo(path) is None else 2


def _open(path: Path, stated: bool = False) -> Source:
    file = find_yolo(path) if path.is_dir() else None
    return open_yolo(path, stated) if file is None else replace(open_yolo(file, stated), name=path.name)


FORMAT = Format(
    name="YOLO",
    truth="boxes",
    expects="YOLO (data.yaml or obj.data, or images and labels)",
    claims=_claims,
    open=_open,
    options=("stated",),
    written="yolo",
    write=write_yolo,
)
