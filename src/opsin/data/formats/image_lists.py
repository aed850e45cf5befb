"""Lists of images, as ImageNet's: `train.txt` with lines `n01440764/1.JPEG 0`, and names in `synsets.txt`.

A line is a path and the number of its class, from 0; without a number, the first folder of the path is the class.
Names of classes are those of synset_words.txt or LOC_synset_mapping.txt (`n01440764 tench, Tinca tinca`: the first, if
no other class has it), words.txt, synsets.txt (a code a line, by number), or classes.txt, labels.txt, class_names.txt;
else the codes, or the numbers. Class folders called by codes, with such a file beside them, are called by its names.

Paths count from the folder, from a folder in it called images, data or as the split, or from images/ there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from opsin.data.formats.folders import SPLIT_NAMES, open_folder
from opsin.data.formats.format import Claim, Format
from opsin.data.formats.values import as_posix, find_inside, is_file, read_head, read_text
from opsin.data.inputs import ImageFiles
from opsin.data.labels import ClassLabels, as_several
from opsin.data.source import Source, Split
from opsin.errors import InputError
from opsin.image_files import IMAGE_SUFFIXES, list_folder

_HOMES = ("", "meta", "lists", "splits", "annotations")  # where lists and names lie
_WORDS = ("synset_words.txt", "LOC_synset_mapping.txt", "words.txt")
_ORDERED = ("synsets.txt", "wnids.txt", "classes.txt", "labels.txt", "class_names.txt", "classnames.txt")
_CODE = re.compile(r"n\d{8}")
_MOST_CLASSES = 100_000


def open_lists(path: Path) -> Source:
    """A folder with train.txt (val.txt, test.txt) and images; or of class folders called by codes, and their names."""
    lists = _lists(path)
    words = _words(path)
    if not lists:
        opened = open_folder(path, surely=True)
        names = _named(opened.classes, words)
        splits = {
            key: part.with_truth(part.kind.relabel(range(len(names)), names)) for key, part in opened.splits.items()
        }
        return replace(opened, splits=splits)
    ordered = _ordered(path)
    rows = {split: list(_read(file, split, path)) for split, file in lists.items()}
    numbers = {label for part in rows.values() for _, label in part if isinstance(label, int)}
    if numbers:
        most = max(numbers) + 1
        if ordered and most > len(ordered):
            raise InputError(f"{next(iter(lists.values()))} has the class {most - 1}, and {len(ordered)} are named")
        codes = ordered or [str(number) for number in range(most)]
        if not ordered and words and len(words) >= most:
            codes = list(words)[: len(words)]
    else:
        codes = sorted({str(label) for part in rows.values() for _, label in part})
    place = {code: k for k, code in enumerate(codes)}
    names = _named(codes, words)
    splits = {}
    for split, part in rows.items():
        labels = np.array([one if isinstance(one, int) else place[one] for _, one in part], np.int64)
        splits[split] = Split(ImageFiles([file for file, _ in part]), ClassLabels(labels, names))
    return Source(path.name, "image lists", splits)


def _read(file: Path, split: str, root: Path) -> Iterator[tuple[str, int | str]]:
    """Of each line its image, and the number or the name of its class. Raises InputError for one without either."""
    try:
        lines = read_text(file).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read as text: {getattr(error, 'strerror', None) or error}") from error
    folders = _folders(root, split)
    home: Path | None = None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, label = _parted(line)
        parts = as_posix(name).parts
        if label is None and len(parts) < 2:
            raise InputError(
                f"{file} line {number}: neither the number of a class nor a folder; expected path and class"
            )
        if label is not None and not 0 <= label < _MOST_CLASSES:
            raise InputError(f"{file} line {number}: the class is {label}; expected 0 to {_MOST_CLASSES - 1:,}")
        if home is None or not is_file(home / name):
            found = _find(name, folders)
            home = next((folder for folder in folders if found.is_relative_to(folder) and is_file(folder / name)), home)
        else:
            found = home / name
        yield str(found), parts[0] if label is None else label


def _parted(line: str) -> tuple[str, int | None]:
    """A line's path, and the number behind it."""
    name, blank, last = line.strip().rpartition("\t" if "\t" in line else " ")
    return (name.strip(), int(last)) if blank and re.fullmatch(r"\d{1,6}", last) else (line.strip(), None)


