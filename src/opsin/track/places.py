"""Where files of tracks lie: one file, a folder or a zip, all read in the same way."""

from __future__ import annotations

import os
import posixpath
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from opsin import image_files
from opsin.data.images import UnreadableImage
from opsin.data.zips import list_members, read_member
from opsin.errors import InputError
from opsin.files import read_regular

_LARGEST = 1 << 30  # bytes of one file


@dataclass(frozen=True)
class Place:
    """A folder or a zip, or a folder within one. root: on disk. within: "" or the folder inside, with a slash."""

    root: Path
    within: str = ""

    @cached_property
    def files(self) -> list[str]:
        """The relative paths of all files, sorted."""
        if self.root.is_dir():
            found = image_files.walk(self.root / self.within)[0]
            return sorted(found)
        names = list_members(str(self.root))[0]
        inside = [name[len(self.within) :] for name in names if name.startswith(self.within)]
        return sorted(name for name in inside if not any(image_files.is_left_out(part) for part in name.split("/")))

    def shown(self, name: str) -> str:
        """A file as messages call it."""
        return str(self.root / self.within / name)

    def read(self, name: str) -> bytes:
        """The content of a file. Raises InputError."""
        if self.root.is_dir():
            return read_file(self.root / self.within / name)
        try:
            return read_member(str(self.root), self.within + name)
        except UnreadableImage as error:
            raise InputError(f"{error.path} cannot be read: {error.reason}") from None

    def inside(self, folder: str) -> Place:
        """One of its folders; "" is the place itself."""
        return Place(self.root, f"{self.within}{folder}/" if folder else self.within)

    @property
    def name(self) -> str:
        """That of the folder, or of the zip without its ending."""
        inner = self.within.rstrip("/")
        return posixpath.basename(inner) if inner else self.root.resolve().name.removesuffix(".zip")


def read_file(path: Path) -> bytes:
    """The content of a regular file. Raises InputError."""
    try:
        return read_regular(path, _LARGEST)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def open_place(path: Path) -> Place | None:
    """A folder or a zip; None for any other file."""
    return Place(path) if path.is_dir() or zipfile.is_zipfile(path) else None


def stem_of(name: str | os.PathLike[str]) -> str:
    """The name of a file without its folders and its ending."""
    return PurePosixPath(os.fspath(name)).stem


def decode(content: bytes, where: str) -> str:
    """A text file's text. Raises InputError for what is none."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is no text file: its byte {error.start} is not UTF-8") from None
