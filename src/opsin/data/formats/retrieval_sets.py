"""Data sets of metric learning, as they are published: half of the classes is to train, the others to test.

CUB-200-2011 (Wah et al. 2011): images.txt and image_class_labels.txt, "1 001.Black_footed_Albatross/x.jpg" and "1 1",
over a folder images; the first half of the classes is train, as Song et al. 2016, arXiv:1511.06452, has it. Stanford
Online Products (the same paper): Ebay_train.txt and Ebay_test.txt with the columns image_id, class_id, super_class_id
and path.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from opsin.data.formats.format import Claim, Format
from opsin.data.formats.values import find_inside, is_file, read_text, read_whole
from opsin.data.identities import Identities
from opsin.data.inputs import ImageFiles
from opsin.data.source import Source, Split
from opsin.errors import InputError

_CUB = ("images.txt", "image_class_labels.txt")
_SOP = {"train": "Ebay_train.txt", "test": "Ebay_test.txt"}


def _rows(file: Path, width: int) -> Iterator[tuple[str, list[str]]]:
    """The words of each line, and where it stands."""
    for number, line in enumerate(read_text(file).splitlines(), 1):
        words = line.split(maxsplit=width - 1)
        if words and len(words) != width:
            raise InputError(f"{file} line {number}: {len(words)} words; expected {width}, separated by blanks")
        if words:
            yield f"{file} line {number}", words


def _number(where: str, word: str) -> int:
    try:
        return read_whole(word)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None


def _split(images: list[str], labels: list[int], names: dict[int, str]) -> Split:
    known = sorted(set(labels))
    place = {label: k for k, label in enumerate(known)}
    found = np.array([place[label] for label in labels], np.int64)
    return Split(ImageFiles(images), Identities(found, [names.get(label, str(label)) for label in known]))


def _claims_cub(path: Path) -> Claim:
    return 2 if path.is_dir() and all(is_file(path / name) for name in _CUB) else 0


def _open_cub(path: Path) -> Source:
    files = {_number(where, words[0]): words[1] for where, words in _rows(path / _CUB[0], 2)}
    labels: dict[int, int] = {}
    for where, (image, label) in _rows(path / _CUB[1], 2):
        number = _number(where, image)
        if number not in files:
            raise InputError(f"{where}: image {number} is not in {path / _CUB[0]}; take both lists of one release")
        labels[number] = _number(where, label)
    if missing := [number for number in files if number not in labels]:
        raise InputError(f"{path / _CUB[1]} has no class for image {missing[0]} and {len(missing) - 1:,} more")
    names = {labels[number]: Path(file).parts[0] for number, file in files.items()}
    classes = sorted(set(labels.values()))
    first = set(classes[: len(classes) // 2])
    splits = {}
    for key, inside in (("train", True), ("test", False)):
        chosen = [number for number in files if (labels[number] in first) == inside]
        images = [str(find_inside(files[number], [path / "images", path])) for number in chosen]
        splits[key] = _split(images, [labels[number] for number in chosen], names)
    return Source(path.name, "CUB-200-2011", splits)


def _claims_sop(path: Path) -> Claim:
    return 2 if path.is_dir() and all(is_file(path / name) for name in _SOP.values()) else 0


def _open_sop(path: Path) -> Source:
    splits = {}
    for key, file in _SOP.items():
        rows = [(where, words) for where, words in _rows(path / file, 4) if words[0] != "image_id"]
        labels = [_number(where, words[1]) for where, words in rows]
        images = [str(find_inside(words[3].strip(), [path])) for _, words in rows]
        splits[key] = _split(images, labels, {})
    return Source(path.name, "Stanford Online Products", splits)


CUB = Format("CUB-200-2011", "identities", "CUB-200-2011 (image_class_labels.txt)", _claims_cub, _open_cub)
SOP = Format("Stanford Online Products", "identities", "Ebay_train.txt and Ebay_test.txt", _claims_sop, _open_sop)
