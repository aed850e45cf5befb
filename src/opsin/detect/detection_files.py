"""Files of detections, as tools write them: COCO results, VOC and YOLO text, CSV, and those of `opsin predict`.

Boxes become xyxy in our convention. A score that is not finite is refused with its file and line.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opsin.data.formats import csv_boxes, csv_labels
from opsin.data.formats.values import read_key, read_number, read_text, shown
from opsin.errors import InputError

FORMS = (
    "COCO results (json), a folder of VOC's texts (comp4_det_test_CLASS.txt) or of YOLO's (class cx cy w h score), a "
    "CSV of path,class,score,x1,y1,x2,y2, or what opsin predict --json, --jsonl, --csv and --coco write"
)
_VOC_NAME = re.compile(r"^comp\d+_det_[^_]+_(.+)$")
_CLASS_LISTS = ("classes.txt", "obj.names")
_PLAIN = ("path", "label", "score", "x1", "y1", "x2", "y2")

Box = tuple[float, float, float, float]


@dataclass
class Detections:
    """What a file holds, row by row.

    form: as people call it. boxes: xyxy, of `relative` ones in shares of the image's sides; stated: the four numbers as
    they stand in the file, of COCO's form x, y, width, height. images, classes: as the file names them, numbers as
    numbers. places: of each row, the file and the line or place in it. empty: images that the file names without a
    detection. names: of the classes by their numbers, where the file has them; numbered: its numbers are places in a
    list of classes, and no ids of a file. sided: whether a row is x, y, width, height.
    """

    form: str
    relative: bool = False
    sided: bool = False
    numbered: bool = False
    names: dict[int | str, str] = field(default_factory=dict)
    images: list[int | str] = field(default_factory=list)
    classes: list[int | str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    empty: dict[int | str, str] = field(default_factory=dict)
    unread: int = 0  # images that the tool could not read

    def add(self, image: Any, label: Any, score: Any, box: Sequence[Any], place: str) -> None:
        """One more row. Raises InputError for a score or a box that is no finite number."""
        try:
            key, name = read_key(image), read_key(label)
            number = read_number(score)
            values = [read_number(value) for value in box]
        except ValueError as error:
            raise InputError(f"{place}: {error}") from None
        if not math.isfinite(number):
            raise InputError(
                f"{place}: the score is {number}; a detection has a finite score: remove it, or fix the tool"
            )
        if len(values) != 4 or not all(map(math.isfinite, values)):
            raise InputError(f"{place}: the box is {shown(str(list(box)))}; expected four finite numbers")
        a, b, c, d = values
        self.images.append(key)
        self.classes.append(name)
        self.scores.append(number)
        self.boxes.append((a, b, a + c, b + d) if self.sided else (a, b, c, d))
        self.places.append(place)


def read_detections(path: Path, stems: Sequence[str], classes: Sequence[str]) -> Detections:
    """A file or folder of detections, recognised by what is in it.

    stems, classes: of the truth, by which a folder's text files are recognised. Raises InputError for what is none.
    """
    if path.is_dir():
        return _read_folder(path, set(stems), set(classes))
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return _read_table(path)
    if suffix == ".jsonl":
        return _read_answers(path, _lines_of_json(path))
    if suffix == ".json":
        return _read_json(path)
    if suffix == ".txt":
        raise _refuse_text(path)
    raise InputError(f"{path} is not a known file of detections; expected {FORMS}")


# JSON


def _load(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path} line {error.lineno}: not readable JSON: {error.msg}") from None
    except (RecursionError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None


def _lines_of_json(path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(_text(path).split("\n"), 1):
        if line.strip():
            try:
                yield f"{path} line {number}", json.loads(line)
            except (RecursionError, ValueError) as error:
                raise InputError(f"{path} line {number}: not readable JSON: {error}") from None


def _read_json(path: Path) -> Detections:
    content = _load(path)
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        return _read_dataset(path, content)
    if isinstance(content, dict) and "instances" in content:
        content = [content]
    if not isinstance(content, list) or not all(isinstance(one, dict) for one in content):
        raise InputError(f"{path} holds no list of detections; expected {FORMS}")
    places = ((f"{path} [{number}]", one) for number, one in enumerate(content))
    if any("instances" in one or "error" in one for one in content):
        return _read_answers(path, places)
    found = Detections("COCO results", sided=True)
    for place, one in places:
        _add_result(found, one, one.get("image_id"), place)
    return found


def _add_result(found: Detections, one: Mapping[str, Any], image: Any, place: str) -> None:
    lacking = [key for key in ("category_id", "score") if one.get(key) is None] + ["image_id"] * (image is None)
    if lacking:
        raise InputError(f"{place} has no {lacking[0]}; a COCO result has image_id, category_id, bbox and score")
    if "bbox" not in one:
        why = "; masks are not evaluated from files yet: write the box beside it" if "segmentation" in one else ""
        raise InputError(f"{place} has no bbox{why}")
    box = one["bbox"]
    if not isinstance(box, list) or len(box) != 4:
        raise InputError(f"{place}: its bbox is {shown(str(box))}; expected [x, y, width, height]")
    found.add(image, one["category_id"], one["score"], box, place)


def _read_dataset(path: Path, content: Mapping[str, Any]) -> Detections:
    """COCO's form of a data set, with scores: of `opsin predict --coco`. Images go by name, categories too."""
    found = Detections("COCO json with scores", sided=True)
    images: dict[Any, Any] = {}
    for one in _dicts(content.get("images")):
        images[one.get("id")] = one.get("file_name", one.get("id"))
    for one in _dicts(content.get("categories")):
        if one.get("name") is not None:
            found.names[_key(path, one.get("id"))] = str(one["name"])
    used = set()
    for number, one in enumerate(content["annotations"]):
        place = f"{path} annotations[{number}]"
        if not isinstance(one, dict) or "score" not in one:
            raise InputError(f"{place} has no score: this is data, not detections; give it as --data")
        used.add(one.get("image_id"))
        _add_result(found, one, images.get(one.get("image_id"), one.get("image_id")), place)
    found.empty = {name: f"{path} images" for key, name in images.items() if key not in used and name is not None}
    return found


