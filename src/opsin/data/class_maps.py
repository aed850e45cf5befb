"""Maps of classes: of every pixel of an image the class that it belongs to, or of several things whether it does."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from opsin.data.labels import match_classes
from opsin.data.map_check import MapSummary, find_faults, refuse_maps
from opsin.data.map_counts import Census, MapFault, Tally
from opsin.data.truth import Problem, Size, Truth
from opsin.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

IGNORE = -1  # the label of a pixel of which nothing is known, in every tensor of labels
UNKNOWN = 255  # what says so in a map of uint8
_ROWS = 256  # of a map, counted at a time
_MOST_BOXES = 1000  # around the components of one map


class Maps(Protocol):
    """The maps of a split's images, read when they are asked for. Nothing of them is held in memory."""

    def __len__(self) -> int: ...

    def select(self, places: np.ndarray) -> Maps:
        """Those of the images at `places`, in that order."""
        ...

    def read(self, i: int, size: Size | None) -> np.ndarray:
        """(H, W) uint8 of class numbers, 255 where nothing is known; int16 with -1 for more than 255 classes.

        Of things that overlap, (K, H, W) bool. size: (height, width) of the image, None where it is not known; what is
        drawn from outlines needs it. Raises InputError that names the file for what cannot be read, is of another size,
        or holds a number that is no class.
        """
        ...

    def name(self, i: int) -> str:
        """Where the map of an image lies, for messages."""
        ...

    def tally(self, i: int) -> Tally:
        """What a map holds, counted; what is wrong with it is among its faults and raises nothing."""
        ...


def tally_map(maps: Maps, i: int, num_classes: int, size: Size | None = None) -> Tally:
    """A map read and counted, by `Maps.read` alone."""
    try:
        values = maps.read(i, size)
    except InputError as error:
        return Tally.failed(num_classes, MapFault("unreadable_mask", str(error), unreadable=True))
    return Tally(count_pixels(values, num_classes), digest_of(values), (values.shape[-2], values.shape[-1]))


def count_pixels(values: np.ndarray, num_classes: int) -> np.ndarray:
    """(K + 1,) int64 of a map: of each class its pixels, and those of no known class.

    Of a map (K, H, W) of things that overlap the last is of those that are nothing.
    """
    if values.dtype == bool:
        return np.append(values.sum(axis=(1, 2)), (~values.any(axis=0)).sum()).astype(np.int64)
    found = np.zeros(num_classes + 1, np.int64)
    for start in range(0, len(values), _ROWS):  # eight bytes are made of each pixel
        numbers = values[start : start + _ROWS].astype(np.int64).ravel()
        known = (numbers >= 0) & (numbers < num_classes)
        found += np.bincount(np.where(known, numbers, num_classes), minlength=num_classes + 1)
    return found


def digest_of(values: np.ndarray) -> bytes:
    """Bytes that are equal where maps are."""
    digest = hashlib.blake2b(repr((values.shape, values.dtype.str)).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(values).data)
    return digest.digest()


@dataclass(frozen=True, eq=False)
class MapArray:
    """Maps that lie in memory: (N, H, W) uint8 or int16, or (N, K, H, W) bool. num_classes: K, the largest if 0."""

    maps: np.ndarray
    prefix: str = "map"
    num_classes: int = 0

    def __len__(self) -> int:
        return len(self.maps)

    def select(self, places: np.ndarray) -> MapArray:
        return replace(self, maps=self.maps[places])

    def read(self, i: int, size: Size | None) -> np.ndarray:
        return self.maps[i]

    def name(self, i: int) -> str:
        return f"{self.prefix}[{i}]"

    def tally(self, i: int) -> Tally:
        return tally_map(self, i, self._counted)

    @cached_property
    def _counted(self) -> int:
        """How many classes are counted; found once, since it takes a look at every map."""
        if self.num_classes or self.maps.dtype == bool:
            return self.num_classes or self.maps.shape[1]
        known = self.maps[self.maps != UNKNOWN] if self.maps.dtype == np.uint8 else self.maps
        return int(known.max(initial=-1)) + 1


