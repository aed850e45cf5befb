"""Answers of recognizers: the text of an image."""

from __future__ import annotations

from typing import Any

from opsin.engine.answers import Answer, Answers


class ReadAnswer(Answer):
    """The text of an image.

    As a dict: {"text", "score", "characters": [{"text", "score", "left", "right"}]}. score: the product of those of the
    characters, 0 of no text; left, right: in pixels of the image.
    """

    @property
    def text(self) -> str:
        """What the image reads."""
        return self.value("text")

    @property
    def score(self) -> float:
        """The product of the characters' scores; 0 where there are none."""
        return float(self.value("score"))

    @property
    def characters(self) -> list[dict[str, Any]]:
        """Of each character its text, score, left and right."""
        return list(self.value("characters"))

    def names(self) -> list[str]:
        return [self.text]

    def rows(self) -> list[dict[str, Any]]:
        """One line: text and score."""
        return [{**self.origin(), "text": self.text, "score": self.score}]


class ReadAnswers(Answers):
    """Answers of a recognizer for several images."""

    def columns(self) -> list[str]:
        return ["path", "text", "score"]


ReadAnswer.list_class = ReadAnswers
