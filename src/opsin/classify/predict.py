"""Classifiers in use: the most probable classes of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from opsin.backbones.backbone import Outputs
from opsin.classify import drawing
from opsin.data import Preprocessing
from opsin.engine.predict import Predictor, Program, describe_input


class ClassifyPredictor(Predictor):
    """Names the classes of an image with their probabilities."""

    def answers(
        self,
        outputs: Outputs,
        sizes: Sequence[tuple[int, int]],
        originals: Sequence[Tensor],
        *,
        top: int = 5,
        **options: Any,
    ) -> list[dict[str, Any]]:
        """Label, score and the `top` most probable classes of each image."""
        return self._named(self.model.decode(outputs)["scores"], top)

    def _named(self, scores: Tensor, top: int = 5) -> list[dict[str, Any]]:
        """The answers of scores (B, K)."""
        classes, scores = self.classes, scores.cpu()
        ranked = scores.topk(min(top, len(classes)), dim=1)
        answers = []
        for row, (values, places) in enumerate(zip(ranked.values.tolist(), ranked.indices.tolist(), strict=True)):
            best = [{"label": classes[i], "score": v} for v, i in zip(values, places, strict=True)]
            if self.model.multi_label:
                chosen = (scores[row] >= 0.5).nonzero()[:, 0].tolist()
                chosen.sort(key=lambda i: -float(scores[row, i]))
                found = [{"label": classes[i], "score": float(scores[row, i])} for i in chosen]
                answers.append({"labels": found, "top": best})
            else:
                answers.append({"label": best[0]["label"], "score": best[0]["score"], "top": best})
        return answers

    def draw(self, image: Tensor, answer: dict[str, Any]) -> Any:
        """The image with its class and probability under it."""
        return drawing.annotate(image, answer)

    def describe(self, answer: dict[str, Any]) -> str:
        """`cat 98.3 %`, or several of these of a multi-label model."""
        found = answer.get("labels", [answer])
        return ", ".join(f"{one['label']} {100 * one['score']:.1f} %" for one in found) or "nothing"

    def finish_training(self) -> None:
        """Without the auxiliary heads, which served the training."""
        self.model.drop_aux_heads()

    def programs(self) -> list[Program]:
        several = " An image has every class of at least 0.5." if self.model.multi_label else ""
        usage = f"{describe_input(self.preprocessing)}scores: (batch, classes), calibrated probabilities.{several}"
        module = Scores(self.model, self.preprocessing)
        return [Program(module, ["scores"], {"usage": usage}, decode=lambda outputs: self._named(outputs["scores"]))]


class Scores(nn.Module):
    """Normalisation, network, and its probabilities: images, uint8 (B, channels, H, W) -> scores (B, K)."""

    def __init__(self, model: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model: Any = model
        self.preprocessing = preprocessing

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"scores": self.model.decode(self.model(self.preprocessing.normalize(images)))["scores"]}
