"""Open a data source by name or path: recognise its format."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from opsin.data.formats import coco, csv_boxes, csv_labels, folders, idx, npz, voc, yolo
from opsin.data.formats.digit_scenes import SCENES, open_scenes
from opsin.data.formats.digits import BUILTIN
from opsin.data.source import Problem, Source, one_hot, verify
from opsin.errors import InputError, unknown

_TASKS = ("classify", "detect")
_FORMATS = "expected a folder of class folders, a zip of one, a CSV, an npz, or a folder of IDX files"
_BOX_FILES = (".json", ".yaml", ".yml", ".data")
_BOX_FORMATS = (
    "expected Pascal VOC (Annotations/*.xml), COCO (annotations/*.json), YOLO (data.yaml or obj.data, or images and "
    "labels), or a CSV of path,x1,y1,x2,y2,label"
)


def open_source(
    source: str | Path, task: str = "classify", *, multi_label: bool = False, skip_bad: bool = False
) -> Source:
    """Open a built-in name, a path, or a name in the folder that OPSIN_DATA names, in this order.

    task: "classify", or "detect" for images with boxes: then every split has instances, and labels are (N, K).
    multi_label: labels are (N, K) of 0 and 1; sources with one label an image are converted. skip_bad: leave out files
    that cannot be read, after reading them all (see `verify`); otherwise nothing is decoded here.
    Raises InputError for what does not exist or is in no known format.
    """
    if task not in _TASKS:
        raise unknown("task", task, _TASKS)
    if task == "detect":
        opened = _open_detection(source)
    elif SCENES.fullmatch(str(source)) and not Path(source).exists():
        raise InputError(f"{source} are images with boxes, for the task detect; to classify, take digits")
    else:
        opened = BUILTIN[str(source)]() if str(source) in BUILTIN else _open_path(_find(source), multi_label)
    opened.name = opened.name.strip(".") or Path(source).resolve().name  # of the folder "." too
    if multi_label:
        count = len(opened.classes)
        splits = {k: s.with_labels(one_hot(s.labels, count)) for k, s in opened.splits.items()}
        opened = replace(opened, splits=splits, multi_label=True)
    return opened.without(verify(opened)) if skip_bad else opened


def recognize_task(source: str | Path) -> str:
    """What the data of a name or at a path is for: "detect" where it has boxes of a known format, else "classify".

    Raises InputError for what does not exist.
    """
    if SCENES.fullmatch(str(source)) and not Path(source).exists():
        return "detect"
    if str(source) in BUILTIN:
        return "classify"
    path = _find(source, [*BUILTIN, "scenes"])
    try:
        return "detect" if _has_boxes(path) else "classify"
    except OSError as error:
        raise InputError(f"cannot look into {path}: {(error.strerror or str(error)).lower()}") from error


def _has_boxes(path: Path) -> bool:
    if not path.is_dir():
        suffix = path.suffix.lower()
        return suffix in _BOX_FILES or (suffix in (".csv", ".tsv") and csv_boxes.is_boxes(path))
    if voc.is_voc(path) or yolo.find_yolo(path) is not None or any(map(coco.is_coco, coco.find_coco(path))):
        return True
    if tabled := _box_tables(path):
        return all(map(csv_boxes.is_boxes, tabled.values()))
    inside = _only_folder(path)
    return inside is not None and _has_boxes(inside)


def _only_folder(path: Path) -> Path | None:
    """The folder within a folder where there is but one."""
    inside = [p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")]
    return inside[0] if len(inside) == 1 else None


def _open_detection(source: str | Path) -> Source:
    name = str(source)
    if SCENES.fullmatch(name):
        return open_scenes(name)
    if name in BUILTIN:
        raise InputError(f"{name} has a class an image but no boxes; the built-in data to detect is called scenes")
    path = _find(source, ["scenes"])
    try:
        opened = _open_boxes(path)
    except OSError as error:
        raise InputError(f"cannot look into {path}: {(error.strerror or str(error)).lower()}") from error
    if opened is None:
        kind = "a folder" if path.is_dir() else "a file"
        raise InputError(f"{path} is {kind} of no known format of boxes; {_BOX_FORMATS}")
    return opened


def _open_boxes(path: Path) -> Source | None:
    """A source of boxes; None where the format is none of ours."""
    suffix = path.suffix.lower()
    if not path.is_dir():
        if suffix == ".json":
            return coco.open_coco([path], path.stem)
        if suffix in (".yaml", ".yml", ".data"):
            return yolo.open_yolo(path)
        return csv_boxes.open_boxes({"all": path}, path.stem) if suffix in (".csv", ".tsv") else None
    found: dict[str, Callable[[], Source]] = {}
    if voc.is_voc(path):
        found["Pascal VOC"] = partial(voc.open_voc, path)
    if files := coco.find_coco(path):
        found["COCO"] = partial(coco.open_coco, files, path.name)
    if (file := yolo.find_yolo(path)) is not None:
        found["YOLO"] = partial(yolo.open_yolo, file)
    if tabled := _box_tables(path):
        found["CSV"] = partial(csv_boxes.open_boxes, tabled, path.name)
    if not found:
        inside = _only_folder(path)
        return None if inside is None else _open_boxes(inside)
    taken, *others = found
    opened = found[taken]()
    if others:
        reason = f"it also looks like {' and '.join(others)}; {taken} is read. Give the file itself for another"
        opened.problems.append(Problem("several_formats", str(path), reason, "note"))
    return replace(opened, name=path.name)


def _box_tables(path: Path) -> dict[str, Path]:
    files = {p.name: p for p in sorted(path.iterdir()) if p.is_file() and not p.name.startswith(".")}
    if "train" in (parts := _by_split(files, ".csv")):
        return parts
    tables_ = [file for name, file in files.items() if name.lower().endswith((".csv", ".tsv"))]
    named = [file for file in tables_ if file.stem.lower() in ("labels", "annotations", "boxes", "_annotations")]
    chosen = named or tables_
    return {"all": chosen[0]} if len(chosen) == 1 else {}


def _find(source: str | Path, built_in: Sequence[str] = tuple(BUILTIN)) -> Path:
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
    raise unknown("data source", source, [*built_in, *names])


def _open_path(path: Path, multi_label: bool) -> Source:
    suffix = path.suffix.lower()
    if path.is_dir():
        return _open_folder(path, multi_label)
    if suffix == ".zip":
        return folders.open_zip(path)
    if suffix == ".npz":
        return npz.open_npz(path, multi_label)
    if suffix in (".csv", ".tsv"):
        return csv_labels.open_table(path, multi_label)
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
        return replace(csv_labels.open_table(files["labels.csv"], multi_label), name=path.name)
    if "train" in (parts := _by_split(files, ".csv")):
        return csv_labels.open_tables(path, parts, multi_label)
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
