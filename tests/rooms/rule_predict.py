"""The rule, in use, and how often it is right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from opsin.engine.evaluator import Evaluator, Result
from opsin.engine.predict import Predictor
from opsin.structures import Batch


class RulePredictor(Predictor):
    """Bright is what has a mean above the threshold."""

    threshold = 127.0

    def __init__(self, model: None, facts: Any) -> None:
        facts.meaning = {"classes": ["dark", "bright"]}
        super().__init__(model, facts)

    def answers(
        self, outputs: None, sizes: Sequence[tuple[int, int]], originals: Sequence[Tensor], **options: Any
    ) -> list[dict[str, Any]]:
        means = [float(image.float().mean()) for image in originals]
        return [{"brightness": self.classes[mean > self.threshold], "mean": mean} for mean in means]


class RuleEvaluator(Evaluator):
    """How many images are what the rule says, and how far from its threshold they are on average."""

    def __init__(self, predictor: RulePredictor, *, threshold: float = 127.0) -> None:
        super().__init__(predictor)
        predictor.threshold = self.threshold = threshold

    def update(self, outputs: None, batch: Batch) -> None:
        images = list(batch["image"])
        answers = self.predictor.answers(None, [(image.shape[-2], image.shape[-1]) for image in images], images)
        truth = [self.predictor.classes[label] for label in batch["label"].tolist()]
        found = [(a["brightness"] == own, a["mean"]) for a, own in zip(answers, truth, strict=True)]
        self.collect(batch["index"].tolist(), found)

    def brief(self) -> dict[str, float]:
        found = self.collected()
        margins = [abs(mean - self.threshold) for _, mean in found]
        return {"right": sum(right for right, _ in found) / len(found), "margin": sum(margins) / len(found)}

    def result(self) -> Result:
        return Result(self.brief())
