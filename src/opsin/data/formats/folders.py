"""Image folders and zips of them: `train/cat/1.jpg`, or only `cat/1.jpg`. All images below a class folder are its."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np

from opsin.data import zips
from opsin.data.images import IMAGE_SUFFIXES
from opsin.data.source import FileSplit, Problem, Source, Split, listed
from opsin.errors import InputError

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


class Tree:
    """Relative paths of a folder or zip, without what systems hide in them (names with a leading dot, __MACOSX)."""

    def __init__(self, files: list[str], folders: list[str]) -> None:
        self.files = sorted(file for file in files if not _hidden(file))
        self.folders = sorted(folder for folder in folders if not _hidden(folder))
        self.images = [file for file in self.files if PurePosixPath(file).suffix.lower() in IMAGE_SUFFIXES]

    def tops(self) -> list[str]:
        """The folders that lie in no other."""
        return [folder for folder in self.folders if "/" not in folder]

    def below(self, folder: str) -> Tree:
        """The tree under one of its folders."""
        start = f"{folder}/"
        inside = [
            [path[len(start) :] for path in paths if path.startswith(start)] for paths in (self.files, self.folders)
        ]
        return Tree(*inside)

    def loose(self) -> list[str]:
        """The images that lie in no folder."""
        return [file for file in self.images if "/" not in file]


def open_folder(path: Path) -> Source:
    """A folder of class folders, or of split folders of class folders. Raises InputError where it is neither."""
    tree = walk(path)
    if not tree.files:
        raise InputError(f"{path} is empty; expected class folders with images, or train/val/test folders of them")
    return _build(path.name, "image folders", str(path), tree, lambda file: str(path / file), None)


def open_zip(path: Path) -> Source:
    """A zip of class folders, or of split folders of class folders."""
    tree = Tree(*zips.list_members(str(path)))
    return _build(path.stem, "zip of image folders", str(path), tree, lambda file: file, str(path))


def open_zips(path: Path, archives: dict[str, Path]) -> Source:
    """One zip of class folders for each split. archives: from split names to files."""
    parts, problems = {}, []
    for split, archive in archives.items():
        prefix, tree = _unwrapped(Tree(*zips.list_members(str(archive))), into_splits=True)
        parts[split] = _Part(str(archive), prefix, tree, lambda file: file, str(archive))
    classes, splits = _collect(parts, problems)
    return Source(path.name, "zips of image folders", classes, splits, problems=problems)


def walk(path: Path) -> Tree:
    """Every file and folder under a folder, links followed, each real folder once."""
    files: list[str] = []
    folders: list[str] = []
    seen: set[str] = set()

    def refuse(error: OSError) -> None:
        raise InputError(f"cannot look into {error.filename}: {(error.strerror or str(error)).lower()}") from error

    for place, inside, names in os.walk(path, followlinks=True, onerror=refuse):
        here = Path(place).relative_to(path).as_posix()
        prefix = "" if here == "." else f"{here}/"
        if (real := os.path.realpath(place)) in seen:
            inside.clear()
            continue
        seen.add(real)
        inside[:] = [name for name in inside if not _hidden(name)]
        files += [prefix + name for name in names]
        folders += [prefix + name for name in inside]
    return Tree(files, folders)


class _Part:
    """One split's tree of class folders, and how its relative paths become files."""

    def __init__(self, where: str, prefix: str, tree: Tree, locate: Callable[[str], str], archive: str | None) -> None:
        self.where, self.prefix, self.tree, self.locate, self.archive = where, prefix, tree, locate, archive

    def path(self, file: str) -> str:
        return f"{self.where}/{self.prefix}{file}"


def _build(
    name: str, format_: str, where: str, tree: Tree, locate: Callable[[str], str], archive: str | None
) -> Source:
    prefix, tree = _unwrapped(tree)
    problems: list[Problem] = []
    parts = {
        split: _Part(where, prefix + inside, tree.below(inside[:-1]) if inside else tree, locate, archive)
        for split, inside in _split_folders(where, tree, problems).items()
    }
    for split in [s for s in ("val", "test") if s in parts and not parts[s].tree.tops() and parts[s].tree.images]:
        count = len(parts[split].tree.images)
        reason = f"{count} images that lie in no class folder are left out"
        problems.append(Problem("unlabelled", parts.pop(split).path("").rstrip("/"), reason, "warning"))
    classes, splits = _collect(parts, problems)
    return Source(name, format_, classes, splits, problems=problems)


