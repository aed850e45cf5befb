"""Which files of a folder are images, by one rule wherever a folder is searched: for prediction and as data.

Left out is what systems and programs hide in folders: names that begin with a dot (`.ipynb_checkpoints`, `._1.jpg`),
`__MACOSX`, `@eaDir`, `Thumbs.db` and `desktop.ini`. Linked folders are followed, also to a folder that is there by
itself (val -> test), but not to one above. A folder is no image, whatever its name; a pipe, a socket or a device of an
image's name counts as a file, so that it is refused by name where it is read.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TypeAlias

from opsin.errors import InputError, name_too_long

# The encodings that are read, by Pillow's names, and how their files end. Pillow's other readers are left out: some run
# programs (EPS), some are no images (video, fonts, containers).
ENDINGS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".mpo"),
    "PNG": (".png",),
    "BMP": (".bmp",),
    "DIB": (".bmp",),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "AVIF": (".avif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "JPEG2000": (".jp2",),
}
IMAGE_SUFFIXES = frozenset(ending for endings in ENDINGS.values() for ending in endings)
VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"})
_MOST_LINKS = 8  # to one folder that are followed: links in a ring would lead on without end
_Listed: TypeAlias = dict[tuple[str, int | None], tuple[list[str], list[str]]]
_listed: ContextVar[_Listed | None] = ContextVar("_listed", default=None)  # see `remembering`
_LEFT_OUT = frozenset({"__macosx", "@eadir", "thumbs.db", "desktop.ini"})


def is_left_out(name: str) -> bool:
    """Whether a file or folder of this name is no part of what a person put into a folder."""
    return name.startswith(".") or name.lower() in _LEFT_OUT


def walk(folder: str | Path) -> tuple[list[str], list[str]]:
    """The files and the folders below a folder, by their paths from it, with slashes and in no promised order.

    A link to a file that is not there counts as a file, so that it is reported. Raises InputError for a folder that
    cannot be looked into.
    """
    files: list[str] = []
    folders: list[str] = []
    seen: Counter[str] = Counter()
    waiting: list[tuple[str, str, tuple[str, ...]]] = [(os.fspath(folder), "", ())]
    while waiting:
        place, prefix, above = waiting.pop()
        if above and not os.path.islink(place):  # noqa: PTH114  # realpath asks for every folder above
            real = os.path.join(above[-1], os.path.basename(place))  # noqa: PTH118, PTH119
        else:
            real = os.path.realpath(place)
        if real in above:
            continue
        if prefix:
            folders.append(prefix[:-1])
        seen[real] += 1
        if seen[real] > _MOST_LINKS:
            continue
        names, inside = _look_into(place)
        files += [prefix + name for name in names]
        below = [(os.path.join(place, name), f"{prefix}{name}/", (*above, real)) for name in inside]  # noqa: PTH118
        waiting += reversed(below)
    return files, folders


def find_files(folder: str | Path, suffixes: Collection[str], *, below: bool = True) -> list[Path]:
    """The files with some endings in a folder, sorted; those of the folders below it too unless below=False.

    suffixes: in lower case, with their dot. Raises InputError for a folder that cannot be looked into.
    """
    names = walk(folder)[0] if below else _look_into(folder)[0]
    start = Path(folder)
    return sorted(start / name for name in names if os.path.splitext(name)[1].lower() in suffixes)  # noqa: PTH122


def list_folder(folder: str | Path) -> tuple[list[str], list[str]]:
    """The names of the files and of the folders in a folder, each sorted. Raises InputError as `walk` does."""
    listed = _listed.get()
    if listed is not None and (known := listed.get((os.fspath(folder), None))) is not None:
        return known
    names, inside = _look_into(folder)
    found = sorted(names), sorted(inside)
    if listed is not None:
        listed[os.fspath(folder), None] = found
    return found


def first_files(folder: str | Path, most: int = 200) -> list[str]:
    """The names of some files in a folder, sorted, of which no more than `most` are looked at; none where it is not.

    For a first look, which takes as long in a folder of a million files.
    """
    listed = _listed.get()
    if listed is not None and (known := listed.get((os.fspath(folder), most))) is not None:
        return known[0]
    names: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry, _ in zip(entries, range(most), strict=False):
                if not is_left_out(entry.name) and not entry.is_dir():
                    names.append(entry.name)
    except OSError:
        return []
    names = sorted(names)
    if listed is not None:
        listed[os.fspath(folder), most] = names, []
    return names


@contextmanager
def remembering() -> Iterator[None]:
    """Within the block, what `list_folder` and `first_files` found once is not looked for again."""
    token = _listed.set({} if _listed.get() is None else _listed.get())
    try:
        yield
    finally:
        _listed.reset(token)


def _look_into(folder: str | Path) -> tuple[list[str], list[str]]:
    """The names of the files in a folder; and of the folders, sorted, the linked ones last: a real one comes first."""
    files: list[str] = []
    folders: list[tuple[bool, str]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_left_out(entry.name):
                    continue
                linked = entry.is_symlink()
                if os.path.isdir(entry.path) if linked else entry.is_dir():  # noqa: PTH112  # is_dir() raises at rings
                    folders.append((linked, entry.name))
                else:
                    files.append(entry.name)
    except OSError as error:
        why = f"cannot look into {error.filename}: {(error.strerror or str(error)).lower()}"
        raise InputError(name_too_long(error) or why) from error
    return files, [name for _, name in sorted(folders)]