def _dicts(values: Any) -> list[dict[str, Any]]:
    return [one for one in values if isinstance(one, dict)] if isinstance(values, list) else []


def _key(path: Path, value: Any) -> int | str:
    try:
        return read_key(value)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def _read_answers(path: Path, answers: Iterator[tuple[str, Any]]) -> Detections:
    """What `opsin predict --json` and `--jsonl` write."""
    found = Detections("answers of opsin predict")
    for place, answer in answers:
        if not isinstance(answer, dict) or not ("instances" in answer or "error" in answer):
            raise InputError(f"{place} is no answer of a detector, which has instances; expected {FORMS}")
        if "frame" in answer:
            raise InputError(f"{place} is of a frame of a video; only predictions on images can be evaluated")
        if answer.get("error") is not None:
            found.unread += 1
            continue
        if not isinstance(answer.get("path"), str):
            raise InputError(f"{place} has no path: nothing says of which image it is")
        for one in _dicts(answer["instances"]):
            box = one.get("box")
            found.add(answer["path"], one.get("label"), one.get("score"), box if isinstance(box, list) else [], place)
        if not answer["instances"]:
            found.empty[answer["path"]] = place
    return found


# Tables


def _read_table(path: Path) -> Detections:
    """A CSV, with the columns of `opsin predict --csv`, or of a table of boxes with scores; with no header _PLAIN."""
    cells = csv_labels.read_cells(path, f"rows of {','.join(_PLAIN)}")
    columns = csv_boxes.find_columns([cell.strip().lower() for cell in cells[0][1]])
    if "path" not in columns and len(cells[0][1]) == len(_PLAIN):
        columns = {role: place for place, role in enumerate(_PLAIN)}
    else:
        cells = cells[1:]
    corners, sides = ("x1", "y1", "x2", "y2"), ("x", "y", "width", "height")
    form = next((one for one in (corners, sides) if all(role in columns for role in one)), None)
    by = next((role for role in ("label", "class_id") if role in columns), None)
    if "path" not in columns or form is None or by is None or "score" not in columns:
        raise InputError(f"{path} has missing columns; expected {','.join(_PLAIN)}, or a header that names these")
    found = Detections("a CSV", sided=form is sides, numbered=True)
    for line, row in cells:
        place = f"{path} line {line}"
        values = {role: row[k].strip() for role, k in columns.items() if k < len(row)}
        if values.get("error"):
            found.unread += 1
        elif values.get("frame"):
            raise InputError(f"{place} is of a frame of a video; only predictions on images can be evaluated")
        elif not values.get("path"):
            raise InputError(f"{place}: the path is empty")
        elif not values.get("score") and not values.get(by):
            found.empty[values["path"]] = place
        else:
            box = [values.get(role, "") for role in form]
            found.add(values["path"], values.get(by, ""), values.get("score", ""), box, place)
    return found


# Texts


