"""Omniglot: drawings of characters, and runs of one-shot learning. Lake et al. 2015, doi:10.1126/science.aab3050.

`Alphabet/character01/0394_01.png`, in a folder or a zip as they are published: images_background.zip,
images_background_small1.zip, images_evaluation.zip. An identity is a character of an alphabet; where several archives
hold the same, its drawings are taken once. `run01/class_labels.txt`, in all_runs.zip, names for each test drawing the
training drawing of its class, of the run's twenty. A folder of such archives has the background characters as train,
and as test the runs, or the evaluation characters where there are none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from opsin.data import zips
from opsin.data.formats.folders import walk
from opsin.data.formats.format import Claim, Format
from opsin.data.formats.tree import Tree
from opsin.data.formats.values import read_text
from opsin.data.identities import Identities
from opsin.data.identity_trials import OneShotRuns
from opsin.data.images import UnreadableImage
from opsin.data.inputs import Concatenated, ImageFiles, Inputs
from opsin.data.source import Source, Split
from opsin.errors import InputError
from opsin.image_files import list_folder

_DRAWING = re.compile(r"(?:^|/)(?P<alphabet>[^/]+)/(?P<character>character\d+)/(?P<file>\d+_\d+\.png)$")
_RUN = re.compile(r"(?:^|/)(?P<run>run\d+)/class_labels\.txt$")


@dataclass(frozen=True)
class _Part:
    """A folder or a zip. files: relative paths within. archive: the zip's path; None of a folder."""

    path: Path
    files: list[str]
    archive: str | None

    def inputs(self, files: Sequence[str]) -> Inputs:
        where = files if self.archive is not None else [str(self.path / file) for file in files]
        return ImageFiles(list(where), self.archive)

    def text(self, file: str) -> str:
        if self.archive is None:
            return read_text(self.path / file)
        try:
            return zips.read_member(self.archive, file).decode("utf-8-sig")
        except UnreadableImage as error:
            raise InputError(f"{error.path} cannot be read: {error.reason}") from None

    @cached_property
    def members(self) -> set[str]:
        return set(self.files)

    @property
    def runs(self) -> list[str]:
        return [file for file in self.files if _RUN.search(file)]

    @property
    def drawings(self) -> list[str]:
        return [file for file in self.files if _DRAWING.search(file)]


def _read(path: Path) -> _Part:
    if path.is_dir():
        return _Part(path, walk(path).files, None)
    return _Part(path, Tree(*zips.list_members(str(path))).files, str(path))


def open_drawings(parts: Sequence[Path]) -> Split:
    """The characters of folders or zips, each drawing of a character once."""
    seen: dict[tuple[str, str], None] = {}
    inputs, names = [], []
    for part in map(_read, parts):
        taken = []
        for file in part.drawings:
            found = _DRAWING.search(file)
            assert found is not None
            name = f"{found['alphabet']}/{found['character']}"
            if (name, found["file"]) not in seen:
                seen[name, found["file"]] = None
                taken.append(file)
                names.append(name)
        if taken:
            inputs.append(part.inputs(taken))
    if not inputs:
        raise InputError(f"{parts[0]} holds no drawings; expected Alphabet/character01/0394_01.png")
    known = sorted(set(names))
    number = {name: k for k, name in enumerate(known)}
    labels = np.array([number[name] for name in names], np.int64)
    return Split(inputs[0] if len(inputs) == 1 else Concatenated(inputs), Identities(labels, known))


def open_runs(path: Path) -> Split:
    """The runs in a folder or zip: of each the drawings that are asked, and those that they are held against."""
    part = _read(path)
    files, labels, run, query, names = list[str](), list[int](), list[int](), list[bool](), list[str]()
    for number, listed in enumerate(part.runs):
        where, folder = f"{path}/{listed}", listed.rpartition("/")[0].rpartition("/")[0]
        pairs = [line.split() for line in part.text(listed).splitlines() if line.strip()]
        classes: dict[str, int] = {}
        for line, pair in enumerate(pairs, 1):
            if len(pair) != 2:
                raise InputError(
                    f"{where} line {line}: {len(pair)} names; expected a test drawing and one of its class"
                )
            for file in pair:
                if _inside(folder, file) not in part.members:
                    raise InputError(
                        f"{where} line {line}: {file[:80]!r} is not there; take the file of the same release"
                    )
            classes.setdefault(pair[1], len(names) + len(classes))
        asked = [pair[0] for pair in pairs]
        files += [_inside(folder, one) for one in (*asked, *classes)]
        labels += [*(classes[pair[1]] for pair in pairs), *classes.values()]
        query += [True] * len(asked) + [False] * len(classes)
        run += [number] * (len(asked) + len(classes))
        names += [f"{Path(one).parts[0]}/{Path(one).stem}" for one in classes]
    if not files:
        raise InputError(f"{path} holds no runs; expected run01/class_labels.txt, as in Omniglot's all_runs.zip")
    truth = OneShotRuns(np.array(labels), names, run=np.array(run), query=np.array(query))
    return Split(part.inputs(files), truth)


def _inside(folder: str, file: str) -> str:
    return f"{folder}/{file}" if folder else file


def _archives(path: Path, test: Callable[[str], bool]) -> list[Path]:
    """The folders and zips in a folder whose names pass; of a folder and the zip of its name the folder."""
    files, folders = list_folder(path)
    zipped = [name for name in files if name.lower().endswith(".zip") and name[:-4] not in folders]
    return [path / name for name in sorted([*folders, *zipped]) if test(name.lower())]


def _background(path: Path) -> list[Path]:
    return _archives(path, lambda name: name.startswith("images_background")) if path.is_dir() else []


def _claims(path: Path) -> Claim:
    return 2 if _background(path) else 0


def _open(path: Path) -> Source:
    background = _background(path)
    whole = [one for one in background if one.stem == "images_background"]  # the small sets are parts of it
    splits = {"train": open_drawings(whole or background)}
    if runs := _archives(path, lambda name: name in ("all_runs", "all_runs.zip")):
        splits["test"] = open_runs(runs[0])
    elif others := _archives(path, lambda name: name.startswith("images_evaluation")):
        splits["test"] = open_drawings(others)
    return Source(path.name, "Omniglot", splits)


def _claims_drawings(path: Path) -> Claim:
    if not path.name.lower().startswith(("images_background", "images_evaluation")):
        return 0
    return 2 if path.is_dir() or path.suffix.lower() == ".zip" else 0


def _claims_runs(path: Path) -> Claim:
    if path.is_dir():
        return 2 if any((path / name / "class_labels.txt").is_file() for name in list_folder(path)[1]) else 0
    return 2 if path.name.lower() == "all_runs.zip" else 0


def _open_drawings(path: Path) -> Source:
    return Source(path.stem, "Omniglot drawings", {"all": open_drawings([path])})


def _open_runs(path: Path) -> Source:
    return Source(path.stem, "one-shot runs", {"test": open_runs(path)})


FORMAT = Format("Omniglot", "identities", "Omniglot (images_background.zip, all_runs.zip)", _claims, _open)
DRAWINGS = Format("Omniglot drawings", "identities", "images_background.zip", _claims_drawings, _open_drawings)
RUNS = Format("one-shot runs", "identities", "run01/class_labels.txt", _claims_runs, _open_runs)
