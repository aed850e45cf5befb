"""What `opsin predict` is given of sequences: texts as they stand, files with one a line, series of numbers."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opsin.engine.inputs import find_inputs
from opsin.engine.load_image import load_image
from opsin.errors import InputError
from opsin.files import read_regular
from opsin.image_files import IMAGE_SUFFIXES

_LARGEST = 1 << 28  # bytes of a file


def find_given(inputs: Sequence[str | Path], terms: Any) -> list[tuple[Any, str]]:
    """What some words and paths stand for, each with what it is called in messages.

    A file is a line each: of texts, or of a series in JSON, [[0.1, 0], [0.4, 1]]; an image is read by its rows or
    pixels; .csv is one series, a step a line. - is standard input. What is no file is a text, where the model reads
    texts. Raises InputError for what is not there.
    """
    found: list[tuple[Any, str]] = []
    for given in inputs:
        text, path = str(given), Path(given).expanduser()
        if not text.strip():
            raise InputError("an empty text was given; give one or more symbols, or a file with a text a line")
        if text == "-" and terms.form == "captions":
            raise InputError("- is standard input, and the model describes images; give their files")
        if text == "-":
            found += _lines(sys.stdin.buffer.read(_LARGEST + 1), "standard input", terms)
        elif path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES:
            _refuse_images(text, terms)
            found += [(_image(one), str(one)) for one in find_inputs([path], videos=False)]
        elif terms.form == "captions" and path.is_file():
            raise InputError(f"{text} is no image; the model describes images, such as .png and .jpg")
        elif len(text) < 1000 and path.is_file():
            data = _read(path)
            found += [(_table(data, text), text)] if path.suffix.lower() == ".csv" else _lines(data, text, terms)
        elif terms.source is None or isinstance(given, Path):
            reads = "images" if terms.form == "captions" else "numbers: give a .csv, a .jsonl or images"
            raise InputError(f"no file at {given}; the model reads {reads}")
        else:
            found.append((text, text))
    return found


def _refuse_images(text: str, terms: Any) -> None:
    if terms.source is not None:
        raise InputError(f"{text}: the model reads texts; give a text, or a file with one a line")


def _image(one: Any) -> Any:
    try:
        return load_image(one)
    except InputError as error:
        return error


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"{path} has more than {_LARGEST:,} bytes; divide it")
        return read_regular(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None


def _lines(data: bytes, where: str, terms: Any) -> Iterator[tuple[Any, str]]:
    """The lines of a file that are not empty."""
    if len(data) > _LARGEST:
        raise InputError(f"{where} has more than {_LARGEST:,} bytes; divide it")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not UTF-8, at byte {error.start}; save it as UTF-8") from None
    lines = [(k, line.rstrip("\r")) for k, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise InputError(f"{where} has no line with text")
    for number, line in lines:
        place = f"{where} line {number}"
        yield (line if terms.source is not None else _json_series(line, place)), place


def _json_series(line: str, place: str) -> Any:
    """Numbers of a line of JSON; of an object its "series". An InputError where it holds none."""
    try:
        found = json.loads(line)
        return read_series(found["series"] if isinstance(found, dict) else found)
    except (ValueError, KeyError, RecursionError):
        return InputError(f'{place}: no series of numbers; expected [[0.1, 0], [0.4, 1]] or {{"series": ...}}')
    except InputError as error:
        return InputError(f"{place}: {error}")


def _table(data: bytes, where: str) -> Any:
    """A series from lines of numbers, a step each; a first line of names is left out."""
    rows = [row for row in csv.reader(data.decode("utf-8-sig", "replace").splitlines()) if any(map(str.strip, row))]
    try:
        [float(cell) for cell in rows[0]] if rows else None
    except ValueError:
        rows = rows[1:]
    try:
        return read_series([[float(cell) for cell in row] for row in rows])
    except (ValueError, InputError):
        return InputError(f"{where} is no table of finite numbers, a step a line, all with as many")


def read_series(value: Any) -> Tensor:
    """Numbers as (T, C) float32; of a plain row C is 1. Raises InputError for what is none, or not finite."""
    try:
        series = torch.as_tensor(np.asarray(value, np.float32))
    except (TypeError, ValueError):
        raise InputError("a series is rows of numbers, all with as many") from None
    series = series[:, None] if series.ndim == 1 else series
    if series.ndim != 2:
        raise InputError(f"a series has steps and numbers of each, got {series.ndim} dimensions")
    if not bool(torch.isfinite(series).all()):
        raise InputError("a series has a number that is infinite or none (NaN); replace it")
    return series
