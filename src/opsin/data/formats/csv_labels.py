"""CSV tables of images: one row an image, `path,label`, paths relative to the table.

A header is optional. It names the columns: path, file, filename or image; label, class, target or category; split, set
or subset. Without a label column, the one other is it, or the others are one class each and hold 0 or 1 (or -1). `|`
or `;` part labels in a cell; with several labels an image blanks too, where that makes classes fewer.
The separator is a tab where the first line holds one, else a comma, else a semicolon. Names without an ending are
looked for in folders beside the table, see `table_beside`; a table of the test split without labels is left out.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from opsin.data.formats.folders import LABELS, SPLIT_NAMES, main_files
from opsin.data.formats.format import Claim, Format
from opsin.data.formats.table_beside import ImageIndex
from opsin.data.formats.values import as_posix, is_file, read_text
from opsin.data.formats.write_labels import write_csv
from opsin.data.inputs import ImageFiles
from opsin.data.labels import MULTI_LABEL, ClassLabels, as_several
from opsin.data.source import Source, Split
from opsin.data.truth import Problem
from opsin.errors import InputError
from opsin.image_files import IMAGE_SUFFIXES

_ROLES = {
    "path": (
        *("path", "file", "filename", "file_name", "filepath", "image", "image_path", "image_id", "img", "image_name"),
        *("imageid", "image index", "id_code", "id"),
    ),
    "label": (
        *("label", "labels", "class", "classes", "target", "category", "tags", "class_name", "classid", "class_id"),
        *("breed", "species", "diagnosis", "finding labels", "attribute_ids"),
    ),
    "split": ("split", "set", "subset", "fold"),
}
_ON, _OFF = ("1", "1.0"), ("0", "0.0", "-1", "-1.0")  # of a column of a class


@dataclass(frozen=True)
class _Row:
    line: int
    path: str
    names: tuple[str, ...]  # its labels
    split: str


def open_table(path: Path, multi_label: bool) -> Source:
    """One CSV file. multi_label: an image may have any number of labels, also none."""
    return _build(path.stem, {path: _read(path, "all")}, multi_label)


def open_tables(folder: Path, tables: dict[str, Path], multi_label: bool) -> Source:
    """One CSV file for each split. tables: from split names to files. One without labels is left out, but for train."""
    read, problems = {}, []
    for split, table in tables.items():
        try:
            read[table] = _read(table, split)
        except _NoLabelsError:
            if split == "train":
                raise
            problems.append(Problem("unlabelled", str(table), "it has no column of labels, left out", "note"))
    return _build(folder.name, read, multi_label, problems)


class _NoLabelsError(InputError):
    """A table that names images and says nothing of them."""


def _build(
    name: str,
    tables: dict[Path, tuple[list[_Row], list[str]]],
    multi_label: bool,
    problems: Sequence[Problem] = (),
) -> Source:
    problems = list(problems)
    listed = {row.names for rows, _ in tables.values() for row in rows}
    if multi_label and not any(columns for _, columns in tables.values()) and (parted := _part_by_blanks(listed)):
        tables = {
            table: ([replace(row, names=parted[row.names]) for row in rows], columns)
            for table, (rows, columns) in tables.items()
        }
        reason = "the labels in a cell are split at blanks; separate them by | where class names contain blanks"
        problems.append(Problem("parted_labels", str(next(iter(tables))), reason, "note"))
    declared = [column for _, columns in tables.values() for column in columns]
    classes = sorted({label for rows, _ in tables.values() for row in rows for label in row.names} | set(declared))
    number = {label: k for k, label in enumerate(classes)}
    files: dict[str, list[str]] = {}
    labels: dict[str, list[np.ndarray | int]] = {}
    for table, (rows, _) in tables.items():
        places = _locate_all(table, rows)
        for row, place in zip(rows, places, strict=True):
            if not multi_label and len(row.names) != 1:
                raise _not_single(table, row)
            files.setdefault(row.split, []).append(place)
            ones = [number[label] for label in row.names]
            labels.setdefault(row.split, []).append(_hot(ones, len(classes)) if multi_label else ones[0])
    dtype = np.float32 if multi_label else np.int64
    truths = {key: ClassLabels(np.array(rows, dtype), classes) for key, rows in labels.items()}
    splits = {key: Split(ImageFiles(files[key]), truth) for key, truth in truths.items()}
    return Source(name, "csv", splits, problems=problems)


def _locate_all(table: Path, rows: Sequence[_Row]) -> list[str]:
    """The images of a table's rows: relative to it, or where the first is not there, by their names beside it."""
    plain = [locate(row.path, [table.parent]) for row in rows]
    if not rows or is_file(plain[0]):
        return [str(place) for place in plain]
    indices = {row.split: ImageIndex(table, row.split) for row in rows}
    named = (indices[row.split].find(row.path) for row in rows)
    return [str(found or place) for found, place in zip(named, plain, strict=True)]


