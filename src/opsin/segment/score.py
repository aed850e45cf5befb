"""Evaluation of a folder of predicted masks, of whatever tool, against a split; no model is run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from opsin import image_files
from opsin.data import Source, Split
from opsin.data.class_maps import UNKNOWN
from opsin.data.formats.mask_pairs import bare_name
from opsin.data.images import UnreadableImage
from opsin.data.mask_files import MaskValues, read_mask
from opsin.data.source import listed
from opsin.engine.evaluator import Result
from opsin.engine.image_names import ImageNames
from opsin.errors import InputError, say
from opsin.image_files import IMAGE_SUFFIXES
from opsin.segment.comparison import Comparison
from opsin.segment.metrics import Array

_FORMS = "a folder with a mask of each image, a PNG or TIFF of class numbers or of the classes' colours"
_FOLDERS = "a folder for each image, with a mask of 0 and 255 for each class: a/00-lung.png, a/01-heart.png"
_WIDE_UNKNOWN = 65535  # what says in masks of 16 bits that nothing is known


def score(path: Path, source: Source, split: str, *, borders: bool = False, regions: str | None = None) -> Result:
    """What a folder of masks is worth on a split of a source, by the rules of `opsin.segment.metrics`.

    Each mask is as large as its image and is found by its name. Its pixels are class numbers in the order of the data's
    classes, 255 (65535 of 16 bits) where there is no answer, which is wrong; or the classes' colours. Masks of two
    classes may be 0 and 255. Where classes overlap an image has a folder, with a mask for each class. borders, regions:
    as of `SegmentEvaluator`. Raises InputError for a folder without masks, for images without one, and for a mask of
    another size or with numbers that are no class.
    """
    chosen, classes = source.splits[split], list(source.classes)
    overlapping: bool = chosen.kind.overlapping
    comparison = Comparison(classes, overlapping, borders=borders, regions=regions)
    files, images = _by_image(path, source, split, of_folders=overlapping), []
    reader = _Planes(classes) if overlapping else _Reader(files, classes, source.meaning.get("colours"))
    for file, truth, found in _pairs(files, chosen, reader):
        try:
            images.append(comparison.compare(truth, found))
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
    evaluation = comparison.evaluate(images)
    return Result(evaluation.metrics, evaluation.to_dict(), evaluation, data=f"; {len(files):,} masks")


def _by_image(path: Path, source: Source, split: str, *, of_folders: bool) -> list[Path]:
    """The mask for each image of the split, in its order, or the folder of its masks."""
    chosen, names = source.splits[split], ImageNames(source, split)
    found = image_files.walk(path)[0] if path.is_dir() else []
    masks = [name for name in sorted(found) if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    if of_folders:
        masks = list(dict.fromkeys(str(PurePosixPath(name).parent) for name in masks if "/" in name))
    if not masks:
        raise InputError(f"{path} holds no masks; expected {_FOLDERS if of_folders else _FORMS}")
    stems = {PurePosixPath(one.name(i)).stem for one in source.splits.values() for i in range(len(one))}
    bare = {bare_name(stem, "image"): stem for stem in stems}
    by_place: dict[int, Path] = {}
    for name in masks:
        place = names.find(name if of_folders else _image_of(name, stems, bare), str(path / name))
        if place is None:
            continue
        if place in by_place:
            raise InputError(f"{path / name}: {chosen.name(place)} has a mask already, {by_place[place]}; remove one")
        by_place[place] = path / name
    names.check(path, "masks")
    missing = [i for i in range(len(chosen)) if i not in by_place]
    if missing:
        raise InputError(
            f"{path} has no mask for {len(missing):,} of {len(chosen):,} images of the {split} split of {source.name}, "
            f"the first is {chosen.name(missing[0])}; predict them, or give the --split that they are of"
        )
    return [by_place[i] for i in range(len(chosen))]


def _image_of(name: str, stems: set[str], bare: Mapping[str, str]) -> str:
    """The image that the name of a mask means: `a_mask.png` is that of `a`, where there is no `a_mask`."""
    path = PurePosixPath(name)
    stem = path.stem if path.stem in stems else bare.get(bare_name(path.stem, "mask"), path.stem)
    return str(path.with_name(stem + path.suffix))


def _pairs(files: Sequence[Path], split: Split, reader: _Reader | _Planes) -> Iterator[tuple[Path, Array, Array]]:
    """Of each image the file of its mask, the truth and what the file says."""
    for i, file in enumerate(files):
        truth = split.kind.maps.read(i, split.inputs.size(i))
        found = reader.read(file)
        if found.shape != truth.shape:
            one, two = (f"{values.shape[-1]}x{values.shape[-2]}" for values in (found, truth))
            raise InputError(
                f"{file} is {one} pixels (width x height), the mask of {split.name(i)} {two}; masks are compared at "
                "the image's own size: resize the probabilities before the class is chosen"
            )
        yield file, truth, found


class _Reader:
    """Reads masks as maps of class numbers. binary: all are of 0 and 255, two classes."""

    def __init__(self, files: Sequence[Path], classes: Sequence[str], colours: Sequence[Sequence[int]] | None) -> None:
        self.classes = classes
        self.colours: Mapping[int, int] = {
            red << 16 | green << 8 | blue: number
            for number, (red, green, blue) in enumerate([] if colours is None else colours)
        }
        self.binary = len(classes) == 2 and all(_is_binary(_read(file)) for file in files)
        if self.binary:
            say(f"the masks are of 0 and 255: 255 is taken as {classes[1]}")

    def read(self, file: Path) -> Array:
        mask = _read(file)
        if mask.coloured:
            return self._by_colour(mask.values, file)
        values = mask.values
        if self.binary:
            return (values > 0).astype(np.uint8)
        if values.dtype == np.uint8:
            return values
        wide = values.astype(np.int64)
        wide[wide == _WIDE_UNKNOWN] = -1
        return wide

    def _by_colour(self, values: Array, file: Path) -> Array:
        if not self.colours:
            raise InputError(f"{file} is a mask of colours, and the data does not say which are whose; save numbers")
        codes = np.array(sorted(self.colours))
        at = np.minimum(np.searchsorted(codes, values), len(codes) - 1)
        if (codes[at] != values).any():
            wrong = int(values[codes[at] != values][0])
            colour = (wrong >> 16, wrong >> 8 & 255, wrong & 255)
            raise InputError(f"{file}: the colour {colour} is that of no class; save masks as PNG, not as JPEG")
        numbers = np.array([self.colours[code] for code in codes.tolist()])
        return numbers[at]


class _Planes:
    """Reads folders of masks, one for each class, called by its number or its name: (K, H, W) bool."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = classes

    def read(self, folder: Path) -> Array:
        planes: dict[int, Array] = {}
        for file in sorted(one for one in folder.iterdir() if one.suffix.lower() in IMAGE_SUFFIXES):
            digits = re.match(r"\d+", file.stem)
            number = self.classes.index(file.stem) if file.stem in self.classes else int(digits[0]) if digits else -1
            if number in planes or not 0 <= number < len(self.classes):
                raise InputError(f"{file} is the mask of no class, or of one that has another; expected {_FOLDERS}")
            planes[number] = _read(file).values > 0
        missing = [name for number, name in enumerate(self.classes) if number not in planes]
        if missing:
            raise InputError(f"{folder} has no mask of {listed(missing)}; expected {_FOLDERS}")
        if len({plane.shape for plane in planes.values()}) > 1:
            raise InputError(f"{folder} has masks of several sizes; all are to be as large as the image")
        return np.stack([planes[number] for number in range(len(self.classes))])


def _read(file: Path) -> MaskValues:
    try:
        return read_mask(str(file))
    except UnreadableImage as error:
        raise InputError(f"{error.path} cannot be read: {error.reason}") from None


def _is_binary(mask: MaskValues) -> bool:
    """Whether a mask is of 0 and 255, of which it may have one alone."""
    values = mask.values
    return not mask.coloured and values.dtype == np.uint8 and bool(((values == 0) | (values == UNKNOWN)).all())