@dataclass(frozen=True, eq=False)
class Relabelled:
    """Maps whose class k is `table[k]` of other classes. counted, places: where their own tallies are found."""

    maps: Maps
    table: np.ndarray
    num_classes: int
    counted: Census
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.maps)

    def select(self, places: np.ndarray) -> Relabelled:
        return replace(self, maps=self.maps.select(places), places=self.places[places])

    def read(self, i: int, size: Size | None) -> np.ndarray:
        values = self.maps.read(i, size)
        if values.dtype == bool:
            moved = np.zeros((self.num_classes, *values.shape[1:]), bool)
            for own, place in zip(values, self.table.tolist(), strict=True):
                moved[place] |= own
            return moved
        dtype, unknown = map_type(self.num_classes)
        table = np.full(max(len(self.table), 256) + 1, unknown, dtype)  # the last for -1
        table[: len(self.table)] = self.table
        return table[values]

    def name(self, i: int) -> str:
        return self.maps.name(i)

    def tally(self, i: int) -> Tally:
        own = self.counted.at(int(self.places[i]))
        counts = np.zeros(self.num_classes + 1, np.int64)
        np.add.at(counts, self.table, own.counts[: len(self.table)])
        counts[-1] = own.counts[-1]
        return replace(own, counts=counts, digest=own.digest + self.table.tobytes())


def map_type(num_classes: int) -> tuple[type[np.generic], int]:
    """The type of maps of some classes, and what says in them that nothing is known of a pixel."""
    return (np.uint8, UNKNOWN) if num_classes <= UNKNOWN else (np.int16, IGNORE)


