"""What a person may give to predict on, found: files, folders, patterns, addresses, cameras and standard input.

    photo.jpg  ~/photos  photos/*.jpg  photos/**/*.png      a file, a folder, what matches a pattern (** any depth)
    https://example.org/cat.jpg                             an address, fetched when its turn comes
    -                                                       an image's bytes on standard input
    scan.pdf  scan.pdf#page=3                               the pages of a PDF, or one
    clip.mp4  0  webcam:1  rtsp://camera/stream             a video: every frame has an answer of its own

A file that is there goes before every other meaning of its name. In a folder, and among what a pattern matches, images
are found by the rule of `opsin.image_files`. Nothing here imports torch, so that a wrong name is reported at once.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import sys
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from opsin import downloading
from opsin.engine.pdf_pages import PDF_SUFFIXES, PdfPage, find_pages, is_pdf
from opsin.errors import InputError
from opsin.image_files import IMAGE_SUFFIXES, VIDEO_SUFFIXES, find_files, is_left_out, list_folder, walk

NEEDS_VIDEO = "video needs PyAV, which is not installed: pip install 'opsin[video]'"
_KNOWN = IMAGE_SUFFIXES | VIDEO_SUFFIXES
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+)://")
_WEBCAM = re.compile(r"(?:webcam:)?(\d{1,3})|/dev/video(\d{1,3})")


class ReadOnce(str):
    """An address, a pipe, or "-": what is read but once, and so keeps its bytes for whoever draws on the image."""

    __slots__ = ("_content",)
    _content: bytes

    def read(self) -> bytes:
        """The bytes that it stands for. Raises InputError with its name where there are none."""
        try:
            return self._content
        except AttributeError:
            self._content = self._read()
        return self._content

    def _read(self) -> bytes:
        if is_address(self):
            return downloading.read_address(str(self))
        try:
            with contextlib.nullcontext(sys.stdin.buffer) if self == "-" else Path(self).open("rb") as file:
                data = file.read(downloading.LARGEST + 1)  # a device may have no end
        except OSError as error:
            raise InputError(f"cannot read {_shown(self)}: {(error.strerror or str(error)).lower()}") from error
        if len(data) > downloading.LARGEST:
            raise InputError(f"{_shown(self)} gives more than {downloading.LARGEST:,} bytes, too much for an image")
        if not data:
            raise InputError(f"nothing came in on {_shown(self)}; expected the bytes of an image")
        return data


def is_address(given: Any) -> bool:
    """Whether something is an http or https address."""
    return isinstance(given, str) and given[:8].lower().startswith(("http://", "https://"))


def webcam_number(given: Any) -> int | None:
    """The number of the camera that is meant by 0, "0", "webcam:0" or "/dev/video0"; None where it is none.

    A file of that name goes first, unless it is the camera itself.
    """
    if isinstance(given, int) and not isinstance(given, bool):
        return given if 0 <= given < 1000 else None
    found = _WEBCAM.fullmatch(os.fspath(given)) if isinstance(given, str | Path) else None
    if found is None or (found[2] is None and os.path.lexists(found[0])):
        return None
    return int(found[1] or found[2])


def is_live(given: Any) -> bool:
    """Whether something is a camera: a webcam, or an rtsp address. It has no end."""
    return webcam_number(given) is not None or (isinstance(given, str) and given[:8].lower().startswith("rtsp"))


def is_video(given: Any) -> bool:
    """Whether something is a video by its ending, at an address too, or a camera."""
    if is_address(given):
        return os.path.splitext(urllib.parse.urlsplit(given).path)[1].lower() in VIDEO_SUFFIXES  # noqa: PTH122
    if isinstance(given, str | Path) and Path(given).suffix.lower() in VIDEO_SUFFIXES:
        return not os.path.isdir(given)  # noqa: PTH112
    return is_live(given)


def find_inputs(inputs: Sequence[str | Path], *, videos: bool = True, pdfs: bool = False) -> list[Any]:
    """What some texts and paths stand for: a Path of a file, `PdfPage`, `ReadOnce`, or a camera as it is given.

    Folders are searched through and sorted. videos, pdfs: find those in folders, and among what matches a pattern, too;
    a PDF by its own name always means its pages. Raises InputError for what is not there, and for a PDF that is named
    and cannot be opened; of one that was found with others the reading says so.
    """
    suffixes = (_KNOWN if videos else IMAGE_SUFFIXES) | (PDF_SUFFIXES if pdfs else frozenset())
    found: list[Any] = []
    for given in inputs:
        for one in _find(given, suffixes):
            try:
                found += find_pages(one) if is_pdf(one) else [one]
            except InputError:
                if is_pdf(_as_path(given)):
                    raise
                found.append(PdfPage(one))
    return found


def check_inputs(inputs: Sequence[str | Path]) -> None:
    """Raise InputError for what is certainly not there, whatever model it is for: reported before a model is loaded."""
    if sum(str(given) == "-" for given in inputs) > 1:
        raise InputError("- is given twice, and standard input can be read but once")
    for given in inputs:
        path = _as_path(given)
        if not str(given):
            _find(given, _KNOWN)
        if is_video(given) and find_spec("av") is None and (webcam_number(given) is None or find_spec("cv2") is None):
            raise InputError(f"{given}: {NEEDS_VIDEO}")
        if (is_address(given) or is_live(given)) and webcam_number(given) is None:
            downloading.check_online(str(given))
        elif str(given) == "-" and not path.exists():
            if sys.stdin is None or sys.stdin.isatty():
                raise InputError("- reads an image from standard input, and none comes in: ... - < photo.jpg")
        elif path.is_dir():
            if not walk(path)[0]:
                raise InputError(f"no images in {path}: it is empty")
        elif not is_live(given):
            _find(given, _KNOWN)


def root_of(given: str | Path) -> Path | None:
    """The folder that a folder, or a pattern, was searched from: its longest part without a pattern. None of a file."""
    path = _as_path(given)
    if path.is_dir():
        return path
    return _split_pattern(path)[0] if _is_pattern(str(given)) and not os.path.lexists(path) else None


def searches_below(given: str | Path) -> bool:
    """Whether a folder, or a pattern, finds what lies in new folders below its root."""
    path = _as_path(given)
    return path.is_dir() or len(_split_pattern(path)[1]) > 1


def _find(given: Any, suffixes: frozenset[str]) -> list[Any]:
    text = str(given)
    if isinstance(given, ReadOnce | PdfPage):
        return [given]
    if not text:
        raise InputError("an input is an empty text; expected a file, a folder, a pattern or an address")
    path = _as_path(given)
    if os.path.isdir(path):  # noqa: PTH112  # takes what no file can be called, where is_dir() raises
        return _find_in_folder(path, suffixes)
    if os.path.lexists(path):
        special = os.path.exists(path) and not os.path.isfile(path) and not is_live(given)  # noqa: PTH110, PTH113
        return [ReadOnce(text)] if special else [path]
    if is_pdf(path):  # one page of a file
        return [PdfPage(path)]
    if text == "-" or (is_address(given) and not is_video(given)):
        return [ReadOnce(text)]
    if is_video(given) and (is_address(given) or is_live(given)):
        return [given]
    if scheme := _SCHEME.match(text):
        raise InputError(f"{text}: addresses by {scheme[1]} are not read, only http, https and rtsp; download it first")
    if _is_pattern(text):
        return _find_by_pattern(path, suffixes)
    raise InputError(f"no file or folder at {path}")


def _find_in_folder(path: Path, suffixes: frozenset[str]) -> list[Path]:
    if not (found := find_files(path, suffixes)):
        raise InputError(f"no images in {path}; known endings: {', '.join(sorted(suffixes))}")
    return found


def _as_path(given: str | Path) -> Path:
    try:
        return Path(given).expanduser()
    except RuntimeError:  # there is no such user: it may be a file's name
        return Path(given)


# Patterns


def is_several(given: str | Path) -> bool:
    """Whether a text or path stands for a list of inputs: a folder, or a pattern that is no file's name."""
    path = _as_path(given)
    if os.path.isdir(path):  # noqa: PTH112
        return bool(str(given))
    if is_pdf(path):
        return os.path.lexists(path)  # and not one page of it
    return _is_pattern(str(given)) and not os.path.lexists(path) and not _SCHEME.match(str(given))


