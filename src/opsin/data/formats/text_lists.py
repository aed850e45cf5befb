"""Cropped words or lines with a list of their texts, in a folder or a zip: a row an image.

- `labels.jsonl`: {"file": "1.jpg", "text": "Rescue"}, with "lexicon", a list of words, "page" and "split", if known;
- `labels.csv`, `labels.tsv`: a header names file and text, and lexicon (words parted by blanks) and split;
- `gt.txt`, `labels.txt`: `1.jpg<TAB>Rescue` (PaddleOCR, deep-text), `1.jpg Rescue` (MMOCR), `1.jpg, "Rescue"` (ICDAR
  2013 and 2015), `1.jpg RESCUE words,of,its,list` (SVT-Perspective);
- `labels.json`: {"1.jpg": "Rescue"} (docTR, keras-ocr), or MMOCR's {"metainfo": ..., "data_list": ...}.

One list of all, or one a split: train.jsonl and test.jsonl, train_labels.txt, train/labels.csv; of a zip its own name
may say the split, as in words_train.zip; of several zips of one split, that which is called as the train split's is
taken, words_test.zip there. Paths are from the list's folder, or from a folder of images beside it.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from opsin.data import zips
from opsin.data.formats.format import Claim, Format
from opsin.data.formats.page_json import is_paddle
from opsin.data.formats.text_crops import Crop, open_crops, split_of, with_subset
from opsin.data.formats.text_files import decode_lines
from opsin.data.formats.tree import SPLIT_NAMES
from opsin.data.formats.values import as_posix, read_head, shown
from opsin.data.formats.write_texts import write_jsonl, write_tsv
from opsin.data.images import UnreadableImage
from opsin.data.source import Source
from opsin.data.truth import Problem
from opsin.errors import InputError
from opsin.files import read_regular
from opsin.image_files import IMAGE_SUFFIXES, first_files, list_folder

_PATHS = ("file", "filename", "file_name", "path", "img_path", "image", "image_path", "img", "filepath", "imgname")
_TEXTS = ("text", "words", "transcription", "transcript", "caption", "ground_truth", "groundtruth", "label", "gt")
_LEXICONS, _SPLITS = ("lexicon", "lexi", "words_list"), ("split", "set", "subset")
_NAMES = re.compile(
    r"(?:rec_|word_|line_)?(?:gt|labels?|annotations?|metadata|texts?|transcriptions?|words|lines)", re.I
)
_ENDS = (".jsonl", ".csv", ".tsv", ".txt", ".json")
_FOLDERS = ("", "images", "imgs", "img", "image", "crops", "words", "lines")
_ICDAR = re.compile(r'^(.+?\.\w{3,4}),\s*"?(.*?)"?\s*$')
_BOX = re.compile(r"^\S+(?:\s+-?\d+(?:\.\d+)?){4}\s*$")  # a class and four numbers
_HEAD = 1 << 16  # bytes of a list by which it is recognised
_SHOWN = 'expected rows of a file and its text, as 1.jpg<TAB>Rescue or {"file": "1.jpg", "text": "Rescue"}'


@dataclass(frozen=True)
class _Row:
    file: str
    text: str
    place: str
    lexicon: tuple[str, ...] = ()
    split: str = ""
    page: str = ""


Reader = Callable[[bytes, str, list[Problem], str], Iterator[_Row]]


def _is_image(name: str) -> bool:
    return PurePosixPath(name.strip()).suffix.lower() in IMAGE_SUFFIXES


def _find(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)


def _of_mapping(row: Any, place: str, problems: list[Problem]) -> Iterator[_Row]:
    """The row of a mapping of names; none, and a problem, where it lacks something."""
    if not isinstance(row, dict):
        problems.append(Problem("broken_annotation", place, f"{shown(row)}; {_SHOWN}"))
        return
    row = {str(key).strip().lower(): value for key, value in row.items()}
    file, text = _find(row, _PATHS), next((row[name] for name in _TEXTS if name in row), None)
    words, split = _find(row, _LEXICONS) or [], _find(row, _SPLITS) or ""
    words = words.split() if isinstance(words, str) else words
    if not isinstance(file, str) or not isinstance(text, str):
        problems.append(Problem("broken_annotation", place, f"it lacks a file or a text; {_SHOWN}"))
    elif not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        problems.append(Problem("broken_annotation", place, f"its lexicon is {shown(words)}; expected a list of words"))
    elif split and str(split).lower() not in SPLIT_NAMES:
        problems.append(
            Problem("broken_annotation", place, f"unknown split {shown(split)}; expected train, val or test")
        )
    else:
        page = row.get("page")
        key = SPLIT_NAMES.get(str(split).lower(), "")
        yield _Row(file, text, place, tuple(words), key, page if isinstance(page, str) else "")


def _read_jsonl(data: bytes, where: str, problems: list[Problem], encoding: str) -> Iterator[_Row]:
    for number, line in decode_lines(data, where, problems, encoding):
        place = f"{where} line {number}"
        try:
            yield from _of_mapping(json.loads(line), place, problems)
        except (ValueError, RecursionError) as error:
            problems.append(Problem("broken_annotation", place, f"no JSON: {error}"))


def _read_json(data: bytes, where: str, problems: list[Problem], encoding: str) -> Iterator[_Row]:
    try:
        content = json.loads(data.decode(encoding))
    except UnicodeDecodeError:
        list(decode_lines(data, where, problems, encoding))
        return
    except (ValueError, RecursionError) as error:
        line = f" line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        problems.append(Problem("broken_annotation", f"{where}{line}", f"no JSON: {error}"))
        return
    if isinstance(content, dict) and isinstance(content.get("data_list"), list):  # MMOCR
        for number, one in enumerate(content["data_list"]):
            some = one.get("instances") if isinstance(one, dict) else None
            if isinstance(some, list) and len(some) == 1 and isinstance(some[0], dict):
                one = {**one, **some[0]}
            yield from _of_mapping(one, f"{where} data_list[{number}]", problems)
    elif isinstance(content, dict):
        inner = content.get("labels")
        for file, text in (inner if isinstance(inner, dict) else content).items():
            yield from _of_mapping({"file": file, "text": text}, f"{where} {shown(file)}", problems)
    elif isinstance(content, list):
        for number, one in enumerate(content):
            yield from _of_mapping(one, f"{where} [{number}]", problems)
    else:
        problems.append(Problem("broken_annotation", where, f"{shown(content)}; {_SHOWN}"))


def _read_csv(data: bytes, where: str, problems: list[Problem], encoding: str) -> Iterator[_Row]:
    header: list[str] | None = None
    separator = ""
    for number, line in decode_lines(data, where, problems, encoding):
        place = f"{where} line {number}"
        separator = separator or next((sign for sign in "\t,;" if sign in line), ",")
        try:
            cells = next(csv.reader([line], delimiter=separator, strict=True, skipinitialspace=True))
        except (csv.Error, StopIteration) as error:
            problems.append(Problem("broken_annotation", place, f"it cannot be read as CSV: {error}"))
            continue
        if header is None:
            names = [cell.strip().lower() for cell in cells]
            named = any(name in _PATHS for name in names) and not any(map(_is_image, names))
            header = names if named else ["file", "text"]
            if named:
                continue
        if header == ["file", "text"] and len(cells) > 2:
            cells = [cells[0], separator.join(cells[1:])]  # a text with commas, without quotes
        if len(cells) < len(header):
            problems.append(Problem("broken_annotation", place, f"{len(cells)} columns, expected {len(header)}"))
            continue
        yield from _of_mapping(dict(zip(header, cells, strict=False)), place, problems)


def _read_txt(data: bytes, where: str, problems: list[Problem], encoding: str) -> Iterator[_Row]:
    for number, line in decode_lines(data, where, problems, encoding):
        place = f"{where} line {number}"
        if (row := parse_line(line)) is None:
            problems.append(Problem("broken_annotation", place, f"{shown(line)}; {_SHOWN}"))
        else:
            file, text, words = row
            yield _Row(file, text, place, words)


def parse_line(line: str) -> tuple[str, str, tuple[str, ...]] | None:
    """File, text and words of a line of a text list; None where it is no such."""
    if "\t" in line:
        file, _, text = line.partition("\t")
        return (file.strip(), text, ()) if file.strip() and "\t" not in text.strip() else None
    if (found := _ICDAR.match(line)) is not None and _is_image(found[1]):
        return found[1].strip(), found[2].replace('\\"', '"'), ()
    file, _, text = line.strip().partition(" ")
    if not _is_image(file):
        return None
    words = text.split(" ")
    if len(words) == 2 and words[1].count(",") >= 2:
        return file, words[0], tuple(word for word in words[1].split(",") if word)
    return file, text, ()


_READERS: Mapping[str, Reader] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".txt": _read_txt,
}


@dataclass(frozen=True)
class _List:
    """A list of texts. split: what it says or its folder. home: the folder of its images, within `archive` if that."""

    file: str
    split: str
    home: str
    archive: str = ""

    @property
    def where(self) -> str:
        return f"{self.archive}/{self.file}" if self.archive else self.file

    def data(self) -> bytes:
        try:
            return zips.read_member(self.archive, self.file) if self.archive else read_regular(self.file)
        except (OSError, UnreadableImage) as error:
            raise InputError(f"{self.where} cannot be read: {error}") from error


def _lists(path: Path) -> list[_List]:
    """The lists of texts of a folder or a zip, by what they are called and what is in them."""
    if path.is_file() and path.suffix.lower() == ".zip":
        return _zipped(path)
    if path.is_file():
        return [_List(str(path), _split_named(path.name), str(path.parent))] if path.suffix.lower() in _ENDS else []
    found = _in_folder(path, "")
    for name in list_folder(path)[1]:
        split = SPLIT_NAMES.get(name.lower()) or split_of(name)
        if split is not None:
            found += _in_folder(path / name, split)
    archives = [path / name for name in list_folder(path)[0] if name.lower().endswith(".zip")]
    return found or [one for archive in archives for one in _zipped(archive)]


def _split_named(name: str) -> str:
    return split_of(PurePosixPath(name).stem.replace("-", "_")) or ""


def _in_folder(folder: Path, split: str) -> list[_List]:
    names = [name for name in first_files(folder) if name.lower().endswith(_ENDS) and _is_called(name)]
    found = []
    for name in _preferred(names):
        own = _split_named(name)
        found.append(_List(str(folder / name), split or own, str(folder)))
    return found


def _is_called(name: str) -> bool:
    stem = PurePosixPath(name).stem
    rest = [part for part in re.split(r"[_\-. ]", stem) if part.lower() not in SPLIT_NAMES]
    return not rest or any(_NAMES.fullmatch(part) for part in rest) or _NAMES.fullmatch(stem) is not None


def _preferred(names: Sequence[str]) -> list[str]:
    """Of several lists of one split the first in the order of `_ENDS`, those that are called after labels before."""
    best: dict[str, str] = {}
    for name in sorted(names, key=lambda one: (_ENDS.index(PurePosixPath(one).suffix.lower()), one)):
        best.setdefault(_split_named(name), name)
    return [name for split, name in best.items() if split or len(best) == 1]


def _zipped(path: Path) -> list[_List]:
    files, _ = zips.list_members(str(path))
    lists = [name for name in files if name.lower().endswith(_ENDS) and _is_called(PurePosixPath(name).name)]
    depth = min((name.count("/") for name in lists), default=0)
    own = _split_named(path.name)
    found = []
    for name in _preferred([name for name in lists if name.count("/") == depth]):
        home = str(PurePosixPath(name).parent)
        found.append(_List(name, _split_named(PurePosixPath(name).name) or own, "" if home == "." else home, str(path)))
    return found


def _rows(one: _List, problems: list[Problem], encoding: str) -> list[_Row]:
    reader = _READERS[PurePosixPath(one.file).suffix.lower()]
    return list(reader(one.data(), one.where, problems, encoding or "utf-8-sig"))


def _located(one: _List, rows: Sequence[_Row]) -> list[Crop]:
    """The rows as crops of the files that they name: the folder in which the first is decides for all."""
    if one.archive:
        members = set(zips.list_members(one.archive)[0])

        def there(file: str) -> bool:
            return file in members
    else:

        def there(file: str) -> bool:
            return Path(file).is_file()

    def place(folder: str, row: _Row) -> str:
        return "/".join(part for part in (one.home, folder, str(as_posix(row.file))) if part)

    folders = [*_FOLDERS, *(f"{folder}/{row.split}" for row in rows[:1] for folder in ("", "images") if row.split)]
    folder = next((name for name in folders if rows and there(place(name, rows[0]))), "")
    return [Crop(place(folder, row), row.text, row.place, row.lexicon, row.page, one.archive) for row in rows]


def _open(path: Path, encoding: str = "") -> Source:
    problems: list[Problem] = []
    parts: dict[str, list[Crop]] = {}
    where: dict[str, str] = {}
    for one in _of_one_set(_lists(path), problems):
        rows = _rows(one, problems, encoding)
        for row, crop in zip(rows, _located(one, rows), strict=True):
            key = one.split or row.split or "all"
            if where.setdefault(key, one.where) != one.where:
                raise InputError(f"{path} has both {where[key]} and {one.where} for the {key} split; name one of them")
            parts.setdefault(key, []).append(crop)
    name = path.name if path.is_dir() else path.stem
    return open_crops(name, "a list of texts", parts, problems)


def _of_one_set(lists: Sequence[_List], problems: list[Problem]) -> list[_List]:
    """The lists less those of zips of another data set than the train split's: of words_train.zip, other_test.zip."""
    trains = [_set_named(one.archive) for one in lists if one.archive and one.split == "train"]
    if len(trains) != 1:
        return list(lists)
    kept = [one for one in lists if not one.archive or _set_named(one.archive) == trains[0]]
    for one in lists:
        if one not in kept:
            reason = f"of another data set than the train split's ({trains[0]}), left out; name the file itself"
            problems.append(Problem("ignored", one.archive, reason, "note"))
    return kept