@dataclass(frozen=True, eq=False)
class ClassMaps(Truth):
    """The class of every pixel.

    maps: of the images, in their order. classes: the K names. colours: of each class its red, green and blue, where the
    data says them. overlapping: whether a pixel may be of several classes, or of none. counted, places: what was
    counted in the maps of the whole split, once, and which of them these are.
    """

    maps: Maps
    classes: Sequence[str]
    colours: Sequence[tuple[int, int, int]] | None = None
    overlapping: bool = False
    counted: Census | None = field(default=None, repr=False)
    places: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.counted is None:
            object.__setattr__(self, "counted", Census(self.maps))
            object.__setattr__(self, "places", np.arange(len(self.maps)))

    @property
    def meaning(self) -> Mapping[str, Any]:
        found: dict[str, Any] = {"classes": list(self.classes)}
        if self.colours is not None:
            found["colours"] = [list(colour) for colour in self.colours]
        return {**found, "overlapping": True} if self.overlapping else found

    @property
    def counts(self) -> np.ndarray:
        """(N, K + 1) int64: of each map the pixels of each class, and those of which nothing is known.

        Every map is read for it, once. Of one that cannot be read, zeros. Where things overlap, the last are those of
        nothing.
        """
        rows = [one.counts for one in self._tallies()]
        return np.stack(rows) if rows else np.zeros((0, len(self.classes) + 1), np.int64)

    @property
    def presence(self) -> np.ndarray:
        """(N, K) float32: 1 where an image shows a class."""
        return (self.counts[:, :-1] > 0).astype(np.float32)

    def __len__(self) -> int:
        return len(self.maps)

    def select(self, places: np.ndarray) -> ClassMaps:
        assert self.places is not None
        return replace(self, maps=self.maps.select(places), places=self.places[places])

    def match(self, meaning: Mapping[str, Any]) -> ClassMaps:
        if bool(meaning.get("overlapping")) != self.overlapping:
            one, two = (
                "may overlap" if flag else "do not overlap" for flag in (not self.overlapping, self.overlapping)
            )
            raise InputError(f"the classes of the model {one}, those of the data {two}; set overlapping alike")
        known = list(meaning["classes"])
        places = match_classes(self.classes, known)
        found = replace(self, classes=known) if places is None else self.relabel(places, known)
        colours = meaning.get("colours")
        return found if colours is None else replace(found, colours=[(r, g, b) for r, g, b in colours])

    def relabel(self, places: Sequence[int] | np.ndarray, classes: Sequence[str]) -> ClassMaps:
        """With class k called `places[k]` of `classes`. Classes with the same place become one."""
        assert self.counted is not None and self.places is not None
        table = np.asarray(places, np.int64)
        maps = Relabelled(self.maps, table, len(classes), self.counted, self.places)
        return ClassMaps(maps, classes, None, self.overlapping)

    def read(self, i: int, size: Size | None) -> dict[str, Any]:
        values = self.maps.read(i, size)
        if size is not None and values.shape[-2:] != tuple(size):
            raise InputError(f"{self.maps.name(i)}: {misfit((values.shape[-2], values.shape[-1]), size)}")
        from opsin.data.transforms.class_map import ClassMap  # imports torchvision, for over a second

        return {"class_map": ClassMap(torch.from_numpy(np.ascontiguousarray(values)))}

    def shown(self, i: int) -> list[int]:
        """The classes of an image."""
        return np.flatnonzero(self._tally(i).counts[:-1]).tolist()

    def strata(self) -> np.ndarray:
        shown = self.counts[:, :-1] > 0
        counts = np.where(shown, shown.sum(axis=0), len(shown) + 1)
        return np.where(shown.any(axis=1), counts.argmin(axis=1), -1) if shown.size else np.full(len(self), -1)

    def extents(self, i: int) -> Tensor | None:
        """Boxes around the connected parts of each class, largest first; of two classes of the second one alone."""
        from scipy import ndimage

        try:
            values = self.maps.read(i, None)
        except InputError:
            return None
        first = 1 if len(self.classes) == 2 and not self.overlapping else 0
        boxes = []
        for k in range(first, len(self.classes)):
            own = values[k] if values.dtype == bool else values == k
            if not own.any():  # of many classes an image shows few, and this is quicker than to look for their parts
                continue
            labelled: Any = ndimage.label(own)
            parts: Any = ndimage.find_objects(labelled[0])
            boxes += [(x.start, y.start, x.stop, y.stop) for y, x in parts]
        boxes.sort(key=lambda box: (box[0] - box[2]) * (box[3] - box[1]))
        return torch.tensor(boxes[:_MOST_BOXES], dtype=torch.float32).reshape(-1, 4)

    def unreadable(self, i: int) -> str | None:
        return next((fault.reason for fault in self._tally(i).faults if fault.unreadable), None)

    def misfit(self, i: int, size: Size) -> str | None:
        own = self._tally(i).size
        return None if own is None or own == tuple(size) else f"its mask {self.maps.name(i)}: {misfit(own, size)}"

    def problems(self, sizes: Mapping[int, Size], training: bool = False) -> list[Problem]:
        check = refuse_maps if training else find_faults
        return check(self._tallies(), self.maps.name, list(self.classes), self.overlapping)

    def same(self, i: int, other: Any, j: int) -> str | None:
        return None if self.digest(i) == other.digest(j) else "with another mask"

    def members(self, name: str) -> np.ndarray:
        return np.flatnonzero(self.counts[:, list(self.classes).index(name)])

    def summary(self) -> MapSummary:
        counts = self.counts
        return MapSummary.of(counts, list(self.classes), self.overlapping, self.palette())

    def digest(self, i: int) -> bytes:
        return self._tally(i).digest

    def palette(self) -> list[tuple[int, int, int]]:
        """Of each class the colour that it is drawn in: the data's own, or the palette's."""
        from opsin.data.drawing import distinct_colours

        return [(r, g, b) for r, g, b in self.colours] if self.colours else distinct_colours(len(self.classes))

    def draw(self, image: Image, i: int, scale: tuple[float, float] = (1.0, 1.0)) -> Image:
        """An example's image with its classes laid over it; crossed where its map cannot be read."""
        from opsin.data.drawing import cross_out, lay_over

        try:
            return lay_over(image, torch.from_numpy(self.maps.read(i, None)), self.palette(), self._plain())
        except InputError:
            return cross_out(image)

    def draw_batch(
        self, image: Image, batch: Mapping[str, Any], k: int, scale: tuple[float, float] = (1.0, 1.0)
    ) -> Image:
        from opsin.data.drawing import lay_over

        return lay_over(image, batch["class_map"][k].as_subclass(Tensor).cpu(), self.palette(), self._plain())

    def _plain(self) -> list[int]:
        """The classes under which an image is drawn as it is."""
        return [k for k, name in enumerate(self.classes) if is_background(name)]

    def _tally(self, i: int) -> Tally:
        assert self.counted is not None and self.places is not None
        return self.counted.at(int(self.places[i]))

    def _tallies(self) -> list[Tally]:
        assert self.counted is not None and self.places is not None
        return self.counted.among(self.places)


def is_background(name: str) -> bool:
    """Whether the name of a class says that nothing is there: background, `__background__`."""
    return name.strip("_ ").casefold() == "background"


def as_labels(class_map: Tensor) -> Tensor:
    """A map as samples and batches have it -> int64, -1 where nothing is known; one of bool stays as it is."""
    if class_map.dtype == torch.bool:
        return class_map.as_subclass(Tensor)
    labels = class_map.as_subclass(Tensor).long()
    unknown = UNKNOWN if class_map.dtype == torch.uint8 else IGNORE
    return labels if unknown == IGNORE else labels.masked_fill_(labels == unknown, IGNORE)


def misfit(own: Size, size: Size) -> str:
    """How the size of a map differs from that of its image, in words."""
    turned = own != size and own == (size[1], size[0])
    why = "; was the image turned as its orientation asks, after the mask was drawn?" if turned else ""
    return f"it is {own[1]}x{own[0]} pixels (width x height), the image {size[1]}x{size[0]}{why}"
