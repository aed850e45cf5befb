"""COCO json: images, annotations and categories in one file a split. Lin et al. 2014, arXiv:1405.0312.

A bbox (x, y, width, height) counts from 0 and is (x, y, x + width, y + height) in our convention. `iscrowd` and
`ignore` mark regions to ignore (label -1). A segmentation, polygons or runs, is an object's mask. Category ids may have
gaps: classes are the categories by rising id, so class 11 of COCO's 80 is the category with id 13. Splits' categories
are matched by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from opsin.data.allowed_folders import trust
from opsin.data.formats.annotations import Annotation, build
from opsin.data.formats.createml import is_createml
from opsin.data.formats.folders import SPLIT_NAMES
from opsin.data.formats.format import Claim, Format
from opsin.data.formats.labelme import is_labelme
from opsin.data.formats.values import (
    as_posix,
    find_file,
    read_flag,
    read_head,
    read_key,
    read_number,
    read_whole,
    shown,
)
from opsin.data.formats.write_boxes import write_coco
from opsin.data.masks import Outline, read_outline
from opsin.data.source import Source, listed
from opsin.data.truth import Problem
from opsin.errors import InputError
from opsin.files import read_regular

_PARTS = ("images", "annotations", "categories")
_OWN_KEYS = (b'"images"', b'"annotations"', b'"categories"', b'"info"', b'"licenses"')
_FOREIGN_KEYS = (b'"objects"', b'"frames"', b'"asset"', b'"imgHeight"', b'"regions"', b'"labels"', b'"DataURI"')
_LOOKED_AT = 50  # json files of a folder, at most, before it is said that none is COCO's


def find_coco(path: Path) -> list[Path]:
    """The json files of a folder that are COCO's by their names: in it, in its annotations, or in its split folders."""
    for folder in (path / "annotations", path):
        if found := sorted(folder.glob("instances*.json")) or sorted(folder.glob("*.json")):
            return [file for file in found if not file.name.startswith(".")]
    folders = sorted(p for p in path.iterdir() if p.is_dir() and p.name.lower() in SPLIT_NAMES)
    return [file for folder in folders for file in sorted(folder.glob("*.json"))[:1]]


def is_coco(file: Path) -> bool:
    """Whether a json file is meant as COCO's: by its name or its folder's, else by what it holds."""
    if file.name.startswith(("instances", "_annotations.coco")):
        return True
    if is_labelme(file) or is_createml(file):
        return False
    if file.parent.name == "annotations":
        head = read_head(file, 1 << 16)
        return any(key in head for key in _OWN_KEYS) or not any(key in head for key in _FOREIGN_KEYS)
    try:
        return not _missing(_load(file))
    except InputError:
        return False


def open_coco(files: list[Path], name: str, stated: bool = False) -> Source:
    """Json files of boxes, each a split by its name (instances_train2017.json) or its folder's; one alone may be all.

    Images are looked for beside the file, beside its folder, and in folders there named images, JPEGImages, data,
    after the split, or as the file's name ends (train2017). stated: keep the objects as they are stated too.
    """
    loaded = {file: _load(file) for file in files}
    usable = {file: content for file, content in loaded.items() if not _missing(content)}
    if not usable:
        file, content = next(iter(loaded.items()))
        lacks = f"no {' and '.join(_missing(content))}" if isinstance(content, dict) else "no object at its top"
        raise InputError(f"{file} has {lacks}; a COCO file of boxes has images, annotations and categories")
    parts: dict[str, list[Annotation]] = {}
    origin: dict[str, Path] = {}
    problems: list[Problem] = []
    for file, content in usable.items():
        split = _split_of(file, alone=len(usable) == 1)
        if split is None:
            raise InputError(
                f"{file} is one of {len(usable)} json files and says no split; name them like instances_train.json, "
                "or give one file"
            )
        if split in parts:
            raise InputError(f"both {origin[split]} and {file} are for the {split} split; give the one that is meant")
        origin[split] = file
        parts[split] = _read(file, content, split, problems)
    classes = _classes(usable, problems)
    order = [key for key in ("train", "val", "test", "all") if key in parts]
    parts = {key: parts[key] for key in order}
    keys = {key: said for file, content in usable.items() for key, said in _categories(file, content).items()}
    return build(
        name,
        "COCO json",
        parts,
        classes=classes,
        declared="categories",
        problems=problems,
        stated=stated,
        class_keys=keys,
    )


