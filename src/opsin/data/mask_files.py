"""Masks in image files: which value or colour of them is which class, and maps that are read from them one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from opsin.data.class_maps import digest_of, map_type, misfit
from opsin.data.drawing import voc_palette
from opsin.data.images import Header, UnreadableImage, decode_values, read_bytes
from opsin.data.map_counts import MapFault, Tally
from opsin.data.source import map_threads
from opsin.data.truth import Size
from opsin.errors import InputError

_NONE, _UNKNOWN = -2, -1  # in a table: of no class, of which nothing is known
_KEPT = 1024  # values of a mask that are counted one by one
_PIECE = 1 << 24  # pixels that are counted at once
_LISTED = 6  # values in a message
_FEW = 0.6  # of the pixels: fewer of wrong values, which are many, are the work of a lossy encoding
_LUMA = (0.299, 0.587, 0.114)


class MaskValues(NamedTuple):
    """What the file of a mask stores. values: (H, W), colours as r << 16 | g << 8 | b.

    coloured: whether they are colours that are not all greys. palette: (n, 3) of one.
    """

    values: np.ndarray
    coloured: bool
    palette: np.ndarray | None
    header: Header


class RawMask(NamedTuple):
    """What the file of a mask holds. values: those that occur, colours as r << 16 | g << 8 | b. counts: their pixels.

    distinct: how many there are, of which at most 1,024 are kept, the most frequent. coloured: whether they are colours
    that are no greys. palette: (n, 3) of one. digest: of the pixels.
    """

    values: np.ndarray
    counts: np.ndarray
    distinct: int
    coloured: bool
    palette: np.ndarray | None
    header: Header
    digest: bytes

    @property
    def size(self) -> Size:
        return self.header.height, self.header.width


def read_mask(file: str) -> MaskValues:
    """What the file of a mask stores. Raises UnreadableImage."""
    return mask_values(*decode_values(read_bytes(file), file))


def mask_values(values: np.ndarray, header: Header, palette: np.ndarray | None) -> MaskValues:
    """A mask of the values that an image stores, (H, W) or (H, W, 3), see `opsin.data.images.decode_values`."""
    coloured = False
    if values.ndim == 3:
        red, green, blue = (values[..., k] for k in range(3))
        coloured = not (np.array_equal(red, green) and np.array_equal(red, blue))
        if coloured:
            values = red.astype(np.int32)
            for channel in (green, blue):
                values <<= 8
                values |= channel
        else:
            values = red
    return MaskValues(values, coloured, palette, header)


def count_mask(mask: MaskValues) -> RawMask:
    """What occurs in a mask, and how often."""
    values = mask.values
    if values.dtype == np.uint8:
        flat = np.ascontiguousarray(values).ravel()
        pieces = np.array_split(flat, 1 + len(flat) // _PIECE)  # it makes int64 of what it counts
        counts = np.sum([np.bincount(piece, minlength=256) for piece in pieces], axis=0)
        found = np.flatnonzero(counts)
        counts = counts[found]
    else:
        found, counts = np.unique(values, return_counts=True)
    kept = np.sort(np.argsort(-counts, kind="stable")[:_KEPT])
    return RawMask(
        found[kept].astype(np.int64),
        counts[kept],
        len(found),
        mask.coloured,
        mask.palette,
        mask.header,
        digest_of(values),
    )


def scan(files: Sequence[str]) -> dict[str, RawMask]:
    """What each file holds, on every core; those that cannot be read are left out."""

    def look(file: str) -> RawMask | None:
        try:
            return count_mask(read_mask(file))
        except UnreadableImage:
            return None

    found = zip(files, map_threads(look, files), strict=True)
    return {file: raw for file, raw in found if raw is not None}


@dataclass(frozen=True, eq=False)
class Coding:
    """Which value of a mask is which class.

    classes: their names. colours: of each, where the data says them. values: (M,) sorted, numbers or colours; places:
    (M,) of each its class, -1 where it says that nothing is known. by_colour: whether values are colours. expected: the
    values in words. binary: whether all that is not 0 is the second class: for lossy masks of two values.
    """

    classes: Sequence[str]
    colours: Sequence[tuple[int, int, int]] | None
    values: np.ndarray
    places: np.ndarray
    expected: str
    by_colour: bool = False
    binary: bool = False

    def find(self, values: np.ndarray) -> np.ndarray:
        """int64, of each value its class, -1 where nothing is known, -2 of one that is no class."""
        if self.binary:
            return (values > 127).astype(np.int64)
        at = np.minimum(np.searchsorted(self.values, values), len(self.values) - 1)
        return np.where(self.values[at] == values, self.places[at], _NONE)

    def raw_values(self, raw: RawMask | MaskValues) -> np.ndarray:
        """The values of a mask as those of this coding: where that is of colours, greys and palettes as colours."""
        values = raw.values
        if not self.by_colour or raw.coloured:
            return values
        if raw.palette is None:
            return values.astype(np.int64) * 0x010101
        packed = raw.palette.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
        return np.append(packed, -1)[np.minimum(values, len(packed))]

    def decode(self, mask: MaskValues, file: str) -> np.ndarray:
        """A map of class numbers. Raises InputError for values that are no class."""
        if not self.by_colour and mask.coloured:
            raise InputError(f"{file}: {_COLOURED}")
        dtype, unknown = map_type(len(self.classes))
        values = self.raw_values(mask)
        small = values.dtype == np.uint8
        found = self.find(np.arange(256) if small else values)
        bad, classes = found == _NONE, np.where(found == _UNKNOWN, unknown, found).astype(dtype)
        if small:  # through tables of bytes, a tenth of the time of NumPy's indexing
            data = values.tobytes()
            wrong = bool(bad.any()) and b"\1" in data.translate(bad.tobytes())
        else:
            data, wrong = b"", bool(bad.any())
        if wrong:
            raise InputError(f"{file}: {self.wrong(count_mask(mask))}")
        if not small:
            return classes
        if dtype is not np.uint8:
            return classes[values]
        return np.frombuffer(bytearray(data.translate(classes.tobytes())), np.uint8).reshape(values.shape)

    def wrong(self, raw: RawMask) -> str:
        """In words, which values of a mask are no classes."""
        values = self.raw_values(raw)
        bad = self.find(values) == _NONE
        share = raw.counts[bad].sum() / raw.counts.sum()
        listed = ", ".join(_written(int(one), self.by_colour) for one in values[bad][:_LISTED])
        more = ", ..." if bad.sum() > _LISTED else ""
        return (
            f"{100 * share:.2g} % of its pixels have values that are no class: {listed}{more}; expected {self.expected}"
        )


_COLOURED = "it is a mask of colours among masks of numbers; save it as a PNG of numbers"


@dataclass(frozen=True, eq=False)
class MaskFiles:
    """`Maps` in files, one an image. seen: what was found in files while their coding was looked for."""

    files: Sequence[str]
    coding: Coding
    seen: Mapping[str, RawMask] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.files)

    def select(self, places: np.ndarray) -> MaskFiles:
        return replace(self, files=[self.files[i] for i in places.tolist()])

    def name(self, i: int) -> str:
        return self.files[i]

    def read(self, i: int, size: Size | None) -> np.ndarray:
        mask = read_mask(self.files[i])
        own = (mask.header.height, mask.header.width)
        if size is not None and own != tuple(size):
            raise InputError(f"{self.files[i]}: {misfit(own, size)}")
        return self.coding.decode(mask, self.files[i])

    def tally(self, i: int) -> Tally:
        count = len(self.coding.classes)
        try:
            raw = self.seen.get(self.files[i]) or count_mask(read_mask(self.files[i]))
        except UnreadableImage as error:
            fault = MapFault("unreadable_mask", f"its mask {error.path}: {error.reason}", unreadable=True)
            return Tally.failed(count, fault)
        return tally_mask(self.coding, raw)


def tally_mask(coding: Coding, raw: RawMask) -> Tally:
    """What a mask holds of the classes of a coding."""
    count = len(coding.classes)
    if raw.coloured and not coding.by_colour:
        return replace(Tally.failed(count, MapFault("coloured_mask", _COLOURED)), size=raw.size)
    places = coding.find(coding.raw_values(raw))
    counts = np.zeros(count + 1, np.int64)
    np.add.at(counts, np.where(places < 0, count, places), raw.counts)
    return Tally(counts, raw.digest, raw.size, _find_faults(coding, raw, places))


def _find_faults(coding: Coding, raw: RawMask, places: np.ndarray) -> list[MapFault]:
    """What is wrong with a mask. places: of its values their classes."""
    found, lossy = [], raw.header.encoding in ("JPEG", "MPO", "JPEG2000")
    bad = places == _NONE
    if bad.any():
        share = raw.counts[bad].sum() / raw.counts.sum()
        why = ""
        if lossy or (raw.distinct > 16 and share < _FEW):
            why = "; it was saved as a JPEG, which invents values: save masks as PNG from the originals"
        elif not coding.by_colour and set(raw.values[bad].tolist()) <= _GREYS_OF_VOC:
            why = "; these are the greys of a palette's colours: it was converted; save the palette's indices"
        kind = "lossy_mask" if lossy or "JPEG" in why else "not_a_class"
        found.append(MapFault(kind, coding.wrong(raw) + why))
    elif lossy:
        found.append(MapFault("lossy_mask", "a mask in a lossy encoding; save it as PNG", "warning"))
    if raw.palette is not None and coding.colours is not None and not coding.by_colour:
        found += _palette_faults(coding, raw, places)
    return found


def _palette_faults(coding: Coding, raw: RawMask, places: np.ndarray) -> list[MapFault]:
    """That a palette has the colour of a class at the number of another: its order is not that of the classes."""
    assert raw.palette is not None and coding.colours is not None
    table = {tuple(colour): k for k, colour in enumerate(coding.colours)}
    for value, place in zip(raw.values.tolist(), places.tolist(), strict=True):
        if place < 0 or value >= len(raw.palette):
            continue
        said = table.get(tuple(raw.palette[value].tolist()))
        if said is not None and said != place:
            reason = (
                f"value {value} is {coding.classes[place]!r}, but has the colour of {coding.classes[said]!r}: "
                "its palette may be in another order than the classes. Numbers are read, never colours"
            )
            return [MapFault("palette_order", reason, "warning")]
    return []


def _voc_greys() -> frozenset[int]:
    """The greys that VOC's palette becomes when it is converted, of its first 32 colours but black."""
    greys = set()
    for colour in voc_palette(32)[1:].tolist():
        luma = sum(weight * part for weight, part in zip(_LUMA, colour, strict=True))
        greys |= {int(luma), round(luma)}
    return frozenset(greys)


_GREYS_OF_VOC = _voc_greys()


def _written(value: int, by_colour: bool) -> str:
    return str((value >> 16, value >> 8 & 255, value & 255)) if by_colour else str(value)
