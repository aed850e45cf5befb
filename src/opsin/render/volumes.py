"""Volumes, such as MRI and CT: files of numbers on a grid in space, as NIfTI, npz, npy or a series of DICOM.

A volume is an array over x, y, z. Of NIfTI these are to the right, to the front and upwards, by its matrix; of an npz
or npy, whose last axis is taken to be x, they are its axes backwards. Units of space are the file's, mostly mm.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opsin.errors import InputError
from opsin.files import check_regular, read_regular
from opsin.image_files import first_files

MOST_BYTES = 1 << 33  # of a volume once unpacked
_HEADER = 348  # bytes of NIfTI-1
_TYPES: Mapping[int, str] = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Volume:
    """Numbers on a grid. values: (X, Y, Z) float32, each at the middle of its cell. spacing: (3,), the cells' sides.

    It lies in space with its middle at 0, see `box`.
    """

    values: Tensor
    spacing: tuple[float, float, float]
    name: str = ""

    @property
    def box(self) -> tuple[Tensor, Tensor]:
        """The corners (3,) of all cells."""
        half = torch.tensor([n * s / 2 for n, s in zip(self.values.shape, self.spacing, strict=True)])
        return -half, half


def read_volume(path: str | Path) -> Volume:
    """The volume in a file: .nii, .nii.gz, .npz, .npy; or in a folder of DICOM files, which needs pydicom.

    Raises InputError for other files, for one slice, and for numbers that are all alike.
    """
    place = Path(path)
    if not place.exists():
        raise InputError(f"no file or folder at {path}")
    name = place.name.lower()
    if place.is_dir():
        values, spacing = _read_dicom(place)
    elif name.endswith((".nii", ".nii.gz")):
        values, spacing = _read_nifti(place)
    elif name.endswith((".npz", ".npy")):
        values, spacing = _read_array(place)
    else:
        raise InputError(f"{path} is no volume; expected .nii, .nii.gz, .npz, .npy or a folder of DICOM files")
    return as_volume(values, spacing, str(path))


def as_volume(values: np.ndarray, spacing: Sequence[float], name: str) -> Volume:
    """An array over x, y, z as a volume. Raises InputError as `read_volume` does."""
    if values.ndim != 3 or min(values.shape) < 2:
        shape = "x".join(map(str, values.shape))
        raise InputError(f"{name} holds {shape} numbers; expected a volume of three axes with two slices or more each")
    if not all(math.isfinite(one) and one > 0 for one in spacing):
        raise InputError(
            f"{name}: its cells have sides of {', '.join(f'{one:g}' for one in spacing)}; expected above 0"
        )
    array = np.ascontiguousarray(values, np.float32)
    if not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise InputError(f"{name} holds {count:,} numbers that are not finite; replace them, by 0 for example")
    if float(array.min()) == float(array.max()):
        raise InputError(f"{name} holds {float(array.min()):g} everywhere; there is nothing to see")
    x, y, z = map(float, spacing)
    return Volume(torch.from_numpy(array), (x, y, z), name)


def _unpacked(path: Path) -> bytes:
    try:
        if path.suffix.lower() != ".gz":
            return read_regular(path)
        check_regular(path)
        with gzip.open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if len(data) > MOST_BYTES:
        raise InputError(f"{path} unpacks to more than {MOST_BYTES:,} bytes")
    return data


def _read_nifti(path: Path) -> tuple[np.ndarray, list[float]]:
    """The values over x, y, z to the right, front and top, and the cells' sides. NIfTI-1, nifti.nimh.nih.gov."""
    data = _unpacked(path)
    if len(data) < _HEADER + 4 or data[344:348] not in (b"n+1\0", b"ni1\0"):
        raise InputError(f"{path} is no NIfTI-1 file of one piece; expected its mark n+1 at byte 344")
    order = "<" if int.from_bytes(data[:4], "little") == _HEADER else ">"

    def numbers(kind: str, count: int, offset: int) -> list[Any]:
        return np.frombuffer(data, f"{order}{kind}", count, offset).tolist()

    axes, *sides = numbers("i2", 8, 40)
    (code,), scales = numbers("i2", 1, 70), numbers("f4", 8, 76)
    (start, slope, shift), (qform, sform) = numbers("f4", 3, 108), numbers("i2", 2, 252)
    shape = list(sides[: max(0, min(axes, 7))])
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if len(shape) != 3 or min(shape) < 1 or code not in _TYPES:
        raise InputError(f"{path} holds numbers of type {code} over {'x'.join(map(str, shape))}; expected three axes")
    kind = np.dtype(f"{order}{_TYPES[code]}")
    count, first = math.prod(shape), int(start) if start >= _HEADER else _HEADER + 4
    if first + count * kind.itemsize > len(data):
        raise InputError(f"{path} ends at byte {len(data):,}, and its {count:,} numbers do not fit; copy it anew")
    values = np.frombuffer(data, kind, count, first).reshape(shape, order="F").astype(np.float32)
    if slope not in (0.0, 1.0) or shift:
        values = values * (slope or 1.0) + shift
    matrix = (
        np.array(numbers("f4", 12, 280)).reshape(3, 4)[:, :3] if sform > 0 else _turn(numbers("f4", 3, 256), scales)
    )
    return _upright(values, matrix if sform > 0 or qform > 0 else np.diag(scales[1:4]))