def _load(file: Path) -> Any:
    try:
        return json.loads(read_regular(file))
    except json.JSONDecodeError as error:
        raise InputError(f"{file} line {error.lineno}: not readable JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{file} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}") from error
    except (RecursionError, ValueError) as error:  # ValueError: an integer of more digits than Python reads
        raise InputError(f"{file} cannot be read: {error}") from error


def _missing(content: Any) -> list[str]:
    """Which parts a file lacks, or holds as something else than a list of objects."""
    if not isinstance(content, dict):
        return list(_PARTS)
    return [
        part
        for part in _PARTS
        if not isinstance(content.get(part), list) or not all(isinstance(entry, dict) for entry in content[part])
    ]


def _split_of(file: Path, *, alone: bool) -> str | None:
    words = [*re.split(r"[^a-z]+", file.stem.lower()), file.parent.name.lower()]
    named = next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)
    if named is not None:
        return named
    return "all" if alone else None


def _classes(files: Mapping[Path, Any], problems: list[Problem]) -> list[str]:
    """Every category once, by rising id, those of the first file before others'."""
    names = {file: [name for _, name in _sorted(_categories(file, content))] for file, content in files.items()}
    first, classes = next(iter(names)), dict.fromkeys(name for found in names.values() for name in found)
    for file, found in names.items():
        if odd := sorted(set(found) ^ set(names[first])):
            reason = f"its categories differ from those of {first.name} in {listed(odd)}"
            problems.append(Problem("class_mismatch", str(file), reason, "warning"))
    return list(classes)


def _sorted(categories: Mapping[int | str, str]) -> list[tuple[int | str, str]]:
    """By id, numbers before texts."""
    return sorted(categories.items(), key=lambda pair: (isinstance(pair[0], str), pair[0]))


def _categories(file: Path, content: Any) -> dict[int | str, str]:
    """From ids to names. Raises InputError for a category without them, and for two of one id or of one name."""
    found: dict[int | str, str] = {}
    for number, category in enumerate(content["categories"]):
        place, name = f"{file} categories[{number}]", category.get("name")
        if isinstance(name, bool) or not isinstance(name, str | int | float) or not str(name).strip():
            raise InputError(f"{place}: its name is {shown(name)}; give every category an id and a name")
        try:
            key = read_key(category.get("id"))
        except ValueError as error:
            raise InputError(f"{place}: {error}; give every category an id and a name") from error
        name = str(name).strip()
        if key in found:
            raise InputError(f"{place}: the id {shown(key)} is that of {shown(found[key])} too; give each its own")
        if name in found.values():
            raise InputError(f"{place}: the name {shown(name)} is another category's too; name each once")
        found[key] = name
    return found


def _read(file: Path, content: Any, split: str, problems: list[Problem]) -> list[Annotation]:
    categories = _categories(file, content)
    folders = _folders(file, content["images"], split)
    images: dict[int | str, Annotation] = {}
    for number, image in enumerate(content["images"]):
        try:
            key, name = read_key(image.get("id")), image.get("file_name")
            if not isinstance(name, str) or not name.strip() or "\0" in name:
                raise ValueError(f"its file_name is {shown(name)}")
            if key in images:
                raise ValueError(f"the id {shown(key)} is another image's too")
            images[key] = Annotation(str(_find_image(name, folders)), str(file), _size(image), key=key, crowds=set())
        except ValueError as error:
            problems.append(Problem("broken_annotation", f"{file} images[{number}]", str(error)))
    for number, one in enumerate(content["annotations"]):
        place = f"annotations[{number}]"
        outline = read_outline(one.get("segmentation"))
        try:
            _add(one, place, images, categories, outline)
        except ValueError as error:
            problems.append(Problem("broken_annotation", f"{file} {place}", str(error)))
            continue
        if one.get("segmentation") and outline is None:
            reason = "its segmentation is neither polygons nor runs that fill their size; it counts as without a mask"
            problems.append(Problem("broken_mask", f"{file} {place}", reason, "warning"))
    return list(images.values())