def _hot(places: Sequence[int], num_classes: int) -> np.ndarray:
    row = np.zeros(num_classes, np.float32)
    row[list(places)] = 1
    return row


def _not_single(table: Path, row: _Row) -> InputError:
    if not row.names:
        return InputError(f"{table} line {row.line}: {row.path!r} has no label; add one, or set {MULTI_LABEL}")
    listed = ", ".join(row.names[:5])
    return InputError(f"{table} line {row.line}: {row.path!r} has several labels ({listed}); set {MULTI_LABEL}")


def _read(table: Path, split: str) -> tuple[list[_Row], list[str]]:
    """The rows of a table, and the classes that are columns of it."""
    cells = read_cells(table)
    first = cells[0][1]
    header = [cell.strip().lower() for cell in first]
    if not _is_header(header, table):
        foreign = _foreign_header(cells, table)
        roles, columns = foreign or {"path": 0, "label": 1}, {}
        cells = cells[1:] if foreign else cells
    else:
        roles = {
            role: header.index(name) for role, names in _ROLES.items() for name in reversed(names) if name in header
        }
        columns = {}
        cells = cells[1:]
        if "path" in roles and "label" not in roles:
            columns = {k: name.strip() for k, name in enumerate(first) if k not in roles.values()}
            if len(columns) == 1 and _says_names(next(iter(columns)), cells):
                roles["label"] = columns.popitem()[0]
    if "path" not in roles or ("label" not in roles and len(columns) < 2):
        raise (_NoLabelsError if "path" in roles and not columns else InputError)(
            f"{table} has the columns {', '.join(header)}; "
            "expected path and label, or path and one column of 0 and 1 for each class"
        )
    width = max([*roles.values(), *columns]) + 1
    rows = []
    for line, row in cells:
        if len(row) < width:
            raise InputError(f"{table} line {line}: {len(row)} columns, expected {width}")
        rows.append(_row(table, line, [cell.strip() for cell in row], roles, columns, split))
    if not rows:
        raise InputError(f"{table} lists no images; expected rows of path,label")
    return rows, list(columns.values())


def _row(table: Path, line: int, row: list[str], roles: dict[str, int], columns: dict[int, str], split: str) -> _Row:
    if columns:
        wrong = next((k for k in columns if row[k] not in (*_ON, *_OFF)), None)
        if wrong is not None:
            raise InputError(
                f"{table} line {line}: column {columns[wrong]!r} holds {row[wrong]!r}; a class column holds 0 or 1"
            )
        names = tuple(name for k, name in columns.items() if row[k] in _ON)
    else:
        cell = row[roles["label"]].replace(";", "|")
        names = tuple(dict.fromkeys(part.strip() for part in cell.split("|") if part.strip()))
    if not row[roles["path"]]:
        raise InputError(f"{table} line {line}: the path is empty")
    if "split" in roles:
        given = row[roles["split"]]
        if given.lower() not in SPLIT_NAMES:
            raise InputError(f"{table} line {line}: unknown split {given!r}; expected train, val or test")
        split = SPLIT_NAMES[given.lower()]
    return _Row(line, row[roles["path"]], names, split)


def _says_names(column: int, cells: Sequence[tuple[int, list[str]]]) -> bool:
    """Whether a column holds names, not only numbers, which may be anything."""
    values = {row[column].strip() for _, row in cells if len(row) > column}
    return not all(value.replace(".", "", 1).lstrip("-").isdigit() for value in values)


