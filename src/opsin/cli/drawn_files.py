"""Where drawn answers go: under the names and folders of what they were drawn on, never two to one file.

A file that was found in a folder, or by a pattern, keeps the folders below it; a file given by itself goes to the top.
Inputs whose names would meet, also where case is no difference, keep as many of the folders above them as it takes to
tell them apart, and numbers after that.
"""

from __future__ import annotations

import os
import re
import unicodedata
import urllib.parse
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from opsin.engine.inputs import is_address, is_live, is_video, root_of, searches_below
from opsin.errors import InputError, say

# What is written as it was: by Pillow's name, with the options of a high quality. All else becomes PNG.
WRITTEN = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), ("JPEG", {"quality": 95, "subsampling": 0})),
    ".png": ("PNG", {}),
    ".bmp": ("BMP", {}),
    ".webp": ("WEBP", {"quality": 95}),
    **dict.fromkeys((".tif", ".tiff"), ("TIFF", {"compression": "tiff_adobe_deflate"})),
}


def check_out(out: Path, inputs: Sequence[str | Path]) -> None:
    """Raise InputError where a second run would find the drawings of the first among its inputs."""
    place = Path(os.path.realpath(out))
    for given in inputs:
        root = root_of(given)
        if root is None:
            continue
        folder = Path(os.path.realpath(root))
        if place == folder:
            relation = "is"
        elif place.is_relative_to(folder) and searches_below(given):
            relation = "lies inside"
        elif folder.is_relative_to(place):
            relation = "contains"
        else:
            continue
        raise InputError(
            f"--out {out} {relation} the input folder {root}, where a second run would predict on its own drawings; "
            "choose a folder beside it"
        )


def plan(found: Sequence[Any], inputs: Sequence[str | Path], out: Path) -> list[Path]:
    """The file for each input's drawing, in order; the same input given twice has one. Nothing is written yet.

    found: what `inputs` stand for. Says which were renamed. Raises InputError where a drawing would replace an input.
    """
    roots = [root for given in inputs if (root := root_of(given)) is not None]
    sources = {str(one): _parts(place, one, roots) for place, one in enumerate(found)}
    depths = {name: depth for name, (_, depth) in sources.items()}
    while deeper := _told_apart_deeper({name: parts for name, (parts, _) in sources.items()}, depths):
        for name in deeper:
            depths[name] += 1
    names = _numbered({name: _name(parts, depths[name]) for name, (parts, _) in sources.items()})
    changed = [name for name, (parts, depth) in sources.items() if names[name] != _name(parts, depth)]
    if changed:
        first = f"{changed[0]} as {out / names[changed[0]]}"
        rest = f", and {len(changed) - 1} more alike" if changed[1:] else ""
        say(f"opsin: inputs of the same name are written under different ones: {first}{rest}")
    targets = [out / names[str(one)] for one in found]
    given = {os.path.realpath(one) for one in found if isinstance(one, Path)}
    for target in targets:
        if os.path.realpath(target) in given:
            raise InputError(f"--out {out} would overwrite {target}; choose another folder")
    return targets


def _parts(place: int, one: Any, roots: Sequence[Path]) -> tuple[tuple[str, ...], int]:
    """The parts of a name, from the outermost folder that may be shown, and how many are shown of themselves."""
    if is_live(one):
        return (f"{_clean(str(one).replace('://', '_'))}.mp4" if not str(one).isdigit() else f"webcam_{one}.mp4",), 1
    if is_address(one):
        address = urllib.parse.urlsplit(str(one))
        inside = [part for part in map(_clean, urllib.parse.unquote(address.path).split("/")) if part]
        parts = (_clean(address.hostname or "address"), *inside)
        return (*parts[:-1], _with_suffix(parts[-1], one)), 1
    if not isinstance(one, Path):
        return (_with_suffix("stdin" if one == "-" else _clean(str(one)) or f"{place}", one),), 1
    absolute = Path(os.path.abspath(one))  # noqa: PTH100  # a link keeps its name
    above = absolute.parts[1:] if absolute.anchor else absolute.parts
    root = next((root for root in roots if one.is_relative_to(root)), one.parent)
    return (*above[:-1], _with_suffix(above[-1], one)), len(one.relative_to(root).parts)


def _with_suffix(name: str, one: Any) -> str:
    suffix = PurePosixPath(name).suffix.lower()
    if is_video(one):
        return name if suffix == ".mp4" else f"{name}.mp4"
    return name if suffix in WRITTEN else f"{name}.png"


def _clean(part: str) -> str:
    """A part of an address that no file system minds, without what it says of a user."""
    return re.sub(r"[^\w.-]+", "_", part.rpartition("@")[2])[-100:].strip("._")


def _name(parts: Sequence[str], depth: int) -> str:
    return "/".join(parts[-depth:])


def _key(name: str) -> str:
    """Equal for names that are one on some file system."""
    return unicodedata.normalize("NFC", name).casefold()


def _told_apart_deeper(sources: dict[str, tuple[str, ...]], depths: dict[str, int]) -> list[str]:
    """The inputs whose names meet those of others that lie in other folders."""
    meeting: dict[str, set[str]] = {}
    for source, parts in sources.items():
        meeting.setdefault(_key(_name(parts, depths[source])), set()).add(_key("/".join(parts)))
    return [
        source
        for source, parts in sources.items()
        if len(meeting[_key(_name(parts, depths[source]))]) > 1 and depths[source] < len(parts)
    ]


def _numbered(names: dict[str, str]) -> dict[str, str]:
    """The names, with a number in each but the first of those that no folder tells apart."""
    taken = {_key(str(folder)) for name in names.values() for folder in PurePosixPath(name).parents}
    every = {_key(name) for name in names.values()}
    made: dict[str, str] = {}
    for source, name in names.items():
        chosen, number = name, 1
        while _key(chosen) in taken or (number > 1 and _key(chosen) in every):
            number += 1
            chosen = str(
                PurePosixPath(name).with_name(f"{PurePosixPath(name).stem}_{number}{PurePosixPath(name).suffix}")
            )
        taken.add(_key(chosen))
        made[source] = chosen
    return made
