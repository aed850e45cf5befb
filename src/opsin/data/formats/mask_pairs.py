"""Which file is the mask of which image, by the names of folders and of files.

A folder's name says what is in it: images, masks, a split, or several of it (`train_masks`, `trainannot`); any other
name is a part of the image's. Files are paired within their split by that name, first as it is, then without what names
of masks and of images have besides (`_mask`, `_gt`, `_L`, `_sat`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

from opsin.data.formats.tree import SPLIT_NAMES
from opsin.errors import InputError
from opsin.image_files import IMAGE_SUFFIXES

Role = Literal["image", "mask", ""]
_IMAGE = (
    r"(?:images?|imgs?|jpegimages|jpe?gs?|pngs?|pics?|pictures?|photos?|frames?|rgb|raw|stillsraw|inputs?|originals?)"
)
_MASK = (
    r"(?:(?:gt|bin(?:ary)?|semantic|class|png|ground|manual)?[_\-. ]?(?:masks?|labels?(?:l?ed)?|label(?:l?ed)?approved|"
    r"annots?|annotations?|ann|annos?|gts?|truths?|groundtruths?|targets?|segs?|segmentations?|segmaps?|labelmaps?|labelids|"
    r"trimaps?|indexlabel|manual))"
)
_SPLIT = "|".join(sorted(SPLIT_NAMES, key=len, reverse=True))
_EXTRA = r"(?:[_\-. ]?(?:\d{1,4}(?:x\d{1,4})?|full|hd|v\d|png|1st|2d|data(?:set)?))*"
_FOLDER = re.compile(
    rf"^(?:(?P<before>{_SPLIT})[_\-. ]?)?(?:\d+[_\-. ])?(?:(?P<image>{_IMAGE})|(?P<mask>{_MASK}))?(?P<extra>{_EXTRA})"
    rf"(?:[_\-. ]?(?P<after>{_SPLIT}))?{_EXTRA}$",
    re.IGNORECASE,
)
_IMAGE_WORD, _MASK_WORD = (re.compile(f"{words}$", re.IGNORECASE) for words in (_IMAGE, _MASK))
_VERSION = re.compile(r"v\d+\.\d+$", re.IGNORECASE)  # as Mapillary's v1.2
_MASK_END = re.compile(
    r"[_\-. ](?:masks?|label(?:s|ids|trainids)?|gt|seg(?:mentation)?|annot(?:ation)?s?|l|p|ground_?truth|target|m|"
    r"manual\d?|\d(?:st|nd)_?ho|lab|trimap|color_?mask)$",
    re.IGNORECASE,
)
_IMAGE_END = re.compile(r"[_\-. ](?:images?|img|sat|rgb|training|test|input|photo|raw|im)$", re.IGNORECASE)
_START = re.compile(r"^(?:masks?|labels?|gt|seg|images?|imgs?|im)[_\-. ]+(?=.)", re.IGNORECASE)


class Part(NamedTuple):
    """What the name of a folder says."""

    role: Role
    split: str
    said: bool  # whether it says anything


@lru_cache(maxsize=4096)
def read_folder(name: str) -> Part:
    """What the name of a folder says of what lies in it."""
    found = _FOLDER.match(name)
    if found is None:
        return _read_words(name)
    role: Role = "image" if found["image"] else "mask" if found["mask"] else ""
    split = SPLIT_NAMES.get((found["before"] or found["after"] or "").lower(), "")
    return Part(role, split, bool(role or split))


def _read_words(name: str) -> Part:
    """Of a name with other words in it, as ISIC_Training_Input: what its last word says, and which split one does."""
    words = re.split(r"[_\-. ]+", name)
    role: Role = "image" if _IMAGE_WORD.match(words[-1]) else "mask" if _MASK_WORD.match(words[-1]) else ""
    if not role or len(words) < 2:
        return Part("", "", False)
    short = {**SPLIT_NAMES, "tr": "train", "te": "test"}
    return Part(role, next((short[word] for word in map(str.lower, words) if word in short), ""), True)


class Place(NamedTuple):
    """Where a file belongs. name: what no folder's meaning takes of its path, without its ending."""

    split: str
    role: Role
    name: str


