"""COCO json of keypoints: of each person x, y and v of each point, 0 not labelled, 1 hidden, 2 visible.

Lin et al. 2014, arXiv:1405.0312. Its x and y count pixels from 0, whose middles are half a pixel on in continuous
coordinates. Each annotation is an example, the square around its bbox; `iscrowd` ones and those without a labelled
point are left out. Names come from the category. Of several categories the one with annotations of points is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from opsin.data.formats.format import Claim, Format
from opsin.data.formats.point_source import LARGEST, OPTIONS, PointRows, source_of_points
from opsin.data.formats.tree import SPLIT_NAMES
from opsin.data.formats.values import as_posix, find_file, read_flag, read_head, read_number, shown
from opsin.data.formats.write_points import write_coco_keypoints
from opsin.data.inputs import ImageFiles
from opsin.data.source import Source
from opsin.data.truth import Problem
from opsin.errors import InputError, printable
from opsin.files import read_regular

_KEYS = (b'"keypoints"', b'"images"', b'"annotations"')
_HEAD = 1 << 18


def is_keypoints(file: Path) -> bool:
    """Whether a json file is of this format, by what stands at its beginning and at its end."""
    text = read_head(file, _HEAD)
    try:
        size = file.stat().st_size
        if size > _HEAD:
            with file.open("rb") as opened:
                opened.seek(max(0, size - _HEAD))
                text += opened.read(_HEAD)
    except OSError:
        return False
    return all(key in text for key in _KEYS)


def _files(path: Path) -> dict[str, Path]:
    """The json files of keypoints of a path by split."""
    if path.is_file():
        return {"all": path} if path.suffix.lower() == ".json" and is_keypoints(path) else {}
    if not path.is_dir():
        return {}
    folder = path / "annotations" if (path / "annotations").is_dir() else path
    files = [file for file in sorted(folder.glob("*.json"))[:24] if is_keypoints(file)]
    if len(files) == 1:
        return {"all": files[0]}
    named = {_split_of(file): file for file in files}
    return {key: named[key] for key in ("train", "val", "test") if key in named} if "train" in named else {}


def _split_of(file: Path) -> str:
    words = re.split(r"[^a-z]+", file.stem.lower())
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), "all")


def read_keypoints(file: Path) -> tuple[PointRows, list[str], list[Problem]]:
    """What a file says, the names of its points, and annotations that were left out."""
    try:
        content = json.loads(read_regular(file))
        images = {one["id"]: one for one in content["images"]}
        annotations, categories = content["annotations"], content["categories"]
        named = {one["id"]: [str(n) for n in one["keypoints"]] for one in categories if one.get("keypoints")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{file} is no COCO json of keypoints: {type(error).__name__}: {error}") from None
    used = [one for one in annotations if isinstance(one, dict) and one.get("category_id") in named]
    chosen = next((one["category_id"] for one in used if one.get("keypoints")), None)
    if chosen is None:
        raise InputError(f"{file} has no annotation with keypoints of a category that names them")
    names, bases = named[chosen], [file.parent, file.parent.parent, *_image_folders(file)]
    files, points, visible, boxes, problems = [], [], [], [], []
    for place, one in enumerate(used):
        if one["category_id"] != chosen or not one.get("keypoints"):
            continue
        where = f"{file} annotations[{place}]"
        try:
            if read_flag(one.get("iscrowd")) or not any(one["keypoints"][2::3]):
                continue
            image, (own, seen) = images[one["image_id"]], _points(one["keypoints"], len(names))
            box = _box(one, own)
        except (ValueError, KeyError, TypeError) as error:
            reason = (
                str(error) if isinstance(error, ValueError) else f"image_id {shown(one.get('image_id'))} is unknown"
            )
            problems.append(Problem("broken_annotation", where, reason))
            continue
        name = str(image.get("file_name", ""))
        files.append(str(find_file(as_posix(name), bases) or file.parent / printable(name)))
        points.append(own)
        visible.append(seen)
        boxes.append(box)
    return PointRows(ImageFiles(files), points, visible, boxes=boxes), names, problems


def _image_folders(file: Path) -> list[Path]:
    """Folders that images may lie in, beside the annotations: train2017 of person_keypoints_train2017.json."""
    root = file.parent.parent if file.parent.name == "annotations" else file.parent
    tail = file.stem.rpartition("_")[2]
    return [root / name for name in (tail, "images", f"images/{tail}", _split_of(file))]


def _points(values: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (P, 2), NaN where not labelled, and whether each is visible. Raises ValueError."""
    if not isinstance(values, list) or len(values) != 3 * count:
        raise ValueError(f"it has {len(values) if isinstance(values, list) else 'no'} numbers for {count} keypoints")
    numbers = np.array([read_number(value) for value in values]).reshape(-1, 3)
    labelled = numbers[:, 2] > 0
    if not (np.abs(numbers[labelled, :2]) <= LARGEST).all():
        raise ValueError("a keypoint is no place in an image")
    return np.where(labelled[:, None], numbers[:, :2] + 0.5, np.nan), numbers[:, 2] == 2


def _box(one: Mapping[str, Any], points: np.ndarray) -> np.ndarray:
    """Its bbox as xyxy; where it has none the box around its points."""
    given = one.get("bbox")
    if isinstance(given, list) and len(given) == 4:
        x, y, width, height = (read_number(value) for value in given)
        if not 0 < width <= LARGEST or not 0 < height <= LARGEST:
            raise ValueError(f"its bbox is {width:g} wide and {height:g} high")
        return np.array([x, y, x + width, y + height])
    known = points[~np.isnan(points).any(axis=1)]
    return np.concatenate([known.min(axis=0), known.max(axis=0) + 1e-3])


def _claims(path: Path) -> Claim:
    return 2 if _files(path) else 0


def _open(path: Path, **options: Any) -> Source:
    files = _files(path) or {"all": path}
    read = {split: read_keypoints(file) for split, file in files.items()}
    names = next(iter(read.values()))[1]
    for split, (_, own, _) in read.items():
        if own != names:
            raise InputError(f"{files[split]} has other keypoints than {next(iter(files.values()))}")
    rows = {split: rows for split, (rows, _, _) in read.items()}
    problems = [problem for *_, found in read.values() for problem in found]
    name = path.name if path.is_dir() else path.stem
    return source_of_points(name, "COCO keypoints", rows, names, problems=problems, **options)


FORMAT = Format(
    "COCO keypoints",
    "named points",
    "a COCO json of keypoints",
    _claims,
    _open,
    OPTIONS,
    written="coco",
    write=write_coco_keypoints,
)
