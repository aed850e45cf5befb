"""Networks that count, in use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from opsin.data import Preprocessing
from opsin.data.drawing import Line, add_caption, to_pil
from opsin.engine.predict import Predictor, describe_input
from opsin.engine.program import Program


class DotsPredictor(Predictor):
    """Says how many dots an image shows."""

    def answers(
        self,
        outputs: Tensor,
        sizes: Sequence[tuple[int, int]],
        originals: Sequence[Tensor],
        *,
        round: bool = False,
        **options: Any,
    ) -> list[dict[str, Any]]:
        counts = outputs.clamp(min=0).tolist()
        return [{"count": float(f"{count:.0f}") if round else count} for count in counts]

    def draw(self, image: Tensor, answer: dict[str, Any]) -> Any:
        return add_caption(to_pil(image), [Line(self.describe(answer))])

    def describe(self, answer: dict[str, Any]) -> str:
        return f"{answer['count']:.1f} dots"

    def programs(self) -> list[Program]:
        usage = f"{describe_input(self.preprocessing)}count: (batch,), of dots."

        def decode(outputs: Mapping[str, Tensor]) -> list[dict[str, Any]]:
            return self.answers(outputs["count"], [], [])

        return [Program(Counter(self.model, self.preprocessing), ["count"], {"usage": usage}, decode=decode)]


class Counter(nn.Module):
    """Normalisation and network: images, uint8 (B, channels, H, W) -> count (B,)."""

    def __init__(self, model: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model, self.preprocessing = model, preprocessing

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"count": self.model(self.preprocessing.normalize(images))}
