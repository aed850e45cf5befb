"""RIMES 2011, handwritten French letters: `training_2011.xml` of pages, with the boxes and texts of their lines.

`<SinglePage FileName="images/1.jpg">` holds `<Line Left Top Right Bottom Value>`. In Value `\\n` parts nothing here: it
is a blank. Its cropped words are a list of texts, see `text_lists`.
"""

from __future__ import annotations

from pathlib import Path

from opsin.data.formats.format import Claim
from opsin.data.formats.text_crops import split_of
from opsin.data.formats.text_regions import Page, Pages, ordered, page_formats
from opsin.data.formats.values import find_inside, read_head, read_number
from opsin.data.formats.xml_tree import read_elements
from opsin.data.truth import Problem
from opsin.image_files import first_files, list_folder

_SIDES = ("Left", "Top", "Right", "Bottom")


def _files(path: Path) -> list[Path]:
    files = [path] if path.is_file() else [path / name for name in first_files(path)]
    return [file for file in files if file.suffix.lower() == ".xml" and b"<SinglePage" in read_head(file)]


def _split(file: Path) -> str:
    name = file.stem.lower()
    return split_of(name) or ("test" if name.startswith("eval") else "all")


def _read(path: Path, encoding: str) -> tuple[Pages, list[Problem]]:
    problems: list[Problem] = []
    parts: dict[str, list[Page]] = {}
    for file in _files(path):
        folders = [file.parent, *(file.parent / name for name in list_folder(file.parent)[1])]
        for one in read_elements(file, "SinglePage", problems):
            page = Page(str(find_inside(one.attributes.get("FileName", ""), folders)), str(file))
            for line in one.all("Line"):
                try:
                    sides = [read_number(line.attributes.get(side)) for side in _SIDES]
                    text = line.attributes.get("Value", "").replace("\\n", " ")
                    page.add(sides, text, f"line {line.line}")
                except ValueError as error:
                    problems.append(Problem("broken_annotation", f"{file} line {line.line}", f"a box: {error}"))
            parts.setdefault(_split(file), []).append(page)
    return ordered(parts), problems


def _claims(path: Path) -> Claim:
    return 2 if _files(path) else 0


PAGES, LINES = page_formats("RIMES", "RIMES (training_2011.xml)", _claims, _read)
