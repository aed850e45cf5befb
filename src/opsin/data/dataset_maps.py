"""Masks in data sets of other libraries: pairs of image and mask, read again whenever a map is needed.

A mask is a PIL image of class numbers, a palette's numbers or colours with a table, a tensor or array (H, W) of whole
numbers, or bool; or stands in a dict under `mask`, `label`, `annotation` or the like. Known are the classes of
torchvision's `VOCSegmentation`, `SBDataset`, `Cityscapes` and `OxfordIIITPet`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from opsin.data.class_tables import ClassTable
from opsin.data.drawing import voc_palette
from opsin.data.formats import cityscapes
from opsin.data.formats.mask_source import spread_places, with_layers
from opsin.data.formats.voc_masks import VOC_CLASSES
from opsin.data.images import Header, decode_values, pillow_values
from opsin.data.map_counts import MapFault, Tally
from opsin.data.mask_coding import Setting, find_coding
from opsin.data.mask_files import Coding, MaskValues, RawMask, count_mask, mask_values, tally_mask
from opsin.data.torch_dataset import Examples, TargetReader, said_by
from opsin.data.truth import Size, Truth
from opsin.errors import InputError
from opsin.progress import follow

_KEYS = (
    "mask", "masks", "segmentation_mask", "segmentation", "semantic", "semantic_segmentation", "label", "labels",
    "annotation", "target", "class_map", "label_map",
)  # fmt: skip
_PROBED = 16  # masks that are looked at where the names of the classes are known


def read_target(target: Any) -> MaskValues:
    """The mask of a target. Raises InputError for what is none."""
    if isinstance(target, Mapping):
        if "bytes" in target or "path" in target:  # Hugging Face's image that is not decoded
            return _encoded(target.get("bytes"))
        found = next((target[key] for key in _KEYS if key in target), None)
        if found is None:
            keys = ", ".join(map(str, target)) or "nothing"
            raise InputError(f"the target is a dict of {keys}; expected a mask under one of {', '.join(_KEYS[:4])}")
        return read_target(found)
    if isinstance(target, tuple | list) and target and not isinstance(target[0], int | float):
        found = [one for one in target if isinstance(one, Image.Image | Tensor | np.ndarray)]
        if len(found) == 1:
            return read_target(found[0])
    if isinstance(target, Image.Image):
        values, colours = pillow_values(target, "the mask")
        return mask_values(values, _header(values), colours)
    if isinstance(target, bytes):
        return _encoded(target)
    if isinstance(target, Tensor):
        target = target.detach().cpu().numpy()
    if isinstance(target, np.ndarray):
        return _of_array(target)
    raise InputError(f"the target is {type(target).__name__}; expected a mask: a PIL image, or whole numbers (H, W)")


def _encoded(data: Any) -> MaskValues:
    if not isinstance(data, bytes):
        raise InputError("the mask names a file and does not hold it; decode it in the data set")
    return mask_values(*decode_values(data, "the mask"))


def _of_array(array: np.ndarray) -> MaskValues:
    array = array[0] if array.ndim == 3 and len(array) == 1 else array
    if array.ndim != 2 or not array.size:
        raise InputError(f"the mask has the shape {array.shape}; expected (H, W) of class numbers")
    if array.dtype.kind == "f" and not np.array_equal(array, np.rint(array)):
        raise InputError(
            "the mask holds fractions; leave ToTensor out of the data set's target transform, which divides by 255"
        )
    if array.dtype.kind not in "biuf" or array.min() < -1 or array.max() > 65535:
        raise InputError(f"the mask holds {array.dtype} from {array.min()} to {array.max()}; expected 0 to 65535")
    whole = np.where(array < 0, 255, array) if array.dtype.kind != "b" else array
    values = whole.astype(np.uint8 if whole.max() < 256 else np.uint16)
    return mask_values(values, _header(values), None)


def _header(values: np.ndarray) -> Header:
    size = (values.shape[0], values.shape[1])
    return Header("array", "L", *size, size)


@dataclass(frozen=True, eq=False)
class DatasetMaps:
    """`Maps` that a data set gives with its examples. places: which of them. seen: masks that were counted already."""

    examples: Examples
    coding: Coding
    places: np.ndarray
    seen: Mapping[int, RawMask] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.places)

    def select(self, places: np.ndarray) -> DatasetMaps:
        return replace(self, places=self.places[places])

    def name(self, i: int) -> str:
        return f"{self.examples.name}[{self.places[i]}]"

    def read(self, i: int, size: Size | None) -> np.ndarray:
        return self.coding.decode(self._mask(i), self.name(i))

    def tally(self, i: int) -> Tally:
        try:
            raw = self.seen.get(int(self.places[i])) or count_mask(self._mask(i))
        except InputError as error:
            return Tally.failed(len(self.coding.classes), MapFault("unreadable_mask", str(error), unreadable=True))
        return tally_mask(self.coding, raw)

    def _mask(self, i: int) -> MaskValues:
        _, target = self.examples.read(int(self.places[i]))  # whose errors name the example
        try:
            return read_target(target)
        except InputError as error:
            raise InputError(f"{self.name(i)}: {error}") from error


def _find_truths(
    parts: Mapping[str, Examples],
    names: Sequence[str] | None,
    ignore: int | None = None,
    overlapping: bool = False,
) -> dict[str, Truth]:
    """Of each split its maps. A few masks are looked at where the classes are known, else all."""
    first = next(iter(parts.values()))
    table = _known_table(first.dataset)
    known = names is not None or table is not None
    seen: dict[str, dict[int, RawMask]] = {}
    for key, examples in parts.items():
        places = spread_places(len(examples), _PROBED if known else len(examples))
        title = f"reading the masks of {examples.name}"
        maps = DatasetMaps(examples, Coding([], None, np.zeros(0), np.zeros(0), ""), np.arange(len(examples)))
        shown = places if known else follow(places, title, "examples")
        seen[key] = {place: count_mask(maps._mask(place)) for place in shown}
    raws = {f"{parts[key].name}[{place}]": raw for key, some in seen.items() for place, raw in some.items()}
    coding = _known_coding(first.dataset) if names is None else None
    coding = coding or find_coding(raws, Setting(table, None if names is None else list(names), ignore))
    return {
        key: with_layers(DatasetMaps(one, coding, np.arange(len(one)), seen[key]), coding, overlapping)
        for key, one in parts.items()
    }


def _kind(dataset: Any) -> str:
    inner = said_by(dataset, "__class__")
    return inner.__name__ if inner is not None else ""


def _known_table(dataset: Any) -> ClassTable | None:
    if _kind(dataset) not in ("VOCSegmentation", "SBDataset"):
        return None
    colours = [(r, g, b) for r, g, b in voc_palette(len(VOC_CLASSES)).tolist()]
    return ClassTable(VOC_CLASSES, colours, "Pascal VOC", range(len(VOC_CLASSES)))


def _known_coding(dataset: Any) -> Coding | None:
    if _kind(dataset) == "Cityscapes":
        return cityscapes.find_coding(None, trained=False)
    if _kind(dataset) == "OxfordIIITPet":  # its trimaps: 1 is the pet, 2 the background, 3 the border between them
        values, places = np.array([1, 2, 3]), np.array([1, 0, -1])
        return Coding(["background", "pet"], None, values, places, "1, 2, and 3 where nothing is known")
    return None


def _class_names(examples: Examples) -> Sequence[str] | None:
    return None  # `classes` of torchvision's sets of masks are those of images, or more than the masks'


READER = TargetReader(
    noun="masks",
    read=read_target,
    column=lambda examples: None,
    names=_class_names,
    truths=_find_truths,
)
