"""Tables of classes beside masks: their names, their colours, and the numbers that they have in masks.

`classes.txt`, one name a line; `class_dict.csv` (`name,r,g,b`); `label_colors.txt` (`64 128 64 Animal`); CVAT's
`labelmap.txt` (`road:128,64,128::`); Roboflow's `_classes.csv` (`Pixel Value, Class`).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from opsin.data.formats.values import read_text
from opsin.errors import InputError

Colour = tuple[int, int, int]
_UNKNOWN = re.compile(r"(?:void|un-?label(?:l?ed)?|ignored?|unknown|__ignore__|mask ?out|don'?t ?care)", re.IGNORECASE)


@dataclass(frozen=True)
class ClassTable:
    """names: in the order of their numbers. colours: of each its own, where the table has them. file: for messages.

    numbers: of each the value in a mask of numbers.
    """

    names: Sequence[str]
    colours: Sequence[Colour] | None
    file: str
    numbers: Sequence[int]

    @property
    def unknown(self) -> list[int]:
        """The places of names that say that nothing is known: void, unlabelled, ignore."""
        return [k for k, name in enumerate(self.names) if is_unknown(name)]


def is_unknown(name: str) -> bool:
    """Whether the name of a class says that nothing is known: void, unlabelled, ignore."""
    return _UNKNOWN.fullmatch(name.strip()) is not None


def read_class_table(folders: Sequence[Path]) -> ClassTable | None:
    """The first table of classes in some folders; None where there is none. Raises InputError that names the line."""
    for folder in folders:
        for name, read in _READERS.items():
            file = folder / name
            if file.is_file():
                try:
                    return _checked(file, *read(file))
                except (UnicodeDecodeError, csv.Error) as error:
                    raise InputError(f"{file} is not readable: {error}") from error
    return None


_Read = tuple[list[str], "list[Colour] | None", "list[int] | None"]


def _checked(file: Path, names: list[str], colours: list[Colour] | None, numbers: list[int] | None) -> ClassTable:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not names:
        what = f"twice: {', '.join(twice[:5])}" if twice else "it is empty"
        raise InputError(f"{file} must name each class once, one a line; {what}")
    if colours is not None and len(set(colours)) < len(colours):
        first = next(one for one in colours if colours.count(one) > 1)
        both = [name for name, colour in zip(names, colours, strict=True) if colour == first]
        raise InputError(f"{file} gives one colour, {first}, to {' and '.join(both[:3])}; each class needs its own")
    return ClassTable(names, colours, str(file), numbers or list(range(len(names))))


def _names(file: Path) -> _Read:
    lines = [line.strip() for line in read_text(file).splitlines() if line.strip()]
    lines = lines[1:] if lines[:1] == ["__ignore__"] else lines  # of labelme, whose number is -1
    numbered = [re.fullmatch(r"(\d{1,5})\s*[:,;\t ]\s*(\S.*)", line) for line in lines]
    if lines and all(numbered) and len({one[1] for one in numbered if one}) == len(lines):
        pairs = sorted((int(one[1]), one[2].strip()) for one in numbered if one)
        return [name for _, name in pairs], None, [number for number, _ in pairs]
    return lines, None, None


def _dictionary(file: Path) -> _Read:
    """`name,r,g,b`, under a header or without."""
    names, colours = [], []
    for number, row in enumerate(csv.reader(read_text(file).splitlines(), skipinitialspace=True), 1):
        if not "".join(row).strip() or (number == 1 and len(row) >= 4 and not row[1].strip().isdigit()):
            continue
        if len(row) < 4:
            raise InputError(f"{file} line {number}: {len(row)} columns; expected name,r,g,b")
        names.append(row[0].strip())
        colours.append(_colour(row[1:4], f"{file} line {number}"))
    return names, colours, None


def _colour_lines(file: Path) -> _Read:
    """`64 128 64 Animal`, or the name first."""
    names, colours = [], []
    for number, line in enumerate(read_text(file).splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = re.fullmatch(r"\s*(\d+)[\s,]+(\d+)[\s,]+(\d+)[\s,]+(\S.*?)\s*", line)
        other = found or re.fullmatch(r"\s*(\S.*?)[\s,:]+(\d+)[\s,]+(\d+)[\s,]+(\d+)\s*", line)
        if other is None:
            raise InputError(f"{file} line {number}: expected red green blue name")
        parts = list(other.groups())
        name = parts.pop(3 if found else 0)
        names.append(name)
        colours.append(_colour(parts, f"{file} line {number}"))
    return names, colours, None


def _label_map(file: Path) -> _Read:
    """`name:r,g,b:parts:actions`, as CVAT writes them."""
    names, colours = [], []
    for number, line in enumerate(read_text(file).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        names.append(name.strip())
        if colour := rest.partition(":")[0].strip():
            colours.append(_colour(colour.split(","), f"{file} line {number}"))
    if colours and len(colours) < len(names):
        raise InputError(f"{file} gives a colour to {len(colours)} of {len(names)} classes; give it to all")
    return names, colours or None, None


def _pixel_values(file: Path) -> _Read:
    """`Pixel Value, Class`, as Roboflow writes them."""
    pairs = []
    for number, row in enumerate(csv.reader(read_text(file).splitlines(), skipinitialspace=True), 1):
        if not "".join(row).strip() or (number == 1 and not row[0].strip().isdigit()):
            continue
        if len(row) < 2 or not row[0].strip().isdigit():
            raise InputError(f"{file} line {number}: expected a pixel value and a class")
        pairs.append((int(row[0]), row[1].strip()))
    pairs.sort()
    return [name for _, name in pairs], None, [value for value, _ in pairs]


def _colour(parts: Sequence[str], where: str) -> Colour:
    try:
        red, green, blue = (int(part) for part in parts)
    except ValueError:
        raise InputError(f"{where}: a colour is three numbers from 0 to 255") from None
    if not all(0 <= one <= 255 for one in (red, green, blue)):
        raise InputError(f"{where}: the colour {red}, {green}, {blue} has a number that is not from 0 to 255")
    return red, green, blue


_READERS: dict[str, Callable[[Path], _Read]] = {
    "class_dict.csv": _dictionary,
    "class_dict_seg.csv": _dictionary,
    "label_colors.txt": _colour_lines,
    "labelmap.txt": _label_map,
    "_classes.csv": _pixel_values,
    "classes.txt": _names,
    "class_names.txt": _names,
    "codes.txt": _names,
}
