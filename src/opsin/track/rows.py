"""Rows of a sequence that are read one by one, checked and put into columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from opsin.data.formats.values import read_number, read_whole, shown
from opsin.data.formats.xml_tree import Element, parse_xml
from opsin.errors import InputError
from opsin.track.text_tables import check_rows, from_zero
from opsin.track.tracks import NO_CLASS, NOBODY, Tracks

Box = tuple[float, float, float, float]


@dataclass
class Rows:
    """What is collected of a file.

    where: the file, for messages. classes: names, in the order in which they came. noun: what `lines` number.
    """

    where: str
    classes: dict[str, int] = field(default_factory=dict)
    frames: list[int] = field(default_factory=list)
    keys: list[int | str | None] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    ignored: list[bool] = field(default_factory=list)
    visibility: list[float] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    noun: str = "line"

    def add(
        self,
        line: int,
        frame: int,
        key: int | str | None,
        box: Box,
        label: str | None,
        *,
        score: float = 1.0,
        ignored: bool = False,
        visibility: float = 1.0,
    ) -> None:
        """One row. key: the identity, as the file has it; None of a detection. label: None of a region of no class."""
        self.lines.append(line)
        self.frames.append(frame)
        self.keys.append(key)
        self.boxes.append(box)
        self.labels.append(NO_CLASS if label is None else self.classes.setdefault(label, len(self.classes)))
        self.scores.append(score)
        self.ignored.append(ignored)
        self.visibility.append(visibility)

    def build(self, name: str, first: int = 0, **facts: Any) -> Tracks:
        """The tracks. first: the number that the file gives its first frame. facts: fields of `Tracks`.

        Raises InputError, with the line, for what is wrong in a row.
        """
        lines = np.array(self.lines, np.int64)
        frames = from_zero(np.array(self.frames, np.int64), first, lines, self.where, self.noun)
        ids, labels = self._numbered(), np.array(self.labels, np.int64)
        boxes, scores = np.array(self.boxes, np.float64).reshape(-1, 4), np.array(self.scores, np.float64)
        check_rows(frames, ids, labels, boxes, scores, lines, self.where, self.noun)
        length = int(frames.max(initial=-1)) + 1
        if length > facts.setdefault("num_frames", length):
            row = int(np.argmax(frames))
            raise InputError(
                f"{self.where}, {self.noun} {lines[row]}: frame {self.frames[row]}, and the sequence has "
                f"{facts['num_frames']:,} frames, the first of which is {first}"
            )
        classes = tuple(self.classes) or ("object",)
        seen = None if all(value == 1 for value in self.visibility) else np.array(self.visibility)
        columns = frames, boxes, ids, scores, labels, np.array(self.ignored, np.bool_)
        return Tracks.build(*columns, classes=classes, visibility=seen, name=name, **facts)

    def _numbered(self) -> np.ndarray:
        """Identities as numbers: their own where all are numbers from 0, else by the order in which they came."""
        if all(key is None or (isinstance(key, int) and 0 <= key < 2**62) for key in self.keys):
            return np.array([NOBODY if key is None else key for key in self.keys], np.int64)
        known = {key: number for number, key in enumerate(dict.fromkeys(key for key in self.keys if key is not None))}
        return np.array([NOBODY if key is None else known[key] for key in self.keys], np.int64)


def xml_root(content: bytes, where: str) -> Element:
    """The outermost element of a file. Raises InputError."""
    try:
        return parse_xml(content)
    except (ValueError, IndexError) as error:
        raise InputError(f"{where}: {error}") from None


def attribute_number(element: Element, name: str, where: str) -> float:
    """An attribute that is a number. Raises InputError with the line."""
    try:
        return read_number(element.attributes[name])
    except KeyError:
        raise InputError(f"{where}, line {element.line}: <{element.tag}> has no {name}") from None
    except ValueError:
        given = shown(element.attributes[name])
        raise InputError(f"{where}, line {element.line}: {name} of <{element.tag}> is {given}, no number") from None


def attribute_whole(element: Element, name: str, where: str) -> int:
    """An attribute that is a whole number. Raises InputError with the line."""
    number = attribute_number(element, name, where)
    try:
        return read_whole(number)
    except ValueError:
        given = shown(element.attributes[name])
        raise InputError(
            f"{where}, line {element.line}: {name} of <{element.tag}> is {given}; expected a whole number"
        ) from None


def sided(left: float, top: float, width: float, height: float) -> Box:
    """A box of a corner and its sides."""
    return left, top, left + width, top + height


def first_child(element: Element, tag: str) -> Element | None:
    """The first child of a name."""
    return next((child for child in element.children if child.tag == tag), None)


def escaped(text: object) -> str:
    """A text as it may stand in an attribute of XML."""
    from xml.sax.saxutils import escape

    return escape(str(text), {'"': "&quot;", "\n": " "})


def spans(frames: Sequence[int]) -> tuple[int, int]:
    """The first number of some frames, and how many there are from it to the last; (0, 0) of none."""
    return (min(frames), max(frames) - min(frames) + 1) if frames else (0, 0)