def _add(
    one: Mapping[str, Any],
    place: str,
    images: Mapping[int | str, Annotation],
    categories: Mapping[int | str, str],
    outline: Outline | None,
) -> None:
    """Give an annotation to its image. Raises ValueError with the reason where it cannot be."""
    annotation = images.get(read_key(one.get("image_id")))
    if annotation is None:
        raise ValueError(f"its image_id {shown(one.get('image_id'))} is that of no image")
    box = one.get("bbox")
    try:
        if not isinstance(box, list | tuple) or len(box) != 4:
            raise ValueError
        x, y, width, height = (read_number(value) for value in box)
    except ValueError:
        raise ValueError(f"its bbox is {shown(box)}; expected [x, y, width, height], four numbers") from None
    key = read_key(one.get("category_id"))
    name = categories.get(key, f"id {key}")
    flags = {}
    for flag in ("iscrowd", "ignore"):
        try:
            flags[flag] = read_flag(one.get(flag))
        except ValueError as error:
            raise ValueError(f"{flag}: {error}") from error
    if flags["iscrowd"] and annotation.crowds is not None:
        annotation.crowds.add(len(annotation.names))  # `ignore` alone means nothing to COCO's own evaluation
    area = one.get("area")
    area = float(area) if isinstance(area, int | float) and abs(area) < 1e18 else None
    ignored, box = any(flags.values()), (x, y, x + width, y + height)
    annotation.add(box, name, place, ignored=ignored, outline=outline, area=area)


def _size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    """(height, width) as it is declared; None where nothing is. Raises ValueError for what can be no size."""
    declared = {side: image.get(side) for side in ("height", "width")}
    if None in declared.values():
        return None  # the image will say
    sides = []
    for side, value in declared.items():
        try:
            sides.append(read_whole(value))
        except ValueError as error:
            raise ValueError(f"its {side}: {error}") from error
    return sides[0], sides[1]


def _folders(file: Path, images: list[Mapping[str, Any]], split: str) -> list[Path]:
    """The folders that `file_name` may count from; the one with the most of the first images is the first."""
    home, above = file.parent, file.parent.parent
    tail = re.split("[_.]", file.stem)[-1]
    same = [name for name, meaning in SPLIT_NAMES.items() if meaning == split]
    inside = ["", "images", "JPEGImages", "data", *dict.fromkeys([tail, *same])]
    inside += [f"images/{name}" for name in dict.fromkeys([tail, *same])]
    folders = [base / name for base in (home, above) for name in inside if (base / name).is_dir()]
    names = [as_posix(name) for image in images[:20] if isinstance(name := image.get("file_name"), str)]
    best = max(folders, key=lambda folder: sum(_is_file(folder / name) for name in names))
    for folder in folders:  # beside the file's own, and called as one of images: the data's too
        if folder != above:
            trust(folder)
    if best == above:
        for first in {name.parts[0] for name in names if len(name.parts) > 1 and ".." not in name.parts}:
            trust(above / first)
    return [best, *(folder for folder in folders if folder != best)]


def _find_image(name: str, folders: Sequence[Path]) -> Path:
    """Where an image lies. A path of another computer is looked for with fewer and fewer of its first folders."""
    path = as_posix(name)
    if not path.is_absolute() and "\\" not in name and name[1:2] != ":":
        return folders[0] / path
    return find_file(path, folders) or folders[0] / path.name


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _claims(path: Path) -> Claim:
    if not path.is_dir():
        known = path.suffix.lower() == ".json" and not is_createml(path) and not is_labelme(path)
        return 2 if known else 0
    files = find_coco(path)
    return 2 if any(map(is_coco, files[:_LOOKED_AT])) else 1 if files else 0


def _open(path: Path, stated: bool = False) -> Source:
    return open_coco(find_coco(path), path.name, stated) if path.is_dir() else open_coco([path], path.stem, stated)


FORMAT = Format(
    "COCO", "boxes", "COCO (annotations/*.json)", _claims, _open, ("stated",), written="coco", write=write_coco
)
