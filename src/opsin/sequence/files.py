"""Sequences in files: `.tsv`, `.jsonl`, `.conll`, `.txt`, `.csv`, one of all, or one a split, or parallel files.

- `.tsv`: a text, a tab, and the text that belongs to it; a first line may name the columns, as text and label;
- `.jsonl`: {"source": ..., "target": ...}, {"text", "label"}, {"tokens", "labels"}, {"series", "value" or "label"}, or
  {"text"} alone, which is to be continued; each may have "split";
- `.conll`: a word and its label a line, a blank line between texts;
- `.txt`: a text, which is to be continued, in pieces;
- `.csv`: numbers, a step a line, of which the next are to be found;
- a folder of these, called after splits: train.tsv, val.tsv, test.tsv; or of parallel files, train.de and train.en.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from opsin.data.formats.format import Claim, Format
from opsin.data.formats.tree import SPLIT_NAMES
from opsin.data.formats.values import read_head
from opsin.data.source import Source, Split
from opsin.data.texts import PackedTexts
from opsin.data.truth import Problem
from opsin.errors import InputError
from opsin.image_files import IMAGE_SUFFIXES, list_folder
from opsin.sequence import rows
from opsin.sequence.inputs import NumberInputs, TextInputs
from opsin.sequence.rows import Row, Rows
from opsin.sequence.truth import FORMS, SequenceTruth, check_form

_KINDS: Mapping[str, str] = {
    ".tsv": "a table",
    ".jsonl": "lines of JSON",
    ".conll": "words with labels",
    ".bio": "words with labels",
    ".txt": "a text",
    ".csv": "a table of numbers",
}
_WINDOW = {".txt": 200, ".csv": 50}  # characters of a piece; steps of one
_SHARES = (0.8, 0.1)  # of a series in the order of time, for train and val; the rest is the test split
_FIRST = ("src", "source", "input", "in", "x")  # endings of the files that are read
_HEAD = 1 << 14  # bytes by which a file is recognised


def _splits_in(folder: Path) -> dict[str, Path]:
    """The files of a folder that are called after splits, all with one ending."""
    found: dict[str, dict[str, Path]] = {}
    for name in list_folder(folder)[0]:
        path = folder / name
        split = SPLIT_NAMES.get(path.stem.lower())
        if split is not None and path.suffix.lower() in _KINDS:
            found.setdefault(path.suffix.lower(), {})[split] = path
    return next((found[ending] for ending in _KINDS if ending in found), {})


def _parallel_in(folder: Path) -> dict[str, list[Path]]:
    """Two files of a name with different endings for each split."""
    found: dict[str, list[Path]] = {}
    for name in list_folder(folder)[0]:
        path = folder / name
        split = SPLIT_NAMES.get(path.stem.lower())
        if split is not None and path.suffix and path.suffix.lower() not in {*_KINDS, *IMAGE_SUFFIXES}:
            found.setdefault(split, []).append(path)
    pairs = {split: paths for split, paths in found.items() if len(paths) == 2}
    endings = {tuple(sorted(path.suffix for path in paths)) for paths in pairs.values()}
    return pairs if len(endings) == 1 and "train" in pairs else {}


def _in_order(paths: Sequence[Path], into: str) -> tuple[Path, Path]:
    """Of two parallel files the one that is read, and the one that is written.

    By `into`, else by their endings, else by the alphabet.
    """
    one, other = sorted(paths, key=lambda path: path.suffix)
    endings = [path.suffix.lower().lstrip(".") for path in (one, other)]
    if into:
        if into.lower().lstrip(".") not in endings:
            raise InputError(f"into is {into!r}, and the files end in {' and '.join(endings)}; name one of these")
        return (other, one) if endings[0] == into.lower().lstrip(".") else (one, other)
    return (other, one) if endings[1] in _FIRST else (one, other)


def _read(path: Path, form: str, window: int, horizon: int, encoding: str) -> Rows:
    ending = path.suffix.lower()
    if ending == ".txt":
        return rows.read_text(path, window or _WINDOW[ending], encoding)
    if ending == ".csv":
        return rows.read_steps(path, window or _WINDOW[ending], horizon, encoding)
    readers = {".tsv": rows.read_table, ".jsonl": rows.read_json_lines}
    return readers.get(ending, rows.read_labelled)(path, form, encoding)


def _open(path: Path, form: str = "", window: int = 0, horizon: int = 1, into: str = "", encoding: str = "") -> Source:
    """A file or a folder as a source. Raises InputError where it holds nothing, or another form than is asked for."""
    parts: dict[str, Rows] = {}
    if path.is_dir() and not (files := _splits_in(path)):
        pairs = {split: _in_order(two, into) for split, two in _parallel_in(path).items()}
        parts = {split: rows.read_parallel(*two, encoding) for split, two in pairs.items()}
        ways = {(one.suffix, other.suffix) for one, other in pairs.values()}
        kind = f"parallel files, {' to '.join(next(iter(ways)))}" if ways else ""
    else:
        named = files if path.is_dir() else {"": path}  # type: ignore[possibly-undefined]
        parts = {split: _read(file, form, window, horizon, encoding) for split, file in named.items()}
        kind = _KINDS[next(iter(named.values())).suffix.lower()]
    problems = [problem for one in parts.values() for problem in one.problems]
    _check(path, parts, form, problems)
    found = {split: one for split, one in parts.items() if one.rows}
    name = path.name if path.is_dir() else path.stem
    return Source(name, kind, _as_splits(found, path.suffix.lower() == ".csv", problems), problems=problems)


def _check(path: Path, parts: Mapping[str, Rows], form: str, problems: Sequence[Problem]) -> None:
    forms = {one.form: split for split, one in parts.items() if one.form}
    if form and forms and set(forms) != {check_form(form)}:
        raise InputError(f"{path} has {' and '.join(FORMS[one] for one in forms)}, not {FORMS[form]}")
    if len(forms) > 1:
        listed = " and ".join(f"{FORMS[one]} ({split or 'all'})" for one, split in forms.items())
        raise InputError(f"{path} has {listed}; all splits must be of one form")
    if not any(one.rows for one in parts.values()):
        first = f": {problems[0].path}: {problems[0].reason}" if problems else "; it is empty"
        raise InputError(f"{path} holds no sequence{first}")


def _as_splits(parts: Mapping[str, Rows], in_time: bool, problems: list[Problem]) -> dict[str, Split]:
    chosen: dict[str, tuple[str, str, list[Row]]] = {}
    for split, one in parts.items():
        for row in one.rows:
            key = split or row.split or "all"
            chosen.setdefault(key, (one.where, one.form, []))[2].append(row)
    if in_time and set(chosen) == {"all"}:
        where, form, found = chosen["all"]
        ends = [0, *(int(len(found) * share) for share in np.cumsum(_SHARES)), len(found)]
        named = zip(("train", "val", "test"), ends, ends[1:], strict=False)
        chosen = {key: (where, form, found[low:high]) for key, low, high in named if high > low}
    elif "all" in chosen and len(chosen) > 1:
        where, form, found = chosen.pop("all")
        chosen.setdefault("train", (where, form, []))[2].extend(found)
    made = {key: _as_split(*one, problems) for key, one in chosen.items()}
    return _with_common_classes(made)


def _as_split(where: str, form: str, found: list[Row], problems: list[Problem]) -> Split:
    found = _of_one_width(where, found, problems)
    numbers, prefix = np.array([row.line for row in found], np.int64), f"{where} line "
    if isinstance(found[0].source, str):
        inputs = TextInputs(PackedTexts.pack([row.source for row in found]), prefix, numbers)
    else:
        inputs = NumberInputs.pack([row.source for row in found], prefix, numbers)
    if form in ("pairs", "labels"):
        return Split(inputs, SequenceTruth.of_texts(form, [row.target for row in found]))
    if form == "classes":
        return Split(inputs, SequenceTruth.of_classes([row.target for row in found]))
    values = np.stack([row.target for row in found]) if form == "values" else None
    return Split(inputs, SequenceTruth(form, len(found), numbers=values))


def _of_one_width(where: str, found: list[Row], problems: list[Problem]) -> list[Row]:
    """The rows with as many numbers a step, and as many values, as the first has; others are problems."""

    def widths(row: Row) -> tuple[int, int]:
        of_steps = 0 if isinstance(row.source, str) else row.source.shape[1]
        return of_steps, len(row.target) if isinstance(row.target, np.ndarray) else 0

    first = widths(found[0])
    for row in found:
        if widths(row) != first:
            counts = "{} numbers a step and {} values".format(*widths(row))
            reason = "{}, the first has {} and {}; all must be alike".format(counts, *first)
            problems.append(Problem("broken_annotation", f"{where} line {row.line}", reason))
    return [row for row in found if widths(row) == first]


def _with_common_classes(splits: dict[str, Split]) -> dict[str, Split]:
    """The splits with the names of all of them, in one order."""
    names = sorted({name for split in splits.values() for name in split.kind.classes})
    if not names:
        return splits
    meaning = {"form": next(iter(splits.values())).kind.form, "classes": names}
    return {key: split.with_truth(split.kind.match(meaning)) for key, split in splits.items()}


def _claims(path: Path) -> Claim:
    """2 for what only files of sequences have, 1 for a text, a table of numbers, and what its ending alone shows."""
    if path.is_dir():
        if files := _splits_in(path):
            claims = [_claim(file) for file in files.values()]
            return 0 if 0 in claims else 1 if 1 in claims else 2
        return 2 if _parallel_in(path) else 0
    return _claim(path)


def _claim(path: Path) -> Claim:
    ending = path.suffix.lower()
    if ending not in _KINDS:
        return 0
    lines = read_head(path, _HEAD).decode("utf-8-sig", "replace").split("\n")
    lines = [line.rstrip("\r") for line in lines[: max(1, len(lines) - 1)] if line.strip()][:20]
    if any(_names_image(line) for line in lines[:3]):
        return 0
    if ending == ".jsonl":
        return 2 if lines and all(map(_is_row, lines)) else 1
    if ending == ".csv":
        return 1 if all(re.fullmatch(r"[-+.,;\deE\s]+", line) for line in lines[1:]) else 0
    if ending == ".tsv":
        return 2 if lines and all("\t" in line for line in lines) else 1
    return 2 if ending in (".conll", ".bio") else 1


def _names_image(line: str) -> bool:
    cells = re.split(r"[\t,;\"]|\s", line)
    return any(cell.lower().endswith(tuple(IMAGE_SUFFIXES)) for cell in cells)


def _is_row(line: str) -> bool:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and any(str(key).lower() in (*rows.SOURCES, *rows.SERIES) for key in row)


FORMAT = Format(
    "sequences in files",
    "sequences",
    "texts with texts or labels (.tsv, .jsonl, .conll), a text (.txt), series (.jsonl, .csv), or parallel files",
    _claims,
    _open,
    ("form", "window", "horizon", "into", "encoding"),
)