def _set_named(archive: str) -> str:
    """What an archive is called, less the word for its split."""
    parts = re.split(r"[_\-. ]", PurePosixPath(archive).stem)
    return "_".join(part for part in parts if part.lower() not in SPLIT_NAMES)


def _claims(path: Path) -> Claim:
    """2 for what only lists of texts have, 1 for what may be one of classes."""
    if not path.is_dir() and path.suffix.lower() not in (".zip", *_ENDS):
        return 0
    try:
        lists = _lists(path)
        claims = {_claim(one) for one in lists}
    except InputError:
        return 0
    return 0 if not claims or 0 in claims else 1 if 1 in claims else 2


def _claim(one: _List) -> Claim:
    end, problems = PurePosixPath(one.file).suffix.lower(), list[Problem]()
    if not one.archive and is_paddle(Path(one.file)):
        return 0
    data = one.data() if one.archive or end == ".json" else read_head(Path(one.file), _HEAD)
    lines = data[:_HEAD].split(b"\n")[:20]
    first = lines[0].decode("utf-8-sig", "replace").strip()
    if end == ".json":
        rows = list(_read_json(data, "", problems, "utf-8-sig")) if len(data) < 1 << 24 else []
        return 2 if rows and all(_is_image(row.file) for row in rows[:20]) else 0
    text = b"\n".join(lines).decode("utf-8-sig", "replace")  # of another encoding it is a list all the same
    rows = list(_READERS[end](text.encode(), "", problems, "utf-8-sig"))
    rows = [row for row in rows if _is_image(row.file)]
    if not rows or (end != ".jsonl" and len(problems) > len(rows)):
        return 0
    if end == ".jsonl":
        return 2 if '"text"' in first or '"transcription"' in first else 1
    if end == ".txt":
        if all(_BOX.search(row.text) or _is_image(row.text) for row in rows):  # the latter are pairs of images
            return 0
        if all(row.text.strip().isdigit() and len(row.text.strip()) < 4 for row in rows):
            return 1 if _ICDAR.match(first) and '"' in first else 0
        return 2
    names = [cell.strip().lower() for cell in re.split("[\t,;]", first)]
    return 2 if any(name in _TEXTS[:7] for name in names) else 1


FORMAT = with_subset(
    Format(
        "a list of texts",
        "texts",
        "cropped words with a list of their texts (labels.jsonl, labels.csv, gt.txt, in a folder or a zip)",
        _claims,
        _open,
        ("encoding",),
        written="jsonl",
        write=write_jsonl,
    )
)
# What it writes else; whatever it reads, the first does.
TABLE = Format("a table of texts", "texts", "", lambda path: 0, _open, written="tsv", write=write_tsv)