def _part_by_blanks(cells: Collection[tuple[str, ...]]) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Cells with their labels split at blanks; empty where blanks are part of names.

    They are where another sign parts labels, and where no class is shared between the parts of two cells.
    """
    if any(len(cell) > 1 for cell in cells) or not any(" " in name for cell in cells for name in cell):
        return {}
    parted = {cell: tuple(dict.fromkeys(part for name in cell for part in name.split())) for cell in cells}
    several = [parts for parts in parted.values() if len(parts) > 1]
    classes = {part for parts in parted.values() for part in parts}
    alone = {parts[0] for parts in parted.values() if len(parts) == 1}
    shared = sum(part in alone or sum(part in other for other in several) > 1 for parts in several for part in parts)
    return parted if len(classes) < len(cells) or 2 * shared > sum(map(len, several)) else {}


def locate(path: str, folders: Sequence[Path]) -> Path:
    """Where a path of a table leads: from the first of the folders that has it; backslashes part folders too."""
    if len(folders) == 1 and "\\" not in path:
        return folders[0] / path
    for given in dict.fromkeys((path, str(as_posix(path)))):
        if (found := next((folder / given for folder in folders if (folder / given).is_file()), None)) is not None:
            return found
    return folders[0] / as_posix(path)


def read_cells(table: Path, expected: str = "rows of path,label") -> list[tuple[int, list[str]]]:
    """Lines that are not blank, with their numbers."""
    try:
        text = read_text(table)
        first = text.split("\n", 1)[0]
        separator = next((sign for sign in "\t,;" if sign in first), ",")
        # Line feeds alone end a line: other signs that Python counts as such may stand in a name.
        lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        reader = csv.reader((f"{line}\n" for line in lines), delimiter=separator, strict=True, skipinitialspace=True)
        cells = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except UnicodeDecodeError as error:
        raise InputError(
            f"{table} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error
    except (OSError, csv.Error) as error:
        raise InputError(f"{table} cannot be read as CSV: {error}") from error
    if not cells:
        raise InputError(f"{table} is empty; expected {expected}")
    return cells


def _is_header(first: list[str], table: Path) -> bool:
    """Whether the first row names columns: no cell of it is an image, and one is a name that we know."""
    if any(PurePosixPath(cell).suffix in IMAGE_SUFFIXES for cell in first) or (table.parent / first[0]).is_file():
        return False
    known = {name for names in _ROLES.values() for name in names}
    return any(cell in known for cell in first)


def _foreign_header(cells: Sequence[tuple[int, list[str]]], table: Path) -> dict[str, int] | None:
    """Where path and label stand under a header in words that we do not know; None where the first row is no header.

    It is one where no cell of it is an image and one of the row below is. Raises InputError for more than two columns.
    """
    first, second = cells[0][1], cells[1][1] if len(cells) > 1 else []
    images = [k for k, cell in enumerate(second) if as_posix(cell.strip()).suffix.lower() in IMAGE_SUFFIXES]
    if not images or any(as_posix(cell.strip()).suffix for cell in first) or (table.parent / first[0].strip()).exists():
        return None
    if len(first) != 2:
        raise InputError(f"{table} has the columns {', '.join(first)}; name those of the image path and label")
    return {"path": images[0], "label": 1 - images[0]}


def _claims(path: Path) -> Claim:
    files = main_files(path).values() if path.is_dir() else [path]
    return 1 if files and all(file.suffix.lower() in (".csv", ".tsv") for file in files) else 0


def _open(path: Path, multi_label: bool = False) -> Source:
    if not path.is_dir():
        opened = open_table(path, multi_label)
    elif (file := (files := main_files(path)).get("all")) is None:
        opened = open_tables(path, files, multi_label)
    else:
        opened = open_table(file, multi_label)
        opened = replace(opened, name=path.name) if file.name == LABELS else opened
    return as_several(opened, multi_label)


def _write(source: Source, out: Path, link: bool = False) -> list[str]:
    return write_csv(source, out, link, columns={name for names in _ROLES.values() for name in names})


FORMAT = Format("CSV", "class labels", "a CSV", _claims, _open, ("multi_label",), written="csv", write=_write)
