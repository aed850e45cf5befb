"""Images read as sequences: `rows:digits` row by row, `pixels:mnist` pixel by pixel, of any data of classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from opsin.data.formats.format import Claim, Format
from opsin.data.open_source import open_source
from opsin.data.source import Source, Split
from opsin.errors import InputError
from opsin.sequence.inputs import ImageSteps
from opsin.sequence.truth import SequenceTruth

NAMES = ("rows:digits", "pixels:digits")
_WAYS = {"rows": False, "pixels": True}


def open_images(name: str) -> Source:
    """Images with one label each as sequences with classes. Raises InputError for other data."""
    way, _, inner = name.partition(":")
    if not inner:
        raise InputError(f"{name} names no images; expected {way}: and data of classes, as {way}:digits")
    opened = open_source(inner, multi_label=False)
    splits = {key: _as_steps(split, _WAYS[way], name) for key, split in opened.splits.items()}
    return replace(opened, name=name, format=f"{opened.format}, {way} of images", splits=splits)


def _as_steps(split: Split, pixels: bool, name: str) -> Split:
    labels = getattr(split.truth, "labels", None)
    if labels is None or labels.ndim != 1 or (labels < 0).any():
        raise InputError(f"{name}: every image needs one class; found images without, or with several")
    classes = list(split.kind.classes)
    return Split(ImageSteps.of(split.inputs, pixels), SequenceTruth("classes", len(split), None, labels, classes))


def _claims(path: Path) -> Claim:
    way, colon, _ = str(path).partition(":")
    return 3 if colon and way in _WAYS and not path.exists() else 0


def _open(path: Path) -> Source:
    return open_images(str(path))


FORMAT = Format("images as sequences", "sequences", "", _claims, _open, names=NAMES)
