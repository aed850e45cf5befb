"""Whole pages: a detector finds the lines, a recognizer reads them, and they are put into the order of reading.

A line is {"text", "score", "found", "quad", "block", "row", "words", "characters"}: what it says, how certain its
characters are on average, how certain it is that it is a line, its corners in pixels of the image, clockwise from where
its text begins, and its place in the order. Words and characters have text, score and quad likewise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from torch import Tensor

from opsin.data import Split
from opsin.engine.answers import Answer
from opsin.engine.inputs import expand, find_inputs
from opsin.engine.pipeline import Asked, Pipeline, Region, plain_quad
from opsin.errors import InputError, printable
from opsin.ops.quads import homography, map_points, quad_of_box, quad_size, turn_points
from opsin.read import page_drawing
from opsin.read.page_answers import PageAnswer, text_of
from opsin.read.page_evaluate import PageTruth
from opsin.read.reading_order import order_lines

if TYPE_CHECKING:
    from pathlib import Path

TURNS = {"auto": None, "off": 0, "0": 0, "90": 1, "180": 2, "270": 3}
_TALL = 1.5  # of a line's width, from which height on its text may run downward or upward
_SAMPLE = 8  # lines that say how a page is turned
_SURE = 0.85  # the mean certainty of their characters, from which on no other way is tried
_BETTER = 0.1  # by which it must be higher for a page to be turned: a few letters read upside down can look right
_FEWEST = 4  # characters, below which a page stays as it is


class PagePredictor(Pipeline):
    """Reads pages. `opsin.load_pipeline(detector=..., recognizer=...)` makes one."""

    answer_class: ClassVar[type[Answer]] = PageAnswer

    def find(self, inputs: Sequence[str | Path]) -> Sequence[Any]:
        return find_inputs(inputs, pdfs=True)

    def expand(self, given: Any) -> tuple[Sequence[Any], bool]:
        return expand(given, pdfs=True)

    def first_options(self, own: Mapping[str, Any]) -> dict[str, Any]:
        threshold = own.get("threshold")
        return {} if threshold is None else {"threshold": threshold}

    def answer(self, image: Tensor, asked: Asked) -> dict[str, Any]:
        turns = _read_turn(asked.own.get("turn", "auto"))
        if turns is None:
            turns, regions = self._find_turn(image, asked)
        else:
            regions = self._find_lines(image, turns, asked)
        return {"turned": 90 * (-turns % 4), **self._read_lines(image, regions, asked)}

    def prepare_split(self, split: Split) -> Split:
        """With the outlines and texts of its lines."""
        return split if split.truth is None else split.with_truth(PageTruth(split.truth))

    def draw(self, image: Tensor, answer: Mapping[str, Any]) -> Any:
        """The image with the lines' outlines and texts."""
        return page_drawing.annotate(image, answer)

    def describe(self, answer: Mapping[str, Any]) -> str:
        """The number of lines, and the text under it."""
        count = len(answer["lines"])
        lines = [printable(line) for line in text_of(answer["lines"]).splitlines()]
        return "\n".join([f"{count} line{'' if count == 1 else 's'}", *lines])

    def _find_lines(self, image: Tensor, turns: int, asked: Asked) -> list[Region]:
        """The lines of a page that is upright once it is turned by so many times 90 degrees against the clock."""
        if not turns:
            return self.find_regions(image, asked)
        turned = image.rot90(turns, (-2, -1))
        found, size = self.find_regions(turned, asked), (turned.shape[-2], turned.shape[-1])
        return [Region(turn_points(one.quad, -turns, size), one.score) for one in found]

    def _find_turn(self, image: Tensor, asked: Asked) -> tuple[int, list[Region]]:
        """By how many times 90 degrees a page has to be turned, and its lines: of the four ways the most readable.

        Upside down the lines lie where they do upright, so that they are looked for twice at most, and once more where
        a page is turned. On its side it is tried only if neither way of its own axis is read with certainty.
        """
        scores: dict[int, float] = {}
        lines: dict[int, list[Region]] = {}
        for turns in (0, 1):
            if turns == 1 and max(scores.values()) >= _SURE:
                break
            lines[turns] = self._find_lines(image, turns, asked)
            over = [Region(np.roll(one.quad, 2, axis=0), one.score) for one in lines[turns]]
            scores[turns] = self._readability(image, lines[turns], asked)
            scores[turns + 2] = self._readability(image, over, asked)
        best = max(scores, key=lambda turns: scores[turns])
        if best == 0 or scores[best] < scores[0] + _BETTER:
            return 0, lines[0]
        return best, lines[best] if best in lines else self._find_lines(image, best, asked)

    def _readability(self, image: Tensor, regions: Sequence[Region], asked: Asked) -> float:
        """How certain the characters of the longest lines are on average; 0 where there are too few."""
        longest = sorted(regions, key=lambda one: -_stretch(one.quad))[:_SAMPLE]
        answers = self.look(image, [one.quad for one in longest], asked)
        scores = [float(one["score"]) for answer in answers for one in _characters(answer)]
        return sum(scores) / len(scores) if len(scores) >= _FEWEST else 0.0

    def _read_lines(self, image: Tensor, regions: Sequence[Region], asked: Asked) -> dict[str, Any]:
        """The lines, read and in order; those that say nothing, or what is too uncertain, are left out."""
        chosen, answers = self._read_each(image, [one.quad for one in regions], asked)
        least = asked.own.get("least_score") or 0.0
        kept = [i for i, answer in enumerate(answers) if answer["text"].strip() and _certainty(answer) >= least]
        quads = [chosen[i] for i in kept]
        blocks = order_lines(quads, asked.own.get("order", "auto"))
        places = [(b, r, place) for b, block in enumerate(blocks) for r, row in enumerate(block) for place in row]
        lines = []
        for block, row, place in places:
            found = {"found": round(regions[kept[place]].score, 4), "block": block, "row": row}
            lines.append(_line(answers[kept[place]], quads[place], found))
        return {"lines": lines}

    def _read_each(
        self, image: Tensor, quads: Sequence[np.ndarray], asked: Asked
    ) -> tuple[list[np.ndarray], list[Any]]:
        """Each line's answer, and its quad as it was read: tall ones the way of three that is the most certain."""
        ways = [[np.roll(quad, k, axis=0) for k in ((0, 1, -1) if _is_tall(quad) else (0,))] for quad in quads]
        answers = iter(self.look(image, [quad for own in ways for quad in own], asked))
        best = []
        for own in ways:
            read = [(quad, next(answers)) for quad in own]
            best.append(max(read, key=lambda one: _certainty(one[1])))
        return [quad for quad, _ in best], [answer for _, answer in best]


