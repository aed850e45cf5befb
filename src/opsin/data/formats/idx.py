"""IDX files, the format of MNIST: `train-images-idx3-ubyte` with its labels, and `t10k-...`, plain or gzipped."""

from __future__ import annotations

import gzip
import math
import re
import zlib
from pathlib import Path

import numpy as np
from torch import Tensor

from opsin.data.formats import npz
from opsin.data.formats.format import Claim, Format
from opsin.data.labels import as_several
from opsin.data.source import Source
from opsin.errors import InputError
from opsin.files import MAX_BYTES, check_regular, read_regular

_NAME = re.compile(r"(?P<prefix>.*?)[-_.]?(?P<role>images|labels)[-_.]idx[134][-_.]ubyte(\.gz)?", re.IGNORECASE)
_SPLITS = {
    "train": "train",
    "t10k": "test",
    "test": "test",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "": "all",
}


def is_idx_folder(path: Path) -> bool:
    """Whether a folder holds IDX files."""
    return any(_NAME.fullmatch(file.name) for file in path.iterdir())


def open_idx(path: Path, multi_label: bool) -> Source:
    """A folder of IDX images and labels. Class names are numbers, or the lines of a classes.txt beside them."""
    found: dict[str, dict[str, Path]] = {}
    for file in sorted(path.iterdir()):
        match = _NAME.fullmatch(file.name)
        if match is None:
            continue
        split = _SPLITS.get(re.split(r"[-_.]", match["prefix"].lower())[-1])
        if split is None:
            raise InputError(f"{file}: the name tells no split; expected train-... or t10k-...")
        role = match["role"].lower()
        if role in found.setdefault(split, {}):
            raise InputError(
                f"{path} has both {found[split][role].name} and {file.name}; keep one data set in a folder"
            )
        found[split][role] = file
    images: dict[str, Tensor] = {}
    labels: dict[str, tuple[np.ndarray, str]] = {}
    for split, files in found.items():
        if len(files) < 2:
            there = next(iter(files.values()))
            raise InputError(f"{there} has no {'labels' if 'images' in files else 'images'} file beside it")
        images[split] = npz.as_images(read_idx(files["images"]), str(files["images"]))
        labels[split] = (read_idx(files["labels"]), str(files["labels"]))
    prefixes = {split: str(files["images"]) for split, files in found.items()}
    order = [split for split in ("train", "val", "test", "all") if split in found]
    images = {split: images[split] for split in order}
    labels = {split: labels[split] for split in order}
    return npz.build(path.name, "idx", images, labels, prefixes, npz.read_classes(path), multi_label)


def read_idx(path: Path) -> np.ndarray:
    """The array of unsigned bytes in an IDX file. LeCun's page: two zeros, type, rank, sizes of 4 bytes, data."""
    try:
        data = _unzip(path) if path.suffix.lower() == ".gz" else read_regular(path)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is damaged or truncated: {error}; download it again") from error
    rank = data[3] if len(data) > 3 else 0
    if data[:3] != b"\x00\x00\x08" or rank == 0 or len(data) < 4 + 4 * rank:
        raise InputError(f"{path} is no IDX file of unsigned bytes; expected one that starts with the bytes 00 00 08")
    shape = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank)]
    body = len(data) - 4 - 4 * rank
    if body != math.prod(shape):
        raise InputError(f"{path} is truncated or damaged: its header promises {math.prod(shape)} bytes, it has {body}")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _unzip(path: Path) -> bytes:
    """What a gzip file of an array unpacks to; not more of it than the array's header promises, and a byte."""
    check_regular(path)
    with gzip.open(path, "rb") as file:
        head = file.read(4)
        head += file.read(4 * head[3]) if len(head) == 4 and head[:3] == b"\x00\x00\x08" else b""
        sizes = [int.from_bytes(head[i : i + 4], "big") for i in range(4, len(head), 4)]
        if math.prod(sizes) > MAX_BYTES:
            raise InputError(f"{path}: its header promises {math.prod(sizes):,} bytes, more than are read")
        return head + file.read(math.prod(sizes) + 1)


def _claims(path: Path) -> Claim:
    return 2 if path.is_dir() and is_idx_folder(path) else 0


def _open(path: Path, multi_label: bool = False) -> Source:
    return as_several(open_idx(path, multi_label), multi_label)


FORMAT = Format("IDX", "class labels", "a folder of IDX files", _claims, _open, ("multi_label",))
