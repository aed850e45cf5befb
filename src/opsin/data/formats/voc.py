"""Pascal VOC: one XML file an image, splits in ImageSets/Main/*.txt. Everingham et al. 2010.

VOC counts pixels from 1 and includes the last, so (xmin, ymin, xmax, ymax) is (xmin - 1, ymin - 1, xmax, ymax) in our
convention. An object whose corners coincide in x or y is a stray click, although it would be a pixel wide: it counts as
a box without area. `difficult` objects are regions to ignore (label -1), as VOC's evaluation has them. Only the
object's own box and name are read, not those of its parts.

Classes are the lines of a classes.txt in the folder, else the sorted names found in all XML files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from opsin.data.formats.annotations import Annotation, build
from opsin.data.formats.folders import SPLIT_NAMES
from opsin.data.formats.format import Format
from opsin.data.formats.npz import read_classes
from opsin.data.formats.values import as_posix, read_flag
from opsin.data.source import Source
from opsin.data.truth import Problem
from opsin.errors import InputError
from opsin.files import read_regular
from opsin.image_files import IMAGE_SUFFIXES, find_files

_IMAGES = ("JPEGImages", "images", "Images", "imgs", "img", ".", "Annotations", "annotations")
_BY_EXPAT = ("utf-8", "utf-16", "us-ascii")
_SUPERSETS = {"gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "big5": "cp950"}  # as Windows writes them
_LEGACY = ("gb18030", "cp950", "cp932", "cp1252")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def is_voc(path: Path) -> bool:
    """Whether a folder, or each of its split folders, holds VOC's XML files."""
    return bool(_bases(path))


def open_voc(path: Path, stated: bool = False) -> Source:
    """A folder with Annotations (and ImageSets, and JPEGImages), or with XML files beside their images.

    Or with train, val and test folders of such. Of ImageSets, the lists train, val and test are read; trainval, less
    val, stands in for train where that is missing. Without lists, it is all one split.
    """
    problems: list[Problem] = []
    parts: dict[str, list[Annotation | None]] = {}
    bases = _bases(path)
    for key, base in bases.items():
        files = {file.stem: file for file in _xml_files(base)}
        images = _images(base)
        if key != "all" or not (lists := _lists(base, files)):
            parts[key] = [_read(file, base, images, problems) for file in files.values()]
            used = {one.file for one in parts[key] if one is not None}
            unlisted = sorted(name for name, image in images.items() if name not in files and str(image) not in used)
            if unlisted:
                reason = f"{len(unlisted)} images have no XML file and are left out, {unlisted[0]} the first"
                problems.append(Problem("unannotated", str(base), reason, "warning"))
            continue
        for split, names in lists.items():
            parts[split] = []
            for place, name in names.items():
                if name in files:
                    parts[split].append(_read(files[name], base, images, problems))
                else:
                    reason = f"{name!r} has no file {name}.xml in {_annotations(base).name}"
                    problems.append(Problem("missing_annotation", place, reason))
        left = len(files.keys() - {name for names in lists.values() for name in names.values()})
        if left:
            reason = f"{left} XML files are in none of the lists and are left out"
            problems.append(Problem("unlisted", str(_annotations(base)), reason, "note"))
    kept = {key: [one for one in found if one is not None] for key, found in parts.items()}
    classes, declared = read_classes(path), "classes.txt"
    return build(path.name, "Pascal VOC", kept, classes=classes, declared=declared, problems=problems, stated=stated)


def _bases(path: Path) -> dict[str, Path]:
    """From splits to the folders that hold their XML files; "all" where there is one folder."""
    if _xml_files(path):
        return {"all": path}
    found: dict[str, Path] = {}
    for folder in sorted(p for p in path.iterdir() if p.is_dir()):
        split = SPLIT_NAMES.get(folder.name.lower())
        if split is None or not _xml_files(folder):
            continue
        if split in found:
            raise InputError(f"{path} has both {found[split].name} and {folder.name} for the {split} split; keep one")
        found[split] = folder
    return {key: found[key] for key in ("train", "val", "test") if key in found}


def _annotations(base: Path) -> Path:
    return next((base / name for name in ("Annotations", "annotations") if (base / name).is_dir()), base)


def _xml_files(base: Path) -> list[Path]:
    return find_files(_annotations(base), (".xml",), below=False)


def _images(base: Path) -> dict[str, Path]:
    """From stems to image files, of the first folder that has one of this stem."""
    found: dict[str, Path] = {}
    for name in _IMAGES:
        if (base / name).is_dir():
            for file in find_files(base / name, IMAGE_SUFFIXES, below=False):
                found.setdefault(file.stem, file)
    return found


def _lists(base: Path, known: Collection[str]) -> dict[str, dict[str, str]]:
    """From splits to the image names of their lists, each by its place: {"train": {"train.txt line 1": "000012"}}.

    known: the names of the annotations.
    """
    folder = base / "ImageSets"
    folder = folder / "Main" if (folder / "Main").is_dir() else folder
    if not folder.is_dir():
        return {}
    found: dict[str, dict[str, str]] = {}
    for file in find_files(folder, (".txt",), below=False):
        split = "trainval" if file.stem.lower() == "trainval" else SPLIT_NAMES.get(file.stem.lower())
        if split is not None:  # others are lists of one class: "cat_train 000012 -1"
            lines = enumerate(_read_list(file, known), 1)
            found[split] = {f"{file} line {n}": _named(line, known) for n, line in lines if line.strip()}
    both = found.pop("trainval", None)
    if both is not None and "train" not in found:
        evaluated = set(found.get("val", {}).values())
        found["train"] = {place: name for place, name in both.items() if name not in evaluated}
    stems = {"val": found.get("val"), "test": found.get("test")}
    return {key: names for key, names in ({"train": found.get("train")} | stems).items() if names is not None}


