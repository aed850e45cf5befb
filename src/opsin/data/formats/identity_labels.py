"""Data of class labels read as identities: a folder, a line of a table or a number of its own for each of them."""

from __future__ import annotations

from pathlib import Path

from opsin.data.formats import csv_labels, digits, folders, idx, image_lists, npz
from opsin.data.formats.format import Claim, Format
from opsin.data.identities import identities_of
from opsin.data.identity_folds import take_fold
from opsin.data.source import Source
from opsin.errors import InputError

_OPTIONS = ("closed", "fold")


def _as_identities(labels: Format, expects: str, name: str = "") -> Format:
    """A format of class labels as one of identities.

    Its claim is by shape alone: what is not known to be of identities is taken for classes.
    """

    def claims(path: Path) -> Claim:
        claim = labels.claims(path)
        return claim if claim == 3 else min(claim, 1)  # type: ignore[return-value]

    def opens(path: Path, closed: bool | None = None, fold: str | None = None) -> Source:
        known = {"class_folders": True} if "class_folders" in labels.options else {}
        if fold is None:
            return identities_of(labels.open(path, **known), closed)
        if closed:
            raise InputError(
                "fold is of identities that the training does not see; closed says that it sees all of them"
            )
        return take_fold(identities_of(labels.open(path, **known), False), fold)

    return Format(name or labels.name, "identities", expects, claims, opens, _OPTIONS, labels.names)


DIGITS = _as_identities(digits.FORMAT, "")
FOLDERS = _as_identities(folders.FORMAT, "a folder with a folder of images for each identity", "identity folders")
ZIPPED = _as_identities(folders.ZIPPED, "a zip of one", "zip of identity folders")
CSV = _as_identities(csv_labels.FORMAT, "a CSV of images and identities")
NPZ = _as_identities(npz.FORMAT, "an npz")
IDX = _as_identities(idx.FORMAT, "a folder of IDX files")
LISTS = _as_identities(image_lists.FORMAT, "lists of images with numbers")