def _is_pattern(text: str) -> bool:
    return any(letter in text for letter in "*?[")


def _split_pattern(path: Path) -> tuple[Path, list[str]]:
    """The longest part without a pattern, and the rest part by part."""
    parts = list(path.parts)
    first = next((place for place, part in enumerate(parts) if _is_pattern(part)), len(parts))
    return Path(*parts[:first]), parts[first:]


def _find_by_pattern(path: Path, suffixes: frozenset[str]) -> list[Path]:
    root, rest = _split_pattern(path)
    matched = sorted(set(_match(root, rest))) if root.is_dir() else []
    if not matched:
        where = "" if root.is_dir() else f": there is no folder {root}"
        raise InputError(f"no file matches {path}{where}")
    # A pattern like photos/* means the images; files of unknown endings are meant only where nothing else is.
    return [file for file in matched if file.suffix.lower() in suffixes] or matched


def _match(folder: Path, parts: Sequence[str]) -> Iterator[Path]:
    """The files below a folder that match a pattern, part by part; maybe more than once."""
    part, *rest = parts
    if part == "**":
        for below in ("", *walk(folder)[1]):
            yield from _match(folder / below, rest or ["*"])
        return
    if not _is_pattern(part):
        names = ([part], [part]) if os.path.lexists(folder / part) else ([], [])
    else:
        names = list_folder(folder) if not part.startswith(".") else _hidden_too(folder)
    for name in names[1] if rest else names[0]:
        if not fnmatch.fnmatch(name, part) and name != part:
            continue
        if rest and (folder / name).is_dir():
            yield from _match(folder / name, rest)
        elif not rest and not (folder / name).is_dir():
            yield folder / name


