"""COCO json: images, annotations and categories in one file a split. Lin et al. 2014, arXiv:1405.0312.

A bbox (x, y, width, height) counts from 0 and is (x, y, x + width, y + height) in our convention. `iscrowd` and
`ignore` mark regions to ignore (label -1). A segmentation, polygons or runs, is an object's mask. Category ids may have
gaps: classes are the categories by rising id, so class 11 of COCO's 80 is the category with id 13. Splits' categories
are matched by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from opsin.data.formats.annotations import Annotation, build
from opsin.data.formats.folders import SPLIT_NAMES
from opsin.data.formats.format import Claim, Format
from opsin.data.masks import Outline, read_outline
from opsin.data.source import Source, listed
from opsin.data.truth import Problem
from opsin.errors import InputError

_PARTS = ("images", "annotations", "categories")


def find_coco(path: Path) -> list[Path]:
    """The json files of a folder that are COCO's by their names: in it, in its annotations, or in its split folders."""
    for folder in (path / "annotations", path):
        if found := sorted(folder.glob("instances*.json")) or sorted(folder.glob("*.json")):
            return [file for file in found if not file.name.startswith(".")]
    folders = sorted(p for p in path.iterdir() if p.is_dir() and p.name.lower() in SPLIT_NAMES)
    return [file for folder in folders for file in sorted(folder.glob("*.json"))[:1]]


def is_coco(file: Path) -> bool:
    """Whether a json file is meant as COCO's: by its name or its folder's, else by what it holds."""
    if file.parent.name == "annotations" or file.name.startswith(("instances", "_annotations.coco")):
        return True
    try:
        return not _missing(_load(file))
    except InputError:
        return False


def open_coco(files: list[Path], name: str) -> Source:
    """Json files of boxes, each a split by its name (instances_train2017.json) or its folder's; one alone may be all.

    Images are looked for beside the file, beside its folder, and in folders there named images, JPEGImages, data,
    after the split, or as the file's name ends (train2017).
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
    return build(name, "COCO json", parts, classes=classes, declared="categories", problems=problems)


def _load(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except json.JSONDecodeError as error:
        raise InputError(f"{file} line {error.lineno}: not readable JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{file} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error
    except (OSError, RecursionError) as error:
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
    names = {file: [name for _, name in sorted(_categories(content).items())] for file, content in files.items()}
    first, classes = next(iter(names)), dict.fromkeys(name for found in names.values() for name in found)
    for file, found in names.items():
        if odd := sorted(set(found) ^ set(names[first])):
            reason = f"its categories differ from those of {first.name} in {listed(odd)}"
            problems.append(Problem("class_mismatch", str(file), reason, "warning"))
    return list(classes)


def _categories(content: Any) -> dict[int, str]:
    try:
        return {int(category["id"]): str(category["name"]).strip() for category in content["categories"]}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"a category without a whole-numbered id and a name: {error!r}; give every one both"
        ) from error


def _read(file: Path, content: Any, split: str, problems: list[Problem]) -> list[Annotation]:
    categories = _categories(content)
    folder = _find_images(file, content["images"], split)
    images: dict[Any, Annotation] = {}
    for number, image in enumerate(content["images"]):
        place = f"{file} images[{number}]"
        if not isinstance(image.get("id"), int | str) or not isinstance(image.get("file_name"), str):
            problems.append(Problem("broken_annotation", place, "an image without id or file_name"))
        elif image["id"] in images:
            problems.append(Problem("broken_annotation", place, f"the id {image['id']} is another image's too"))
        else:
            where = str(file)
            images[image["id"]] = Annotation(str(folder / image["file_name"]), where, _size(image))
    for number, one in enumerate(content["annotations"]):
        place = f"annotations[{number}]"
        outline = read_outline(one.get("segmentation"))
        if (reason := _add(one, place, images, categories, outline)) is not None:
            problems.append(Problem("broken_annotation", f"{file} {place}", reason))
        elif one.get("segmentation") and outline is None:
            reason = "its segmentation is neither polygons nor runs that fill their size; it counts as without a mask"
            problems.append(Problem("broken_mask", f"{file} {place}", reason, "warning"))
    return list(images.values())


def _add(
    one: Mapping[str, Any],
    place: str,
    images: Mapping[Any, Annotation],
    categories: Mapping[int, str],
    outline: Outline | None,
) -> str | None:
    """Give an annotation to its image; the reason where it cannot be."""
    image, number = one.get("image_id"), one.get("category_id")
    annotation = images.get(image) if isinstance(image, int | str) else None
    if annotation is None:
        return f"its image_id {image!r} is that of no image"
    try:
        x, y, width, height = (float(value) for value in one["bbox"])
    except (KeyError, TypeError, ValueError):
        return f"its bbox is {one.get('bbox')!r}; expected [x, y, width, height]"
    name = categories.get(number, f"id {number}") if isinstance(number, int) else f"id {number}"
    ignored = bool(one.get("iscrowd")) or bool(one.get("ignore"))
    annotation.add((x, y, x + width, y + height), name, place, ignored=ignored, outline=outline)
    return None


def _size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    try:
        return int(image["height"]), int(image["width"])
    except (KeyError, TypeError, ValueError):
        return None  # the image will say


def _find_images(file: Path, images: list[Mapping[str, Any]], split: str) -> Path:
    """The folder that `file_name` counts from: the one with the most of the first images."""
    home, above = file.parent, file.parent.parent
    tail = re.split("[_.]", file.stem)[-1]
    same = [name for name, meaning in SPLIT_NAMES.items() if meaning == split]
    inside = ["", "images", "JPEGImages", "data", *dict.fromkeys([tail, *same])]
    inside += [f"images/{name}" for name in dict.fromkeys([tail, *same])]
    folders = [base / name for base in (home, above) for name in inside if (base / name).is_dir()]
    names = [str(image.get("file_name")) for image in images[:20]]
    return max(folders, key=lambda folder: sum((folder / name).is_file() for name in names))


def _claims(path: Path) -> Claim:
    if not path.is_dir():
        return 2 if path.suffix.lower() == ".json" else 0
    files = find_coco(path)
    return 2 if any(map(is_coco, files)) else 1 if files else 0


def _open(path: Path) -> Source:
    return open_coco(find_coco(path), path.name) if path.is_dir() else open_coco([path], path.stem)


FORMAT = Format("COCO", "boxes", "COCO (annotations/*.json)", _claims, _open)
