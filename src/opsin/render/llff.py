"""LLFF's poses_bounds.npy beside a folder of images: scenes seen from the front.

Mildenhall et al. 2019, arXiv:1905.00889. A row of 17 numbers a view: 3 x 5 of the camera's axes (down, right,
backwards), where it stands, and height, width and focal length of the full image; then the depths of the nearest and
the farthest point. Images are in order of their names; images_4 and images_8 are smaller ones, for which the numbers
are scaled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from opsin.data.formats.format import Claim, Format
from opsin.data.source import Source
from opsin.errors import InputError
from opsin.files import check_regular
from opsin.image_files import IMAGE_SUFFIXES, find_files, list_folder
from opsin.render.view_source import OPTIONS, Camera, ViewRows, check_camera, source_of_views

_FILE = "poses_bounds.npy"


def _claims(path: Path) -> Claim:
    return 2 if path.is_dir() and _FILE in list_folder(path)[0] else 0


def read_poses_bounds(file: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Poses (N, 4, 4) with OpenGL's axes, height, width and focal length (N, 3), and bounds (N, 2).

    Raises InputError for a file of another shape.
    """
    try:
        check_regular(file)
        table = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{file} cannot be read: {' '.join(str(error).split())}") from None
    if table.ndim != 2 or table.shape[1] != 17 or table.dtype.kind not in "fiu":
        raise InputError(
            f"{file} holds {table.dtype} of {'x'.join(map(str, table.shape))}; expected a row of 17 a view"
        )
    matrix = table[:, :15].astype(np.float64).reshape(-1, 3, 5)
    down, right, back, place = (matrix[:, :, k] for k in range(4))
    poses = np.tile(np.eye(4), (len(table), 1, 1))
    poses[:, :3] = np.stack([right, -down, back, place], axis=-1)
    return poses, matrix[:, :, 4], table[:, 15:].astype(np.float64)


def _images_of(path: Path, count: int) -> list[Path]:
    """The images of a scene, of the largest size that is there."""
    folders = sorted((one for one in list_folder(path)[1] if one == "images" or one.startswith("images_")), key=_factor)
    for name in folders:
        files = find_files(path / name, IMAGE_SUFFIXES, below=False)
        if len(files) == count:
            return files
        if files:
            raise InputError(
                f"{path / name} has {len(files)} images and {_FILE} {count} poses; they go together by the order of "
                "names: remove what has no pose"
            )
    raise InputError(f"{path}: a camera file without images: expected a folder images/, or images_4/, beside {_FILE}")


def _factor(name: str) -> int:
    digits = name.removeprefix("images").removeprefix("_")
    return int(digits) if digits.isdigit() else 0 if not digits else 1000


def _open(path: Path, **options: Any) -> Source:
    poses, sizes, bounds = read_poses_bounds(path / _FILE)
    rows = ViewRows()
    for k, file in enumerate(_images_of(path, len(poses))):
        where, (height, width, focal) = f"{path / _FILE} row {k}", sizes[k].tolist()
        if not (0 < height < 1e6 and 0 < width < 1e6):
            raise InputError(f"{where}: an image of {height:g}x{width:g} pixels")
        camera = Camera((round(height), round(width)), (focal, focal), scaled=True)
        rows.add(str(file), poses[k], check_camera(camera, where))
    good = bounds[np.isfinite(bounds).all(1)]
    near_far = (0.9 * float(good[:, 0].min()), float(good[:, 1].max())) if len(good) else None  # as published
    return source_of_views(path.resolve().name, "LLFF", {"all": rows}, near_far=near_far, **options)


FORMAT = Format("LLFF", "posed views", "poses_bounds.npy beside images/", _claims, _open, OPTIONS)
