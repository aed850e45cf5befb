"""Cityscapes: leftImg8bit and gtFine, the 34 labels of its masks as the 19 classes it is scored on. Cordts et al. 2016.

https://www.cityscapes-dataset.com. Masks are read from `*_labelTrainIds.png` where every split has these, else
from `*_labelIds.png`. What is none of the 19 is left out, of training and of scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from opsin.data.formats.format import Claim, Format
from opsin.data.formats.mask_source import build_masks, read_names
from opsin.data.mask_coding import Setting
from opsin.data.mask_files import Coding, scan
from opsin.data.source import Source
from opsin.data.truth import Problem
from opsin.errors import InputError
from opsin.image_files import find_files, list_folder

_SPLITS = {"train": "train", "train_extra": "train", "val": "val", "test": "test"}
_IMAGE = "_leftImg8bit"
# name, label in *_labelIds.png, colour: https://github.com/mcordts/cityscapesScripts (helpers/labels.py)
CLASSES = (
    ("road", 7, (128, 64, 128)),
    ("sidewalk", 8, (244, 35, 232)),
    ("building", 11, (70, 70, 70)),
    ("wall", 12, (102, 102, 156)),
    ("fence", 13, (190, 153, 153)),
    ("pole", 17, (153, 153, 153)),
    ("traffic light", 19, (250, 170, 30)),
    ("traffic sign", 20, (220, 220, 0)),
    ("vegetation", 21, (107, 142, 35)),
    ("terrain", 22, (152, 251, 152)),
    ("sky", 23, (70, 130, 180)),
    ("person", 24, (220, 20, 60)),
    ("rider", 25, (255, 0, 0)),
    ("car", 26, (0, 0, 142)),
    ("truck", 27, (0, 0, 70)),
    ("bus", 28, (0, 60, 100)),
    ("train", 31, (0, 80, 100)),
    ("motorcycle", 32, (0, 0, 230)),
    ("bicycle", 33, (119, 11, 32)),
)


def open_cityscapes(path: Path, ignore: int | None = None, names: str | list[str] | None = None) -> Source:
    """The folder that holds leftImg8bit and gtFine (or gtCoarse). The test split, whose labels are empty, is left out.

    Raises InputError for `ignore`, since the format says what is left out.
    """
    if ignore not in (None, 255):
        raise InputError(f"in Cityscapes what is none of the 19 classes is left out, but ignore is {ignore}; drop it")
    truth = _truth(path)
    problems: list[Problem] = []
    parts: dict[str, list[tuple[str, str]]] = {}
    folders = [folder for folder in list_folder(path / "leftImg8bit")[1] if folder in _SPLITS]
    found, trained = _masks({folder: path / truth / folder for folder in folders})
    for folder, masks in found.items():
        images = {file.stem.removesuffix(_IMAGE): file for file in find_files(path / "leftImg8bit" / folder, (".png",))}
        pairs = [(str(images[key]), str(masks[key])) for key in sorted(images) if key in masks]
        if missing := sorted(images.keys() - masks.keys()):
            reason = f"{len(missing)} images have no mask and are left out, {missing[0]} the first"
            problems.append(Problem("unannotated", str(path / truth / folder), reason, "warning"))
        if folder == "test" and pairs and _empty([mask for _, mask in pairs[:3]]):
            reason = f"{len(pairs)} images of test are left out: their masks say nothing, the benchmark keeps them"
            problems.append(Problem("unannotated", str(path / truth / folder), reason, "note"))
        elif pairs and _SPLITS[folder] not in parts:
            parts[_SPLITS[folder]] = pairs
    if not parts:
        raise InputError(f"{path}: no image of leftImg8bit has a *_labelIds.png in {truth}")
    called = read_names(names) or [name for name, _, _ in CLASSES]
    if len(called) != len(CLASSES):
        raise InputError(f"{len(called)} names are given, and Cityscapes has {len(CLASSES)} classes")
    return build_masks(path.name, "Cityscapes", parts, Setting(), problems, find_coding(called, trained))


def find_coding(names: list[str] | None, trained: bool) -> Coding:
    """By train ids: 0 to 18, all else unknown; else by labels, all else unknown."""
    values = np.arange(256)
    places = np.full(256, -1)
    for k, (_, label, _) in enumerate(CLASSES):
        places[k if trained else label] = k
    expected = "0 to 18, and 255" if trained else "the labels 0 to 33"
    known = (values <= (18 if trained else 33)) | (values == 255)
    called = names or [name for name, _, _ in CLASSES]
    return Coding(called, [colour for _, _, colour in CLASSES], values[known], places[known], expected)


def _masks(folders: Mapping[str, Path]) -> tuple[dict[str, dict[str, Path]], bool]:
    """Of each split its masks by their names, and whether they are of train ids: where all splits have these."""
    files = {key: find_files(folder, (".png",)) if folder.is_dir() else [] for key, folder in folders.items()}
    trained, labels = (
        {key: {one.stem.removesuffix(end).rpartition("_")[0]: one for one in some if one.stem.endswith(end)}
         for key, some in files.items()}
        for end in ("_labelTrainIds", "_labelIds")
    )  # fmt: skip
    by_train = any(trained.values()) and all(trained[key] or not labels[key] for key in folders)
    return (trained, True) if by_train else (labels, False)


def _empty(files: list[str]) -> bool:
    labels = {label for _, label, _ in CLASSES}
    return all(not labels & set(raw.values.tolist()) for raw in scan(files).values())


def _truth(path: Path) -> str:
    return next((name for name in ("gtFine", "gtCoarse") if (path / name).is_dir()), "gtFine")


def _claims(path: Path) -> Claim:
    return 2 if path.is_dir() and (path / "leftImg8bit").is_dir() and (path / _truth(path)).is_dir() else 0


FORMAT = Format(
    "Cityscapes",
    "a class of each pixel",
    "Cityscapes (leftImg8bit, gtFine)",
    _claims,
    open_cityscapes,
    options=("ignore", "names"),
)