def place_of(file: str) -> Place:
    """Where an image file belongs, by its path within the data's folder."""
    path = PurePosixPath(file)
    split, roles, rest = "", [], []
    for name in path.parts[:-1]:
        part = read_folder(name)
        split = part.split or split
        if part.role:
            roles.append(part.role)
        if not part.said and not _VERSION.match(name):
            rest.append(name)
    role: Role = "mask" if "mask" in roles else "image" if "image" in roles else ""
    return Place(split, role, "/".join([*rest, path.stem]))


def bare_name(name: str, role: Role) -> str:
    """The name of a mask or image without what says that it is one."""
    folder, slash, stem = name.rpartition("/")
    for end in (_MASK_END, _IMAGE_END) if role == "mask" else (_IMAGE_END,):
        stem = end.sub("", stem) or stem
    return folder + slash + (_START.sub("", stem) or stem).lower()


@dataclass
class Pairs:
    """One split. pairs: (image, mask). images, masks: those without the other. homes: the folders of its masks."""

    pairs: list[tuple[str, str]] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    masks: list[str] = field(default_factory=list)
    homes: set[str] = field(default_factory=set)


def find_pairs(files: Iterable[str]) -> dict[str, Pairs]:
    """Of each split its pairs, by the paths of its image files; "" where no folder names a split.

    Raises InputError for two masks of one image, and two images of one mask.
    """
    roles: dict[str, dict[Role, dict[str, str]]] = defaultdict(lambda: {"image": {}, "mask": {}, "": {}})
    loose: dict[str, dict[str, str]] = defaultdict(dict)
    found: dict[str, Pairs] = defaultdict(Pairs)
    for file in sorted(files):
        if PurePosixPath(file).suffix.lower() not in IMAGE_SUFFIXES:
            continue
        place = place_of(file)
        known = roles[place.split][place.role]
        if (other := known.get(place.name)) is not None:
            if place.role == "mask":
                raise InputError(f"{other} and {file} are masks of one image; keep one of them")
            loose[place.split][file] = other
            continue
        known[place.name] = file
    for split, by_role in roles.items():
        images, masks = by_role["image"] or by_role[""], by_role["mask"]
        if not masks:  # beside their images, known by the ends of their names
            images = {**by_role["image"], **by_role[""]}
            masks = {name: file for name, file in images.items() if _MASK_END.search(name)}
            images = {name: file for name, file in images.items() if name not in masks}
        _pair(found[split], images, masks)
        found[split].homes |= {str(PurePosixPath(mask).parent) for _, mask in found[split].pairs}
        found[split].images += loose[split]
    return dict(found)


def find_layers(pairs: Pairs) -> list[tuple[str, dict[str, str]]]:
    """Of images without a mask of their own those with masks of classes: `masks/cat/1.png`, `masks/1_cat.png`.

    Each image with its masks by the names of classes. None where most masks are of no image.
    """
    images = {place_of(image).name: image for image in pairs.images}
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for mask in pairs.masks:
        name = place_of(mask).name
        folder, _, stem = name.rpartition("/")
        ends = [place for place, sign in enumerate(stem) if sign in "_-. "]
        splits = [(stem[:place], stem[place + 1 :]) for place in reversed(ends)]
        known = (
            [(stem, folder)] if folder and stem in images else [one for one in splits if one[0] in images and one[1]]
        )
        if known:
            found[known[0][0]].setdefault(known[0][1], mask)
    placed = sum(len(masks) for masks in found.values())
    return [(images[name], found[name]) for name in sorted(found)] if 2 * placed > len(pairs.masks) else []


def _pair(into: Pairs, images: dict[str, str], masks: dict[str, str]) -> None:
    exact = [name for name in images if name in masks]
    into.pairs += [(images[name], masks[name]) for name in exact]
    images = {name: file for name, file in images.items() if name not in masks}
    masks = {name: file for name, file in masks.items() if name not in exact}
    bare: dict[str, list[str]] = defaultdict(list)
    for name, file in masks.items():
        bare[bare_name(name, "mask")].append(file)
    taken: set[str] = set()
    for name, file in images.items():
        own = bare.get(bare_name(name, "image"), [])
        if len(own) == 1 and own[0] not in taken:
            taken.add(own[0])
            into.pairs.append((file, own[0]))
        elif len(own) > 1:
            raise InputError(f"{own[0]} and {own[1]} are masks of one image, {file}; keep one of them")
        else:
            into.images.append(file)
    into.masks += [file for file in masks.values() if file not in taken]
    into.pairs.sort()
