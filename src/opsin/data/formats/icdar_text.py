"""Pages with a text file each: ICDAR 2013, 2015 and MLT, SROIE, Total-Text; a line a word or a line of text.

`x1,y1,x2,y2,x3,y3,x4,y4,text` (ICDAR 2015, SROIE as csv or txt), with a script before the text (MLT); `left, top,
right, bottom, "text"` (ICDAR 2013's test), with blanks in the place of commas (its training); or Total-Text's
`x: [[...]], y: [[...]], ornt: [...], transcriptions: [u'...']`, or its poly_gt_img1.mat. A text may hold commas. `###`
and, of Total-Text, `#` is one to ignore.

A file belongs to the image of its name, with or without `gt_` or `poly_gt_` before it, anywhere below the folder, the
nearest of several: `img/000.jpg` and `box/000.csv`, `ch4_training_images/img_1.jpg` and
`ch4_training_localization_transcription_gt/gt_img_1.txt`. Folders called train, training, val or test are splits.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from opsin.data.formats.annotations import note_unannotated
from opsin.data.formats.format import Claim
from opsin.data.formats.mat_files import read_mat
from opsin.data.formats.text_crops import split_of
from opsin.data.formats.text_files import read_lines
from opsin.data.formats.text_regions import Page, page_formats
from opsin.data.formats.values import read_head, read_number, shown
from opsin.data.formats.write_texts import write_icdar
from opsin.data.truth import Problem
from opsin.errors import InputError
from opsin.image_files import IMAGE_SUFFIXES, find_files, first_files, list_folder

SCRIPTS = frozenset(("Latin", "Arabic", "Chinese", "Japanese", "Korean", "Bangla", "Hindi", "Symbols", "Mixed", "None"))
_ENDS = (".txt", ".csv", ".gt", ".mat")
_PREFIXES = ("poly_gt_", "gt_")
_TOTAL = re.compile(r"^\s*x:\s*\[\[(.*?)\]\],\s*y:\s*\[\[(.*?)\]\],\s*ornt:.*?transcriptions:\s*\[(.*)\]\s*$")
_EXPECTED = 'x1,y1,...,x4,y4,text or left,top,right,bottom,"text"'
_PROBED = 3  # files, and lines of each


@dataclass(frozen=True)
class Line:
    """A line, taken apart. corners: x1 y1 x2 y2 ... of four corners or more, or of two."""

    corners: list[float]
    text: str
    ignored: bool = False


def parse(line: str, scripts: bool = False) -> Line:
    """A line's corners and text. scripts: a script stands before the text. Raises ValueError with the reason."""
    if (total := _TOTAL.match(line)) is not None:
        return _parse_total(*total.groups())
    cells = line.split(",")
    count = next((k for k, cell in enumerate(cells[:8]) if not _is_number(cell)), min(8, len(cells)))
    if count >= 8 and len(cells) > 8:
        rest = cells[9:] if scripts else cells[8:]
        return Line([float(cell) for cell in cells[:8]], ",".join(rest))
    if count >= 4 and len(cells) > 4:
        return Line([float(cell) for cell in cells[:4]], _unquoted(",".join(cells[4:])))
    words = line.split(maxsplit=4)
    if len(words) == 5 and all(map(_is_number, words[:4])) and words[4].startswith('"'):
        return Line([float(word) for word in words[:4]], _unquoted(words[4]))
    raise ValueError(f"{shown(line)}; expected {_EXPECTED}")


def _parse_total(xs: str, ys: str, text: str) -> Line:
    x, y = ([read_number(one) for one in part.replace(",", " ").split()] for part in (xs, ys))
    if len(x) != len(y):
        raise ValueError(f"{len(x)} x and {len(y)} y of one outline")
    try:
        read = ast.literal_eval(text.strip()) if text.strip() else "#"
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        raise ValueError(f"its transcription is {shown(text)}; expected a text in quotes") from None
    read = str(read)
    return Line([value for point in zip(x, y, strict=True) for value in point], read, read.strip() == "#")


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def _is_number(text: str) -> bool:
    try:
        read_number(text)
    except ValueError:
        return False
    return text.strip().lower() not in ("nan", "inf", "-inf", "infinity")


def is_regions(file: Path) -> bool:
    """Whether a file's first lines are of regions with a text."""
    if file.suffix.lower() == ".mat":
        return file.stem.lower().startswith("poly_gt_")
    lines = read_head(file).decode("utf-8-sig", "replace").splitlines()[:_PROBED]
    kept = [line for line in lines if line.strip()]
    try:
        found = [parse(line) for line in kept]
    except ValueError:
        return False
    return bool(found) and not all(all(map(_is_number, one.text.split(","))) and "," in one.text for one in found)


