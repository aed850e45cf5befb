"""Images as arrays: npz files, and the checks that turn arrays into a split.

An npz holds images and labels: `train_x, train_y, test_x, test_y`, `x_train`, `train_images` and so on, or only
`images, labels`; optionally `classes`, their names. Images are (N, H, W), (N, H, W, C) or (N, C, H, W), C = 1 or 3:
uint8, integers in [0, 255], or floats in [0, 1] or [0, 255]. Labels are (N,) integers from 0, or (N, K) of 0 and 1.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from opsin.data.formats.folders import SPLIT_NAMES, main_files
from opsin.data.formats.format import Claim, Format
from opsin.data.formats.values import read_text
from opsin.data.inputs import ImageArray
from opsin.data.labels import MULTI_LABEL, ClassLabels, as_several
from opsin.data.source import Source, Split
from opsin.data.truth import Problem
from opsin.errors import InputError
from opsin.files import check_regular

_MOST_BYTES = 1 << 34  # of one array
_MOST_CLASSES = 100_000
_IMAGES = ("x", "images", "image", "imgs", "data")
_LABELS = ("y", "labels", "label", "targets", "target")


def open_npz(path: Path, multi_label: bool) -> Source:
    """An npz file. Pickled objects in it are not loaded."""
    arrays = _load(path)
    names = arrays.pop("classes", None)
    pairs = _pairs(path, arrays)
    raw = {split: (_checked(arrays[x], f"{path}:{x}"), arrays[y], x, y) for split, (x, y) in pairs.items()}
    images = {split: as_images(x, f"{path}:{key}") for split, (x, _, key, _) in _same_scale(path, raw).items()}
    labels = {split: (y, f"{path}:{key}") for split, (_, y, _, key) in raw.items()}
    prefixes = {split: f"{path}:{x}" for split, (x, _) in pairs.items()}
    known = [str(name) for name in names] if names is not None else read_classes(path.parent)
    return build(path.stem, "npz", images, labels, prefixes, known, multi_label)


def build(
    name: str,
    format_: str,
    images: dict[str, Tensor],
    labels: dict[str, tuple[np.ndarray, str]],
    prefixes: dict[str, str],
    known: list[str] | None,
    multi_label: bool,
) -> Source:
    """A source of arrays. labels: each with its name for messages. known: class names; numbers from 0 if None."""
    problems: list[Problem] = []
    cleaned = {split: _as_labels(y, where, multi_label) for split, (y, where) in labels.items()}
    most = max(_highest(y) for y in cleaned.values()) + 1
    if known is None and most > _MOST_CLASSES:
        where = next(where for split, (_, where) in labels.items() if _highest(cleaned[split]) + 1 == most)
        raise InputError(f"{where} has the label {most - 1}; without names, labels go to {_MOST_CLASSES - 1:,} at most")
    classes = known if known is not None else [str(k) for k in range(most)]
    splits: dict[str, Split] = {}
    for split, y in cleaned.items():
        where = labels[split][1]
        if len(y) != len(images[split]):
            raise InputError(f"{where} has {len(y)} labels for {len(images[split])} images; they must be as many")
        outside = (y < 0) | (y >= len(classes)) if y.ndim == 1 else np.zeros(len(y), bool)
        for i in np.flatnonzero(outside):
            reason = f"label {y[i]} is out of range, expected 0 to {len(classes) - 1}"
            problems.append(Problem("label_out_of_range", f"{where}[{i}]", reason))
        if y.ndim == 2 and y.shape[1] != len(classes):
            raise InputError(f"{where} has {y.shape[1]} columns, but there are {len(classes)} classes")
        truth = ClassLabels(np.where(outside, -1, y) if y.ndim == 1 else y, classes)
        splits[split] = Split(ImageArray(images[split], prefixes[split]), truth)
    return Source(name, format_, splits, problems=problems)


def read_classes(folder: Path) -> list[str] | None:
    """The names in a classes.txt, one a line; None where there is no such file."""
    path = folder / "classes.txt"
    if not path.is_file():
        return None
    names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not names:
        raise InputError(
            f"{path} must name each class once, one a line; "
            + (f"twice: {', '.join(twice)}" if twice else "it is empty")
        )
    return names


def as_images(array: np.ndarray, where: str) -> Tensor:
    """Images of a known layout -> uint8 (N, C, H, W). Floats must be in [0, 1]. Raises InputError naming the array."""
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.shape[1] not in (1, 3) or 0 in array.shape[2:]:
        raise InputError(
            f"{where} has shape {array.shape}; expected images (N, H, W), (N, H, W, C) or (N, C, H, W), C = 1 or 3"
        )
    if array.dtype.kind == "f":
        array = np.rint(array * array.dtype.type(255))
    return torch.from_numpy(np.array(array, dtype=np.uint8, order="C"))


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        _check_promises(path)
        stored = np.load(path, allow_pickle=False)
        if isinstance(stored, np.ndarray):
            raise InputError(f"{path} holds one array without a name; save images and labels with numpy.savez")
        with stored:
            return {key: stored[key] for key in stored.files}
    except ValueError as error:
        if "pickle" in str(error).lower():
            raise InputError(
                f"{path} holds Python objects (pickle), which are never loaded; save plain arrays"
            ) from error
        raise InputError(f"{path} is not a readable npz: {error}") from error
    except (OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} is not a readable npz: {error}") from error


def _check_promises(path: Path) -> None:
    """Raise InputError where an array would be larger than what its file holds, before memory is taken for it."""
    check_regular(path, _MOST_BYTES)
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.file_size > _MOST_BYTES:
                raise InputError(
                    f"{path}:{member.filename} unpacks to {member.file_size:,} bytes; at most 16 GiB are read"
                )
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
            promised = math.prod(shape) * dtype.itemsize
            if promised > member.file_size:
                raise InputError(
                    f"{path}:{member.filename} is damaged: its header promises {promised:,} bytes, it has "
                    f"{member.file_size:,}"
                )


def _pairs(path: Path, arrays: dict[str, np.ndarray]) -> dict[str, tuple[str, str]]:
    """From splits to the keys of their images and labels."""
    images: dict[str, str] = {}
    labels: dict[str, str] = {}
    for key in arrays:
        parts = key.lower().split("_")
        split = next((SPLIT_NAMES[part] for part in parts if part in SPLIT_NAMES), "all")
        role = [part for part in parts if part not in SPLIT_NAMES]
        for names, found in ((_IMAGES, images), (_LABELS, labels)):
            if len(role) == 1 and role[0] in names:
                if split in found:
                    raise InputError(f"{path} has both {found[split]} and {key} for one split; keep one")
                found[split] = key
    if not images or images.keys() != labels.keys() or ("all" in images and len(images) > 1):
        raise InputError(
            f"{path} holds the arrays {', '.join(arrays) or '(none)'}; expected images and labels, "
            "or train_x, train_y, test_x, test_y"
        )
    return {split: (images[split], labels[split]) for split in ("train", "val", "test", "all") if split in images}


def _checked(array: np.ndarray, where: str) -> np.ndarray:
    """Images as uint8, or as floats without NaN."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype.kind == "f":
        broken = ~np.isfinite(array)
        if broken.any():
            index = tuple(int(i) for i in np.argwhere(broken)[0])
            raise InputError(
                f"{where} holds {array[index]} at {list(index)} ({broken.sum()} in all); replace or remove it"
            )
        return array
    if array.dtype.kind in "iu":
        low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
        if array.dtype == np.uint16 and high > 255:
            return np.rint(array / np.float32(257)).astype(np.uint8)
        if low < 0 or high > 255:
            raise InputError(f"{where} has integers from {low} to {high}; expected 0 to 255")
        return array.astype(np.uint8)
    raise InputError(f"{where} has type {array.dtype}; expected uint8, or floats in [0, 1] or [0, 255]")


