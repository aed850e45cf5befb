"""The files and folders below a folder, or in a zip, by their relative paths."""

from __future__ import annotations

import posixpath

from opsin.image_files import IMAGE_SUFFIXES, is_left_out

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
    """Relative paths of a folder or zip, without what `opsin.image_files` leaves out, unless that is `done` already."""

    def __init__(self, files: list[str], folders: list[str], done: bool = False) -> None:
        self.files = sorted(files if done else (file for file in files if not _hidden(file)))
        self.folders = sorted(folders if done else (folder for folder in folders if not _hidden(folder)))
        self.images = [file for file in self.files if posixpath.splitext(file)[1].lower() in IMAGE_SUFFIXES]

    def tops(self) -> list[str]:
        """The folders that lie in no other."""
        return [folder for folder in self.folders if "/" not in folder]

    def below(self, folder: str) -> Tree:
        """The tree under one of its folders."""
        start = f"{folder}/"
        inside = [
            [path[len(start) :] for path in paths if path.startswith(start)] for paths in (self.files, self.folders)
        ]
        return Tree(*inside, done=True)

    def loose(self) -> list[str]:
        """The images that lie in no folder."""
        return [file for file in self.images if "/" not in file]


def _hidden(path: str) -> bool:
    return any(is_left_out(part) for part in path.split("/"))