def _find(name: str, folders: Sequence[Path]) -> Path:
    """An image by its name, with an ending or without. Food-101's lists have none."""
    found = find_inside(name, folders)
    if is_file(found) or found.suffix.lower() in IMAGE_SUFFIXES:
        return found
    with_ending = (find_inside(f"{name}{ending}", folders) for ending in (".jpg", ".jpeg", ".png", ".JPEG"))
    return next((one for one in with_ending if is_file(one)), found)


def _folders(root: Path, split: str) -> list[Path]:
    same = [name for name, meaning in SPLIT_NAMES.items() if meaning == split]
    inside = ["", "images", "data", *same, *(f"images/{name}" for name in same), *(f"{name}/images" for name in same)]
    return [root / name for name in inside if (root / name).is_dir()]


def _lists(path: Path) -> dict[str, Path]:
    """From splits to the lists that name images that are there."""
    found: dict[str, Path] = {}
    for home in (path / name for name in _HOMES if (path / name).is_dir()):
        for name in list_folder(home)[0]:
            split = SPLIT_NAMES.get(name.lower().removesuffix(".txt")) if name.lower().endswith(".txt") else None
            if split is not None and split not in found and _lists_images(home / name, path, split):
                found[split] = home / name
    return {key: found[key] for key in ("train", "val", "test") if key in found} if "train" in found else {}


def _lists_images(file: Path, root: Path, split: str) -> bool:
    lines = read_head(file).decode("utf-8-sig", "replace").split("\n")[:5]
    rows = [_parted(line) for line in lines if line.strip()]
    known = [name for name, label in rows if label is not None or "/" in name]
    folders = _folders(root, split)
    return 2 * len(known) >= len(rows) > 0 and any(is_file(_find(name, folders)) for name in known[:3])


def _words(path: Path) -> dict[str, str]:
    """From codes to the words of a file of them."""
    for file in (path / home / name for home in _HOMES for name in _WORDS):
        if file.is_file():
            lines = [re.split(r"[\t ]", line.strip(), maxsplit=1) for line in _lines(file)]
            return {pair[0]: pair[1].strip() for pair in lines if len(pair) == 2 and _CODE.fullmatch(pair[0])}
    return {}


def _ordered(path: Path) -> list[str]:
    """The lines of a list of classes."""
    file = next((path / home / name for home in _HOMES for name in _ORDERED if (path / home / name).is_file()), None)
    names = [] if file is None else _lines(file)
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise InputError(f"{file} names {twice[0]!r} twice; each class must be named once")
    return names


def _lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in read_text(file).splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read as text: {getattr(error, 'strerror', None) or error}") from error


def _named(codes: Sequence[str], words: dict[str, str]) -> list[str]:
    """Codes as the first of their words where that is theirs alone, else all of them, else the codes themselves."""
    if not words or not set(codes) <= words.keys():
        return list(codes)
    first = Counter(words[code].split(",")[0].strip() for code in codes)
    whole = Counter(words[code] for code in codes)
    names = []
    for code in codes:
        short = words[code].split(",")[0].strip()
        names.append(short if first[short] == 1 else words[code] if whole[words[code]] == 1 else code)
    return names


def _claims(path: Path) -> Claim:
    if not path.is_dir():
        return 0
    if _lists(path):
        return 2
    if not any((path / name).is_file() for name in _WORDS):
        return 0
    folders = list_folder(path)[1]
    parts = [path / name for name in folders if name.lower() in SPLIT_NAMES]
    coded = [name for base in parts or [path] for name in islice(list_folder(base)[1], 100)]
    return 2 if coded and all(map(_CODE.fullmatch, coded)) else 0


def _open(path: Path, multi_label: bool = False) -> Source:
    return as_several(open_lists(path), multi_label)


FORMAT = Format("image lists", "class labels", "a list train.txt of path and class", _claims, _open, ("multi_label",))
