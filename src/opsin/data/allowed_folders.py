"""Which files a data set may name: those in its own folder, and in folders that the user names besides.

Lists and annotations name images by their paths, and a foreign one may name any file of the machine. What leaves the
data's folder is refused: an absolute path, `..`, or a `..` that follows a link elsewhere. A link within the folder is
what its owner made, so what it leads to counts as inside. Of a single file the data's folder is the one that it lies
in; where that is called annotations, labels, lists or the like, the one above.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from opsin.errors import InputError

_ANNOTATIONS = re.compile(
    r"annot\w*|anns?|labels?|lists?|csvs?|jsons?|xmls?|meta(data)?|boxes|(\w+_)?splits?|ground_?truths?|gt", re.I
)
_MOST_FOLDERS = 3  # that a message names


class _Bounds:
    """The folders whose files may be read. home: that of the data, for messages."""

    def __init__(self, home: str, folders: Iterable[str | Path]) -> None:
        self.home = home
        self.starts: list[str] = []
        self.real: list[str] = []
        for folder in (home, *folders):
            self.add(folder)

    def add(self, folder: str | Path) -> None:
        place = _plain(os.fspath(folder))
        self.starts.append(place.rstrip(os.sep) + os.sep)
        self.real.append(os.path.realpath(place).rstrip(os.sep) + os.sep)

    def hold(self, path: str) -> bool:
        for start in self.starts:
            if path.startswith(start) and "/.." not in path:
                return True
        if any(f"{os.path.realpath(path)}{os.sep}".startswith(start) for start in self.real):
            return True
        return any(f"{_plain(path)}{os.sep}".startswith(start) for start in self.starts)


def _plain(path: str) -> str:
    """A path without `..`: as it is written, or where a link lies before one, as it is followed."""
    plain = os.path.abspath(path)  # noqa: PTH100  # links stay
    through = "/.." in path and os.path.realpath(path) != os.path.realpath(plain)
    return os.path.realpath(path) if through else plain


_also: ContextVar[tuple[str, ...]] = ContextVar("_also", default=())
_bounds: ContextVar[_Bounds | None] = ContextVar("_bounds", default=None)


@contextmanager
def bounded(source: Path, allow: Sequence[str | Path] = ()) -> Iterator[None]:
    """Within the block, `check_allowed` holds files against the folder of a source, and those that are allowed."""
    home = Path(_plain(os.fspath(source)))
    if not home.is_dir():
        home = home.parent
        home = home.parent if _ANNOTATIONS.fullmatch(home.name) else home
    token = _bounds.set(_Bounds(str(home), [Path(folder).expanduser() for folder in (*allow, *_also.get())]))
    try:
        yield
    finally:
        _bounds.reset(token)


@contextmanager
def allowing(folders: Iterable[str | Path]) -> Iterator[None]:
    """Within the block, every source that is opened may name files in some folders too."""
    token = _also.set((*_also.get(), *map(str, folders)))
    try:
        yield
    finally:
        _also.reset(token)


def is_allowed(path: str | Path) -> bool:
    """Whether a file or folder is within what may be read; outside of `bounded` everything is."""
    bounds = _bounds.get()
    return bounds is None or bounds.hold(os.fspath(path))


def trust(folder: str | Path) -> None:
    """Count a folder as the data's own: one beside it, which a reader of a format looks into."""
    if (bounds := _bounds.get()) is not None:
        bounds.add(folder)


def trust_beside(file: Path, named: Iterable[str]) -> None:
    """Count folders one step above a file, and into a folder of a name there, as the data's own: `../datasets/x`."""
    for name in named:
        parts = Path(name.replace("\\", "/")).parts
        place = file.parent / Path(*parts)
        if len(parts) > 1 and parts[0] == ".." and ".." not in parts[1:] and place.is_dir():
            trust(place)


def check_allowed(paths: Iterable[str | Path], where: str | Path) -> None:
    """Raise InputError for files that are there and may not be read. where: the file that names them."""
    bounds = _bounds.get()
    if bounds is None:
        return
    outside = [path for path in map(str, paths) if not bounds.hold(path) and os.path.lexists(path)]
    if not outside:
        return
    places = [Path(_plain(path)) for path in outside]
    folders = sorted({str(place if place.is_dir() else place.parent) for place in places})
    common = os.path.commonpath(folders)
    if common != os.sep:  # not all of the machine
        folders = [common]
    allow = f"[{', '.join(map(_quoted, folders[:_MOST_FOLDERS]))}]"
    flags = " ".join(f"--allow {shlex.quote(folder)}" for folder in folders[:_MOST_FOLDERS])
    more = f", one of {len(outside):,} files" if len(outside) > 1 else ""
    raise InputError(
        f"{where} names {outside[0]}{more} outside of the data's folder {bounds.home}; if it is meant, allow it: "
        f"--set {shlex.quote(f'data.allow={allow}')} (opsin data, opsin eval: {flags}; "
        f"data.open(..., allow={folders[:_MOST_FOLDERS]!r}))"
    )


def _quoted(folder: str) -> str:
    """A folder as an item of a list in YAML."""
    return folder if re.fullmatch(r"[\w./+-]+", folder) else f'"{folder}"'