def _unwrapped(tree: Tree, into_splits: bool = False) -> tuple[str, Tree]:
    """The tree below single folders that only wrap others, and the prefix that leads there."""
    prefix = ""
    while len(tops := tree.tops()) == 1 and not tree.loose():
        inside = tree.below(tops[0])
        if inside.loose() or not inside.tops() or (tops[0].lower() in SPLIT_NAMES and not into_splits):
            break
        prefix, tree = f"{prefix}{tops[0]}/", inside
    return prefix, tree


def _split_folders(where: str, tree: Tree, problems: list[Problem]) -> dict[str, str]:
    """From splits to the folders, with a final slash, of their class folders; {"all": ""} where there are none."""
    found: dict[str, str] = {}
    tops = tree.tops()
    named = [top for top in tops if top.lower() in SPLIT_NAMES]
    if not any(SPLIT_NAMES[top.lower()] == "train" for top in named) and len(named) < len(tops):
        return {"all": ""}  # a class may well be called "test"
    for top in tops:
        split = SPLIT_NAMES.get(top.lower())
        if split in found:
            raise InputError(
                f"{where} has the two folders {found[split]} and {top}/ for one split; merge or rename them"
            )
        if split is None:
            problems.append(Problem("ignored", f"{where}/{top}", "beside split folders, left out", "warning"))
        else:
            found[split] = f"{top}/"
    return found or {"all": ""}


def _collect(parts: dict[str, _Part], problems: list[Problem]) -> tuple[list[str], dict[str, Split]]:
    """The classes of all parts and their splits; what is odd goes into `problems`."""
    for part in parts.values():
        _check_classes(part)
    parts = {key: parts[key] for key in ("train", "val", "test", "all") if key in parts}
    classes = sorted({name for part in parts.values() for name in part.tree.tops()})
    number = {name: k for k, name in enumerate(classes)}
    splits: dict[str, Split] = {}
    for key, part in parts.items():
        missing = sorted(set(classes) - set(part.tree.tops()))
        if missing:
            reason = f"classes differ between splits: no folder {listed(missing)} here; rename, or make an empty one"
            problems.append(Problem("class_mismatch", part.path("").rstrip("/"), reason))
        inside = [file for file in part.tree.images if "/" in file]
        files = [part.locate(part.prefix + file) for file in inside]
        labels = np.array([number[file.split("/", 1)[0]] for file in inside], dtype=np.int64)
        splits[key] = FileSplit(files, labels, part.archive)
        problems += _oddities(part, key)
    return classes, splits


def _check_classes(part: _Part) -> None:
    where = part.path("").rstrip("/")
    if not part.tree.tops():
        loose = len(part.tree.images)
        found = f"{loose} images but no class folders" if loose else "no class folders and no images"
        raise InputError(
            f"{where} holds {found}; put each image in a folder named after its class, or list them in a CSV"
        )
    if not part.tree.images:
        raise InputError(f"{where} holds class folders but no images in them")


def _oddities(part: _Part, split: str) -> list[Problem]:
    """Empty classes, images outside of class folders, and files that are no images."""
    problems = []
    full = {file.split("/", 1)[0] for file in part.tree.images}
    for name in part.tree.tops():
        if name not in full:
            severity = "error" if split in ("train", "all") else "warning"
            problems.append(Problem("empty_class", part.path(name), "the class folder holds no images", severity))
    problems += [
        Problem("stray", part.path(f), "lies in no class folder, left out", "warning") for f in part.tree.loose()
    ]
    images = set(part.tree.images)
    for file in part.tree.files:
        if file not in images and "/" in file:
            problems.append(Problem("not_an_image", part.path(file), "its ending is not an image's, left out", "note"))
    return problems


def _hidden(path: str) -> bool:
    parts = path.split("/")
    return any(part.startswith(".") or part == "__MACOSX" for part in parts) or parts[-1] in (
        "Thumbs.db",
        "desktop.ini",
    )
