"""Lists of pairs of images that show the same identity or two: LFW's `pairs.txt`, and CSV.

`pairs.txt`: a first line of how many folds, and how many pairs of each kind in each, "10 300"; or of the latter alone,
as pairsDevTest.txt. Then, fold by fold, the same, "Abel_Pacheco 1 4", and others, "Abdel_Madi 1 Dean_Barker 1"; images
are Abel_Pacheco/Abel_Pacheco_0001.jpg beside the list, or in a folder beside it. Huang et al. 2007.

CSV: a header with two images (first, second; image1, image2; a, b; path1, path2), a column same (or issame, label,
match) of 0 and 1, and perhaps one called fold.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from opsin.data.formats.format import Claim, Format
from opsin.data.formats.values import as_posix, find_file, is_file, read_flag, read_head, read_text, read_whole, shown
from opsin.data.identity_trials import ListedPairs
from opsin.data.inputs import ImageFiles
from opsin.data.source import Source, Split
from opsin.data.truth import Problem
from opsin.errors import InputError
from opsin.image_files import IMAGE_SUFFIXES, list_folder

_FIRST_LINE = re.compile(rb"\s*\d+(?:\s+\d+)?\s*\r?\n\S+\t\d+\t\S+")
_COLUMNS = {
    "first": ("first", "image1", "path1", "file1", "a", "left"),
    "second": ("second", "image2", "path2", "file2", "b", "right"),
    "same": ("same", "issame", "is_same", "match", "label"),
    "fold": ("fold",),
}
_MOST_NAMED = 3


@dataclass(frozen=True)
class _Row:
    """A pair as it is listed. identities: of both images, where the list says them."""

    where: str
    files: tuple[str, str]
    same: bool
    fold: int
    identities: tuple[str, str] | None = None


def _open_rows(path: Path, format_: str, rows: Sequence[_Row], bases: Sequence[Path]) -> Source:
    """The images of all pairs, each once, and the pairs. Those whose files are not there are left out, as a problem."""
    places: dict[str, int] = {}
    found: dict[str, str | None] = {}
    names: list[str | None] = []
    kept, problems = [], []
    for row in rows:
        for file in row.files:
            if file not in found:
                found[file] = _locate(file, bases)
        if missing := [file for file in row.files if found[file] is None]:
            reason = f"names {shown(missing[0])}, which is not there; the pair is left out"
            problems.append(Problem("missing_file", row.where, reason))
            continue
        pair = []
        for number, file in enumerate(row.files):
            where = str(found[file])
            if where not in places:
                places[where] = len(places)
                names.append(None if row.identities is None else row.identities[number])
            pair.append(places[where])
        kept.append((pair, row.same, row.fold))
    if not kept:
        named = f"; the first is {shown(rows[0].files[0])}" if rows else ""
        raise InputError(f"{path}: none of {len(rows):,} pairs has its images beside the list{named}")
    known = sorted({name for name in names if name is not None})
    number = {name: k for k, name in enumerate(known)}
    labels = np.array([-1 if name is None else number[name] for name in names], np.int64)
    pairs, same, folds = (np.array(column) for column in zip(*kept, strict=True))
    truth = ListedPairs(labels, known, pairs=pairs, is_same=same.astype(bool), folds=folds)
    return Source(path.stem, format_, {"test": Split(ImageFiles(list(places)), truth)}, problems=problems)


def _locate(file: str, bases: Sequence[Path]) -> str | None:
    """An image by its name; where that has no ending, with any of an image's."""
    posix = as_posix(file.replace("\0", ""))
    found = find_file(posix, bases)
    if found is not None and is_file(found):
        return str(found)
    for base in bases if posix.suffix.lower() not in IMAGE_SUFFIXES and not posix.is_absolute() else ():
        for suffix in (".jpg", ".png", *sorted(IMAGE_SUFFIXES)):
            if is_file(place := base / f"{posix}{suffix}"):
                return str(place)
    return None


# LFW


