"""Fonts: where they are, which characters they have, and the ink of a character.

A font that lacks a character draws a box, or nothing, in its place: both are found by comparing the ink with that of a
code point that no font may have.
"""

from __future__ import annotations

import glob
import importlib
import os
import random
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import ImageFont

from opsin.data.truth import Problem
from opsin.errors import InputError

_ENDINGS = (".ttf", ".otf", ".ttc")
_OF_MATPLOTLIB = (  # the others there are of symbols, or have characters in the places of others
    *(f"DejaVuSans{style}.ttf" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}.ttf" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}.ttf" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}.ttf" for style in ("", "Bol", "Italic", "BolIta")),
)
_SYSTEM = {  # as each system documents its folders of fonts
    "linux": ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts"),
    "darwin": ("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"),
    "win32": (r"C:\Windows\Fonts", r"~\AppData\Local\Microsoft\Windows\Fonts"),
}
_CJK = "pylopdf_fonts_zh_cn"  # Noto Sans and Serif SC, of the extra `cjk`
_NOBODYS = "\uffff"  # Unicode guarantees that this is no character
_PLACEHOLDERS = "LastResort"  # a font of boxes, one for each block of Unicode
_SAMPLE = 100  # characters that show whether a font is of their script at all
_PROBE = 16  # pixels: the size at which inks are compared
SETS = ("built-in", "cjk", "system", "all")


class Face(NamedTuple):
    """A font. path: of its file, "" for Pillow's own; number: its place in a collection; name: for people."""

    path: str
    number: int
    name: str


@dataclass(frozen=True, eq=False)
class Glyph:
    """The ink of a character, uint8 (h, w). left, top: of its first pixel from the pen, on the baseline, y downward.

    advance: how far the pen moves on. All in pixels.
    """

    ink: np.ndarray
    left: int
    top: int
    advance: float


@dataclass(frozen=True)
class Choice:
    """The fonts that texts are set in. lacks: of each, which of the characters asked for it does not have."""

    faces: tuple[Face, ...]
    lacks: tuple[frozenset[str], ...]
    problems: tuple[Problem, ...] = ()

    def covering(self, text: str) -> list[Face]:
        """Those that have every character of a text."""
        return [face for face, lacks in zip(self.faces, self.lacks, strict=True) if lacks.isdisjoint(text)]

    def draw(self, draws: random.Random, text: str) -> Face:
        """One of those that have every character of a text, each as often. Raises InputError where there is none."""
        place = int(draws.random() * len(self.faces))
        if self.lacks[place].isdisjoint(text):  # mostly, and then the others need no look
            return self.faces[place]
        able = self.covering(text)
        if not able:
            raise InputError(f"no font has all characters of {text!r}; name fonts that do with fonts=")
        return able[int(draws.random() * len(able))]

    def settable(self, text: str) -> str:
        """A text less what no one font has beside the rest of it."""
        if any(lacks.isdisjoint(text) for lacks in self.lacks):
            return text
        kept = ("".join(one for one in text if one not in lacks) for lacks in self.lacks)
        return " ".join(max(kept, key=len).split())