def _hidden_too(folder: Path) -> tuple[list[str], list[str]]:
    """All names in a folder, for a pattern that begins with a dot."""
    inside = [path for path in folder.iterdir() if path.name.startswith(".") or not is_left_out(path.name)]
    return [p.name for p in inside if p.is_file()], [p.name for p in inside if p.is_dir()]


# In Python


def expand(given: Any, *, pdfs: bool = False) -> tuple[list[Any], bool]:
    """What `predict` is given, input by input, and whether it is a single one. pdfs: as of `find_inputs`.

    Several are: folders, patterns, PDF files, batches (arrays and tensors of four dimensions, arrays of texts) and
    everything else that can be gone through, whose folders and patterns are opened too. What cannot be one is left to
    the reader.
    """
    if isinstance(given, os.PathLike) and not isinstance(given, Path):
        given = os.fspath(given)
    if isinstance(given, PdfPage):
        return [given], True
    if isinstance(given, str | Path):
        return (find_inputs([given], videos=False, pdfs=pdfs), False) if is_several(given) else ([_single(given)], True)
    if not _is_collection(given):
        return [given], True
    items: list[Any] = []
    for one in given:
        several = isinstance(one, str | Path) and not isinstance(one, PdfPage) and is_several(one)
        items += find_inputs([one], videos=False, pdfs=pdfs) if several else [_single(one)]
    return items, False


def _single(given: Any) -> Any:
    """One input; a text that stands for something to be read but once is held, an unknown file left to the reader."""
    if not isinstance(given, str | Path) or isinstance(given, ReadOnce | PdfPage) or not str(given):
        return given
    path = _as_path(given)
    if is_pdf(path):
        return PdfPage(path)
    if os.path.lexists(path):
        special = os.path.exists(path) and not os.path.isfile(path) and not is_live(given)  # noqa: PTH110, PTH113
        return ReadOnce(given) if special else (given if str(path) == str(given) else path)
    return ReadOnce(given) if given == "-" or (is_address(given) and not is_video(given)) else given


def _is_collection(given: Any) -> bool:
    """Whether something holds inputs, rather than being one."""
    if isinstance(given, bytes | bytearray | memoryview | Mapping) or callable(getattr(given, "read", None)):
        return False
    dimensions = getattr(given, "ndim", None)
    if isinstance(dimensions, int):  # an array or a tensor; a series of names has one dimension and no number
        kind = getattr(getattr(given, "dtype", None), "kind", "")
        return dimensions == 4 or (dimensions == 1 and kind in ("O", "U", "T"))
    return isinstance(given, Sequence) or callable(getattr(type(given), "__iter__", None))


def _shown(given: str) -> str:
    return "standard input" if given == "-" else str(given)
