"""The rule, in use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from opsin.engine.predict import Predictor


class RulePredictor(Predictor):
    """Bright is what has a mean above 127."""

    def answers(
        self, outputs: None, sizes: Sequence[tuple[int, int]], originals: Sequence[Tensor], **options: Any
    ) -> list[dict[str, Any]]:
        means = [float(image.float().mean()) for image in originals]
        return [{"brightness": "bright" if mean > 127 else "dark", "mean": mean} for mean in means]
