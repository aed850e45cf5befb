"""IIIT 5K-word, as it is published: folders train and test of crops, with traindata.mat and testdata.mat.

Each is a MATLAB structure array with ImgName, GroundTruth, and two word lists of each word, smallLexi of 50 and
mediumLexi of 1,000. word_lists: which of them, small or medium; none if empty. Mishra et al. 2012.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from opsin.data.formats.format import Claim, Format
from opsin.data.formats.mat_files import read_mat, text_of, texts_of
from opsin.data.formats.text_crops import Crop, open_crops, with_subset
from opsin.data.source import Source
from opsin.errors import InputError

_LISTS = {"": None, "small": "smallLexi", "medium": "mediumLexi"}


def _files(path: Path) -> dict[str, Path]:
    files = {split: path / f"{split}data.mat" for split in ("train", "test")}
    return {split: file for split, file in files.items() if file.is_file()} if path.is_dir() else {}


def _rows(file: Path, split: str) -> Any:
    try:
        rows = read_mat(file).get(f"{split}data")
    except (ValueError, OSError) as error:
        raise InputError(f"{file}: {getattr(error, 'strerror', None) or error}") from error
    names = getattr(getattr(rows, "dtype", None), "names", None) or ()
    if rows is None or not {"ImgName", "GroundTruth"} <= set(names):
        raise InputError(f"{file} has no array {split}data with ImgName and GroundTruth")
    return rows.ravel()


def _open(path: Path, word_lists: str = "") -> Source:
    if word_lists not in _LISTS:
        raise InputError(f"word_lists is {word_lists!r}; expected small (50 words) or medium (1,000)")
    field, parts = _LISTS[word_lists], dict[str, list[Crop]]()
    for split, file in _files(path).items():
        rows = _rows(file, split)
        if field is not None and field not in rows.dtype.names:
            raise InputError(f"{file} has no lists {field}; leave word_lists out")
        parts[split] = [
            Crop(
                str(path / text_of(row["ImgName"])),
                text_of(row["GroundTruth"]),
                f"{file} row {number}",
                tuple(texts_of(row[field])) if field is not None else (),
            )
            for number, row in enumerate(rows, 1)
        ]
    return open_crops(path.name, "IIIT 5K-word", parts)


def _claims(path: Path) -> Claim:
    return 2 if _files(path) else 0


FORMAT = with_subset(Format("IIIT 5K-word", "texts", "IIIT 5K-word (traindata.mat)", _claims, _open, ("word_lists",)))
