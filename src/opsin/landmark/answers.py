"""Answers of networks that find named points."""

from __future__ import annotations

from typing import Any

import numpy as np

from opsin.data.named_points import NamedPoints
from opsin.data.source import Source
from opsin.engine.answered_images import source_of_answers
from opsin.engine.answers import Answer, Answers
from opsin.landmark.smoothing import measure_jitter


class LandmarkAnswer(Answer):
    """The points of an image.

    As a dict: {"points": [{"name", "x", "y", "error"}]}, x and y in continuous pixels of the image; error: how far the
    point is expected to be off, in the same, by what validation has shown; None where that is not known.
    """

    @property
    def points(self) -> np.ndarray:
        """(P, 2) float64: x and y of each point, in pixels of the image."""
        return np.array([[one["x"], one["y"]] for one in self.value("points")], np.float64).reshape(-1, 2)

    @property
    def errors(self) -> np.ndarray:
        """(P,) float64: how far each is expected to be off, in pixels of the image; NaN where that is not known."""
        return np.array([np.nan if one["error"] is None else one["error"] for one in self.value("points")], np.float64)

    def point(self, name: str) -> tuple[float, float]:
        """Where a point is, by its name. Raises KeyError for one that the model does not know."""
        return next(((one["x"], one["y"]) for one in self.value("points") if one["name"] == name), None) or self._no(
            name
        )

    def _no(self, name: str) -> tuple[float, float]:
        raise KeyError(f"no point {name!r}; the model knows {', '.join(one['name'] for one in self.value('points'))}")

    def rows(self) -> list[dict[str, Any]]:
        """A line for each point: name, x, y, error."""
        return [{**self.origin(), **one} for one in self.value("points")]


class LandmarkAnswers(Answers):
    """Answers of a network that finds points, for several images or the frames of a video."""

    def columns(self) -> list[str]:
        return ["path", "name", "x", "y", "error"]

    @property
    def points(self) -> np.ndarray:
        """(N, P, 2) float64, of all images, in pixels of each."""
        return np.stack([one.points for one in self]) if len(self) else np.zeros((0, 0, 2))

    def to_source(self, name: str = "predictions") -> Source:
        """A data set of the images that were read, with the points that were found as their truth.

        What `opsin predict --as FORMAT OUT` writes. Raises InputError where no image was read.
        """
        return source_of_answers(self, name, "landmark", _points_of)

    def jitter(self) -> float:
        """How much the points of a video's frames tremble, in pixels; see `opsin.landmark.smoothing.measure_jitter`."""
        return measure_jitter(self.points)


def _points_of(answers: list[LandmarkAnswer]) -> NamedPoints:
    names = [str(one["name"]) for one in answers[0].value("points")]
    return NamedPoints.of(np.stack([answer.points for answer in answers]), names)


LandmarkAnswer.list_class = LandmarkAnswers
