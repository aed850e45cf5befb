"""Street View Text and ICDAR 2003: pages in an XML of `<tagset>`, with upright boxes of words.

`<image>` has `<imageName>`, `<lex>`, the image's list of words parted by commas (of SVT alone, `<Lex>` in some copies),
and `<taggedRectangle x y width height>` with `<tag>`. Files are train.xml and test.xml (SVT), or locations.xml, words
and segmentation.xml in a folder of each split (ICDAR 2003, its robust reading of scenes).

A cropped word of ICDAR 2003's word recognition is `<image file="word/1/1.jpg" tag="self"/>` in word.xml.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from opsin.data.formats.format import Claim, Format
from opsin.data.formats.text_crops import Crop, open_crops, split_of, with_subset
from opsin.data.formats.text_regions import Page, Pages, ordered, page_formats
from opsin.data.formats.values import find_inside, read_head, read_number
from opsin.data.formats.xml_tree import Element, read_elements
from opsin.data.source import Source
from opsin.data.truth import Problem
from opsin.image_files import first_files, list_folder

_PREFERRED = ("train.xml", "test.xml", "segmentation.xml", "locations.xml", "words.xml")


def _files(path: Path, holds: bytes) -> dict[str, Path]:
    """From splits to the XML files of a folder, and of folders of splits, that begin with a tag."""
    if path.is_file():
        return {split_of(path.stem) or "all": path} if _is(path, holds) else {}
    found: dict[str, Path] = {}
    for folder in (path, *(path / name for name in list_folder(path)[1])):
        names = [name for name in first_files(folder) if name.lower().endswith(".xml")]
        known = sorted(names, key=lambda name: (name not in _PREFERRED, name))
        for name in [name for name in known if _is(folder / name, holds)]:
            within = split_of(folder.name) if folder != path else None
            found.setdefault(within or split_of(name) or "all", folder / name)
    return {key: file for key, file in found.items() if key != "all" or len(found) == 1}


def _is(file: Path, holds: bytes) -> bool:
    return re.search(rb"<" + holds + rb"[\s>]", read_head(file)) is not None


def _read_pages(path: Path, encoding: str) -> tuple[Pages, list[Problem]]:
    problems: list[Problem] = []
    parts: dict[str, list[Page]] = {}
    for key, file in _files(path, b"tagset").items():
        for image in read_elements(file, "image", problems):
            name = image.said("imageName")
            if not name:
                problems.append(Problem("broken_annotation", f"{file} line {image.line}", "an image without its name"))
                continue
            said = image.said("lex") or image.said("Lex")
            words = tuple(word.strip() for word in said.split(",") if word.strip())
            page = Page(str(find_inside(name, [file.parent])), str(file), lexicon=words)
            for box in image.all("taggedRectangle"):
                _add(page, box, problems)
            parts.setdefault(key, []).append(page)
    return ordered(parts), problems


def _add(page: Page, box: Element, problems: list[Problem]) -> None:
    try:
        x, y, width, height = (read_number(box.attributes.get(name)) for name in ("x", "y", "width", "height"))
        page.add([x, y, x + width, y + height], box.said("tag"), f"line {box.line}")
    except ValueError as error:
        problems.append(Problem("broken_annotation", f"{page.where} line {box.line}", f"a box: {error}"))


def _claims(path: Path) -> Claim:
    return 2 if (path.is_dir() or path.suffix.lower() == ".xml") and _files(path, b"tagset") else 0


def _claims_words(path: Path) -> Claim:
    return 2 if (path.is_dir() or path.suffix.lower() == ".xml") and _files(path, b"imagelist") else 0


def _open_words(path: Path) -> Source:
    problems: list[Problem] = []
    parts: dict[str, list[Crop]] = {}
    for key, file in _files(path, b"imagelist").items():
        parts[key] = []
        for image in read_elements(file, "image", problems):
            place, said = f"{file} line {image.line}", _said(image.attributes)
            if said is None:
                problems.append(Problem("broken_annotation", place, "an image without its file or tag"))
            else:
                parts[key].append(Crop(str(find_inside(said[0], [file.parent])), said[1], place))
    return open_crops(path.stem if path.is_file() else path.name, "ICDAR 2003 words", parts, problems)


def _said(attributes: Mapping[str, str]) -> tuple[str, str] | None:
    file, text = attributes.get("file"), attributes.get("tag")
    return None if not file or text is None else (file, text)


PAGES, LINES = page_formats("SVT or ICDAR 2003", "SVT or ICDAR 2003 (an XML of tagset)", _claims, _read_pages)
WORDS = with_subset(Format("ICDAR 2003 words", "texts", "words of ICDAR 2003 (word.xml)", _claims_words, _open_words))
