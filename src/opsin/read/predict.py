"""Recognizers in use: the text of an image, with the confidence and the place of each character."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

from opsin.data import Source
from opsin.data.texts import Texts
from opsin.engine.answers import Answer
from opsin.engine.predict import Predictor
from opsin.engine.recipe import Recipe, own_section
from opsin.errors import printable
from opsin.read.alphabet import Alphabet
from opsin.read.answers import ReadAnswer
from opsin.read.recipe import choose_alphabet
from opsin.read.recognizer import Reading


class ReadPredictor(Predictor):
    """The text of images."""

    answer_class: ClassVar[type[Answer]] = ReadAnswer

    @cached_property
    def alphabet(self) -> Alphabet:
        """What the labels of the network are."""
        return Alphabet.from_meaning(self.facts.meaning)

    @classmethod
    def relabel(cls, recipe: Recipe, source: Source) -> Source:
        first = source.splits.get("train") or next(iter(source.splits.values()))
        if not isinstance(first.truth, Texts):
            return source
        meaning = choose_alphabet(own_section(recipe), first.truth)
        splits = {
            key: split if split.truth is None else split.with_truth(split.truth.match(meaning))
            for key, split in source.splits.items()
        }
        return source.with_splits(splits)

    def answers(
        self, outputs: Any, sizes: Sequence[tuple[int, int]], originals: Sequence[Any], **options: Any
    ) -> list[dict[str, Any]]:
        """Of each image its text, the text's score, and its characters with score and place."""
        readings = self.model.decode(outputs)
        count = self.model.probabilities(outputs).shape[1]
        return [self._read_as(one, size, count) for one, size in zip(readings, sizes, strict=True)]

    def _read_as(self, reading: Reading, size: tuple[int, int], steps: int) -> dict[str, Any]:
        text = self.alphabet.text_of(reading.labels)
        found = [{"text": one, "score": score} for one, score in zip(text, reading.scores, strict=True)]
        return {"text": text, "score": math.prod(reading.scores) if text else 0.0, "characters": found}

    def describe(self, answer: dict[str, Any]) -> str:
        """`STREET 97.1 %`."""
        if not answer["text"]:
            return "no text"
        return f"{printable(answer['text'])} {100 * answer['score']:.1f} %"
