"""Files of sequences, row by row: tables, lines of JSON, words with labels, parallel files. Each row knows its line."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from opsin.data.formats.text_files import decode_lines
from opsin.data.formats.tree import SPLIT_NAMES
from opsin.data.formats.values import shown
from opsin.data.truth import Problem
from opsin.errors import InputError
from opsin.files import read_regular

SOURCES = ("source", "src", "input", "text", "sentence", "tokens", "words")
TARGETS = ("target", "tgt", "output", "translation")
LABELS = ("labels", "tags", "ner_tags")
CLASSES = ("label", "class", "category")
SERIES = ("series", "values", "sequence")
NUMBERS = ("value", "y", "targets")
NAMES = (*SOURCES, *TARGETS, *LABELS, *CLASSES, *SERIES, *NUMBERS, "split")
_BROKEN = "broken_annotation"


@dataclass
class Row:
    """One example of a file. line: its number. source: a text, or a series (T, C); target: what is known of it."""

    line: int
    source: Any
    target: Any = None
    split: str = ""


@dataclass
class Rows:
    """What was read of a file. form: one of `opsin.sequence.truth.FORMS`; "" where the file does not show it."""

    where: str
    form: str = ""
    rows: list[Row] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def refuse(self, line: int, reason: str) -> None:
        """Note that a line cannot be read."""
        self.problems.append(Problem(_BROKEN, f"{self.where} line {line}", reason))

    def add(self, form: str, row: Row) -> None:
        """Keep a row of a form, unless it is empty or of another form than the rows before."""
        if self.form not in ("", form):
            self.refuse(row.line, f"it is of the form {form}, the rows before are of {self.form}; all must be of one")
        elif isinstance(row.source, str) and not row.source.strip():
            self.refuse(row.line, "its text is empty; expected one or more symbols, remove the line")
        elif form == "pairs" and not row.target.strip():
            self.refuse(row.line, "the text that belongs to it is empty; remove the line, or complete it")
        elif form == "labels" and len(row.source.split()) != len(row.target.split()):
            counts = f"{len(row.source.split())} words and {len(row.target.split())} labels"
            self.refuse(row.line, f"{counts}; each word needs one")
        else:
            self.form = form
            self.rows.append(row)


def read_bytes(path: Path) -> bytes:
    """The bytes of a regular file. Raises InputError."""
    try:
        return read_regular(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None


def lines_of(path: Path, found: Rows, encoding: str) -> list[tuple[int, str]]:
    """The lines of a file with their numbers, less those that are blank."""
    return list(decode_lines(read_bytes(path), str(path), found.problems, encoding or "utf-8-sig"))


def _blank(lines: Sequence[tuple[int, str]], found: Rows) -> Iterator[int]:
    """The numbers of blank lines between others."""
    known = {number for number, _ in lines} | {_line_of(problem) for problem in found.problems}
    yield from (number for number in range(1, max(known, default=0)) if number not in known)


def _line_of(problem: Problem) -> int:
    number = problem.path.rpartition(" line ")[2]
    return int(number) if number.isdecimal() else 0


def read_table(path: Path, form: str = "", encoding: str = "") -> Rows:
    """Lines of a text, a tab, and what belongs to it. The first may name the columns: source, target, label, split."""
    found = Rows(str(path))
    lines = lines_of(path, found, encoding)
    for number in _blank(lines, found):
        found.refuse(number, "the line is empty; expected a text, a tab, and what belongs to it")
    header: list[str] = []
    for place, (number, line) in enumerate(lines):
        cells = next(csv.reader([line], delimiter="\t", quoting=csv.QUOTE_NONE))
        if place == 0 and len(cells) > 1 and all(cell.strip().lower() in NAMES for cell in cells):
            header = [cell.strip().lower() for cell in cells]
            continue
        names = header or ["source", _column_of(form)]
        if len(cells) != len(names):
            found.refuse(number, f"{len(cells)} columns, parted by tabs; expected {len(names)}: {', '.join(names)}")
            continue
        _add_mapping(dict(zip(names, cells, strict=True)), number, found)
    return found


def _column_of(form: str) -> str:
    return {"labels": "labels", "classes": "label", "values": "value"}.get(form, "target")


def read_json_lines(path: Path, form: str = "", encoding: str = "") -> Rows:
    """A JSON object a line: {"source", "target"}, {"text", "label"}, {"tokens", "labels"}, {"series", "value"}."""
    found = Rows(str(path))
    for number, line in lines_of(path, found, encoding):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            found.refuse(number, f"no JSON: {error}")
            continue
        if not isinstance(row, dict):
            found.refuse(number, f'{shown(row)}; expected an object, as {{"source": "...", "target": "..."}}')
            continue
        _add_mapping({str(key).strip().lower(): value for key, value in row.items()}, number, found)
    return found


def _first(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((row[name] for name in names if name in row), None)


def _add_mapping(row: Mapping[str, Any], line: int, found: Rows) -> None:
    """Keep a row by the names of its columns, or note why it cannot be read."""
    split = str(row.get("split", "")).lower()
    if split and split not in SPLIT_NAMES:
        found.refuse(line, f"unknown split {shown(split)}; expected train, val or test")
        return
    try:
        form, source, target = _of_names(row)
    except ValueError as error:
        found.refuse(line, str(error))
        return
    found.add(form, Row(line, source, target, SPLIT_NAMES.get(split, "")))


def _of_names(row: Mapping[str, Any]) -> tuple[str, Any, Any]:
    """Form, source and target of a row. Raises ValueError with the reason why it has none."""
    text, series = _first(row, SOURCES), None
    if text is None:
        series = _as_series(_first(row, SERIES))
    elif isinstance(text, list) and all(isinstance(one, str) for one in text):
        text = " ".join(text)
    elif not isinstance(text, str):
        raise ValueError(f"its text is {shown(text)}; expected a text")
    source = text if series is None else series
    if (target := _first(row, TARGETS)) is not None:
        if series is not None or not isinstance(target, str):
            raise ValueError(f"its target is {shown(target)}; expected a text for a text")
        return "pairs", source, target
    if (labels := _first(row, LABELS)) is not None:
        named = labels.split() if isinstance(labels, str) else labels
        if series is not None or not isinstance(named, list) or not all(isinstance(one, str | int) for one in named):
            raise ValueError("its labels are no list of names, one for each word of a text")
        return "labels", source, " ".join("_".join(str(one).split()) for one in named)
    if (name := _first(row, CLASSES)) is not None:
        if not isinstance(name, str | int) or not str(name).strip():
            raise ValueError(f"its label is {shown(name)}; expected the name of a class")
        return "classes", source, str(name).strip()
    if (value := _first(row, NUMBERS)) is not None:
        return "values", source, _as_values(value)
    if series is not None:
        raise ValueError("a series without a value or a label; add what is to be found")
    return "language", source, None


def _as_series(value: Any) -> np.ndarray:
    if value is None:
        raise ValueError(f"it has neither a text ({', '.join(SOURCES[:4])}) nor a series ({', '.join(SERIES)})")
    try:
        series = np.asarray(value, np.float32)
    except (TypeError, ValueError):
        raise ValueError("its series is no list of numbers, or of rows of as many numbers each") from None
    series = series[:, None] if series.ndim == 1 else series
    if series.ndim != 2 or not series.size:
        raise ValueError("its series has no steps; expected a list of numbers, or of rows of numbers")
    if not np.isfinite(series).all():
        raise ValueError("its series has a number that is infinite or none (NaN); replace it")
    return series


def _as_values(value: Any) -> np.ndarray:
    given = value if isinstance(value, list) else [value]
    try:
        values = np.array([float(one) for one in given], np.float32)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"its value is {shown(value)}; expected a number, or a list of numbers") from None
    if not len(values) or not all(map(math.isfinite, values.tolist())):
        raise ValueError("its value is no finite number")
    return values


def read_labelled(path: Path, form: str = "", encoding: str = "") -> Rows:
    """Words with labels, a word a line, its label the last of its columns; a blank line parts texts (CoNLL)."""
    found = Rows(str(path))
    words: list[tuple[int, str, str]] = []
    before = 0

    def close() -> None:
        if words:
            text, labels = " ".join(word for _, word, _ in words), " ".join(label for *_, label in words)
            found.add("labels", Row(words[0][0], text, labels))
            words.clear()

    for number, line in lines_of(path, found, encoding):
        if number != before + 1:
            close()
        before = number
        cells = line.split("\t") if "\t" in line else line.split()
        if cells[0] == "-DOCSTART-":
            close()
        elif len(cells) < 2 or not cells[0].strip() or not cells[-1].strip():
            found.refuse(number, f"{shown(line)}; expected a word and its label")
        else:
            words.append((number, "_".join(cells[0].split()), "_".join(cells[-1].split())))
    close()
    return found


def read_parallel(source: Path, target: Path, encoding: str = "") -> Rows:
    """Two files of as many lines, each line of one the translation of that of the other."""
    found = Rows(str(source))
    sides = [_all_lines(path, found, encoding) for path in (source, target)]
    if len(sides[0]) != len(sides[1]):
        counts = f"{len(sides[0]):,} lines and {target} {len(sides[1]):,}"
        raise InputError(f"{source} has {counts}; line for line they must belong together")
    for number, (one, other) in enumerate(zip(*sides, strict=True), 1):
        found.add("pairs", Row(number, one, other))
    return found


def _all_lines(path: Path, found: Rows, encoding: str) -> list[str]:
    """The lines of a file, blank ones too, but for those at its end."""
    known = dict(lines_of(path, found, encoding))
    return [known.get(number, "") for number in range(1, max(known, default=0) + 1)]


def read_text(path: Path, window: int, encoding: str = "") -> Rows:
    """A text in pieces of about so many characters, which end at white space; each knows the line that it begins in."""
    found = Rows(str(path), "language")
    lines = lines_of(path, found, encoding)
    numbers, words = [], []
    before = 0
    for number, line in lines:
        if number > before + 1 and words:
            words[-1] += "\n"  # paragraphs stay apart
        before = number
        for word in line.split():
            numbers.append(number)
            words.append(word)
    piece, begun, length = list[str](), 0, 0
    for number, word in zip(numbers, words, strict=True):
        begun = begun if piece else number
        piece.append(word)
        length += len(word) + 1
        if length > window:
            found.rows.append(Row(begun, " ".join(piece)))
            piece, length = [], 0
    if piece:
        found.rows.append(Row(begun, " ".join(piece)))
    return found


def read_steps(path: Path, window: int, horizon: int, encoding: str = "") -> Rows:
    """A table of numbers, a step a line: pieces of `window` steps, with the next `horizon` steps to be found."""
    found = Rows(str(path), "values")
    numbers: list[int] = []
    steps: list[np.ndarray] = []
    lines = lines_of(path, found, encoding)
    for place, (number, line) in enumerate(lines):
        cells = [cell.strip() for cell in next(csv.reader([line]))]
        try:
            step = np.array([float(cell) for cell in cells], np.float32)
        except ValueError:
            if place:
                found.refuse(number, f"{shown(line)}; expected numbers, parted by commas")
            continue  # the first may name the columns
        if steps and len(step) != len(steps[0]):
            found.refuse(number, f"{len(step)} numbers, the lines before have {len(steps[0])}")
        elif not np.isfinite(step).all():
            found.refuse(number, "a number is infinite or none (NaN); replace it")
        else:
            steps.append(step)
            numbers.append(number)
    table = np.stack(steps) if steps else np.zeros((0, 1), np.float32)
    for k in range(len(table) - window - horizon + 1):
        following = table[k + window : k + window + horizon].reshape(-1)
        found.rows.append(Row(numbers[k], table[k : k + window], following))
    if not found.rows and not found.problems:
        raise InputError(f"{path} has {len(table):,} steps, too few for pieces of {window} and {horizon} that follow")
    return found