def _turn(quaternion: Sequence[float], scales: Sequence[float]) -> np.ndarray:
    """The matrix of a NIfTI quaternion b, c, d with the cells' sides; scales[0] is -1 for a mirrored z."""
    b, c, d = quaternion
    a = math.sqrt(max(0.0, 1 - b * b - c * c - d * d))
    turn = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    return turn * np.array([scales[1], scales[2], scales[3] * (-1 if scales[0] < 0 else 1)])


def _upright(values: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Axes in the order of the world's and in its direction, each by the world's axis that it is nearest to."""
    sides = np.linalg.norm(matrix, axis=0)
    share = np.abs(matrix) / np.maximum(sides, 1e-12)
    best = max(((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)),
               key=lambda order: sum(share[world, axis] for world, axis in enumerate(order)))  # fmt: skip
    flipped = tuple(world for world, axis in enumerate(best) if matrix[world, axis] < 0)
    return np.flip(values.transpose(best), flipped), [float(sides[axis]) for axis in best]


def _read_array(path: Path) -> tuple[np.ndarray, list[float]]:
    """An array over z, y, x; in an npz the only one, or that called volume, and spacing (3,) of x, y, z if given."""
    try:
        check_regular(path)
        loaded = np.load(path, allow_pickle=False)
        arrays = dict(loaded.items()) if path.suffix.lower() == ".npz" else {"volume": loaded}
    except (OSError, ValueError, EOFError, zlib.error, KeyError) as error:
        raise InputError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    spacing = arrays.pop("spacing", np.ones(3))
    found = arrays.get("volume", next(iter(arrays.values()))) if len(arrays) == 1 or "volume" in arrays else None
    if found is None or found.dtype.kind not in "biuf" or spacing.shape != (3,) or spacing.dtype.kind not in "iuf":
        raise InputError(
            f"{path} holds {', '.join(arrays) or 'nothing'}; expected one array, or volume and spacing (3,)"
        )
    return found.transpose(), spacing.tolist()


def _read_dicom(folder: Path) -> tuple[np.ndarray, list[float]]:
    try:
        import pydicom  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError(f"{folder} is a folder; to read a series of DICOM files, pip install pydicom") from None
    slices = []
    for name in first_files(folder, most=5000):
        try:
            slices.append(pydicom.dcmread(folder / name))
        except Exception:  # whatever else lies in the folder
            continue
    slices = [one for one in slices if hasattr(one, "ImagePositionPatient") and hasattr(one, "pixel_array")]
    if len(slices) < 2:
        raise InputError(f"{folder} holds {len(slices)} DICOM slices with a place in space; expected two or more")
    right, down = np.array(slices[0].ImageOrientationPatient, float).reshape(2, 3)
    along = np.cross(right, down)
    places = [float(np.dot(along, np.array(one.ImagePositionPatient, float))) for one in slices]
    order = np.argsort(places)
    stack = np.stack(
        [
            slices[k].pixel_array * float(getattr(slices[k], "RescaleSlope", 1))
            + float(getattr(slices[k], "RescaleIntercept", 0))
            for k in order
        ]
    )
    rows, columns = map(float, slices[0].PixelSpacing)
    gap = float(np.median(np.diff(np.sort(places))))
    return np.flip(stack.transpose(2, 1, 0), 1), [columns, rows, gap]
