"""Pascal VOC: one XML file an image, splits in ImageSets/Main/*.txt. Everingham et al. 2010.

VOC counts pixels from 1 and includes the last, so (xmin, ymin, xmax, ymax) is (xmin - 1, ymin - 1, xmax, ymax) in our
convention. An object whose corners coincide in x or y is a stray click, although it would be a pixel wide: it counts as
a box without area. `difficult` objects are regions to ignore (label -1), as VOC's evaluation has them. Only the
object's own box and name are read, not those of its parts.

Classes are the lines of a classes.txt in the folder, else the sorted names found in all XML files.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from opsin.data.formats.annotations import Annotation, build
from opsin.data.formats.cvat import is_cvat
from opsin.data.formats.folders import SPLIT_NAMES, split_bases
from opsin.data.formats.format import Format
from opsin.data.formats.npz import read_classes
from opsin.data.formats.values import as_posix, read_flag, read_head
from opsin.data.formats.write_boxes import write_voc
from opsin.data.source import Source
from opsin.data.truth import Problem
from opsin.errors import InputError
from opsin.files import read_regular
from opsin.image_files import IMAGE_SUFFIXES, find_files, first_files, list_folder

_IMAGES = ("JPEGImages", "images", "Images", "imgs", "img", "image", "Data", ".", "Annotations", "annotations")
_NAMED = ("Annotations", "annotations")
_MOST_FOLDERS = 12  # beside or below one another that are looked into for XML
_BY_EXPAT = ("utf-8", "utf-16", "us-ascii")
_SUPERSETS = {"gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "big5": "cp950"}  # as Windows writes them
_LEGACY = ("gb18030", "cp950", "cp932", "cp1252")
_OF_TEXT = re.compile(rb"<(?:tagset|imagelist|SinglePage|form)[\s>]")  # SVT, ICDAR 2003, RIMES, IAM
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def is_voc(path: Path) -> bool:
    """Whether a folder, or each of its split folders, holds VOC's XML files."""
    return bool(_bases(path))


def open_voc(path: Path, stated: bool = False) -> Source:
    """A folder with Annotations (and ImageSets, and JPEGImages), or a folder of XML files by any name, or with such
    beside their images.

    Or with train, val and test folders of such. Of ImageSets, the lists train, val and test are read; trainval, less
    val, stands in for train where that is missing. Without lists, it is all one split.
    """
    problems: list[Problem] = []
    parts: dict[str, list[Annotation | None]] = {}
    bases = _bases(path)
    for key, base in bases.items():
        files = _xml_files(base)
        images = _images(base)
        if key != "all" or not (lists := _lists(base, files)):
            parts[key] = [_read(name, file, base, images, problems) for name, file in files.items()]
            used = {one.file for one in parts[key] if one is not None}
            used |= {str(image) for name, image in images.items() if name in files}
            unused = {str(image): name for name, image in images.items() if str(image) not in used}
            unlisted = sorted(unused.values())
            if unlisted:
                reason = f"{len(unlisted)} images have no XML file and are left out, {unlisted[0]} the first"
                problems.append(Problem("unannotated", str(base), reason, "warning"))
            continue
        for split, names in lists.items():
            parts[split] = []
            for place, name in names.items():
                if name in files:
                    parts[split].append(_read(name, files[name], base, images, problems))
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
    return split_bases(path, _holds)


def _annotations(base: Path) -> Path:
    """The folder of a base's XML files: of that name, or the base itself, or any in it that has VOC's."""
    inside = [base / name for name in list_folder(base)[1]]
    named = [base / name for name in _NAMED if (base / name).is_dir()]
    others = [one for one in inside if one.name.lower() not in SPLIT_NAMES][:_MOST_FOLDERS]
    found = next((one for one in (*named, base, *others) if any(map(is_voc_xml, _first_xml(one)))), None)
    return found or (named or [base])[0]  # a folder of that name may have them in folders of its own


def _holds(base: Path) -> bool:
    """Whether there are VOC's XML files, or such as are meant to be by the name of their folder."""
    folder = _annotations(base)
    first = _first_xml(folder)
    others = any(is_cvat(file) or _OF_TEXT.search(read_head(file)) for file in first)
    meant = bool(first) and (folder.name in _NAMED or folder == base) and not others
    return meant or any(map(is_voc_xml, first)) or (folder.name in _NAMED and _holds_below(folder))


