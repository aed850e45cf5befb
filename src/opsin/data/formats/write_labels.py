"""Class labels as folders of their classes, and as a CSV table: what the readers of these read back as the same.

Both have their classes in the order of the alphabet. Folders hold one class an image; of a table, several are a column
of 0 and 1 each. Each writer returns what was not kept, in words.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from opsin.data.formats.tree import SPLIT_NAMES
from opsin.data.formats.writing import ImageWriter, new_folder
from opsin.data.labels import MULTI_LABEL
from opsin.data.source import Source
from opsin.errors import InputError, printable
from opsin.image_files import IMAGE_SUFFIXES, is_left_out

_LONGEST = 255  # bytes of a folder's name, on the usual file systems
_TABLE = "labels.csv"


def write_folders(source: Source, out: Path, link: bool = False) -> list[str]:
    """A folder for each class, in one for each split; of a class without images an empty one.

    Raises InputError for several classes an image, and for a class whose name no folder can have or keep.
    """
    if source.multi_label:
        raise InputError(f"{source.name} has several classes an image, which folders cannot say; write --as csv")
    _check_folders(source)
    writer, left = ImageWriter(link), 0
    with new_folder(out) as root:
        for key, split in source.splits.items():
            base = root if key == "all" else root / key
            for name in source.classes:
                (base / name).mkdir(parents=True)
            for i, label in enumerate(split.kind.labels.tolist()):
                if label < 0:
                    left += 1
                    continue
                folder = source.classes[label]
                writer.write(split, i, base / folder / writer.name(split, i, f"{key}/{folder}"))
    return [*_unlabelled(left), *_order(source.classes)]


def write_csv(source: Source, out: Path, link: bool = False, *, columns: Collection[str] = ()) -> list[str]:
    """labels.csv, with the split where there are several, and images in a folder for each split.

    columns: names that mean no class, in small letters. Raises InputError for a class whose name a table cannot keep.
    """
    several, classes = source.multi_label, source.classes
    _check_cells(source.name, classes, several, columns)
    writer, left, empty = ImageWriter(link), 0, np.ones(len(classes), bool)
    rows: list[list[str]] = []
    with new_folder(out) as root:
        for key, split in source.splits.items():
            home = "images" if key == "all" else f"images/{key}"
            for i in range(len(split)):
                labels = split.kind.labels[i]
                if not several and labels < 0:
                    left += 1
                    continue
                path = f"{home}/{writer.name(split, i, key)}"
                writer.write(split, i, root / path)
                rows.append([path, *([] if key == "all" else [key])])
                rows[-1] += [str(int(one)) for one in labels] if several else [classes[int(labels)]]
                empty[labels > 0 if several else int(labels)] = False
        header = ["path", *([] if "all" in source.splits else ["split"]), *(classes if several else ["label"])]
        with (root / _TABLE).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *rows])
    lost = [] if several else [name for name, none in zip(classes, empty.tolist(), strict=True) if none]
    notes = [f"{len(lost)} classes without an image are left out, {printable(lost[0])!r} the first"] if lost else []
    notes += [f"several classes an image: set {MULTI_LABEL}"] if several else []
    return [*_unlabelled(left), *notes, *_order(classes)]


def _check_folders(source: Source) -> None:
    known: dict[str, str] = {}
    for name in source.classes:
        shown = f"the class {printable(name)!r}"
        if not name or name != name.strip() or "/" in name or "\\" in name or "\0" in name or is_left_out(name):
            raise InputError(f"{shown} of {source.name} can be no folder's name; write --as csv")
        if len(name.encode("utf-8", "surrogateescape")) > _LONGEST:
            raise InputError(f"{shown[:40]}... of {source.name} is too long for a folder's name; write --as csv")
        if "all" in source.splits and SPLIT_NAMES.get(name.casefold()) == "train":
            raise InputError(f"{shown} of {source.name} would be read as a split; write --as csv")
        if (other := known.setdefault(name.casefold(), name)) != name:
            raise InputError(f"{shown} and {printable(other)!r} are one folder on some systems; write --as csv")


def _check_cells(where: str, classes: Sequence[str], several: bool, columns: Collection[str]) -> None:
    for name in classes:
        parts = not several and ("|" in name or ";" in name)
        if not name or name != name.strip() or name != printable(name) or parts:
            raise InputError(f"the class {printable(name)!r} of {where} would not be read back from a table; rename it")
        if several and (name.lower() in columns or PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES):
            raise InputError(f"the class {name!r} of {where} would not be read back as a column of a table; rename it")


def _unlabelled(count: int) -> list[str]:
    return [f"{count} images without a label are left out"] if count else []


def _order(classes: Sequence[str]) -> list[str]:
    return [] if list(classes) == sorted(classes) else ["the classes are in the order of the alphabet there"]
