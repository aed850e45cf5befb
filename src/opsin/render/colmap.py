"""What COLMAP writes: cameras, images and points3D as text or binary, beside a folder of images.

Schoenberger and Frahm 2016, doi:10.1109/CVPR.2016.445. Its poses are world to camera with OpenCV's axes, and the middle
of its first pixel is at 0.5, as here. Lenses: SIMPLE_PINHOLE, PINHOLE, SIMPLE_RADIAL, RADIAL and OPENCV.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from opsin.data.formats.format import Claim, Format
from opsin.data.formats.values import find_inside, read_text
from opsin.data.source import Source
from opsin.errors import InputError, printable
from opsin.files import read_regular
from opsin.image_files import list_folder
from opsin.render.view_source import OPTIONS, Camera, ViewRows, check_camera, source_of_views

# Each model's name and how many numbers it has, in the order of their codes in binary files.
_MODELS = (
    ("SIMPLE_PINHOLE", 3), ("PINHOLE", 4), ("SIMPLE_RADIAL", 4), ("RADIAL", 5), ("OPENCV", 8), ("OPENCV_FISHEYE", 8),
    ("FULL_OPENCV", 12), ("FOV", 5), ("SIMPLE_RADIAL_FISHEYE", 4), ("RADIAL_FISHEYE", 5), ("THIN_PRISM_FISHEYE", 12),
)  # fmt: skip
_READ = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV")
_FOLDERS = ("sparse/0", "sparse", "", "0", "colmap/sparse/0", "dense/sparse")
_MOST_POINTS = 2_000_000


@dataclass(frozen=True)
class _Image:
    name: str
    turn: tuple[float, float, float, float]  # a quaternion w, x, y, z
    move: tuple[float, float, float]
    camera: int


def _model_in(path: Path) -> tuple[Path, str] | None:
    """The folder of cameras and images, and their ending; the binary ones first, which hold more digits."""
    for inside in _FOLDERS:
        folder = path / inside
        names = set(list_folder(folder)[0]) if folder.is_dir() else set()
        for ending in (".bin", ".txt"):
            if {f"cameras{ending}", f"images{ending}"} <= names:
                return folder, ending
    return None


def _claims(path: Path) -> Claim:
    return 2 if path.is_dir() and _model_in(path) is not None else 0


def _open(path: Path, **options: Any) -> Source:
    found = _model_in(path)
    assert found is not None
    folder, ending = found
    try:
        cameras = dict(_text_cameras(folder) if ending == ".txt" else _binary_cameras(folder / "cameras.bin"))
        images = list(_text_images(folder) if ending == ".txt" else _binary_images(folder / "images.bin"))
        points = _text_points(folder) if ending == ".txt" else _binary_points(folder / "points3D.bin")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{folder} cannot be read: {' '.join(str(error).split())}") from None
    places = [one for one in (path / "images", path, path.parent / "images") if one.is_dir()]
    rows = ViewRows()
    for image in sorted(images, key=lambda one: one.name):
        if image.camera not in cameras:
            raise InputError(
                f"{folder}: the image {printable(image.name)} is of camera {image.camera}, which is not listed"
            )
        rows.add(str(find_inside(image.name, places)), _pose(image, folder), cameras[image.camera])
    if rows.files and not any(Path(file).is_file() for file in rows.files):
        raise InputError(
            f"{path}: cameras without images: none of the {len(rows.files)} that COLMAP names exists, "
            f"{printable(rows.files[0])} the first; put the folder images/ beside sparse/"
        )
    return source_of_views(path.resolve().name, "COLMAP", {"all": rows}, points=points, **options)


def _pose(image: _Image, folder: Path) -> np.ndarray:
    """Camera to world with OpenGL's axes, from a quaternion and a shift from the world to OpenCV's axes."""
    w, x, y, z = image.turn
    length = float(np.linalg.norm(image.turn))
    if not length > 0:
        raise InputError(f"{folder}: the image {printable(image.name)} has a quaternion of zeros or NaN")
    w, x, y, z = w / length, x / length, y / length, z / length
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    pose = np.eye(4)
    pose[:3, :3] = turn.T * np.array([1.0, -1.0, -1.0])
    pose[:3, 3] = -turn.T @ np.array(image.move)
    return pose


def _camera(model: str, width: int, height: int, numbers: tuple[float, ...], where: str) -> Camera:
    if model not in _READ:
        raise InputError(
            f"{where}: the camera model {printable(model)[:40]} is not read; expected {', '.join(_READ)}: "
            "run colmap image_undistorter first"
        )
    if len(numbers) != dict(_MODELS)[model]:
        raise InputError(f"{where}: {model} has {dict(_MODELS)[model]} numbers, here are {len(numbers)}")
    if not (0 < width < 1_000_000 and 0 < height < 1_000_000):
        raise InputError(f"{where}: an image of {width}x{height} pixels")
    one = model in ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL")
    fx, fy, cx, cy, *lens = (numbers[0], *numbers) if one else numbers
    k1, k2, p1, p2 = [*lens, 0.0, 0.0, 0.0, 0.0][:4]
    return check_camera(Camera((height, width), (fx, fy), (cx, cy), None, (k1, k2, p1, p2)), where)


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    for k, line in enumerate(read_text(file).split("\n"), 1):
        if not line.startswith("#"):
            yield k, line.strip()


def _text_cameras(folder: Path) -> Iterator[tuple[int, Camera]]:
    file = folder / "cameras.txt"
    for k, line in _lines(file):
        if line:
            where, cells = f"{file} line {k}", line.split()
            try:
                number, model, width, height = int(cells[0]), cells[1], int(cells[2]), int(cells[3])
                numbers = tuple(map(float, cells[4:]))
            except (ValueError, IndexError):
                raise InputError(f"{where}: expected an id, a model, width, height and the lens's numbers") from None
            yield number, _camera(model, width, height, numbers, where)


def _text_images(folder: Path) -> Iterator[_Image]:
    """Every second line is an image, the other its points, which may be empty."""
    file, pending = folder / "images.txt", False
    for k, line in _lines(file):
        if pending:
            pending = False
            continue
        if not line:
            continue
        cells = line.split(maxsplit=9)
        try:
            w, x, y, z, *move = map(float, cells[1:8])
            yield _Image(cells[9], (w, x, y, z), (move[0], move[1], move[2]), int(cells[8]))
        except (ValueError, IndexError):
            raise InputError(f"{file} line {k}: expected an id, a quaternion, a shift, a camera and a name") from None
        pending = True


def _text_points(folder: Path) -> np.ndarray:
    file = folder / "points3D.txt"
    if not file.is_file():
        return np.zeros((0, 3))
    rows = []
    for k, line in _lines(file):
        if line and len(rows) < _MOST_POINTS:
            try:
                rows.append([float(one) for one in line.split(maxsplit=4)[1:4]])
            except ValueError:
                raise InputError(f"{file} line {k}: expected an id and a place in space") from None
    return np.array(rows, np.float64).reshape(-1, 3)


class _Bytes:
    """Numbers one after the other, little endian. Raises InputError where the file ends too early."""

    def __init__(self, file: Path) -> None:
        self.file, self.data, self.place = file, read_regular(file), 0

    def take(self, form: str) -> tuple[Any, ...]:
        size = struct.calcsize(f"<{form}")
        if self.place + size > len(self.data):
            raise InputError(f"{self.file} ends at byte {len(self.data)}, in the middle of a record; copy it anew")
        found = struct.unpack_from(f"<{form}", self.data, self.place)
        self.place += size
        return found

    def skip(self, count: int) -> None:
        self.place += count
        self.take("")

    def name(self) -> str:
        end = self.data.find(b"\0", self.place)
        if end < 0:
            raise InputError(f"{self.file} has a name without an end at byte {self.place}")
        text = self.data[self.place : end].decode("utf-8", "replace")
        self.place = end + 1
        return text


def _binary_cameras(file: Path) -> Iterator[tuple[int, Camera]]:
    data = _Bytes(file)
    (count,) = data.take("Q")
    for k in range(count):
        number, code, width, height = data.take("iiQQ")
        where = f"{file} camera {k}"
        if not 0 <= code < len(_MODELS):
            raise InputError(f"{where}: the camera model {code} is not known")
        model, numbers = _MODELS[code]
        yield number, _camera(model, width, height, data.take(f"{numbers}d"), where)


def _binary_images(file: Path) -> Iterator[_Image]:
    data = _Bytes(file)
    (count,) = data.take("Q")
    for _ in range(count):
        _, w, x, y, z, a, b, c, camera = data.take("i7di")
        name = data.name()
        (points,) = data.take("Q")
        data.skip(24 * points)
        yield _Image(name, (w, x, y, z), (a, b, c), camera)


def _binary_points(file: Path) -> np.ndarray:
    if not file.is_file():
        return np.zeros((0, 3))
    data, rows = _Bytes(file), []
    (count,) = data.take("Q")
    for _ in range(min(count, _MOST_POINTS)):
        _, x, y, z, _, _, _, _, track = data.take("Q3d3BdQ")
        rows.append((x, y, z))
        data.skip(8 * track)
    return np.array(rows, np.float64).reshape(-1, 3)


def models() -> Mapping[str, int]:
    """The lenses that are read, and how many numbers each has."""
    return {name: count for name, count in _MODELS if name in _READ}


FORMAT = Format("COLMAP", "posed views", "COLMAP's sparse/ beside images/", _claims, _open, OPTIONS)
