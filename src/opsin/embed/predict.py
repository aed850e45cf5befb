"""Embedders in use: the point that an image is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from opsin.data import Source
from opsin.embed.answers import EmbedAnswer
from opsin.engine.answers import Answer
from opsin.engine.predict import NormalizedNetwork, Predictor, Program, describe_input
from opsin.engine.recipe import Recipe


class EmbedPredictor(Predictor):
    """Embeddings of images."""

    answer_class: ClassVar[type[Answer]] = EmbedAnswer

    @classmethod
    def relabel(cls, recipe: Recipe, source: Source) -> Source:
        """Identities that are not those of use are numbered within each split, which shows no others."""
        splits = {
            key: split if split.truth is None or split.kind.closed else split.with_truth(split.kind.compact())
            for key, split in source.splits.items()
        }
        return source.with_splits(splits)

    def answers(
        self, outputs: Any, sizes: Sequence[tuple[int, int]], originals: Sequence[Tensor], **options: Any
    ) -> list[dict[str, Any]]:
        """The embedding of each image, as it is compared, float32 (D,)."""
        found: np.ndarray = self.model.decode(outputs).float().cpu().numpy()
        return [{"features": found.shape[1], "embedding": row.copy()} for row in found]

    def describe(self, answer: dict[str, Any]) -> str:
        return f"{answer['features']} numbers"

    def programs(self) -> list[Program]:
        usage = f"{describe_input(self.preprocessing)}embedding: (batch, features); the nearer, the more alike."
        module = NormalizedNetwork(
            self.model, self.preprocessing, lambda outputs: {"embedding": self.model.decode(outputs)}
        )
        return [Program(module, ["embedding"], {"usage": usage})]
