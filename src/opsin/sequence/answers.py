"""Answers about sequences: a text, a continuation, labels, a class, or numbers."""

from __future__ import annotations

from typing import Any

from opsin.engine.answers import Answer, Answers


class SequenceAnswer(Answer):
    """What a model says of a sequence.

    As a dict: "source", the text that was read, if it is one; and of pairs and continued texts "text" and "score", the
    probability's logarithm; of labels "labels" and "scores"; of classes "label", "score" and "classes", the most
    probable with their scores; of values "values". attention: (symbols written, symbols read) where the network has it.
    """

    arrays = ("attention",)

    @property
    def attention(self) -> Any:
        """Where each symbol written looked, shares (T, S), in an image (T, rows, columns); None without attention."""
        return self._arrays.get("attention")

    @property
    def text(self) -> str:
        """The text that is written, of models that write."""
        return str(self.value("text"))

    @property
    def score(self) -> float:
        """The logarithm of a text's probability, or the probability of a class."""
        return float(self.value("score"))

    @property
    def label(self) -> str:
        """The most probable class, of models that classify."""
        return str(self.value("label"))

    @property
    def labels(self) -> list[str]:
        """The label of each word, of models that label."""
        return list(self.value("labels"))

    @property
    def numbers(self) -> list[float]:
        """The values, of models that answer with numbers; their key is "values", which every dict has as a method."""
        return list(self.value("values"))

    def names(self) -> list[str]:
        return [str(self[key]) for key in ("text", "label") if key in self][:1]


class SequenceAnswers(Answers):
    """Answers about several sequences."""


SequenceAnswer.list_class = SequenceAnswers
