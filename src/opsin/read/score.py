"""Evaluation of a file of texts, of whatever tool, against a split; no model is run."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opsin.data import Source
from opsin.engine.evaluator import Result
from opsin.engine.image_names import ImageNames
from opsin.errors import InputError
from opsin.files import read_regular
from opsin.image_files import IMAGE_SUFFIXES
from opsin.read.metrics import Compared, Protocol, evaluate

_FORMS = (
    'JSON of `opsin predict --json` or a list of {"path", "text"}, such a line an image (.jsonl), or a table of path '
    "and text (.csv, .tsv, .txt)"
)
_PATHS = ("path", "file", "image", "filename", "file_name", "image_name", "id")
_TEXTS = ("text", "prediction", "label", "transcription", "words")


@dataclass(frozen=True)
class _Row:
    image: str
    text: str
    place: str


def score(path: Path, source: Source, split: str, *, ignore_case: bool = False, alphanumeric: bool = False) -> Result:
    """What a file of texts is worth on a split of a source, by the rules of `opsin.read.metrics`.

    Every image of the split has one text, which may be empty. ignore_case, alphanumeric: as of `ReadEvaluator`. Raises
    InputError for a file that is none, that lacks images, or that has images which the data does not have.
    """
    chosen, names = source.splits[split], ImageNames(source, split)
    protocol = Protocol(ignore_case, alphanumeric)
    found: dict[int, _Row] = {}
    for row in read_texts(path):
        place = names.find(row.image, row.place)
        if place is None:
            continue
        if place in found:
            raise InputError(f"{row.place}: {chosen.name(place)} has a text already, at {found[place].place}")
        found[place] = row
    names.check(path, "texts")
    missing = [i for i in range(len(chosen)) if i not in found]
    if missing:
        raise InputError(
            f"{path} has no text for {len(missing):,} of {len(chosen):,} images of the {split} split of {source.name}, "
            f"the first is {chosen.name(missing[0])}; an image without text has an empty one"
        )
    compared = [
        Compared(protocol.normalise(chosen.kind.texts[i]), protocol.normalise(found[i].text))
        for i in range(len(chosen))
    ]
    evaluation = evaluate(compared)
    spoken = protocol.describe()
    details = {"protocol": spoken, **evaluation.to_dict()}
    return Result(evaluation.metrics, details, evaluation, data=f"; {len(found):,} texts; {spoken}")


def read_texts(path: Path) -> list[_Row]:
    """The rows of a file of texts. Raises InputError."""
    try:
        content = read_regular(path).decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{path} line {line} is not UTF-8; save the file as UTF-8") from None
    suffix = path.suffix.lower()
    rows = list(_json_rows(content, path) if suffix in (".json", ".jsonl") else _table_rows(content, path))
    if not rows:
        raise InputError(f"{path} holds no texts; expected {_FORMS}")
    return rows


def _json_rows(content: str, path: Path) -> Iterator[_Row]:
    try:
        if path.suffix.lower() == ".jsonl":
            lines = [(number, json.loads(line)) for number, line in enumerate(content.splitlines(), 1) if line.strip()]
        else:
            read = json.loads(content)
            read = next((v for v in read.values() if isinstance(v, list)), [read]) if isinstance(read, dict) else read
            lines = list(enumerate(read, 1))
    except (ValueError, RecursionError, TypeError):
        raise InputError(f"{path} is no readable JSON; expected {_FORMS}") from None
    for number, row in lines:
        yield _row_of(row, f"{path} {'line' if path.suffix.lower() == '.jsonl' else 'item'} {number}")


def _row_of(row: Any, place: str) -> _Row:
    given = {str(key).lower(): value for key, value in row.items()} if isinstance(row, dict) else {}
    image = next((given[key] for key in _PATHS if isinstance(given.get(key), str | int)), None)
    text = next((given[key] for key in _TEXTS if isinstance(given.get(key), str)), None)
    if image is None or text is None:
        raise InputError(f"{place} lacks a path or a text; expected {_FORMS}")
    return _Row(str(image), text, place)


def _table_rows(content: str, path: Path) -> Iterator[_Row]:
    lines = content.splitlines()
    first = next((line for line in lines if line.strip()), "")
    before = first.partition(",")[0]
    commas = path.suffix.lower() in (".csv", ".tsv") or (
        "," in first and (" " not in before or Path(before).suffix.lower() in IMAGE_SUFFIXES)
    )
    parting = "\t" if "\t" in first else "," if commas else " "
    if parting == " ":
        cells = [line.split(" ", 1) for line in lines]
    else:
        quoting = csv.QUOTE_MINIMAL if parting == "," else csv.QUOTE_NONE
        reader = csv.reader(io.StringIO(content), delimiter=parting, quoting=quoting, skipinitialspace=parting == ",")
        try:
            cells = list(reader)
        except csv.Error as error:
            raise InputError(f"{path} line {reader.line_num} cannot be read as a table: {error}") from None
    rows = [(number, row) for number, row in enumerate(cells, 1) if any(cell.strip() for cell in row)]
    header = [cell.strip().lower() for cell in rows[0][1]] if rows else []
    columns = [next((header.index(name) for name in names if name in header), None) for names in (_PATHS, _TEXTS)]
    rows, columns = (rows, [0, 1]) if None in columns else (rows[1:], columns)
    for number, row in rows:
        image, text = (row[column] if column is not None and column < len(row) else "" for column in columns)
        if image.strip():
            yield _Row(image, text, f"{path} line {number}")
