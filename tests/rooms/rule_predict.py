"""The rule, in use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from opsin.engine.predict import Predictor


class RulePredictor(Predictor):
    """Bright is what has a mean above 127."""

    def collate(self, originals: Sequence[Tensor]) -> Tensor:
        return super().collate([image.float().mean() for image in originals])

    def run(self, batch: Tensor, originals: Sequence[Tensor]) -> Tensor:
        return batch

    def answers(
        self, outputs: Tensor, sizes: Sequence[tuple[int, int]], originals: Sequence[Any], **options: Any
    ) -> list[dict[str, Any]]:
        return [{"brightness": "bright" if mean > 127 else "dark", "mean": mean} for mean in outputs.tolist()]