@dataclass(frozen=True)
class _Layout:
    """From splits to pairs of an image and its file, and the images without one."""

    pairs: Mapping[str, list[tuple[Path, Path]]]
    lacking: list[str]


def _stem(file: Path) -> str:
    stem = file.stem.lower()
    return next((stem.removeprefix(prefix) for prefix in _PREFIXES if stem.startswith(prefix)), stem)


def _find(path: Path) -> _Layout:
    images, files = find_files(path, IMAGE_SUFFIXES), find_files(path, _ENDS)
    within = {file: split_of(str(file.parent.relative_to(path))) for file in (*images, *files)}
    named: dict[tuple[str | None, str], list[Path]] = {}
    for file in files:
        named.setdefault((within[file], _stem(file)), []).append(file)
    pairs: dict[str, list[tuple[Path, Path]]] = {}
    lacking = []
    for image in images:
        split = within[image]
        if found := named.get((split, _stem(image))) or named.get((None, _stem(image))):
            pairs.setdefault(split or "all", []).append((image, _nearest(image, found)))
        else:
            lacking.append(str(image))
    if "all" in pairs and len(pairs) > 1:
        raise InputError(f"{path} has pages in folders of splits and beside them; move {pairs['all'][0][0]} into one")
    return _Layout({key: pairs[key] for key in ("train", "val", "test", "all") if key in pairs}, lacking)


def _nearest(image: Path, files: Sequence[Path]) -> Path:
    """Of files of an image's name the one that shares most folders with it: a/1.txt of a/1.jpg, and not b/1.txt."""
    if len(files) == 1:
        return files[0]
    return max(reversed(files), key=lambda file: len(os.path.commonpath([image.parent, file.parent])))


def read_pages(path: Path, encoding: str) -> tuple[dict[str, list[Page]], list[Problem]]:
    """The pages of each split of a folder, and what is wrong with them."""
    layout, problems = _find(path), list[Problem]()
    scripts = all(_has_scripts(file) for some in layout.pairs.values() for _, file in some[:_PROBED])
    pages = {
        key: [_read(image, file, scripts, problems, encoding or "utf-8-sig") for image, file in some]
        for key, some in layout.pairs.items()
    }
    problems += note_unannotated(str(path), layout.lacking, "have no text file of their name")
    return pages, problems


def _has_scripts(file: Path) -> bool:
    lines = read_head(file).decode("utf-8-sig", "replace").splitlines()[:_PROBED]
    return bool(lines) and all(len(cells := line.split(",")) > 9 and cells[8] in SCRIPTS for line in lines if line)


def _read(image: Path, file: Path, scripts: bool, problems: list[Problem], encoding: str) -> Page:
    page = Page(str(image), str(file))
    if file.suffix.lower() == ".mat":
        _read_mat(file, page, problems)
        return page
    for number, line in read_lines(file, problems, encoding):
        try:
            one = parse(line, scripts)
            page.add(one.corners, one.text, f"line {number}", ignored=one.ignored)
        except ValueError as error:
            problems.append(Problem("broken_annotation", f"{file} line {number}", str(error)))
    return page


def _read_mat(file: Path, page: Page, problems: list[Problem]) -> None:
    """Total-Text's own: a cell array `polygt` of rows x:, [x ...], y:, [y ...], text, orientation; # is to ignore."""
    try:
        rows = read_mat(file)["polygt"]
        for number, row in enumerate(rows, 1):
            x, y = (np.asarray(row[k], np.float64).ravel() for k in (1, 3))
            text = "".join(map(str, np.asarray(row[4]).ravel()[:1]))
            page.add(np.stack([x, y], axis=1).ravel().tolist(), text, f"row {number}", ignored=text in ("#", ""))
    except (ValueError, KeyError, IndexError, TypeError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        problems.append(Problem("broken_annotation", str(file), f"no outlines of Total-Text: {reason}"))


def _texts(path: Path) -> Iterator[Path]:
    """Some text files below a folder, two levels deep."""
    for folder in (path, *(path / name for name in list_folder(path)[1])):
        names = [name for name in first_files(folder) if name.lower().endswith(_ENDS)]
        inside = [] if folder == path else [folder / name for name in list_folder(folder)[1]]
        yield from (folder / name for name in names[:_PROBED])
        for deeper in inside:
            yield from (deeper / name for name in first_files(deeper)[:_PROBED] if name.lower().endswith(_ENDS))


def _claims(path: Path) -> Claim:
    if not path.is_dir() or not any(is_regions(file) for file in _texts(path)):
        return 0
    return 2 if _find(path).pairs else 0


_EXPECTS = "pages with text files (x1,y1,...,x4,y4,text a line: ICDAR, SROIE, Total-Text)"
_BOXES, LINES = page_formats("pages with text files", _EXPECTS, _claims, read_pages)
PAGES = replace(_BOXES, written="icdar", write=write_icdar)
