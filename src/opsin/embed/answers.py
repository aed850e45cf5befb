"""Answers of embedders: the point that an image is."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from opsin.engine.answers import Answer, Answers
from opsin.files import atomic


class EmbedAnswer(Answer):
    """The embedding of an image.

    As a dict: {"features"}, how many numbers it has; the embedding itself is beside the dict.
    """

    arrays: ClassVar[tuple[str, ...]] = ("embedding",)

    @property
    def embedding(self) -> np.ndarray:
        """The embedding as it is compared, float32 (D,)."""
        return self.value("embedding")


class EmbedAnswers(Answers):
    """Answers of an embedder for several images."""

    forms: ClassVar[tuple[str, ...]] = ("npz",)

    def write(self, form: str, folder: Path) -> Path:
        """FOLDER/embeddings.npz, see `to_npz`."""
        return self.to_npz(folder / "embeddings.npz")

    def to_npz(self, path: str | Path) -> Path:
        """Write the embeddings (N, D) float32 of the images that were read, with their names as `paths`."""
        readable = [answer for answer in self if answer.error is None]
        found = np.stack([answer.embedding for answer in readable]) if readable else np.zeros((0, 0), np.float32)
        paths = np.array([str(answer.get("path", "")) for answer in readable], dtype=str)
        with atomic(Path(path)) as temporary, temporary.open("wb") as file:
            np.savez(file, embeddings=found, paths=paths)
        return Path(path)


EmbedAnswer.list_class = EmbedAnswers
