"""A source of pairs of images and mask files: what every format of masks comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from opsin.data.allowed_folders import check_allowed
from opsin.data.class_maps import ClassMaps, Maps, is_background
from opsin.data.formats.mask_pairs import Pairs
from opsin.data.formats.tree import SPLIT_NAMES
from opsin.data.formats.values import as_posix, read_text
from opsin.data.inputs import ImageFiles
from opsin.data.map_layers import AsLayers, LayerFiles
from opsin.data.mask_coding import Setting, find_coding
from opsin.data.mask_files import Coding, MaskFiles, scan
from opsin.data.source import Source, Split
from opsin.data.truth import Problem
from opsin.errors import InputError
from opsin.image_files import list_folder

_PROBED = 16  # masks that are looked at where the names of the classes are known
_LISTS = (".", "ImageSets/Segmentation", "ImageSets", "splits", "lists", "list")


def build_masks(
    name: str,
    format_: str,
    parts: Mapping[str, Sequence[tuple[str, str]]],
    setting: Setting,
    problems: Sequence[Problem] = (),
    coding: Coding | None = None,
    overlapping: bool = False,
) -> Source:
    """A source of its splits' pairs of image and mask. coding: where the format says it, else it is looked for.

    Where names of the classes are known a few masks are looked at for it, else all. overlapping: each class but the
    background as a layer of its own.
    """
    files = {split: [mask for _, mask in pairs] for split, pairs in parts.items()}
    everything = [file for some in files.values() for file in some]
    check_allowed(everything, name)
    raws = {}
    if coding is None:
        known = setting.names is not None or setting.table is not None
        raws = scan(spread(everything, _PROBED) if known else everything)
        if not raws:
            raise InputError(f"{name}: no mask can be read, {everything[0]} the first")
        coding = find_coding(raws, setting)
    splits = {
        split: Split(
            ImageFiles([image for image, _ in pairs]),
            with_layers(MaskFiles(files[split], coding, raws), coding, overlapping),
        )
        for split, pairs in parts.items()
    }
    return Source(name, format_, splits, problems=list(problems))


def with_layers(maps: Maps, coding: Coding, overlapping: bool) -> ClassMaps:
    """The truth of maps of a coding; overlapping: each class but the background as a layer of its own."""
    classes, colours = coding.classes, coding.colours
    if not overlapping:
        return ClassMaps(maps, classes, colours)
    kept = [k for k, name in enumerate(classes) if not is_background(name)]
    own = None if colours is None else [colours[k] for k in kept]
    return ClassMaps(AsLayers(maps, kept), [classes[k] for k in kept], own, overlapping=True)


def build_layers(
    name: str,
    parts: Mapping[str, Sequence[tuple[str, Mapping[str, str]]]],
    names: Sequence[str] | None,
    overlapping: bool,
    problems: Sequence[Problem] = (),
) -> Source:
    """A source of images with a mask for each class. parts: of each split its images, each with its masks by class."""
    found = sorted({one for some in parts.values() for _, masks in some for one in masks})
    classes = list(names) if names is not None else found
    if missing := [one for one in found if one not in classes]:
        raise InputError(f"{name} has masks of {missing[0]!r}, which is none of the names {', '.join(classes)}")
    check_allowed([file for some in parts.values() for _, masks in some for file in masks.values()], name)
    numbers = {one: k for k, one in enumerate(classes)}
    splits: dict[str, Split] = {}
    for split, some in parts.items():
        files = [{numbers[one]: file for one, file in masks.items()} for _, masks in some]
        maps = LayerFiles(files, len(classes), overlapping)
        known = classes if overlapping else ["background", *classes]
        splits[split] = Split(ImageFiles([image for image, _ in some]), ClassMaps(maps, known, None, overlapping))
    return Source(name, "masks of classes", splits, problems=list(problems))


def read_names(given: str | list[str] | None) -> list[str] | None:
    """Names of classes as an option has them: a list, or a text with commas. Raises InputError for one twice."""
    if given is None:
        return None
    texts: list[str] = [given] if isinstance(given, str) else given
    names: list[str] = []
    for text in texts:
        names += [name.strip() for name in (text.split(",") if isinstance(given, str) else [text])]
    if len(set(names)) < len(names) or not all(names):
        raise InputError(f"names are {', '.join(map(repr, names))}; expected each class once")
    return names


def spread(files: Sequence[str], most: int) -> list[str]:
    """Some of them, evenly spaced."""
    return [files[i] for i in spread_places(len(files), most)]


def spread_places(count: int, most: int) -> list[int]:
    """At most so many places of a list, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(int)).tolist() if count else []


def divide_by_lists(path: Path, pairs: Pairs, problems: list[Problem]) -> dict[str, Pairs]:
    """The splits that lists of images say, train.txt and its like; all of it where there are none.

    What is on no list is left out, with a warning; so is a name that is no image's.
    """
    lists = find_lists(path)
    if "train" not in lists:
        return {"all": pairs}
    by_name: dict[str, tuple[str, str]] = {}
    for pair in pairs.pairs:
        whole = PurePosixPath(pair[0])
        for name in (str(whole), str(whole.with_suffix("")), whole.name, whole.stem):
            by_name.setdefault(name, pair)
    found: dict[str, Pairs] = {}
    for split, (file, names) in lists.items():
        known = [by_name[name] for name in names if name in by_name]
        missing = [name for name in names if name not in by_name]
        if missing:
            reason = f"{len(missing)} names are of no image with a mask, {missing[0]} the first"
            problems.append(Problem("missing_annotation", str(file), reason, "warning"))
        found[split] = Pairs(list(dict.fromkeys(known)))
    listed = {pair for one in found.values() for pair in one.pairs}
    if rest := [pair[0] for pair in pairs.pairs if pair not in listed]:
        reason = f"{len(rest)} images are on none of the lists and are left out, {rest[0]} the first"
        problems.append(Problem("unlisted", str(path), reason, "warning"))
    for one in found.values():
        one.homes = pairs.homes
    return found


def find_lists(path: Path, folders: Sequence[str] = _LISTS) -> dict[str, tuple[Path, list[str]]]:
    """Of each split its list and the names on it, as paths with slashes; trainval less val stands in for train."""
    found: dict[str, tuple[Path, list[str]]] = {}
    for home in (path / folder for folder in folders):
        for name in list_folder(home)[0] if home.is_dir() else ():
            stem = Path(name).stem.lower()
            split = "trainval" if stem == "trainval" else SPLIT_NAMES.get(stem)
            if name.lower().endswith(".txt") and split is not None and split not in found:
                found[split] = (home / name, _names(home / name))
        if found:
            break
    both = found.pop("trainval", None)
    if both is not None and "train" not in found:
        val = set(found["val"][1]) if "val" in found else set()
        found["train"] = (both[0], [name for name in both[1] if name not in val])
    return {key: found[key] for key in ("train", "val", "test") if key in found}


def _names(file: Path) -> list[str]:
    """The first word of each line, which may be followed by the mask's."""
    try:
        lines = read_text(file).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read as text: {error}") from error
    names = []
    for line in lines:
        if words := line.split():
            posix = as_posix(words[0])
            names.append(str(posix) if not posix.is_absolute() else posix.name)
    return names
