"""Answers of classifiers: the class of an image, or its classes, with the probabilities of all."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from opsin.engine.answers import Answer, Answers
from opsin.errors import InputError


class ClassAnswer(Answer):
    """The class of an image with its probability; of a multi-label model any number of classes.

    As a dict: {"label", "class_id", "score", "top"}, of a multi-label model {"labels", "top"}; "labels" and "top" are
    lists of {"label", "class_id", "score"}, best first. The probabilities of all classes are beside the dict.
    """

    arrays: ClassVar[tuple[str, ...]] = ("probabilities",)

    @property
    def label(self) -> str | None:
        """The most probable class; None where that is less probable than the threshold that was asked for."""
        if "labels" in self:
            raise InputError("a multi-label answer has no single label; its classes are in .labels")
        return self.value("label")

    @property
    def class_id(self) -> int | None:
        """The id of `label`, its place among the model's classes; None where there is no label."""
        if "labels" in self:
            raise InputError("a multi-label answer has no single class_id; the likeliest are in .class_ids")
        return self.value("class_id")

    @property
    def score(self) -> float:
        """The probability of the most probable class, below the threshold too."""
        return float(self.value("top")[0]["score"])

    @property
    def labels(self) -> list[str]:
        """The classes that the image has: those of at least the threshold, best first."""
        if "labels" in self:
            return [one["label"] for one in self["labels"]]
        return [] if self.label is None else [self.label]

    @property
    def class_ids(self) -> np.ndarray:
        """Ids of the `top` most probable classes, best first, int64 (top,)."""
        return np.array([one["class_id"] for one in self.value("top")], np.int64)

    @property
    def scores(self) -> np.ndarray:
        """Probabilities of `class_ids`, float32 (top,)."""
        return np.array([one["score"] for one in self.value("top")], np.float32)

    @property
    def probabilities(self) -> np.ndarray:
        """Probabilities of all classes in the order of their ids, float32 (K,), whatever the threshold."""
        return self.value("probabilities")

    def names(self) -> list[str]:
        return self.labels

    def rows(self) -> list[dict[str, Any]]:
        """One line, label, class_id and score; of a multi-label model one for each class, or one without a label."""
        if "labels" not in self:
            found = [{key: self[key] for key in ("label", "class_id", "score")}]
        else:
            found = self["labels"] or [{"label": None, "class_id": None, "score": None}]
        return [{**self.origin(), **one} for one in found]


class ClassAnswers(Answers):
    """Answers of a classifier for several images."""

    def columns(self) -> list[str]:
        return ["path", "label", "class_id", "score"]


ClassAnswer.list_class = ClassAnswers
