"""Cropped words whose texts are their files' names: `Rescue.png`, `Rescue_12.png`, MJSynth's `182_Rescue_7171.jpg`.

Any folders; those called train, val or test are splits. A number behind the last `_` counts copies and is no part of
the text; where every name is `number_text_number`, neither of both is.
"""

from __future__ import annotations

import re
from pathlib import Path

from opsin.data.formats.format import Claim, Format
from opsin.data.formats.text_crops import Crop, open_crops, with_subset
from opsin.data.formats.tree import SPLIT_NAMES
from opsin.data.source import Source
from opsin.errors import InputError
from opsin.image_files import IMAGE_SUFFIXES, find_files

_BETWEEN = re.compile(r"\d+_(.+)_\d+")
_BEFORE = re.compile(r"(.+?)(?:_\d+)?")
_COUNTER = re.compile(r"(?:img|image|word|line|crop|frame|dsc|pict?)?[_\- ]?\d+", re.I)


def _open(path: Path) -> Source:
    files = find_files(path, IMAGE_SUFFIXES)
    pattern = _BETWEEN if all(_BETWEEN.fullmatch(file.stem) for file in files) else _BEFORE
    counted = [file for file in files if pattern is _BEFORE and _COUNTER.fullmatch(file.stem)]
    if 2 * len(counted) > len(files):
        raise InputError(
            f"{path} has no list of its images' texts, and names such as {counted[0].name} that count them; add a "
            "labels.jsonl or gt.txt"
        )
    parts: dict[str, list[Crop]] = {}
    for file in files:
        inside = file.relative_to(path).parts[:-1]
        key = SPLIT_NAMES.get(inside[0].lower(), "all") if inside else "all"
        found = pattern.fullmatch(file.stem)
        parts.setdefault(key, []).append(Crop(str(file), found[1] if found else file.stem, str(file)))
    if "all" in parts and len(parts) > 1:
        raise InputError(f"{path} has images beside its folders of splits; move {parts['all'][0].file} into one")
    return open_crops(path.name, "names as texts", parts)


def _claims(path: Path) -> Claim:
    return 1 if path.is_dir() and find_files(path, IMAGE_SUFFIXES) else 0


FORMAT = with_subset(Format("names as texts", "texts", "images called as their texts", _claims, _open))
