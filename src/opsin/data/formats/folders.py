"""Image folders and zips of them: `train/cat/1.jpg`, or only `cat/1.jpg`. All images below a class folder are its."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import numpy as np

from opsin import image_files, rooms
from opsin.data import zips
from opsin.data.formats.format import Claim, Format
from opsin.data.formats.layouts import Likeness, recognize
from opsin.data.formats.table_beside import find_table
from opsin.data.formats.tree import SPLIT_NAMES, Tree
from opsin.data.formats.write_labels import write_folders
from opsin.data.inputs import ImageFiles
from opsin.data.labels import ClassLabels, as_several
from opsin.data.source import Source, Split, listed
from opsin.data.truth import Problem
from opsin.errors import InputError
from opsin.image_files import list_folder

CONVERT = "no reader of opsin knows it; convert it to COCO, for example with datumaro (see the page Formats)"
SURELY = f"set {rooms.DEFAULT_TASK}.class_folders=true (opsin data: --class-folders)"
LABELS = "labels.csv"  # the table of a folder, by its name


def open_folder(path: Path, *, surely: bool = False) -> Source:
    """A folder of class folders, or of split folders of class folders.

    surely: they are classes, whatever they look like. Raises InputError where it is neither, and for what looks like
    data with other annotations.
    """
    tree = walk(path)
    if not tree.files:
        raise InputError(f"{path} is empty; expected class folders with images, or train/val/test folders of them")
    if not surely:
        _refuse_annotated(path, tree, path)
    return _build(path.name, "image folders", str(path), tree, lambda file: str(path / file), None)


def open_zip(path: Path, *, surely: bool = False) -> Source:
    """A zip of class folders, or of split folders of class folders; see `open_folder`."""
    tree = Tree(*zips.list_members(str(path)))
    if not surely:
        _refuse_annotated(path, tree, None)
    return _build(path.stem, "zip of image folders", str(path), tree, lambda file: file, str(path))


def open_zips(path: Path, archives: dict[str, Path]) -> Source:
    """One zip of class folders for each split. archives: from split names to files."""
    parts, problems = {}, []
    for split, archive in archives.items():
        prefix, tree = _unwrapped(Tree(*zips.list_members(str(archive))), into_splits=True)
        parts[split] = _Part(str(archive), prefix, tree, lambda file: file, str(archive))
    return Source(path.name, "zips of image folders", _collect(parts, problems), problems=problems)


def walk(path: Path) -> Tree:
    """Every file and folder under a folder, links followed, see `opsin.image_files`."""
    return Tree(*image_files.walk(path), done=True)


def describe(path: Path) -> str:
    """What a folder of no known format looks like, in words to append to an error; "" where that is not seen."""
    found = _recognize(walk(path), path)
    return "" if found is None else f"; it looks like {found.name} ({found.evidence}): {CONVERT}"


def _refuse_annotated(path: Path, tree: Tree, root: Path | None) -> None:
    """Raise InputError for data whose folders are no classes. root: where files can be read."""
    if (found := _recognize(tree, root)) is not None:
        raise InputError(
            f"{path} looks like {found.name} ({found.evidence}): {CONVERT}. If its folders are classes, {SURELY}"
        )


def _recognize(tree: Tree, root: Path | None) -> Likeness | None:
    prefix, inside = _unwrapped(tree)
    return recognize(tree, inside, root, prefix)


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
    return Source(name, format_, _collect(parts, problems), problems=problems)


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
    if not any(SPLIT_NAMES[top.lower()] == "train" for top in named) and (
        len(named) < len(tops) or not any("/" in folder for folder in tree.folders)
    ):
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


def _collect(parts: dict[str, _Part], problems: list[Problem]) -> dict[str, Split]:
    """The splits of all parts, with the classes of all; what is odd goes into `problems`."""
    for part in parts.values():
        _check_classes(part)
    parts = {key: parts[key] for key in ("train", "val", "test", "all") if key in parts}
    called = _class_names({name for part in parts.values() for name in part.tree.tops()}, problems)
    classes = sorted(set(called.values()))
    number = {folder: classes.index(name) for folder, name in called.items()}
    splits: dict[str, Split] = {}
    for key, part in parts.items():
        missing = sorted(set(classes) - {called[top] for top in part.tree.tops()})
        if missing:
            reason = f"classes differ between splits: no folder {listed(missing)} here; rename, or make an empty one"
            problems.append(Problem("class_mismatch", part.path("").rstrip("/"), reason))
        inside = [file for file in part.tree.images if "/" in file]
        files = [part.locate(part.prefix + file) for file in inside]
        labels = np.array([number[file.split("/", 1)[0]] for file in inside], dtype=np.int64)
        splits[key] = Split(ImageFiles(files, part.archive), ClassLabels(labels, classes))
        problems += _oddities(part, key)
    return splits


def _class_names(folders: Collection[str], problems: list[Problem]) -> dict[str, str]:
    """From folders to the classes that they are called after. Two Unicode forms of one name are one class."""
    forms: dict[str, list[str]] = {}
    for folder in sorted(folders):
        forms.setdefault(unicodedata.normalize("NFC", folder), []).append(folder)
    for name, same in forms.items():
        if len(same) > 1:
            reason = f"folders of this name in {len(same)} Unicode forms, composed or not, are one class"
            problems.append(Problem("unicode_forms", name, reason, "note"))
    return {folder: name if len(same) > 1 else folder for name, same in forms.items() for folder in same}


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


def split_bases(path: Path, holds: Callable[[Path], bool]) -> dict[str, Path]:
    """From splits to the folders of them that hold a format's files; "all" where the folder itself does.

    Raises InputError for two folders of one split.
    """
    if holds(path):
        return {"all": path}
    found: dict[str, Path] = {}
    for folder in (path / name for name in list_folder(path)[1] if name.lower() in SPLIT_NAMES):
        if not holds(folder):
            continue
        split = SPLIT_NAMES[folder.name.lower()]
        if split in found:
            raise InputError(f"{path} has both {found[split].name} and {folder.name} for the {split} split; keep one")
        found[split] = folder
    return {key: found[key] for key in ("train", "val", "test") if key in found}


def list_files(folder: Path) -> dict[str, Path]:
    """The files that lie in a folder, without those that `opsin.image_files` leaves out, by name."""
    return {name: folder / name for name in list_folder(folder)[0]}


def files_by_split(files: Mapping[str, Path], suffix: str) -> dict[str, Path]:
    """From splits to the files named after them: train.csv; of zips also train_small.zip."""
    found: dict[str, Path] = {}
    for name, file in files.items():
        stem = Path(name.lower()).stem
        split = SPLIT_NAMES.get(re.split("[-_.]", stem)[0] if suffix == ".zip" else stem)
        if not name.lower().endswith(suffix) or split is None:
            continue
        if split in found:
            raise InputError(f"{file.parent} has both {found[split].name} and {name} for the {split} split; keep one")
        found[split] = file
    return found


def main_files(folder: Path) -> dict[str, Path]:
    """The tables or archives that a folder's labelled images are in, by split, or one as "all".

    A labels.csv; else a CSV or a zip for each split; else an npz, zip or CSV that is alone, but for a licence or a
    read-me; else the one CSV that names the images of folders beside it. None of them: they lie in class folders.
    """
    files = list_files(folder)
    if LABELS in files:
        return {"all": files[LABELS]}
    for suffix in (".csv", ".zip"):
        if "train" in (parts := files_by_split(files, suffix)):
            return parts
    for suffix in (".npz", ".zip", ".csv"):
        only = [file for name, file in files.items() if name.lower().endswith(suffix)]
        if len(only) == 1 and not list_folder(folder)[1]:
            return {"all": only[0]}
    table = find_table(folder, files)
    return {} if table is None else {"all": table}


def _claims_folder(path: Path) -> Claim:
    return 1 if path.is_dir() and any(path.iterdir()) and not main_files(path) else 0


def _claims_zip(path: Path) -> Claim:
    files = main_files(path).values() if path.is_dir() else [path]
    return 1 if files and all(file.suffix.lower() == ".zip" for file in files) else 0


def _open_folder(path: Path, multi_label: bool = False, class_folders: bool = False) -> Source:
    return as_several(open_folder(path, surely=class_folders), multi_label)


def _open_zipped(path: Path, multi_label: bool = False, class_folders: bool = False) -> Source:
    files = main_files(path) if path.is_dir() else {"all": path}
    opened = open_zip(files["all"], surely=class_folders) if "all" in files else open_zips(path, files)
    return as_several(opened, multi_label)


_OPTIONS = ("multi_label", "class_folders")
FORMAT = Format(
    name="class folders",
    truth="class labels",
    expects="a folder of class folders",
    claims=_claims_folder,
    open=_open_folder,
    options=_OPTIONS,
    insists="class_folders",
    written="folders",
    write=write_folders,
)
ZIPPED = Format("zip of class folders", "class labels", "a zip of one", _claims_zip, _open_zipped, _OPTIONS)