def _read_folder(path: Path, stems: set[str], classes: set[str]) -> Detections:
    folder = path / "labels" if (path / "labels").is_dir() and not list(path.glob("*.txt")) else path
    files = sorted(file for file in folder.glob("*.txt") if file.name not in _CLASS_LISTS)
    if not files:
        raise InputError(f"{path} holds no .txt files; expected {FORMS}")
    named = {file: match[1] for file in files if (match := _VOC_NAME.match(file.stem))}
    if len(named) < len(files) and not any(file.stem in stems for file in files):
        # Somebody's own names: CLASS.txt, or with anything before it, as det_test_CLASS.txt
        named = {file: name for file in files if (name := _ending(file.stem, classes)) is not None}
    if len(named) == len(files):
        return _read_voc(named)
    if any(file.stem in stems for file in files):
        return _read_yolo(folder, files)
    other = next(file for file in files if file not in named)
    raise InputError(f"{other} is named neither after an image of the truth nor after a class of it; expected {FORMS}")


def _ending(stem: str, classes: set[str]) -> str | None:
    words = stem.split("_")
    return next((end for k in range(len(words)) if (end := "_".join(words[k:])) in classes), None)


def _read_voc(files: Mapping[Path, str]) -> Detections:
    """A file a class: image id, score, xmin, ymin, xmax, ymax; pixels count from 1, the last one belongs to the box."""
    found = Detections("VOC's text")
    for file, name in files.items():
        for number, row in _rows(file):
            place = f"{file} line {number}"
            if len(row) != 6:
                raise InputError(f"{place}: {len(row)} columns; expected image id, score, xmin, ymin, xmax, ymax")
            image, score, *box = row
            found.add(image, name, score, _from_inclusive(box, place), place)
            found.images[-1] = image  # "000012" is a name, never the number 12
    return found


def _from_inclusive(box: Sequence[str], place: str) -> Box:
    try:
        x1, y1, x2, y2 = (float(value) for value in box)
    except ValueError:
        raise InputError(f"{place}: the box is {shown(' '.join(box))}; expected four numbers") from None
    return x1 - 1, y1 - 1, x2, y2


def _read_yolo(folder: Path, files: Sequence[Path]) -> Detections:
    """A file an image, named after it: class, cx, cy, width, height, score; or class, score, left, top, right, bottom.

    The first in shares of the image; the second, of the tools that followed VOC's, in its pixels and their convention.
    """
    rows = [(file, number, row) for file in files for number, row in _rows(file)]
    for file, number, row in rows:
        if len(row) != 6:
            why = "a detection has a score too (save_conf=True)" if len(row) == 5 else "masks and points are not read"
            raise InputError(
                f"{file} line {number}: {len(row)} columns; expected class cx cy width height score: {why}"
            )
    pixels = bool(rows) and all(max(_floats(row[2:])) > 1 for _, _, row in rows) and _sure(rows)
    found = Detections("texts of class score left top right bottom" if pixels else "YOLO's text", numbered=True)
    found.relative = not pixels
    found.names = dict(enumerate(_class_list(folder)))
    for file, number, row in rows:
        place = f"{file} line {number}"
        if pixels:
            found.add(file.stem, row[0], row[1], _from_inclusive(row[2:], place), place)
        else:
            x, y, width, height = _floats(row[1:5])
            if max(abs(value) for value in (x, y, width, height)) > 2:
                raise InputError(
                    f"{place}: the box is {' '.join(row[1:5])}; expected shares of the image's sides, 0 to 1"
                )
            box = x - width / 2, y - height / 2, x + width / 2, y + height / 2
            found.add(file.stem, row[0], row[5], box, place)
        found.images[-1] = file.stem
    used = {file for file, _, _ in rows}
    found.empty = {file.stem: str(file) for file in files if file not in used}
    return found


def _sure(rows: Sequence[tuple[Path, int, list[str]]]) -> bool:
    """Whether the second number is a score and the last four corners in pixels, in every row."""
    values = (_floats(row[1:]) for _, _, row in rows)
    return not any(s < 0 or s > 1 or x2 < x1 or y2 < y1 for s, x1, y1, x2, y2 in values)


def _class_list(folder: Path) -> list[str]:
    file = next((folder / name for name in _CLASS_LISTS if (folder / name).is_file()), None)
    return [] if file is None else [line.strip() for line in _text(file).splitlines() if line.strip()]


def _rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(_text(file).splitlines(), 1):
        if line.strip():
            yield number, line.replace(",", " ").split()


def _floats(row: Sequence[str]) -> list[float]:
    try:
        return [float(value) for value in row]
    except ValueError:
        return [math.nan] * len(row)  # `add` says what is wrong


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None


def _refuse_text(path: Path) -> InputError:
    """Why a single text file is not read."""
    first = next((line for line in _text(path).splitlines() if line.strip()), "")
    cells = first.split(",")
    if len(cells) >= 7:
        return InputError(f"{path} looks like MOT's text (frame,id,x,y,...): tracks are not evaluated yet")
    if _VOC_NAME.match(path.stem) or len(first.split()) == 6:
        return InputError(f"{path} is one text of several; give the folder {path.parent} that holds all of them")
    return InputError(f"{path} is not a known file of detections; expected {FORMS}")