def _read_turn(turn: Any) -> int | None:
    """How often a page is turned by 90 degrees against the clock; None where that is to be found."""
    if str(turn) not in TURNS:
        raise InputError(f"turn is {turn!r}; expected auto, off, 90, 180 or 270, clockwise")
    turns = TURNS[str(turn)]
    return None if turns is None else -turns % 4


def _line(answer: Mapping[str, Any], quad: np.ndarray, found: Mapping[str, Any]) -> dict[str, Any]:
    """A line of an answer for its cut, in pixels of the page.

    Where a recognizer does not say where its characters are, they are spread evenly.
    """
    size = quad_size(quad)
    matrix = homography(quad_of_box((0, 0, size[1], size[0])), quad)
    characters, read = [], _characters(answer)
    for place, one in enumerate(read):
        left = one.get("left", place * size[1] / len(read))
        right = one.get("right", (place + 1) * size[1] / len(read))
        own = map_points(matrix, quad_of_box((left, 0, right, size[0])))
        characters.append({"text": one["text"], "score": round(float(one["score"]), 4), "quad": plain_quad(own)})
    return {
        "text": answer["text"],
        "score": round(_certainty(answer), 4),
        "quad": plain_quad(quad),
        **found,
        "words": _words(answer["text"], characters, plain_quad(quad)),
        "characters": characters,
    }


def _words(text: str, characters: Sequence[Mapping[str, Any]], quad: list[list[float]]) -> list[dict[str, Any]]:
    """The words of a line, between spaces: from the left of the first character to the right of the last one."""
    if "".join(one["text"] for one in characters) != text:  # of a recognizer that does not say where they are
        return [{"text": text, "score": None, "quad": quad, "characters": 0}]
    words: list[list[Mapping[str, Any]]] = [[]]
    for one in characters:
        if one["text"].isspace():
            words.append([])
        else:
            words[-1].append(one)
    return [
        {
            "text": "".join(one["text"] for one in word),
            "score": round(sum(one["score"] for one in word) / len(word), 4),
            "quad": [word[0]["quad"][0], word[-1]["quad"][1], word[-1]["quad"][2], word[0]["quad"][3]],
            "characters": len(word),
        }
        for word in words
        if word
    ]


def _characters(answer: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return answer.get("characters") or ()


def _certainty(answer: Mapping[str, Any]) -> float:
    """How certain a line's characters are on average: that of all together, a product, falls with its length."""
    scores = [float(one["score"]) for one in _characters(answer)]
    return sum(scores) / len(scores) if scores else float(bool(answer["text"])) * float(answer["score"])


def _stretch(quad: np.ndarray) -> float:
    height, width = quad_size(quad)
    return width / height


def _is_tall(quad: np.ndarray) -> bool:
    height, width = quad_size(quad)
    return height >= _TALL * width
