"""IAM, handwritten English: crops of words or lines and `words.txt` or `lines.txt`, or an XML of each form.

A line of the text file is `a01-000u-00-00 ok 154 408 768 27 51 AT A`: id, whether it was cut out right, and after more
numbers the text, of a line with `|` between its words. Its image is `words/a01/a01-000u/a01-000u-00-00.png`, or the
same below `lines/`. The XML of a form has `<line id text>` with
`<word id text>`, in text as it is written.

level: words or lines, where there are both. Lists of forms or lines beside them are splits: trainset.txt,
validationset1.txt, testset.txt. A division keeps a writer together where forms.txt or the XML names the writer, else a
form.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from opsin.data.formats.format import Claim, Format
from opsin.data.formats.text_crops import Crop, open_crops, with_subset
from opsin.data.formats.text_files import read_lines
from opsin.data.formats.values import read_head
from opsin.data.formats.xml_tree import read_elements
from opsin.data.source import Source
from opsin.data.truth import Problem
from opsin.errors import InputError
from opsin.image_files import IMAGE_SUFFIXES, find_files, first_files

LEVELS = ("lines", "words")
_LISTS = (("train", "train"), ("valid", "val"), ("val", "val"), ("test", "test"))
_COLUMNS = 9  # of a line, the text being the last
_EXPECTED = "id, ok or err, numbers and the text"


@dataclass(frozen=True)
class _Said:
    """A crop's text. form: a01-000u. fine: whether it was cut out right."""

    name: str
    text: str
    place: str
    fine: bool


def _form(name: str) -> str:
    return "-".join(name.split("-")[:2])


def _text_file(path: Path, level: str) -> Path | None:
    return next((p for p in (path / "ascii" / f"{level}.txt", path / f"{level}.txt") if p.is_file()), None)


def _xml_files(path: Path) -> list[Path]:
    folder = path / "xml"
    return find_files(folder, (".xml",)) if folder.is_dir() else []


def _read_ascii(file: Path, level: str, problems: list[Problem], encoding: str) -> Iterator[_Said]:
    for number, line in read_lines(file, problems, encoding):
        if line.startswith("#"):
            continue
        cells = line.split(maxsplit=_COLUMNS - 1)
        place = f"{file} line {number}"
        if len(cells) < _COLUMNS or cells[1] not in ("ok", "err"):
            problems.append(Problem("broken_annotation", place, f"{len(cells)} columns; expected {_EXPECTED}"))
            continue
        yield _Said(cells[0], cells[-1].replace("|", " ") if level == "lines" else cells[-1], place, cells[1] == "ok")


def _read_forms(files: Sequence[Path], level: str, problems: list[Problem]) -> tuple[list[_Said], dict[str, str]]:
    """The texts of each form's XML, and the writers of the forms."""
    found, writers = [], {}
    for file in files:
        for form in read_elements(file, "form", problems):
            if "writer-id" in form.attributes:
                writers[form.attributes.get("id", file.stem)] = form.attributes["writer-id"]
            for one in form.all(level.removesuffix("s")):
                values = one.attributes
                if "id" in values and "text" in values:
                    fine = values.get("segmentation", "ok") == "ok"
                    found.append(_Said(values["id"], values["text"], f"{file} line {one.line}", fine))
    return found, writers


def _writers(path: Path, problems: list[Problem], encoding: str) -> dict[str, str]:
    """The writer of each form, of forms.txt: `a01-000u 000 2 prt 7 5 52 36`."""
    file = _text_file(path, "forms")
    lines = [] if file is None else [line.split() for _, line in read_lines(file, problems, encoding)]
    return {cells[0]: cells[1] for cells in lines if len(cells) > 1 and not cells[0].startswith("#")}


def _splits(path: Path) -> dict[str, str]:
    """From ids of forms and lines to the splits whose lists name them."""
    found: dict[str, str] = {}
    for folder in (path, path / "splits", path / "task", path / "largeWriterIndependentTextLineRecognitionTask"):
        for name in first_files(folder):
            key = next((split for start, split in _LISTS if name.lower().startswith(start)), None)
            if key is not None and name.lower().endswith((".txt", ".uttlist")):
                found |= {line.strip(): key for _, line in read_lines(folder / name, [])}
    return found


def _level(path: Path, level: str) -> str:
    if level and level not in LEVELS:
        raise InputError(f"level is {level!r}; expected lines or words")
    there = [one for one in LEVELS if (path / one).is_dir() and (_text_file(path, one) or _xml_files(path))]
    if level and level not in there:
        raise InputError(f"{path} has no {level}: a folder {level}, and {level}.txt or xml")
    if not level and len(there) > 1:
        raise InputError(f"{path} has words and lines; say which with level=words or level=lines (opsin data: --level)")
    return level or there[0]


def _open(path: Path, level: str = "", encoding: str = "") -> Source:
    problems: list[Problem] = []
    chosen, code = _level(path, level), encoding or "utf-8-sig"
    writers = _writers(path, problems, code)
    if (file := _text_file(path, chosen)) is not None:
        said = list(_read_ascii(file, chosen, problems, code))
    else:
        said, more = _read_forms(_xml_files(path), chosen, problems)
        writers |= more
    images = {image.stem: str(image) for image in find_files(path / chosen, IMAGE_SUFFIXES)}
    splits, parts, wrong = _splits(path), dict[str, list[Crop]](), 0
    for one in said:
        if not one.fine or one.name not in images:
            wrong += 1
            continue
        line = "-".join(one.name.split("-")[:3])
        key = (splits.get(line) or splits.get(_form(one.name)) or "") if splits else "all"
        writer = writers.get(_form(one.name))
        page = f"writer {writer}" if writer else _form(one.name)
        if key:
            parts.setdefault(key, []).append(Crop(images[one.name], one.text, one.place, page=page))
    if wrong:
        reason = f"{wrong} {chosen} that were cut out wrongly (err), or have no image, are left out"
        problems.append(Problem("left_out", str(path), reason, "note"))
    return open_crops(path.name, f"IAM {chosen}", parts, problems)


def _claims(path: Path) -> Claim:
    if not path.is_dir() or not any((path / level).is_dir() for level in LEVELS):
        return 0
    files = [_text_file(path, level) for level in LEVELS if (path / level).is_dir()]
    heads = [read_head(file) for file in files if file is not None] + [read_head(one) for one in _xml_files(path)[:1]]
    return 2 if any(b" ok " in head or b" err " in head or b"<form" in head for head in heads) else 0


FORMAT = with_subset(
    Format(
        "IAM", "texts", "IAM (words or lines, with words.txt, lines.txt or xml)", _claims, _open, ("level", "encoding")
    )
)
