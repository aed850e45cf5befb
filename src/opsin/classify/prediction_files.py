"""Files of class predictions, as tools write them: CSV of labels or of probabilities, and those of `opsin predict`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opsin.data.formats import csv_labels
from opsin.data.formats.values import read_number, read_text, shown
from opsin.errors import InputError

FORMS = (
    "a CSV of path,label or path,label,score, or with a column of probabilities for each class, or what opsin predict "
    "--json, --jsonl and --csv write"
)
_ROLES = {
    "path": ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "image_id", "name", "id"),
    "label": ("label", "labels", "class", "prediction", "predicted", "category", "target", "class_name"),
    "score": ("score", "confidence", "probability", "prob", "conf"),
    "class_id": ("class_id", "label_id", "category_id"),
}
_PREFIXES = ("prob_", "probability_", "score_", "p_", "class_", "prob:", "p(")


@dataclass
class Prediction:
    """What a file says of one image. image: as it is named. place: in the file, with it.

    labels: the classes it gives, one, or of several at once any number, of which the ids are in `numbers` where there
    are no names. ranked: classes with their scores, the best first, as far as they are listed. probabilities: of each
    of the file's class columns.
    """

    image: str
    place: str
    labels: list[str] = field(default_factory=list)
    ranked: list[tuple[str, float]] = field(default_factory=list)
    probabilities: list[float] | None = None


@dataclass
class Predictions:
    """A file. classes: names of the columns of probabilities, where it has some. numbered: labels are class ids."""

    form: str
    rows: list[Prediction] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    numbered: bool = False
    unread: int = 0  # images that the tool could not read


def read_predictions(path: Path, classes: Sequence[str]) -> Predictions:
    """A file of class predictions. classes: of the truth, by which columns are known.

    Raises InputError for what is none, and for a score that is not finite, with its line.
    """
    suffix = path.suffix.lower()
    if path.is_dir() or suffix not in (".csv", ".tsv", ".json", ".jsonl"):
        raise InputError(f"{path} is not a known file of class predictions; expected {FORMS}")
    return _read_table(path, classes) if suffix in (".csv", ".tsv") else _read_answers(path)


def _read_table(path: Path, classes: Sequence[str]) -> Predictions:
    cells = csv_labels.read_cells(path, "rows of path,label")
    header = [cell.strip() for cell in cells[0][1]]
    lower = [cell.lower() for cell in header]
    roles = {role: lower.index(name) for role, names in _ROLES.items() for name in reversed(names) if name in lower}
    columns = _class_columns(header, classes)
    if "path" not in roles:
        if len(header) not in (2, 3) or columns:
            raise InputError(f"{path} has no column of images; expected {FORMS}")
        roles, cells = {"path": 0, "label": 1, "score": 2}, [(0, []), *cells]
        roles = {role: place for role, place in roles.items() if place < len(header)}
    if not columns and not {"label", "class_id"} & roles.keys():
        missing = [name for name in classes if name.lower() not in lower]
        hint = f"; there are no columns for the classes {', '.join(missing[:5])}" if len(missing) < len(classes) else ""
        raise InputError(f"{path} has neither a column label nor one for each class{hint}; expected {FORMS}")
    found = Predictions("a CSV", classes=list(columns))
    found.numbered = "label" not in roles and not columns
    for line, row in cells[1:]:
        place, row = f"{path} line {line}", [cell.strip() for cell in row]
        if len(row) <= max([*roles.values(), *columns.values()]):
            raise InputError(f"{place}: {len(row)} columns, expected {len(header)}")
        if "error" in lower and len(row) > lower.index("error") and row[lower.index("error")]:
            found.unread += 1
            continue
        found.rows.append(_read_row(row, roles, columns, place))
    return found


def _class_columns(header: Sequence[str], classes: Sequence[str]) -> dict[str, int]:
    """From classes to the columns of their probabilities; none unless every class of the truth has one."""
    for prefix in ("", *_PREFIXES):
        named = {
            cell[len(prefix) :].rstrip(")") if prefix.endswith("(") else cell[len(prefix) :]: place
            for place, cell in enumerate(header)
            if cell.lower().startswith(prefix)
        }
        if all(name in named for name in classes):
            return {name: place for name, place in named.items() if prefix or name in classes}
    return {}


def _read_row(row: Sequence[str], roles: dict[str, int], columns: dict[str, int], place: str) -> Prediction:
    one = Prediction(row[roles["path"]], place)
    if not one.image:
        raise InputError(f"{place}: the image is empty")
    if columns:
        one.probabilities = [_score(row[k], place) for k in columns.values()]
        return one
    cell = row[roles["label"] if "label" in roles else roles["class_id"]]
    one.labels = [part.strip() for part in cell.replace(";", "|").split("|") if part.strip()]
    if "score" in roles and len(one.labels) == 1 and row[roles["score"]]:
        one.ranked = [(one.labels[0], _score(row[roles["score"]], place))]
    return one


def _score(value: Any, place: str) -> float:
    try:
        number = read_number(value)
    except ValueError as error:
        raise InputError(f"{place}: {error}") from None
    if not math.isfinite(number):
        raise InputError(f"{place}: the score is {number}; a prediction has a finite score: fix the tool that wrote it")
    return number


def _read_answers(path: Path) -> Predictions:
    """What `opsin predict --json` and `--jsonl` write."""
    found = Predictions("answers of opsin predict")
    for place, answer in _answers(path):
        if not isinstance(answer, dict) or not ({"top", "error"} & answer.keys()):
            raise InputError(f"{place} is no answer of a classifier, which has label and top; expected {FORMS}")
        if "frame" in answer:
            raise InputError(f"{place} is of a frame of a video; only predictions on images can be evaluated")
        if answer.get("error") is not None:
            found.unread += 1
            continue
        if not isinstance(answer.get("path"), str):
            raise InputError(f"{place} has no path: nothing says of which image it is")
        one = Prediction(answer["path"], place)
        top = answer["top"] if isinstance(answer["top"], list) else []
        one.ranked = [(str(entry.get("label")), _score(entry.get("score"), place)) for entry in _dicts(top)]
        several = answer.get("labels")
        one.labels = [name for name, _ in one.ranked[:1]]
        if isinstance(several, list):
            one.labels = [str(entry.get("label")) for entry in _dicts(several)]
        found.rows.append(one)
    return found


def _answers(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        text = read_text(path)
        if path.suffix.lower() == ".json":
            content = json.loads(text)
            content = content if isinstance(content, list) else [content]
            yield from ((f"{path} [{number}]", one) for number, one in enumerate(content))
            return
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield f"{path} line {number}", json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not readable JSON: {error}") from None
    except (OSError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {shown(str(error))}") from None


def _dicts(values: Sequence[Any]) -> list[dict[str, Any]]:
    return [one for one in values if isinstance(one, dict)]