def _same_scale(path: Path, raw: dict[str, tuple]) -> dict[str, tuple]:
    """Float images in [0, 1], by one rule for all splits: whether their common maximum is above 1."""
    floats = [x for x, *_ in raw.values() if x.dtype.kind == "f" and x.size]
    if not floats:
        return raw
    low, high = min(float(x.min()) for x in floats), max(float(x.max()) for x in floats)
    if low < 0 or high > 255:
        raise InputError(f"{path} has floats from {low:g} to {high:g}; expected [0, 1] or [0, 255]")
    if high <= 1:
        return raw
    return {split: (x / x.dtype.type(255) if x.dtype.kind == "f" else x, *rest) for split, (x, *rest) in raw.items()}


def _as_labels(labels: np.ndarray, where: str, multi_label: bool) -> np.ndarray:
    if labels.dtype.kind not in "iufb" or (labels.dtype.kind == "f" and not np.array_equal(labels, np.rint(labels))):
        raise InputError(f"{where} has labels that are no whole numbers ({labels.dtype}); expected 0, 1, 2...")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 1:
        return labels.astype(np.int64)
    if labels.ndim != 2 or not np.isin(labels, (0, 1)).all():
        raise InputError(f"{where} has shape {labels.shape}; expected labels (N,), or (N, K) of 0 and 1 if multi-label")
    if not multi_label:
        if not (labels.sum(axis=1) == 1).all():
            raise InputError(f"{where} has images with no or several labels; set {MULTI_LABEL}")
        return labels.argmax(axis=1).astype(np.int64)
    return labels.astype(np.float32)


def _highest(labels: np.ndarray) -> int:
    return labels.shape[1] - 1 if labels.ndim == 2 else int(labels.max(initial=-1))


def _claims(path: Path) -> Claim:
    if path.is_dir():
        return 1 if [file.suffix.lower() for file in main_files(path).values()] == [".npz"] else 0
    return 1 if path.suffix.lower() == ".npz" else 0


def _open_format(path: Path, multi_label: bool = False) -> Source:
    file = main_files(path)["all"] if path.is_dir() else path
    return as_several(open_npz(file, multi_label), multi_label)


FORMAT = Format("npz", "class labels", "an npz", _claims, _open_format, ("multi_label",))
