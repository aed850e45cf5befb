"""Open a data source by name or path: recognise its format."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

from opsin.data import arrays, folders, idx, tables
from opsin.data.builtin import BUILTIN
from opsin.data.source import Source, one_hot, verify
from opsin.errors import InputError, unknown

_TASKS = ("classify",)
_FORMATS = "expected a folder of class folders, a zip of one, a CSV, an npz, or a folder of IDX files"


def open_source(
    source: str | Path, task: str = "classify", *, multi_label: bool = False, skip_bad: bool = False
) -> Source:
    """Open a built-in name, a path, or a name in the folder that OPSIN_DATA names, in this order.

    multi_label: labels are (N, K) of 0 and 1; sources with one label a picture are converted. skip_bad: leave out files
    that cannot be read, after reading them all (see `verify`); otherwise nothing is decoded here.
    Raises InputError for what does not exist or is in no known format.
    """
    if task not in _TASKS:
        raise unknown("task", task, _TASKS)
    opened = BUILTIN[str(source)]() if str(source) in BUILTIN else _open_path(_find(source), multi_label)
    opened.name = opened.name.strip(".") or Path(source).resolve().name  # of the folder "." too
    if multi_label:
        count = len(opened.classes)
        splits = {k: s.with_labels(one_hot(s.labels, count)) for k, s in opened.splits.items()}
        opened = replace(opened, splits=splits, multi_label=True)
    return opened.without(verify(opened)) if skip_bad else opened


def _find(source: str | Path) -> Path:
    path = Path(source).expanduser()
    if path.exists() and str(source):
        return path
    home = os.environ.get("OPSIN_DATA")
    if home and not path.is_absolute() and str(source):
        inside = Path(home) / path
        if inside.exists():
            return inside
    if len(path.parts) > 1 or path.suffix:
        raise InputError(f"there is no file or folder {str(source)!r} to read data from; check the path")
    names = [p.name for p in Path(home).iterdir() if p.is_dir()] if home and Path(home).is_dir() else []
    raise unknown("data source", source, [*BUILTIN, *names])


def _open_path(path: Path, multi_label: bool) -> Source:
    suffix = path.suffix.lower()
    if path.is_dir():
        return _open_folder(path, multi_label)
    if suffix == ".zip":
        return folders.open_zip(path)
    if suffix == ".npz":
        return arrays.open_npz(path, multi_label)
    if suffix in (".csv", ".tsv"):
        return tables.open_table(path, multi_label)
    raise InputError(f"{path} is a file of no known data format; {_FORMATS}")


def _open_folder(path: Path, multi_label: bool) -> Source:
    try:
        files = {p.name: p for p in sorted(path.iterdir()) if p.is_file() and not p.name.startswith(".")}
        if not files and not any(path.iterdir()):
            raise InputError(f"{path} is empty; {_FORMATS}")
        if idx.is_idx_folder(path):
            return idx.open_idx(path, multi_label)
    except OSError as error:
        raise InputError(f"cannot look into {path}: {(error.strerror or str(error)).lower()}") from error
    if "labels.csv" in files:
        return replace(tables.open_table(files["labels.csv"], multi_label), name=path.name)
    if "train" in (parts := _by_split(files, ".csv")):
        return tables.open_tables(path, parts, multi_label)
    if "train" in (parts := _by_split(files, ".zip")):
        return folders.open_zips(path, parts)
    for suffix in (".npz", ".zip", ".csv"):  # a file that is alone in its folder, but for a licence or a read-me
        only = [file for name, file in files.items() if name.lower().endswith(suffix)]
        if len(only) == 1 and not any(p.is_dir() and not p.name.startswith(".") for p in path.iterdir()):
            return _open_path(only[0], multi_label)
    return folders.open_folder(path)


def _by_split(files: dict[str, Path], suffix: str) -> dict[str, Path]:
    """From splits to the files named after them: train.csv; of zips also train_small.zip."""
    found: dict[str, Path] = {}
    for name, file in files.items():
        stem = Path(name.lower()).stem
        split = folders.SPLIT_NAMES.get(re.split("[-_.]", stem)[0] if suffix == ".zip" else stem)
        if not name.lower().endswith(suffix) or split is None:
            continue
        if split in found:
            raise InputError(f"{file.parent} has both {found[split].name} and {name} for the {split} split; keep one")
        found[split] = file
    return found
