"""Classifiers in use: the most probable classes of an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from opsin.backbones.backbone import Backbone, Outputs
from opsin.classify import drawing
from opsin.classify.answers import ClassAnswer
from opsin.data import Preprocessing
from opsin.engine.answers import Answer
from opsin.engine.checkpoint import Facts
from opsin.engine.predict import Predictor, describe_input
from opsin.engine.program import Program
from opsin.errors import InputError, printable

_CHOSEN = 0.5  # the least probability of a class that an image has, of a multi-label model


class ClassifyPredictor(Predictor):
    """Names the classes of an image with their probabilities."""

    answer_class: ClassVar[type[Answer]] = ClassAnswer

    def answers(
        self,
        outputs: Outputs,
        sizes: Sequence[tuple[int, int]],
        originals: Sequence[Tensor],
        *,
        top: int = 5,
        threshold: float | None = None,
        **options: Any,
    ) -> list[dict[str, Any]]:
        """Label, id and score of each image, the `top` most probable classes, and the probabilities of all.

        threshold: the least probability of a class that an image has. Of a multi-label model 0.5 if None; of others
        there is none then, and where no class reaches it the label and its id are None.
        """
        return self._named(self.model.decode(outputs)["scores"], top, threshold)

    def _named(self, scores: Tensor, top: int = 5, threshold: float | None = None) -> list[dict[str, Any]]:
        """The answers of scores (B, K)."""
        classes, scores = self.classes, scores.cpu()
        ranked = scores.topk(min(top, len(classes)), dim=1)
        answers = []
        for row, (values, places) in enumerate(zip(ranked.values.tolist(), ranked.indices.tolist(), strict=True)):
            best = [{"label": classes[i], "class_id": i, "score": v} for v, i in zip(values, places, strict=True)]
            every = {"top": best, "probabilities": scores[row].float().numpy().copy()}
            if self.model.multi_label:
                chosen = (scores[row] >= (_CHOSEN if threshold is None else threshold)).nonzero()[:, 0].tolist()
                chosen.sort(key=lambda i: -float(scores[row, i]))
                found = [{"label": classes[i], "class_id": i, "score": float(scores[row, i])} for i in chosen]
                answers.append({"labels": found, **every})
            elif threshold is not None and best[0]["score"] < threshold:
                answers.append({"label": None, "class_id": None, "score": best[0]["score"], **every})
            else:
                answers.append({**best[0], **every})
        return answers

    @torch.inference_mode()
    def embed(self, images: Sequence[Any]) -> Tensor:
        """The last map of the network's features, averaged over its places: float32 (N, channels) on the CPU."""
        if not isinstance(self.model, Backbone):
            raise InputError("a classifier of your own names no features; give a run of a network of opsin")
        batch = self.collate([self.read(image) for image in images]).to(self.device)
        return self.model.features(self.normalize(batch))[-1].float().mean(dim=(2, 3)).cpu()

    def draw(self, image: Tensor, answer: dict[str, Any]) -> Any:
        """The image with its class and probability under it."""
        return drawing.annotate(image, answer)

    def describe(self, answer: dict[str, Any]) -> str:
        """`cat 98.3 %`, or several of these of a multi-label model."""
        found = answer.get("labels", [answer] if answer["label"] is not None else [])
        return ", ".join(f"{printable(one['label'])} {100 * one['score']:.1f} %" for one in found) or "nothing"

    def finish_training(self) -> None:
        """Without the auxiliary heads, which served the training."""
        self.model.drop_aux_heads()

    @classmethod
    def network_of_program(
        cls, run: Callable[[Tensor], Mapping[str, Tensor]], facts: Facts, texts: Mapping[str, Any]
    ) -> nn.Module:
        return ScoresProgram(run, bool(texts["values"]["multi_label"]))

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


class ScoresProgram(nn.Module):
    """An exported classifier as a network: images, uint8 (B, channels, H, W) -> {"scores": (B, K)}."""

    def __init__(self, run: Callable[[Tensor], Mapping[str, Tensor]], multi_label: bool) -> None:
        super().__init__()
        self.program, self.multi_label = run, multi_label

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return dict(self.program(images))

    def decode(self, outputs: Outputs) -> Outputs:
        """The scores as they are: the program has made them probabilities."""
        return outputs