def _holds_below(folder: Path, depth: int = 5) -> bool:
    """Whether one of the first folders within a folder, or within those, holds VOC's XML."""
    for inside in (folder / name for name in list_folder(folder)[1][:3]):
        if any(map(is_voc_xml, _first_xml(inside))) or (depth > 1 and _holds_below(inside, depth - 1)):
            return True
    return False


def is_voc_xml(file: Path) -> bool:
    """Whether an XML file's root is `annotation`, by its first bytes."""
    return re.search(rb"<annotation[\s>]", read_head(file, 2048).replace(b"\0", b"")) is not None


def _first_xml(folder: Path) -> list[Path]:
    return [folder / name for name in first_files(folder) if name.lower().endswith(".xml")][:3]


def _xml_files(base: Path) -> dict[str, Path]:
    """From names, with the folders within that of the annotations, to XML files."""
    folder = _annotations(base)
    files = find_files(folder, (".xml",), below=folder != base)
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}


def _images(base: Path) -> dict[str, Path]:
    """From names, with folders and without, to image files, of the first folder that has one of this name."""
    found: dict[str, Path] = {}
    own = _annotations(base)
    names = [*_IMAGES, *([own.name] if own != base and own.name not in _IMAGES else [])]
    for name in [name for name in names if (base / name).is_dir()]:
        for file in find_files(base / name, IMAGE_SUFFIXES, below=name != "."):
            found.setdefault(file.relative_to(base / name).with_suffix("").as_posix(), file)
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
    marked = ("utf-16",) if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else ()
    for encoding in (*marked, "utf-8-sig", *_LEGACY):
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
    endings, names = (*IMAGE_SUFFIXES, ".xml"), []
    for word in dict.fromkeys((text, text.split()[0].strip("\"'") if text else "")):
        parts = as_posix(word).parts
        for tail in ("/".join(parts[k:]) for k in range(len(parts))):  # with its folders, and with fewer
            names += [tail, tail.rpartition(".")[0]] if Path(tail).suffix.lower() in endings else [tail]
    return next((name for name in names if name in known), names[-1] if names else "")


def _read(name: str, file: Path, base: Path, images: Mapping[str, Path], problems: list[Problem]) -> Annotation | None:
    """An image's annotation; None, and a problem, where the XML is broken."""
    try:
        parsed = _parse(file)
    except (expat.ExpatError, LookupError, ValueError, OSError) as error:  # of encodings that Python lacks, too
        place = f"{file} line {error.lineno}" if isinstance(error, expat.ExpatError) else str(file)
        why = "it declares an unknown encoding; save it as UTF-8" if isinstance(error, LookupError) else error
        problems.append(Problem("broken_annotation", place, f"not readable XML: {why}"))
        return None
    named = as_posix(parsed.filename)
    missing = (base / "JPEGImages" if (base / "JPEGImages").is_dir() else base) / (named.name or f"{file.stem}.jpg")
    image = images.get(name) or images.get(file.stem) or images.get(named.stem) or missing
    if parsed.root != "annotation":
        problems.append(Problem("broken_annotation", f"{file} line 1", f"its root is {parsed.root!r}, not annotation"))
        return None
    annotation = Annotation(str(image), str(file), parsed.size, key=file.stem)
    for found in parsed.objects:
        place = f"line {found.line}"
        try:
            x1, y1, x2, y2 = (float(found.values[f"bndbox/{corner}"]) for corner in _CORNERS)
            label = found.values["name"]
        except KeyError as error:
            reason = f"an object without {str(error.args[0]).replace('/', '.')}"
        except ValueError:
            written = {corner: found.values[f"bndbox/{corner}"] for corner in _CORNERS}
            reason = f"the box of an object holds what is no number: {written}"
        else:
            click = x1 == x2 or y1 == y2
            box = (x1, y1, x2, y2) if click else (x1 - 1, y1 - 1, x2, y2)
            try:
                if not label:
                    raise ValueError("an object with an empty name")
                annotation.add(box, label, place, ignored=read_flag(found.values.get("difficult")))
                continue
            except ValueError as error:
                reason = f"difficult is {error}" if label else str(error)
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
    written="voc",
    write=write_voc,
)
