"""Which value of masks is which class: from a table of classes, what a layout says, and what occurs in the masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from opsin.data.class_tables import ClassTable, Colour
from opsin.data.mask_files import Coding, RawMask
from opsin.errors import InputError

VOID = 255  # the value that says in masks of numbers that nothing is known, where nobody says another
_MOST_VALUES = 64  # of one mask, where no names are known; photographs have more
_GREYS_APART = 10  # from one to the next, from which on greys are levels and no numbers
_MOST_CLASSES = 10_000


@dataclass(frozen=True)
class Setting:
    """What is said of masks beside them.

    table: of classes. names: of the classes, given by the user, in the place of the table's. ignore: the value that
    says that nothing is known, given by the user; of coloured masks the number of a row of the table. layout, void: a
    layout's name and that value in it, where it has one.
    """

    table: ClassTable | None = None
    names: Sequence[str] | None = None
    ignore: int | None = None
    layout: str = ""
    void: int | None = None


def find_coding(raws: Mapping[str, RawMask], setting: Setting) -> Coding:
    """How masks are read. raws: of some of them, or where no names are known of all, by their files.

    Raises InputError for masks that say nothing of classes, and for settings that conflict.
    """
    coloured = next((file for file, raw in raws.items() if raw.coloured), None)
    void = _find_void(setting)
    if coloured is not None:
        return _by_colour(coloured, raws[coloured], setting, void)
    values = np.unique(np.concatenate([raw.values for raw in raws.values()])) if raws else np.zeros(0, np.int64)
    lossy = any(raw.header.encoding == "JPEG" for raw in raws.values())
    if void is None and _is_binary(raws, values, lossy, setting):
        return _binary(setting, lossy)
    if setting.names is not None or setting.table is not None:
        return _named(values, setting, void)
    return _unnamed(raws, values, void)


def _find_void(setting: Setting) -> int | None:
    """The one value that says that nothing is known; None where nobody says it."""
    table, said = setting.table, [] if setting.table is None else setting.table.unknown
    if table is not None and said:
        own = table.numbers[said[0]]
        if setting.ignore is not None and setting.ignore not in [table.numbers[k] for k in said]:
            raise InputError(
                f"{table.file} calls {own} {table.names[said[0]]!r}, but ignore is {setting.ignore}; leave one out"
            )
        return own
    if setting.void is not None and setting.ignore not in (None, setting.void):
        raise InputError(
            f"in {setting.layout} {setting.void} says that nothing is known, but ignore is {setting.ignore}; drop it"
        )
    return setting.ignore if setting.ignore is not None else setting.void


def _is_binary(raws: Mapping[str, RawMask], values: np.ndarray, lossy: bool, setting: Setting) -> bool:
    """Whether masks are of 0 and 255, in a lossy encoding of about that."""
    count = None if setting.table is None else len(setting.table.names)
    count = len(setting.names) if setting.names is not None else count
    if count is not None and count > 2:
        return False
    if lossy and raws:
        pixels = sum(int(raw.counts.sum()) for raw in raws.values())
        ends = sum(int(raw.counts[(raw.values < 48) | (raw.values > 207)].sum()) for raw in raws.values())
        return ends >= 0.98 * pixels and bool((values > 207).any())
    return set(values.tolist()) <= {0, 255} and 255 in values


def _binary(setting: Setting, lossy: bool) -> Coding:
    names = list(setting.names or (setting.table.names if setting.table is not None else ())) or ["foreground"]
    names = ["background", *names] if len(names) == 1 else names
    colours = setting.table.colours if setting.table is not None and setting.names is None else None
    colours = colours if colours is not None and len(colours) == 2 else None
    return Coding(names, colours, np.array([0, 255]), np.array([0, 1]), "0 and 255", binary=lossy)


def _named(values: np.ndarray, setting: Setting, void: int | None) -> Coding:
    """Masks of numbers, with names for them."""
    if setting.names is not None:
        names, colours = list(setting.names), None
        numbers = list(range(len(names) + (void is not None and void < len(names))))
        numbers = [number for number in numbers if number != void][: len(names)]
        kept = list(range(len(names)))
    else:
        assert setting.table is not None
        table = setting.table
        names, colours, numbers = list(table.names), table.colours, list(table.numbers)
        plain = numbers == list(range(len(names)))
        if void == 0 and plain and not table.unknown and values.size and values.max() == len(names):
            numbers = [number + 1 for number in numbers]  # as ADE20K has them: 0 is nothing, classes count from 1
        kept = [k for k in range(len(names)) if numbers[k] != void and k not in table.unknown]
    void = VOID if void is None and VOID not in numbers else void
    places = {numbers[k]: place for place, k in enumerate(kept)}
    unknown = (
        {} if setting.table is None or setting.names else {setting.table.numbers[k] for k in setting.table.unknown}
    )
    return _of_numbers(
        [names[k] for k in kept],
        None if colours is None else [colours[k] for k in kept],
        places,
        {*unknown, *([] if void is None else [void])},
    )


def _unnamed(raws: Mapping[str, RawMask], values: np.ndarray, void: int | None) -> Coding:
    """Masks of numbers of which nobody says the names: those that occur, up to the largest."""
    known = values[values != (VOID if void is None else void)]
    first = 1 if void == 0 else 0
    largest = int(known.max(initial=first - 1))
    file = max(raws, key=lambda one: raws[one].distinct, default="")
    if file and raws[file].distinct > _MOST_VALUES:
        raise InputError(
            f"{file} holds {raws[file].distinct} values up to {largest}, which are no class numbers: an image, or a "
            "mask saved as JPEG? Save masks as PNG; name the classes in a classes.txt"
        )
    levels = values if void is None else known  # 255 is one of them, unless somebody says that it is not
    if len(levels) > 1 and np.diff(levels).min() >= _GREYS_APART and all(raw.palette is None for raw in raws.values()):
        greys = {one: k for k, one in enumerate(levels.tolist())}
        return _of_numbers([f"grey {one}" for one in greys], None, greys, set() if void is None else {void})
    if largest >= _MOST_CLASSES:
        raise InputError(
            f"a mask holds the class number {largest}; without names they go to {_MOST_CLASSES - 1:,} at most"
        )
    void = VOID if void is None else void
    numbers = [number for number in range(first, largest + 1) if number != void]
    return _of_numbers([f"class {one}" for one in numbers], None, {one: k for k, one in enumerate(numbers)}, {void})


def _of_numbers(
    names: Sequence[str], colours: Sequence[Colour] | None, places: Mapping[int, int], unknown: set[int]
) -> Coding:
    table = {**dict.fromkeys(unknown, -1), **places}
    values = np.array(sorted(table), np.int64)
    numbers = sorted(places)
    spans = len(numbers) and numbers == list(range(numbers[0], numbers[-1] + 1))
    said = f"{numbers[0]} to {numbers[-1]}" if spans else ", ".join(map(str, numbers[:20]))
    rest = sorted(unknown - set(places))
    said += f", and {rest[0]} where nothing is known" if rest else ""
    return Coding(list(names), colours, values, np.array([table[one] for one in values.tolist()]), said)


def _by_colour(file: str, raw: RawMask, setting: Setting, void: int | None) -> Coding:
    table = setting.table
    if table is None or table.colours is None:
        colours = [(int(v) >> 16, int(v) >> 8 & 255, int(v) & 255) for v in raw.values[np.argsort(-raw.counts)][:3]]
        raise InputError(
            f"{file} is a mask of colours, {', '.join(map(str, colours))} the most frequent, and no table says their "
            "classes; put a class_dict.csv of name,r,g,b beside the folders"
        )
    unknown = {*table.unknown, *([] if void is None else [void])}
    if void is not None and not 0 <= void < len(table.names):
        raise InputError(f"ignore is {void}, but {table.file} has the classes 0 to {len(table.names) - 1}")
    kept = [k for k in range(len(table.names)) if k not in unknown]
    names = list(table.names if setting.names is None else setting.names)
    if len(names) != len(table.names) and len(names) == len(kept):
        names = [names[kept.index(k)] if k in kept else "" for k in range(len(table.names))]
    if len(names) != len(table.names):
        raise InputError(f"{len(names)} names are given, and {table.file} has the colours of {len(table.names)}")
    codes = [red << 16 | green << 8 | blue for red, green, blue in table.colours]
    places = {code: kept.index(k) if k in kept else -1 for k, code in enumerate(codes)}
    values = np.array(sorted(places), np.int64)
    expected = f"the {len(codes)} colours of {table.file}"
    found = np.array([places[one] for one in values.tolist()])
    return Coding([names[k] for k in kept], [table.colours[k] for k in kept], values, found, expected, by_colour=True)
