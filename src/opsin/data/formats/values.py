"""How files of annotations say flags, numbers, identifiers and paths: one strict reading for all formats.

What is not understood raises ValueError with a reason that shows no more than the start of a value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from opsin.data.allowed_folders import is_allowed
from opsin.files import check_regular, read_regular

_TRUE, _FALSE = ("1", "true", "yes", "t", "y"), ("0", "false", "no", "f", "n", "")
_SHOWN = 40  # characters of a value in a message


def read_text(file: Path, encoding: str = "utf-8-sig") -> str:
    """The text of a regular file, line ends as they are. Raises OSError and UnicodeDecodeError."""
    return read_regular(file).decode(encoding)


def shown(value: Any) -> str:
    """A value as a message may hold it: the start of its representation, in one line."""
    if not isinstance(value, str | int | float | None):
        return f"a {type(value).__name__}"  # which may hold anything, itself too
    try:
        text = ascii(value[: _SHOWN + 1]) if isinstance(value, str) else repr(value)
    except ValueError:  # an integer of more digits than Python prints
        return "a number of thousands of digits"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def read_flag(value: Any) -> bool:
    """Whether a flag is set: a truth value, 0 or 1 as a number or a text ("0", "1.0"), true or false, yes or no.

    Nothing (None or an empty text) is false. Raises ValueError for all else.
    """
    if value is None or isinstance(value, bool):
        return bool(value)
    text = str(value).strip().lower() if isinstance(value, str) else value
    if isinstance(text, str) and text in (*_TRUE, *_FALSE):
        return text in _TRUE
    try:
        number = float(text)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if number not in (0.0, 1.0):
        raise ValueError(f"{shown(value)} is neither true nor false; expected 0 or 1")
    return number == 1.0


def read_number(value: Any) -> float:
    """A number, also of a text; it may be infinite or NaN. Raises ValueError."""
    try:
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            return float(value)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"{shown(value)} is not a number")


def read_whole(value: Any) -> int:
    """A whole number, also of a float or a text. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        number = read_number(value)
    except ValueError:
        number = 0.5
    if not number.is_integer():
        raise ValueError(f"{shown(value)} is not a whole number")
    return int(number)


def read_key(value: Any) -> int | str:
    """An identifier, as which 7, 7.0 and "7" are the same. Raises ValueError for what is neither number nor text."""
    if isinstance(value, str):
        text = value.strip()
        return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 and str(int(text)) == text else text
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"the id {shown(value)} is neither a whole number nor a text")
    return value


def as_posix(path: str) -> PurePosixPath:
    """A path as another computer wrote it, with slashes and without the letter of a drive."""
    if "\\" not in path and path[1:2] != ":":
        return PurePosixPath(path)
    slashes = path.replace("\\", "/")
    return PurePosixPath(slashes[2:] if slashes[1:2] == ":" else slashes)


def find_file(path: PurePosixPath, bases: Sequence[Path]) -> Path | None:
    """What another computer named: from each base, with fewer and fewer of its first folders; None where it is not.

    What lies outside of the data's folder comes last, to be refused; see `opsin.data.allowed_folders`.
    """
    places = [Path(path)] if path.is_absolute() else [base / path for base in bases]
    named = [place for place in places if place.exists()]
    if (found := next(filter(is_allowed, named), None)) is not None:
        return found
    parts = [part for part in path.parts if part not in ("/", "..", ".")]
    for skipped in range(len(parts)):
        for base in bases:
            if (place := base.joinpath(*parts[skipped:])).exists() and is_allowed(place):
                return place
    return named[0] if named else None


def read_head(file: Path, most: int = 4096) -> bytes:
    """The first bytes of a regular file; none of what is no such file or cannot be read."""
    try:
        check_regular(file)
        with file.open("rb") as opened:
            return opened.read(most)
    except OSError:
        return b""


def is_file(path: Path) -> bool:
    """Whether there is a file at a path, which may be one that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def find_inside(name: str, folders: Sequence[Path]) -> Path:
    """What an annotation names, below one of some folders and never above them; in the first where it is in none.

    With fewer and fewer of its own folders, as another computer may have written them.
    """
    parts = [part for part in as_posix(name.replace("\0", "")).parts if part not in ("/", "..", ".")]
    for skipped in range(len(parts)):
        for folder in folders:
            if is_file(place := folder.joinpath(*parts[skipped:])):
                return place
    return folders[0].joinpath(*parts)
