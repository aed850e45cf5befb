"""MATLAB's files up to version 7.2, as scipy reads them: values alone, of limited size; nothing in them is run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from opsin.files import read_regular

_LARGEST = 1 << 28  # bytes


def read_mat(file: Path) -> dict[str, Any]:
    """The variables of a file. Raises ValueError where it is none, and OSError where there is none."""
    from scipy.io import loadmat  # 0.2 s, for those who have such files

    data = read_regular(file, _LARGEST)
    try:
        return loadmat(io.BytesIO(data), chars_as_strings=True)
    except Exception as error:  # whatever scipy stumbles over: zlib's errors, and names that it never set
        raise ValueError(f"not read as MATLAB's file up to version 7.2: {error}") from error


def text_of(value: Any) -> str:
    """The text of a cell: that of the array that holds it."""
    found = np.asarray(value).ravel()
    while found.dtype == object and len(found):
        found = np.asarray(found[0]).ravel()
    return str(found[0]) if len(found) else ""


def texts_of(value: Any) -> list[str]:
    """The texts of a cell array."""
    found = np.asarray(value)
    while found.dtype == object and found.size == 1 and np.asarray(found.ravel()[0]).dtype == object:
        found = np.asarray(found.ravel()[0])
    return [text_of(one) for one in found.ravel()]
