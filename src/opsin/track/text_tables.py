"""Text files of one object a line: read fast, and where a line is wrong, with its number."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np

from opsin.data.formats.values import shown
from opsin.errors import InputError, say
from opsin.track.places import decode
from opsin.track.tracks import NOBODY, Floats, Integers

_MOST_FRAMES = 10_000_000  # of a sequence: four days at 30 frames a second


def read_table(content: bytes, where: str, separator: str | None, least: int) -> tuple[Floats, Integers]:
    """The numbers of a file, (N, K), and the line of each row, from 1. Empty lines are passed over.

    separator: "," or None for blanks. least: columns that a row has. Rows of a file may have different lengths: what is
    lacking is NaN. Raises InputError, with the line, for what is no number.
    """
    lines = [line.strip() for line in decode(content, where).splitlines()]
    kept = np.array([number for number, line in enumerate(lines, 1) if line], np.int64)
    lines = [line for line in lines if line]
    if not lines:
        return np.empty((0, least)), kept
    try:
        table = np.loadtxt(io.StringIO("\n".join(lines)), np.float64, delimiter=separator, ndmin=2, comments=None)
    except ValueError:
        table = _read_slowly(lines, kept, where, separator)
    if table.shape[1] < least:
        raise InputError(f"{where}, line {kept[0]}: {table.shape[1]} columns, and at least {least} are expected")
    lacking = np.isnan(table[:, :least]).any(axis=1)
    if lacking.any():
        row = int(np.flatnonzero(lacking)[0])
        column = int(np.flatnonzero(np.isnan(table[row, :least]))[0])
        raise InputError(f"{where}, line {kept[row]}: column {column + 1} is no number; the first {least} are needed")
    return table, kept


def _read_slowly(lines: Sequence[str], numbers: Integers, where: str, separator: str | None) -> Floats:
    rows = [[part.strip() for part in line.split(separator)] for line in lines]
    rows = [row[:-1] if row[-1] == "" else row for row in rows]
    table = np.full((len(rows), max(map(len, rows))), math.nan)
    for number, row, values in zip(numbers.tolist(), rows, table, strict=True):
        for column, text in enumerate(row):
            try:
                values[column] = float(text)
            except ValueError:
                kind = "," if separator else "blanks"
                raise InputError(
                    f"{where}, line {number}: column {column + 1} is {shown(text)}, and numbers parted by {kind} are "
                    "expected"
                ) from None
    return table


def whole(values: Floats, lines: Integers, where: str, what: str) -> Integers:
    """A column of whole numbers. Raises InputError with the line of one that is none."""
    wrong = ~np.isfinite(values) | (np.abs(values) > 2**53)
    wrong |= np.where(wrong, 0, values) % 1 != 0
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise InputError(f"{where}, line {lines[row]}: the {what} is {values[row]:g}; expected a whole number")
    return values.astype(np.int64)


def from_zero(frames: Integers, first: int, lines: Integers, where: str, noun: str = "line") -> Integers:
    """Frames that a file counts from `first`, counted from 0. Raises InputError with the line of one before it.

    noun: what `lines` number.
    """
    if len(frames) and frames.min() < first:
        row = int(np.flatnonzero(frames < first)[0])
        least = int(frames.min())
        hint = f"; if it counts them from {least}, say so with --first-frame {least}" if least >= 0 else ""
        raise InputError(
            f"{where}, {noun} {lines[row]}: frame {frames[row]}, and frames are counted from {first}{hint}"
        )
    if len(frames) and frames.max() - first >= _MOST_FRAMES:
        row = int(np.argmax(frames))
        raise InputError(f"{where}, {noun} {lines[row]}: frame {frames[row]}; at most {_MOST_FRAMES:,} are read")
    return frames - first


def check_rows(
    frames: Integers,
    ids: Integers,
    labels: Integers,
    boxes: Floats,
    scores: Floats,
    lines: Integers,
    where: str,
    noun: str = "line",
) -> None:
    """Raise InputError, with the line, for what no evaluation and no tracker can take; say what is only odd.

    That are numbers that are not finite, boxes that end before they begin, and an identity twice in a frame. Boxes
    without area, which overlap nothing, are said. noun: what `lines` number.
    """
    finite = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        what = "the score" if np.isfinite(boxes[row]).all() else "a coordinate"
        raise InputError(f"{where}, {noun} {lines[row]}: {what} is not finite (NaN or infinite); remove it")
    sides = boxes[:, 2:] - boxes[:, :2]
    if (sides < 0).any():
        row = int(np.flatnonzero((sides < 0).any(axis=1))[0])
        raise InputError(
            f"{where}, {noun} {lines[row]}: the box is {sides[row, 0]:g} wide and {sides[row, 1]:g} high; are corners "
            "and sides taken for each other?"
        )
    if (flat := (sides == 0).any(axis=1)).any():
        row = int(np.flatnonzero(flat)[0])
        count = "1 box has" if flat.sum() == 1 else f"{flat.sum():,} boxes have"
        say(f"{where}: {count} no area, the first in {noun} {lines[row]}; no match is possible with that")
    known = np.flatnonzero(ids != NOBODY)
    order = known[np.lexsort((labels[known], ids[known], frames[known]))]
    keys = np.stack([frames[order], ids[order], labels[order]])
    if (twice := (keys[:, 1:] == keys[:, :-1]).all(axis=0)).any():
        at = int(np.flatnonzero(twice)[0])
        one, other = sorted((int(lines[order[at]]), int(lines[order[at + 1]])))
        raise InputError(
            f"{where}, {noun} {other}: identity {ids[order[at]]} is in that frame already, in {noun} {one}; "
            "each is in a frame once"
        )
