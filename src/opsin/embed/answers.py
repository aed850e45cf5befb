"""Answers of embedders: the point that an image is, who it is of a gallery, whether two images show the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from opsin.engine.answers import Answer, Answers
from opsin.errors import InputError
from opsin.files import atomic

UNKNOWN = "unknown"


class EmbedAnswer(Answer):
    """The embedding of an image; with a gallery who it is, too.

    As a dict: {"features"}, how many numbers it has; the embedding itself is beside the dict. With a gallery also
    {"name", "distance", "probability", "nearest"}: the nearest person, "unknown" where that is farther than the
    threshold, and None for a model without one; the distance, the probability that both are the same, None without a
    threshold; and a list of {"name", "distance", "file"}, of each person the nearest image.
    """

    arrays: ClassVar[tuple[str, ...]] = ("embedding",)
    local: ClassVar[tuple[str, ...]] = (*Answer.local, "file")

    @property
    def embedding(self) -> np.ndarray:
        """The embedding as it is compared, float32 (D,)."""
        return self.value("embedding")

    @property
    def nearest(self) -> list[dict[str, Any]]:
        """The nearest people of the gallery, {"name", "distance", "file"}, the nearest first."""
        if "error" not in self and "nearest" not in self:
            raise InputError("this answer is of no gallery; predict with gallery=FOLDER")
        return self.value("nearest")

    def names(self) -> list[str]:
        name = self.get("name")
        return [] if name is None else [name]

    def rows(self) -> list[dict[str, Any]]:
        """One line: who it is and how far that is, or how many numbers the embedding has."""
        return [
            {**self.origin(), **{key: self[key] for key in self if key not in ("path", "frame", "time", "nearest")}}
        ]


class EmbedAnswers(Answers):
    """Answers of an embedder for several images."""

    forms: ClassVar[tuple[str, ...]] = ("npz",)

    def write(self, form: str, folder: Path) -> Path:
        """FOLDER/embeddings.npz, see `to_embeddings`."""
        return self.to_embeddings(folder / "embeddings.npz")

    def to_embeddings(self, path: str | Path) -> Path:
        """Write an npz of the embeddings (N, D) float32 of the images that were read, with their names as `paths`."""
        readable = [answer for answer in self if answer.error is None]
        found = np.stack([answer.embedding for answer in readable]) if readable else np.zeros((0, 0), np.float32)
        paths = np.array([str(answer.get("path", "")) for answer in readable], dtype=str)
        with atomic(Path(path)) as temporary, temporary.open("wb") as file:
            np.savez(file, embeddings=found, paths=paths)
        return Path(path)


EmbedAnswer.list_class = EmbedAnswers


class PairAnswer(Answer):
    """Whether two images show the same identity.

    As a dict: {"same", "distance", "probability", "threshold", "far"}: the distance of their embeddings, the
    probability that a pair at this distance is the same if half of all pairs are, the threshold of the distance, and
    the false accept rate that it was fitted for.
    """

    @property
    def same(self) -> bool:
        """Whether the distance is at most the threshold."""
        return self.value("same")

    @property
    def distance(self) -> float:
        """The distance of the two embeddings."""
        return self.value("distance")

    @property
    def probability(self) -> float:
        """That a pair at this distance is the same, if half of all pairs are."""
        return self.value("probability")

    def names(self) -> list[str]:
        return ["the same" if self.same else "not the same"]


PairAnswer.list_class = Answers
