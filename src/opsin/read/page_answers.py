"""Answers for pages: their lines in the order of reading, as text, JSON, hOCR and a drawn page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from opsin.engine.answers import Answer, Answers, write_text
from opsin.errors import InputError, unknown
from opsin.read.hocr import hocr_document, hocr_page

_COLUMNS = ("block", "row", "text", "score", "found")
_CORNERS = tuple(f"{axis}{corner}" for corner in range(1, 5) for axis in "xy")


class PageAnswer(Answer):
    """The lines of a page in the order of reading.

    As a dict: {"turned", "lines": [{"text", "score", "found", "quad", "block", "row", "words", "characters"}]}.
    turned: by how many degrees clockwise the page has to be turned to be upright; quads are in pixels of the image as
    it was given, clockwise from where the text begins. score: the mean of its characters'; found: that there is a line.
    block, row: numbers from 0; lines of a row lie beside one another. words, characters: {"text", "score", "quad"}
    each; a word also has the number of its characters.
    """

    forms: ClassVar[tuple[str, ...]] = ("drawn", "text", "json", "hocr")

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The lines as they are in the dict."""
        return self.value("lines")

    @property
    def text(self) -> str:
        """All the page says: a line of text for each row, an empty one between blocks."""
        return text_of(self.lines)

    @property
    def texts(self) -> list[str]:
        """What each line says."""
        return [line["text"] for line in self.lines]

    @property
    def scores(self) -> np.ndarray:
        """How certain each text is, float32 (N,), in [0, 1]."""
        return np.array([line["score"] for line in self.lines], np.float32)

    @property
    def quads(self) -> np.ndarray:
        """The corners of each line, clockwise from where its text begins, float32 (N, 4, 2)."""
        return np.array([line["quad"] for line in self.lines], np.float32).reshape(-1, 4, 2)

    @property
    def boxes(self) -> np.ndarray:
        """x1, y1, x2, y2 around each line, float32 (N, 4)."""
        quads = self.quads
        return np.concatenate([quads.min(axis=1), quads.max(axis=1)], axis=1)

    def to_hocr(self) -> str:
        """As an hOCR document of one page."""
        return PageAnswers([self]).to_hocr()

    def rows(self) -> list[dict[str, Any]]:
        """A line of a table for each line of text: block, row, text, score, found, x1, y1, ... x4, y4."""
        return [
            {
                **self.origin(),
                **{key: line[key] for key in _COLUMNS},
                **dict(zip(_CORNERS, (value for corner in line["quad"] for value in corner), strict=True)),
            }
            for line in self.lines
        ]

    def write(self, form: str, path: Path, **options: Any) -> Path:
        """As "drawn", an image; "text", NAME.txt; "json", NAME.json; or "hocr", NAME.hocr, in UTF-8."""
        if form == "drawn":
            return super().write(form, path, **options)
        if form == "text":
            return write_text(self.text + "\n", path.with_suffix(".txt"))
        if form == "json":
            return write_text(json.dumps(self, ensure_ascii=False, indent=1) + "\n", path.with_suffix(".json"))
        if form == "hocr":
            return write_text(self.to_hocr(), path.with_suffix(".hocr"))
        raise unknown("form", form, self.forms)


class PageAnswers(Answers):
    """Answers for several pages."""

    def columns(self) -> list[str]:
        return ["path", *_COLUMNS, *_CORNERS]

    @property
    def text(self) -> str:
        """All that the pages say, a form feed between them, as most tools have it."""
        return "\n\f".join(answer.text for answer in self)

    def to_hocr(self, path: str | Path | None = None) -> str:
        """One hOCR document, a page each; written to a file where a path is given.

        Raises InputError for an answer of what could not be read.
        """
        failed = next((answer for answer in self if answer.error is not None), None)
        if failed is not None:
            raise InputError(f"a page could not be read: {failed.error}")
        pages = [
            hocr_page(answer, answer.size, number, "" if answer.path is None else str(answer["path"]))
            for number, answer in enumerate(self)
        ]
        document = hocr_document(pages)
        if path is not None:
            write_text(document, path)
        return document


PageAnswer.list_class = PageAnswers


def text_of(lines: Sequence[Mapping[str, Any]]) -> str:
    """The text of lines in their order: those of a row in one, an empty line between blocks."""
    blocks = []
    for _, block in groupby(lines, key=lambda line: line["block"]):
        rows = groupby(block, key=lambda line: line["row"])
        blocks.append("\n".join(" ".join(line["text"] for line in row) for _, row in rows))
    return "\n\n".join(blocks)