def _read_list(file: Path, known: Collection[str]) -> list[str]:
    """The lines of a list, in the first encoding by which most of its names are known."""
    data, read = read_regular(file), []
    for encoding in ("utf-8-sig", *_LEGACY):
        try:
            lines = data.decode(encoding).splitlines()
        except UnicodeDecodeError:
            continue
        read.append((sum(_named(line, known) in known for line in lines if line.strip()), lines))
    if not read:
        raise InputError(f"{file} is not UTF-8 text; save it as UTF-8")
    return max(read, key=lambda one: one[0])[1]


def _named(line: str, known: Collection[str]) -> str:
    """The annotation that a line of a list means: its text or first word, quoted or not, with an ending or without."""
    text = line.strip().strip("\"'").strip()
    words = [as_posix(text).name, as_posix(text.split()[0] if text else "").name]
    endings = (*IMAGE_SUFFIXES, ".xml")
    names = [*words, *(Path(word).stem for word in words if Path(word).suffix.lower() in endings)]
    return next((name for name in names if name in known), names[-1])


def _read(file: Path, base: Path, images: Mapping[str, Path], problems: list[Problem]) -> Annotation | None:
    """An image's annotation; None, and a problem, where the XML is broken."""
    try:
        parsed = _parse(file)
    except (expat.ExpatError, LookupError, ValueError, OSError) as error:  # of encodings that Python lacks, too
        place = f"{file} line {error.lineno}" if isinstance(error, expat.ExpatError) else str(file)
        problems.append(Problem("broken_annotation", place, f"not readable XML: {error}"))
        return None
    named = as_posix(parsed.filename)
    missing = (base / "JPEGImages" if (base / "JPEGImages").is_dir() else base) / (named.name or f"{file.stem}.jpg")
    image = images.get(file.stem) or images.get(named.stem) or missing
    if parsed.root != "annotation":
        problems.append(Problem("broken_annotation", f"{file} line 1", f"its root is {parsed.root!r}, not annotation"))
        return None
    annotation = Annotation(str(image), str(file), parsed.size, key=file.stem)
    for found in parsed.objects:
        place = f"line {found.line}"
        try:
            x1, y1, x2, y2 = (float(found.values[f"bndbox/{corner}"]) for corner in _CORNERS)
            name = found.values["name"]
        except KeyError as error:
            reason = f"an object without {str(error.args[0]).replace('/', '.')}"
        except ValueError:
            written = {corner: found.values[f"bndbox/{corner}"] for corner in _CORNERS}
            reason = f"the box of an object holds what is no number: {written}"
        else:
            click = x1 == x2 or y1 == y2
            box = (x1, y1, x2, y2) if click else (x1 - 1, y1 - 1, x2, y2)
            try:
                annotation.add(box, name, place, ignored=read_flag(found.values.get("difficult")))
                continue
            except ValueError as error:
                reason = f"difficult is {error}"
        problems.append(Problem("broken_annotation", f"{file} {place}", reason))
    return annotation


@dataclass
class _Object:
    line: int
    values: dict[str, str] = field(default_factory=dict)  # by the path below the object, as "bndbox/xmin"


@dataclass
class _Parsed:
    root: str = ""
    filename: str = ""
    size: tuple[int, int] | None = None
    objects: list[_Object] = field(default_factory=list)


def _parse(file: Path) -> _Parsed:
    """What an XML file says, with the line at which each object begins. Raises ExpatError and OSError."""
    parsed, path, text = _Parsed(), [], []
    size: dict[str, str] = {}
    data, encoding = _recode(read_regular(file))
    parser = expat.ParserCreate(encoding)
    parser.buffer_text = True

    def start(tag: str, _: object) -> None:
        path.append(tag)
        text.clear()
        if len(path) == 1:
            parsed.root = tag
        elif len(path) == 2 and tag == "object":
            parsed.objects.append(_Object(parser.CurrentLineNumber))

    def end(tag: str) -> None:
        value = "".join(text).strip()
        if path[1:2] == ["object"] and len(path) > 2:
            parsed.objects[-1].values.setdefault("/".join(path[2:]), value)
        elif path[1:2] == ["size"] and len(path) == 3:
            size[tag] = value
        elif path[1:] == ["filename"]:
            parsed.filename = value
        path.pop()
        text.clear()

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = text.append
    parser.Parse(data, True)
    try:
        height, width = (float(size[side]) for side in ("height", "width"))
        if math.isfinite(height) and math.isfinite(width):
            parsed.size = (int(height), int(width))
    except (KeyError, ValueError):
        parsed.size = None  # the image will say
    return parsed


def _recode(data: bytes) -> tuple[bytes, str | None]:
    """XML in UTF-8, and its name, where it declares an encoding that expat does not read and Python does."""
    stated = re.match(rb"\s*<\?xml[^>]*?encoding\s*=\s*[\"']([\w.:-]+)[\"']", data[:200])
    name = stated[1].decode("ascii").lower() if stated else "utf-8"
    if name in _BY_EXPAT:
        return data, None
    try:
        return data.decode(_SUPERSETS.get(name, name)).encode("utf-8"), "utf-8"
    except (LookupError, ValueError):  # no such encoding, or other bytes: the parser says so with its line
        return data, None


FORMAT = Format(
    name="Pascal VOC",
    truth="boxes",
    expects="Pascal VOC (Annotations/*.xml)",
    claims=lambda path: 2 if path.is_dir() and is_voc(path) else 0,
    open=open_voc,
    options=("stated",),
)
