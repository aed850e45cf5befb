"""Cropped words in LMDB, as the deep-text benchmark, ABINet, PARSeq and MMOCR have them: `data.mdb` in a folder.

Keys are `num-samples`, and from 1 on `image-000000001`, an encoded image, and `label-000000001`, its text. A folder of
such folders is split by their names: training, validation, evaluation; several of one split are taken together.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from opsin.data.formats.format import Claim, Format
from opsin.data.formats.text_crops import Crop, open_crops, with_subset
from opsin.data.formats.tree import SPLIT_NAMES
from opsin.data.formats.values import read_head
from opsin.data.images import UnreadableImage, decode, read_size
from opsin.data.inputs import Inputs
from opsin.data.lmdb_files import Lmdb
from opsin.data.source import Source
from opsin.data.truth import Problem
from opsin.errors import InputError
from opsin.image_files import list_folder

_FILE, _COUNT = "data.mdb", b"num-samples"
_SPLITS = {**SPLIT_NAMES, "evaluation": "test", "eval": "test"}
_DEEPEST = 3  # folders below a split's: training/MJ/MJ_train


class LmdbImages(Inputs):
    """Encoded images in databases. files: of each example the number of its database and its own within, from 1."""

    stored = True

    def __init__(self, databases: Sequence[Lmdb], files: np.ndarray) -> None:
        self.databases, self.files = databases, files

    def __len__(self) -> int:
        return len(self.files)

    def name(self, i: int) -> str:
        database, number = self.files[i].tolist()
        return f"{Path(self.databases[database].path).parent}/image-{number:09d}"

    def encoded(self, i: int) -> bytes:
        database, number = self.files[i].tolist()
        try:
            found = self.databases[database].get(b"image-%09d" % number)
        except InputError as error:
            raise UnreadableImage(self.name(i), str(error)) from error
        if found is None:
            raise UnreadableImage(self.name(i), "there is no such key")
        return found

    def read(self, i: int) -> Tensor:
        return decode(self.encoded(i), self.name(i))

    def read_encoded(self, i: int) -> tuple[Tensor, bytes]:
        encoded = self.encoded(i)
        return decode(encoded, self.name(i)), encoded

    def size(self, i: int) -> tuple[int, int]:
        return read_size(self.encoded(i), self.name(i))

    def select(self, places: np.ndarray) -> LmdbImages:
        return LmdbImages(self.databases, self.files[places])


def _databases(path: Path) -> dict[str, list[Path]]:
    """From splits to the folders of databases of images."""
    if _is_database(path):
        return {_SPLITS.get(path.name.lower(), "all"): [path]}
    found: dict[str, list[Path]] = {}
    for name in list_folder(path)[1]:
        key = _SPLITS.get(name.lower(), "all")
        if inside := _below(path / name, _DEEPEST):
            found.setdefault(key, []).extend(inside)
    return found


def _below(folder: Path, depth: int) -> list[Path]:
    if _is_database(folder):
        return [folder]
    return [one for name in list_folder(folder)[1] for one in _below(folder / name, depth - 1)] if depth else []


def _is_database(folder: Path) -> bool:
    """Whether a folder holds a database with a number of samples and with images."""
    if not (folder / _FILE).is_file() or read_head(folder / _FILE, 20)[16:20] != b"\xde\xc0\xef\xbe":
        return False
    try:
        database = Lmdb(str(folder / _FILE))
        return database.get(_COUNT) is not None and database.get(b"image-%09d" % 1) is not None
    except InputError:
        return False


def _crops(database: Lmdb, number: int, problems: list[Problem]) -> list[Crop]:
    where = str(Path(database.path).parent)
    said = database.get(_COUNT) or b""
    if not said.strip().isdigit() or not 0 < int(said) <= len(database):
        raise InputError(f"{where}: num-samples is {said[:20].decode('latin-1')!a} of {len(database)} keys")
    crops = []
    for one in range(1, int(said) + 1):
        key = f"label-{one:09d}"
        value = database.get(key.encode())
        if value is None:
            problems.append(Problem("broken_annotation", f"{where} {key}", "there is no such key"))
            continue
        try:
            crops.append(Crop(f"{number} {one}", value.decode("utf-8"), f"{where} {key}"))
        except UnicodeDecodeError:
            problems.append(Problem("wrong_encoding", f"{where} {key}", "is not UTF-8; save it as UTF-8"))
    return crops


def _open(path: Path) -> Source:
    problems: list[Problem] = []
    databases: list[Lmdb] = []
    parts: dict[str, list[Crop]] = {}
    found = _databases(path)
    if "all" in found and len(found) > 1:
        raise InputError(f"{path} has {found['all'][0].name} beside folders of splits; name one of them, or move it")
    for key, folders in found.items():
        for folder in folders:
            databases.append(Lmdb(str(folder / _FILE)))
            parts.setdefault(key, []).extend(_crops(databases[-1], len(databases) - 1, problems))

    def inputs(crops: Sequence[Crop]) -> Inputs:
        return LmdbImages(databases, np.array([one.file.split() for one in crops], np.int64).reshape(-1, 2))

    return open_crops(path.name, "LMDB of words", parts, problems, inputs)


def _claims(path: Path) -> Claim:
    return 2 if path.is_dir() and _databases(path) else 0


FORMAT = with_subset(Format("LMDB of words", "texts", "LMDB of words (data.mdb with num-samples)", _claims, _open))
