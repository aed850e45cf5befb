"""transforms.json of Blender's synthetic scenes, of nerfstudio and of instant-ngp: a pose and an image a frame.

Folders hold transforms_train.json, transforms_val.json and transforms_test.json, or one transforms.json, in which
train_filenames, val_filenames and test_filenames may say the splits. A zip holds the same. Poses are camera to world
with OpenGL's axes. The lens is camera_angle_x (Blender), or fl_x, fl_y, cx, cy, w, h, k1, k2, p1, p2 of all frames or
of each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from opsin.data import zips
from opsin.data.formats.format import Claim, Format
from opsin.data.formats.tree import SPLIT_NAMES
from opsin.data.formats.values import read_head, read_number
from opsin.data.source import Source
from opsin.errors import InputError
from opsin.files import load_json, read_regular
from opsin.image_files import list_folder
from opsin.render.view_source import OPTIONS, Camera, ViewRows, as_pose, check_camera, image_path, source_of_views

_MODELS = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE")


def _files_in(path: Path) -> dict[str, str]:
    """The files of cameras in a folder or zip, by split."""
    if path.is_dir():
        names = list_folder(path)[0]
    elif path.suffix.lower() == ".zip":
        names = [name for name in zips.list_members(str(path))[0] if "/" not in name]
    else:
        return {"all": ""} if path.suffix.lower() == ".json" else {}
    found: dict[str, str] = {}
    for name in names:
        stem = name.removesuffix(".json")
        if stem == name or not (stem == "transforms" or stem.startswith("transforms_")):
            continue
        split = "all" if stem == "transforms" else SPLIT_NAMES.get(stem.removeprefix("transforms_").lower())
        if split is not None:
            found[split] = name
    return {key: found[key] for key in found if key != "all"} or found


def _claims(path: Path) -> Claim:
    if path.is_file() and path.suffix.lower() == ".json":
        head = read_head(path, 1 << 16)
        return 2 if b'"transform_matrix"' in head and b'"frames"' in head else 0
    if path.is_dir() or path.suffix.lower() == ".zip":
        try:
            return 2 if _files_in(path) else 0
        except InputError:
            return 0
    return 0


def _open(path: Path, **options: Any) -> Source:
    names = _files_in(path)
    archive = str(path) if path.suffix.lower() == ".zip" else None
    rows: dict[str, ViewRows] = {}
    depths = None
    for split, name in names.items():
        where = str(path / name) if name else str(path)
        content = _load(where, zips.read_member(archive, name) if archive else None)
        folder = Path() if archive else (path if path.is_dir() else path.parent)
        own = _rows(content, where, folder, archive)
        for key, some in (_divided(content, own, where) if split == "all" else {split: own}).items():
            rows[key] = some
        depths = depths or _depths(content)
    first = next(iter(rows.values()))
    if archive is None and not any(Path(file).exists() for some in rows.values() for file in some.files):
        raise InputError(
            f"{path}: a camera file without images: none of the {len(first.files)} that it names exists, "
            f"{first.files[0] if first.files else 'there are no frames'} the first"
        )
    ordered = {key: rows[key] for key in ("train", "val", "test", "all") if key in rows}
    return source_of_views(path.stem if path.is_file() else path.name, "transforms.json", ordered, near_far=depths,
                           **options)  # fmt: skip


def _load(where: str, encoded: bytes | None) -> Mapping[str, Any]:
    try:
        content = load_json(encoded if encoded is not None else read_regular(where))
    except (OSError, ValueError) as error:
        raise InputError(f"{where} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not isinstance(content.get("frames"), list):
        raise InputError(f"{where} has no list of frames; expected an object with frames, each an image and a pose")
    return content


def _rows(content: Mapping[str, Any], where: str, folder: Path, archive: str | None) -> ViewRows:
    rows, members = ViewRows(archive=archive), set(zips.list_members(archive)[0]) if archive else set()
    for k, frame in enumerate(content["frames"]):
        place = f"{where} frame {k}"
        if not isinstance(frame, dict) or not isinstance(name := frame.get("file_path"), str) or not name:
            raise InputError(f"{place}: no file_path; expected the name of its image")
        if "\0" in name:
            raise InputError(f"{place}: its file_path holds a null byte")
        bare = name.removeprefix("./")
        if archive:
            file = next((one for one in (bare, f"{bare}.png", f"{bare}.jpg") if one in members), bare)
        else:
            file = image_path(folder, bare)
        pose = as_pose(frame.get("transform_matrix"), place)
        rows.add(file, pose, _camera({**content, **frame}, place))
    return rows


def _camera(values: Mapping[str, Any], where: str) -> Camera:
    def number(key: str, otherwise: float | None = None) -> float | None:
        if values.get(key) is None:
            return otherwise
        try:
            found = read_number(values[key])
        except ValueError as error:
            raise InputError(f"{where}: {key}: {error}") from None
        return found

    model = values.get("camera_model")
    if model is not None and str(model) not in _MODELS:
        raise InputError(f"{where}: camera_model {str(model)[:40]!r} is not read; expected one of {', '.join(_MODELS)}")
    for key in ("k3", "k4"):
        if number(key, 0.0):
            raise InputError(f"{where}: {key} is not 0; k1, k2, p1 and p2 are read: undistort the images first")
    width, height, fx = number("w"), number("h"), number("fl_x")
    fy = number("fl_y", fx)
    cx, cy = number("cx"), number("cy")
    lens = [number(key, 0.0) or 0.0 for key in ("k1", "k2", "p1", "p2")]
    across, along = number("camera_angle_x"), number("camera_angle_y")
    sized = width is not None and height is not None and 0 < width < 1e6 and 0 < height < 1e6
    camera = Camera(
        size=(round(height), round(width)) if sized and height is not None and width is not None else None,
        focal=None if fx is None or fy is None else (fx, fy),
        centre=None if cx is None or cy is None else (cx, cy),
        angles=None if across is None else (across, along if fx is None else None),
        distortion=(lens[0], lens[1], lens[2], lens[3]),
    )
    return check_camera(camera, where)


def _divided(content: Mapping[str, Any], rows: ViewRows, where: str) -> dict[str, ViewRows]:
    """The views of one file by the splits that it names."""
    named: dict[str, list[int]] = {}
    frames = [str(frame["file_path"]).removeprefix("./") for frame in content["frames"]]
    places = {name: k for k, name in enumerate(frames)}
    for split in ("train", "val", "test"):
        listed = content.get(f"{split}_filenames")
        if isinstance(listed, Sequence) and not isinstance(listed, str):
            keys = [str(name).removeprefix("./") for name in listed]
            if unknown := next((key for key in keys if key not in places), None):
                raise InputError(f"{where}: {split}_filenames has {unknown[:80]!r}, which no frame is called")
            named[split] = [places[key] for key in keys]
    if "train" not in named:
        return {"all": rows}
    return {split: rows.take(chosen) for split, chosen in named.items() if chosen}


def _depths(content: Mapping[str, Any]) -> tuple[float, float] | None:
    near, far = content.get("near"), content.get("far")
    if isinstance(near, int | float) and isinstance(far, int | float) and math.isfinite(near) and math.isfinite(far):
        return float(near), float(far)
    return None


def write_transforms(
    file: Path, names: Sequence[str], poses: np.ndarray, intrinsics: Sequence[float], size: Any
) -> None:
    """Write cameras as a transforms.json. poses: (N, 4, 4). intrinsics: fx, fy, cx, cy. size: (height, width)."""
    import json

    fx, fy, cx, cy = map(float, intrinsics)
    frames = [{"file_path": name, "transform_matrix": pose.tolist()} for name, pose in zip(names, poses, strict=True)]
    content = {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "h": int(size[0]), "w": int(size[1]), "frames": frames}
    file.write_text(json.dumps(content, indent=1), encoding="utf-8")


FORMAT = Format(
    "transforms.json", "posed views", "transforms.json or transforms_train.json beside images", _claims, _open, OPTIONS
)
