"""Pages whose texts are in one JSON, or a JSON a line: PaddleOCR's label file, MMOCR's, COCO-Text.

- PaddleOCR and PPOCRLabel: `Label.txt` with `dir/1.jpg<TAB>[{"transcription": "Rescue", "points": [[x, y], ...],
  "difficult": false}, ...]`; difficult ones and `###` are to ignore.
- MMOCR: {"metainfo": {"dataset_type": "TextDetDataset" or "TextSpotterDataset"}, "data_list": [{"img_path", "height",
  "width", "instances": [{"polygon": [x, y, ...], "text", "ignore"}]}]}. Without texts it is for detection alone.
- COCO-Text, version 1 and 2: {"imgs": {id: {"file_name", "set"}}, "anns": {id: {"image_id", "mask" or "polygon",
  "bbox", "utf8_string", "legibility"}}}; what is illegible is to ignore.

The split is what the file's name says, or of COCO-Text the image's `set`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from opsin.data.formats.text_crops import split_of
from opsin.data.formats.text_files import read_lines
from opsin.data.formats.text_regions import Page, Pages, ordered, page_formats
from opsin.data.formats.tree import SPLIT_NAMES
from opsin.data.formats.values import find_inside, read_flag, read_head, read_number, read_whole, shown
from opsin.data.truth import Problem
from opsin.errors import InputError
from opsin.files import read_regular
from opsin.image_files import first_files, list_folder

_ILLEGIBLE = "illegible"


def _numbers(value: Any) -> list[float]:
    """Corners x y ..., of a list of numbers or of pairs of them."""
    if not isinstance(value, list):
        raise ValueError(f"its corners are {shown(value)}; expected [[x, y], ...]")
    flat = [one for point in value for one in (point if isinstance(point, list) else [point])]
    return [read_number(one) for one in flat]


def _text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"its text is {shown(value)}")
    return value


def _image(file: Path, name: Any) -> str:
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"its image is {shown(name)}; expected a path")
    homes = [file.parent, file.parent / "images", file.parent / "imgs", file.parent.parent]
    inside = [file.parent / folder for folder in list_folder(file.parent)[1]]
    return str(find_inside(name, [*homes, *inside]))


def _add(
    page: Page, one: Any, keys: Sequence[str], text: str, ignore: str, place: str, problems: list[Problem]
) -> None:
    """A region of a mapping: corners under one of `keys`; a text that is nothing is nobody's."""
    try:
        if not isinstance(one, dict):
            raise ValueError(f"{shown(one)} stands where a region is expected")
        corners = _numbers(next((one[key] for key in keys if one.get(key)), None))
        page.add(corners, _text(one.get(text)), place, ignored=read_flag(one.get(ignore)))
    except ValueError as error:
        problems.append(Problem("broken_annotation", f"{page.where} {place}", str(error)))


def _read_paddle(file: Path, problems: list[Problem], encoding: str) -> Iterator[tuple[str, Page]]:
    for number, line in read_lines(file, problems, encoding or "utf-8-sig"):
        name, tab, rest = line.partition("\t")
        try:
            regions = json.loads(rest) if tab else None
            if not isinstance(regions, list):
                raise ValueError(f"{shown(line)}; expected an image, a tab, and a list of regions")
            page = Page(_image(file, name), str(file))
        except (ValueError, RecursionError) as error:
            problems.append(Problem("broken_annotation", f"{file} line {number}", str(error)))
            continue
        for k, one in enumerate(regions):
            _add(page, one, ("points",), "transcription", "difficult", f"line {number} [{k}]", problems)
        yield "", page


def _load(file: Path, key: str, kind: type) -> Any:
    """A JSON file with something under a key. Raises ValueError where it is none."""
    content = json.loads(read_regular(file))
    if not isinstance(content, dict) or not isinstance(content.get(key), kind):
        raise ValueError(f"it has no {key}")
    return content


def _read_mmocr(file: Path, problems: list[Problem], encoding: str) -> Iterator[tuple[str, Page]]:
    for number, one in enumerate(_load(file, "data_list", list)["data_list"]):
        place = f"data_list[{number}]"
        try:
            if not isinstance(one, dict) or not isinstance(one.get("instances"), list):
                raise ValueError(f"{shown(one)}; expected an image with its instances")
            size = None
            if one.get("height") is not None and one.get("width") is not None:
                size = read_whole(one["height"]), read_whole(one["width"])
            page = Page(_image(file, one.get("img_path")), str(file), size=size)
        except ValueError as error:
            problems.append(Problem("broken_annotation", f"{file} {place}", str(error)))
            continue
        for k, region in enumerate(one["instances"]):
            _add(page, region, ("polygon", "bbox"), "text", "ignore", f"{place} [{k}]", problems)
        yield "", page


