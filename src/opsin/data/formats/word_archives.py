"""A zip of cropped words or lines with `labels.jsonl`: a line an image, {"file": "0001.jpg", "text": "Rescue"}.

A line may have `lexicon` too, the list of words of which the text is one. The split is what the archive's name ends in,
as words_train.zip.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from opsin.data.formats.format import Claim, Format
from opsin.data.formats.tree import SPLIT_NAMES
from opsin.data.images import UnreadableImage
from opsin.data.inputs import ImageFiles
from opsin.data.source import Source, Split
from opsin.data.texts import PackedTexts, Texts
from opsin.data.zips import list_members, read_member
from opsin.errors import InputError

_LABELS = "labels.jsonl"


def _claims(path: Path) -> Claim:
    if path.suffix.lower() != ".zip" or not path.is_file() or not zipfile.is_zipfile(path):
        return 0
    return 2 if _LABELS in list_members(str(path))[0] else 0


def _open(path: Path) -> Source:
    archive = str(path)
    try:
        lines = read_member(archive, _LABELS).decode("utf-8-sig").splitlines()
    except (UnreadableImage, UnicodeDecodeError) as error:
        raise InputError(f"{archive}/{_LABELS} cannot be read: {error}; it is to be UTF-8") from None
    rows = [_row(line, f"{archive}/{_LABELS} line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    lists: dict[tuple[str, ...], int] = {}
    numbers = [lists.setdefault(words, len(lists)) if words else -1 for _, _, words in rows]
    lexicons = np.array(numbers, np.int64) if lists else None
    truth = Texts.of([text for _, text, _ in rows], lexicons=lexicons, words=[PackedTexts.pack(one) for one in lists])
    split = SPLIT_NAMES.get(path.stem.rpartition("_")[2].lower(), "all")
    return Source(path.stem, "labels.jsonl", {split: Split(ImageFiles([file for file, _, _ in rows], archive), truth)})


def _row(line: str, where: str) -> tuple[str, str, tuple[str, ...]]:
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError):
        raise InputError(f"{where} is no JSON") from None
    row = row if isinstance(row, dict) else {}
    file, text, words = row.get("file"), row.get("text"), row.get("lexicon") or []
    if not isinstance(file, str) or not isinstance(text, str):
        raise InputError(f'{where} lacks "file" or "text"; expected {{"file": "0001.jpg", "text": "Rescue"}}')
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise InputError(f"{where}: lexicon is a list of words")
    return file, text, tuple(words)


FORMAT = Format("a zip with labels.jsonl", "one text an image", "a zip of images with labels.jsonl", _claims, _open)