def _lfw_file(path: Path) -> Path:
    return path / "pairs.txt" if path.is_dir() else path


def _claims_lfw(path: Path) -> Claim:
    file = _lfw_file(path)
    return 2 if file.suffix.lower() == ".txt" and _FIRST_LINE.match(read_head(file)) else 0


def _open_lfw(path: Path) -> Source:
    file = _lfw_file(path)
    bases = [file.parent, *(file.parent / name for name in list_folder(file.parent)[1] if name.startswith("lfw"))]
    found = _open_rows(path, "LFW pairs", list(_lfw_rows(file)), bases)
    return found


def _lfw_rows(file: Path) -> Iterator[_Row]:
    lines = [line.split() for line in read_text(file).splitlines() if line.strip()]
    head = [read_whole(word) for word in lines[0]]
    folds, each = (head[0], head[1]) if len(head) == 2 else (1, head[0])
    if each < 1 or len(lines) - 1 != 2 * folds * each:
        raise InputError(
            f"{file}: the first line says {folds} folds of {each} and {each} pairs, {2 * folds * each:,} in all, and "
            f"{len(lines) - 1:,} follow; take the whole list"
        )
    for number, words in enumerate(lines[1:]):
        where, fold = f"{file} line {number + 2}", number // (2 * each)
        same = number % (2 * each) < each
        if len(words) != (3 if same else 4):
            expected = "a name and two numbers" if same else "a name and a number, twice"
            raise InputError(f"{where}: {len(words)} words; expected {expected}, separated by tabs")
        one, other = (words[0], words[1]), (words[0] if same else words[2], words[2] if same else words[3])
        try:
            files = [f"{name}/{name}_{read_whole(image):04d}" for name, image in (one, other)]
        except ValueError as error:
            raise InputError(f"{where}: {error}") from None
        yield _Row(where, (files[0], files[1]), same, fold, (one[0], other[0]))


# CSV


def _header(path: Path) -> dict[str, int] | None:
    """Which column is what, of a table of pairs; None of any other."""
    first = read_head(path).decode("utf-8-sig", "replace").partition("\n")[0]
    cells = [cell.strip().lower() for cell in next(csv.reader([first], delimiter=_separator(first)), [])]
    found = {role: cells.index(name) for role, names in _COLUMNS.items() for name in reversed(names) if name in cells}
    return found if {"first", "second", "same"} <= found.keys() else None


def _separator(line: str) -> str:
    return "\t" if "\t" in line else "," if "," in line else ";"


def _csv_file(path: Path) -> Path:
    return path / "pairs.csv" if path.is_dir() else path


def _claims_csv(path: Path) -> Claim:
    file = _csv_file(path)
    return 2 if file.suffix.lower() in (".csv", ".tsv") and is_file(file) and _header(file) is not None else 0


def _open_csv(path: Path) -> Source:
    file = _csv_file(path)
    return _open_rows(path, "csv of pairs", list(_csv_rows(file)), [file.parent])


def _csv_rows(file: Path) -> Iterator[_Row]:
    roles, text = _header(file), read_text(file)
    assert roles is not None
    reader = csv.reader(text.splitlines(), delimiter=_separator(text.partition("\n")[0]))
    next(reader, None)
    for cells in reader:
        where = f"{file} line {reader.line_num}"
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) <= max(roles.values()):
            raise InputError(f"{where}: {len(cells)} columns, and the header has more; complete the line")
        try:
            same = read_flag(cells[roles["same"]])
            fold = read_whole(cells[roles["fold"]].strip()) if "fold" in roles else 0
        except ValueError as error:
            raise InputError(f"{where}: {error}") from None
        yield _Row(where, (cells[roles["first"]].strip(), cells[roles["second"]].strip()), same, fold)


LFW = Format("LFW pairs", "identities", "a pairs.txt as LFW's", _claims_lfw, _open_lfw)
CSV = Format("csv of pairs", "identities", "a CSV of pairs (first, second, same)", _claims_csv, _open_csv)