def _read_coco_text(file: Path, problems: list[Problem], encoding: str) -> Iterator[tuple[str, Page]]:
    content = _load(file, "imgs", dict)
    anns = content.get("anns")
    own: dict[str, list[tuple[str, Any]]] = {}
    for key, one in (anns if isinstance(anns, dict) else {}).items():
        if isinstance(one, dict):
            own.setdefault(str(one.get("image_id")), []).append((key, one))
    for key, image in content["imgs"].items():
        try:
            if not isinstance(image, dict):
                raise ValueError(f"{shown(image)} stands where an image is expected")
            page = Page(_image(file, image.get("file_name")), str(file))
        except ValueError as error:
            problems.append(Problem("broken_annotation", f"{file} imgs {shown(key)}", str(error)))
            continue
        for number, one in own.get(str(key), []):
            hidden = str(one.get("legibility", "")).lower() == _ILLEGIBLE
            box = one.get("bbox")
            if isinstance(box, list) and len(box) == 4:
                x, y, width, height = box
                one = {**one, "bbox": [x, y, x + width, y + height]} if all(map(_is_number, box)) else one
            one = {**one, "ignored": hidden or not one.get("utf8_string")}
            _add(page, one, ("mask", "polygon", "bbox"), "utf8_string", "ignored", f"anns {shown(number)}", problems)
        yield SPLIT_NAMES.get(str(image.get("set", "")).lower(), ""), page


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_paddle(file: Path) -> bool:
    """Whether a text file's first line is PaddleOCR's: an image, a tab, and a list of regions."""
    line = read_head(file, 1 << 14).split(b"\n", 1)[0]
    _, tab, rest = line.partition(b"\t")
    return bool(tab) and rest.lstrip()[:1] == b"[" and (b'"transcription"' in rest or rest.strip() == b"[]")


def _is_mmocr(file: Path) -> bool:
    head = read_head(file, 1 << 14)
    return b'"data_list"' in head and (b'"TextDetDataset"' in head or b'"TextSpotterDataset"' in head)


def _is_coco_text(file: Path) -> bool:
    head = read_head(file, 1 << 16)
    keys = (b'"utf8_string"', b'"legibility"', b'"imgs"', b'"imgToAnns"')
    return head.lstrip()[:1] == b"{" and (b'"annotations"' not in head) and sum(key in head for key in keys) >= 2


Reading = Callable[[Path, list[Problem], str], Iterator[tuple[str, Page]]]


def _find(path: Path, ends: Sequence[str], holds: Callable[[Path], bool]) -> list[Path]:
    files = [path] if path.is_file() else [path / name for name in first_files(path)]
    return [file for file in files if file.suffix.lower() in ends and holds(file)]


def _formats(name: str, expects: str, ends: Sequence[str], holds: Callable[[Path], bool], read: Reading) -> Any:
    def open_(path: Path, encoding: str) -> tuple[Pages, list[Problem]]:
        problems: list[Problem] = []
        parts: dict[str, list[Page]] = {}
        for file in _find(path, ends, holds):
            own = split_of(file.stem) or "all"
            try:
                for split, page in read(file, problems, encoding):
                    parts.setdefault(split or own, []).append(page)
            except (ValueError, OSError, RecursionError) as error:
                line = f" line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
                reason = getattr(error, "strerror", None) or str(error)
                problems.append(Problem("broken_annotation", f"{file}{line}", f"not {name}'s: {reason}"))
        if not parts and problems:
            raise InputError(f"{problems[0].path}: {problems[0].reason}")
        return ordered(parts), problems

    return page_formats(name, expects, lambda path: 2 if _find(path, ends, holds) else 0, open_)


PADDLE_PAGES, PADDLE_LINES = _formats("PaddleOCR", "PaddleOCR's Label.txt", (".txt",), is_paddle, _read_paddle)
MMOCR_PAGES, MMOCR_LINES = _formats("MMOCR", "MMOCR's textdet_train.json", (".json",), _is_mmocr, _read_mmocr)
COCO_PAGES, COCO_LINES = _formats(
    "COCO-Text", "COCO-Text (cocotext.v2.json)", (".json",), _is_coco_text, _read_coco_text
)
