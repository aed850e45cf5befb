"""Maps of classes that are each decided alone: (K, H, W) bool, from maps of numbers or from masks of one class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from opsin.data.class_maps import Maps, digest_of, map_type
from opsin.data.images import UnreadableImage
from opsin.data.map_counts import MapFault, Tally
from opsin.data.mask_files import read_mask
from opsin.data.truth import Size
from opsin.errors import InputError

_COVERED = 0.001  # of the pixels: where so many are in two masks, that is said


@dataclass(frozen=True, eq=False)
class AsLayers:
    """Maps of numbers as layers of some of their classes. kept: the numbers. What is unknown is in no layer."""

    maps: Maps
    kept: Sequence[int]

    def __len__(self) -> int:
        return len(self.maps)

    def select(self, places: np.ndarray) -> AsLayers:
        return replace(self, maps=self.maps.select(places))

    def read(self, i: int, size: Size | None) -> np.ndarray:
        values = self.maps.read(i, size)
        return np.stack([values == number for number in self.kept])

    def name(self, i: int) -> str:
        return self.maps.name(i)

    def tally(self, i: int) -> Tally:
        own = self.maps.tally(i)
        counts = own.counts[list(self.kept)]
        faults = list(own.faults)
        if own.counts[-1] and not faults:
            share = 100 * own.counts[-1] / own.counts.sum()
            reason = f"{share:.2g} % of its pixels are unlabelled; where classes overlap, they count as being of none"
            faults.append(MapFault("unlabelled_is_nothing", reason, "note"))
        return replace(own, counts=np.append(counts, own.counts.sum() - counts.sum()), faults=faults)


@dataclass(frozen=True, eq=False)
class LayerFiles:
    """Maps from masks of one class each: what is not 0 is of it. files: of each image, from classes to their masks.

    num_classes: K of the layers, a class without a mask is nowhere. overlapping: maps are (K, H, W) bool; else (H, W)
    of numbers, 0 where no mask is, later classes on top of earlier ones.
    """

    files: Sequence[Mapping[int, str]]
    num_classes: int
    overlapping: bool

    def __len__(self) -> int:
        return len(self.files)

    def select(self, places: np.ndarray) -> LayerFiles:
        return replace(self, files=[self.files[i] for i in places.tolist()])

    def name(self, i: int) -> str:
        return min(self.files[i].values())

    def layers(self, i: int) -> np.ndarray:
        """(K, H, W) bool. Raises InputError for masks that cannot be read, and for some of other sizes."""
        found: np.ndarray | None = None
        for k, file in self.files[i].items():
            mask = read_mask(file)
            found = np.zeros((self.num_classes, *mask.values.shape), bool) if found is None else found
            if found.shape[1:] != mask.values.shape:
                own, other = ("x".join(map(str, shape[::-1])) for shape in (mask.values.shape, found.shape[1:]))
                raise InputError(f"{file} is {own} pixels (width x height), {self.name(i)} {other}")
            found[k] = mask.values > (127 if mask.header.encoding == "JPEG" else 0)
        assert found is not None
        return found

    def read(self, i: int, size: Size | None) -> np.ndarray:
        layers = self.layers(i)
        if self.overlapping:
            return layers
        values = np.zeros(layers.shape[1:], map_type(self.num_classes + 1)[0])
        for k, layer in enumerate(layers, 1):
            values[layer] = k
        return values

    def tally(self, i: int) -> Tally:
        count = self.num_classes if self.overlapping else self.num_classes + 1
        try:
            layers = self.layers(i)
        except UnreadableImage as error:
            fault = MapFault("unreadable_mask", f"its mask {error.path}: {error.reason}", unreadable=True)
            return Tally.failed(count, fault)
        except InputError as error:
            return Tally.failed(count, MapFault("unreadable_mask", str(error), unreadable=True))
        covered, faults = layers.sum(axis=0), []
        if not self.overlapping and (share := float((covered > 1).mean())) > _COVERED:
            reason = f"{100 * share:.2g} % of its pixels are in two masks; the later class is on top"
            faults.append(MapFault("overlap", f"{reason}; overlapping=true keeps both", "warning"))
        size = (layers.shape[1], layers.shape[2])
        if self.overlapping:
            counts = np.append(layers.sum(axis=(1, 2)), (covered == 0).sum())
            return Tally(counts.astype(np.int64), digest_of(layers), size, faults)
        values = self.read(i, None)
        counts = np.append(np.bincount(values.ravel(), minlength=count), 0).astype(np.int64)
        return Tally(counts, digest_of(values), size, faults)
