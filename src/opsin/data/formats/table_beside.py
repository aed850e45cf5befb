"""Tables beside folders of images, as competitions give them: `train.csv` names the images of `train/`, often bare.

A name without folders is looked for in the folders beside the table and in those below them, with any image's ending,
also in those of the split that the table is for: `train.csv` finds 0a1b in `train/0a1b.jpg` or `train_images/0a1b.png`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path

from opsin.data.formats.tree import SPLIT_NAMES
from opsin.data.formats.values import as_posix, read_head
from opsin.image_files import IMAGE_SUFFIXES, first_files, list_folder

_MOST_FOLDERS = 24  # beside a table that are looked into
_NO_TABLE = re.compile(r"(?:sample_?submission|submission|test)", re.IGNORECASE)  # without labels
_NO_CLASS = re.compile(
    r"(?:^|[^a-z])(?:train|training|test|val|valid|images?|imgs?|jpe?gs?|pngs?|pictures)(?:$|[^a-z])", re.I
)
_BOXES = re.compile(r"\b(?:x_?min|x1|bbox\w*|x_1|left|lefteye_x|polygon)\b", re.IGNORECASE)  # columns of other truths
_ENDINGS = {case for suffix in IMAGE_SUFFIXES for case in (suffix, suffix.upper())}


class ImageIndex:
    """Where the images of a table lie. split: of the table, "all" if it is for no single one."""

    def __init__(self, table: Path, split: str) -> None:
        self.folder, self.split = table.parent, split
        self._found: dict[str, Path | None] | None = None

    def find(self, name: str) -> Path | None:
        """The one image of a name without folders; None where there is none, or several."""
        if "/" in name or "\\" in name or not name:
            return None
        if self._found is None:
            self._found = self._list()
        return self._found.get(name)

    def _list(self) -> dict[str, Path | None]:
        others = {name for name, split in SPLIT_NAMES.items() if split != self.split} if self.split != "all" else set()
        folders = [self.folder]
        for name in list_folder(self.folder)[1][:_MOST_FOLDERS]:
            if not others.intersection(re.split(r"[^a-z]+", name.lower())):
                inside = self.folder / name
                folders += [inside, *(inside / below for below in list_folder(inside)[1][:_MOST_FOLDERS])]
        found: dict[str, Path | None] = {}
        for folder in folders:
            for file in list_folder(folder)[0]:
                stem, dot, ending = file.rpartition(".")
                if dot and f".{ending.lower()}" in IMAGE_SUFFIXES:
                    for key in (file, stem):
                        found[key] = None if key in found and found[key] != folder / file else folder / file
        return found


def find_table(folder: Path, files: Mapping[str, Path]) -> Path | None:
    """The one table of a folder that says of which class the images of folders beside it are; None if none does."""
    tables = [file for name, file in files.items() if name.lower().endswith(".csv") and not _NO_TABLE.match(name)]
    folders = list_folder(folder)[1] if 0 < len(tables) <= 8 else []
    flat = [name for name in folders[:_MOST_FOLDERS] if _NO_CLASS.search(name)]
    if not flat or len(flat) < len(folders):
        return None  # the other folders may be classes
    naming = [table for table in tables if _names_images(table, [folder / name for name in flat])]
    return naming[0] if len(naming) == 1 else None


def _names_images(table: Path, folders: list[Path]) -> bool:
    """Whether one of a table's first rows has a cell that names an image of a folder, with or without ending."""
    text = read_head(table, 1 << 14).decode("utf-8-sig", "replace")
    if _BOXES.search(text.split("\n", 1)[0]):
        return False
    try:
        rows = list(csv.reader(text.splitlines()[1:6]))
    except csv.Error:
        return False
    places = [
        place for folder in folders for place in (folder, *(folder / below for below in list_folder(folder)[1][:4]))
    ]
    endings = {f".{name.rpartition('.')[2]}" for place in places for name in first_files(place, 20)} & _ENDINGS
    cells = [as_posix(cell.strip()).name for row in rows for cell in row[:4] if 0 < len(cell.strip()) <= 200]
    names = [name for cell in cells for name in (cell, *(f"{cell}{ending}" for ending in endings))]
    return any((place / name).is_file() for place in places for name in names if "\0" not in name and name)