def choose_fonts(wanted: str, characters: str) -> Choice:
    """Fonts for some characters. wanted: "built-in", "cjk", "system", "all", files, folders or patterns, joined by +.

    FILE#2 is the third font of a collection. A font that has less than half of the characters is left out, one that has
    most is used for the texts that it can set; both is a note among the problems. Raises InputError for a name without
    a font, and where no font is left.
    """
    faces, problems = _find(wanted)
    letters = "".join(one for one in dict.fromkeys(characters) if not one.isspace())
    kept: list[tuple[Face, frozenset[str]]] = []
    unfit: list[str] = []
    for face in faces:
        sample = letters[:: 1 + len(letters) // _SAMPLE]
        if 2 * len(missing_characters(face, sample)) > len(sample):
            unfit.append(face.name)
            continue
        if lacks := missing_characters(face, letters):
            problems.append(Problem("font", face.path, _lacks(face, lacks, len(letters)), "note"))
        kept.append((face, frozenset(lacks)))
    if unfit:
        reason = f"{_some(unfit, ', ')} have less than half of the {len(letters):,} characters; not used"
        problems.append(Problem("font", "", reason, "note"))
    nowhere = [one for one in letters if all(one in lacks for _, lacks in kept)]
    if nowhere:
        cjk = "" if find_spec(_CJK) else "; pip install 'opsin[cjk]' brings fonts for Chinese"
        raise InputError(
            f"no font of {wanted} has {len(nowhere):,} of {len(letters):,} characters, such as "
            f"{_some(nowhere)}{cjk}; name fonts with fonts=FILE or fonts=FOLDER"
        )
    return Choice(tuple(face for face, _ in kept), tuple(lacks for _, lacks in kept), tuple(problems))


def _lacks(face: Face, lacks: str, count: int) -> str:
    return f"{face.name} lacks {len(lacks):,} of {count:,} characters, {_some(lacks)}; used for texts without them"


def _some(names: Sequence[str], between: str = " ") -> str:
    """The first of some names, for people."""
    return between.join(names[:8]) + (f" and {len(names) - 8:,} others" if len(names) > 8 else "")


@lru_cache(maxsize=16_384)
def kerning(face: Face, size: int, first: str, second: str) -> float:
    """What is added between two characters, in pixels; mostly 0 or less."""
    return _load(face, size).getlength(first + second) - _advance(face, size, first) - _advance(face, size, second)


@lru_cache(maxsize=16_384)
def _advance(face: Face, size: int, character: str) -> float:
    return _load(face, size).getlength(character)


@lru_cache(maxsize=64)
def missing_characters(face: Face, characters: str) -> str:
    """Those of some characters that a font has no ink of its own for."""
    nobodys = glyph(face, _PROBE, _NOBODYS)

    def lacks(character: str) -> bool:
        own = glyph.__wrapped__(face, _PROBE, character)  # not kept: it is of a size that nothing else asks for
        return not own.ink.any() or (
            (own.left, own.top, own.ink.shape) == (nobodys.left, nobodys.top, nobodys.ink.shape)
            and np.array_equal(own.ink, nobodys.ink)
        )

    return "".join(one for one in characters if lacks(one))


@lru_cache(maxsize=16_384)  # about 1 KiB each
def glyph(face: Face, size: int, character: str, stroke: float = 0.0) -> Glyph:
    """The ink of a character. size: pixels of the em. stroke: pixels by which its outline is widened on every side."""
    font = _load(face, size)
    mask, (left, top) = font.getmask2(character, mode="L", stroke_width=stroke, anchor="ls")
    width, height = mask.size
    pixels: Any = mask  # Pillow documents that it is a sequence of bytes, its types do not
    ink = np.frombuffer(bytes(pixels), np.uint8).reshape(height, width)
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    if len(rows):
        ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        left, top = left + int(columns[0]), top + int(rows[0])
    else:
        ink = np.zeros((0, 0), np.uint8)
    return Glyph(ink, int(left), int(top), _advance(face, size, character))


@lru_cache(maxsize=512)
def _load(face: Face, size: int) -> ImageFont.FreeTypeFont:
    if not face.path:
        font = ImageFont.load_default(size)
        assert isinstance(font, ImageFont.FreeTypeFont)
        return font
    # The basic layout, which every Pillow has: texts are then the same everywhere.
    return ImageFont.truetype(face.path, size, index=face.number, layout_engine=ImageFont.Layout.BASIC)


def _find(wanted: str) -> tuple[list[Face], list[Problem]]:
    """The fonts that a choice names, each once. Raises InputError for a name without a font."""
    found: dict[str, Face] = {}
    problems: list[Problem] = []
    for name in wanted.split("+"):
        before = len(found)
        for path, index in _files(name):
            face = _open(path, index, problems)
            if face is not None:
                found.setdefault(face.name, face)
        if name in ("built-in", "all"):
            found.setdefault("Aileron Regular", Face("", 0, "Aileron Regular"))
        if len(found) == before and name not in ("system", "all"):
            raise _nothing(name, problems)
    return list(found.values()), problems


def _nothing(name: str, problems: Sequence[Problem]) -> InputError:
    if name == "cjk":
        return InputError("fonts=cjk needs the package pylopdf-fonts-zh-cn: pip install 'opsin[cjk]'")
    broken = f": {problems[-1].reason}" if problems else ""
    return InputError(f"there is no new font at {name}{broken}; expected {', '.join(SETS)}, a font file or a folder")


def _files(name: str) -> Iterable[tuple[str, int]]:
    """Files of fonts, each with a place in its collection."""
    if name in SETS:
        own = {"built-in": _of_matplotlib, "cjk": _of_the_extra, "system": _of_the_system}
        parts = list(own) if name == "all" else [name]
        return [(path, 0) for part in parts for path in own[part]()]
    path, _, index = name.partition("#")
    place = Path(path).expanduser()
    if place.is_dir():
        return [(file, 0) for file in _inside(place)]
    number = int(index) if index.isdigit() else 0
    return [(file, number) for file in ([str(place)] if place.exists() else sorted(glob.glob(str(place))))]  # noqa: PTH207


def _inside(folder: Path) -> list[str]:
    return sorted(
        os.path.join(at, file)  # noqa: PTH118  hundreds of files
        for at, _, files in os.walk(folder)
        for file in files
        if file.lower().endswith(_ENDINGS) and not file.startswith(_PLACEHOLDERS)
    )


def _of_matplotlib() -> list[str]:
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return [str(folder / name) for name in _OF_MATPLOTLIB if (folder / name).exists()]


def _of_the_extra() -> list[str]:
    if find_spec(_CJK) is None:
        return []
    package = importlib.import_module(_CJK)
    return [str(path) for path in (package.sans_path(), package.serif_path()) if Path(path).exists()]


@cache
def _of_the_system() -> list[str]:
    return [file for folder in _SYSTEM.get(sys.platform, ()) for file in _inside(Path(folder).expanduser())]


def _open(path: str, index: int, problems: list[Problem]) -> Face | None:
    """A font of a file; None for one that cannot be used, which is noted."""
    try:
        font = ImageFont.truetype(path, _PROBE, index=index, layout_engine=ImageFont.Layout.BASIC)
        font.getmask2("A", mode="L", anchor="ls")
    except (OSError, ValueError, SyntaxError) as error:
        reason = f"the font {path} cannot be used: {' '.join(str(error).split()) or type(error).__name__}"
        problems.append(Problem("font", path, reason, "warning"))
        return None
    return Face(path, index, " ".join(part for part in font.getname() if part))
