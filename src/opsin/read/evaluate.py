"""Evaluation of recognizers: the texts that they read, held against what is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from opsin.data.texts import strings
from opsin.engine.evaluator import Evaluator, Result
from opsin.read.metrics import measure_texts
from opsin.structures import Batch


@dataclass(frozen=True)
class Read:
    """What was found of one image. loss: None where its text cannot be learned at this size."""

    truth: str
    text: str
    score: float
    loss: float | None = None


class ReadEvaluator(Evaluator):
    """Compares texts after the alphabet has made of them what it compares: see `Alphabet.normalise`."""

    predictor: Any  # a ReadPredictor

    def update(self, outputs: Any, batch: Batch) -> None:
        places = batch["index"].tolist()
        losses = self._losses(outputs, batch)
        answers = self.predictor.answers(outputs, [(1, 1)] * len(places), [None] * len(places))
        for place, truth, answer, loss in zip(places, strings(batch["text"]), answers, losses, strict=True):
            known = self.predictor.alphabet.normalise(truth)
            self.collect([place], [Read(known, answer["text"], answer["score"], loss)])

    def _losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> list[float | None]:
        """Of each image by itself, so that the mean is the same however they are divided into batches."""
        model = self.predictor.model
        labels, lengths = self.predictor.alphabet.labels(batch["text"])
        steps = model.probabilities(outputs).shape[1]
        found: list[float | None] = []
        for k in range(len(labels)):
            own = labels[k : k + 1, : int(lengths[k])]
            repeats = int((own[:, 1:] == own[:, :-1]).sum()) if model.blank is not None else 0
            if own.shape[1] + repeats > steps:
                found.append(None)
                continue
            targets = {"labels": own.to(self.predictor.device), "lengths": lengths[k : k + 1]}
            one = {name: value[k : k + 1] for name, value in outputs.items()}
            found.append(float(torch.stack(list(model.loss(one, targets).values())).sum()))
        return found

    def brief(self) -> dict[str, float]:
        reads: list[Read] = self.collected()
        metrics = measure_texts([one.truth for one in reads], [one.text for one in reads])
        losses = [one.loss for one in reads if one.loss is not None]
        return {**metrics, **({"loss": sum(losses) / len(losses)} if losses else {})}

    def compared(self) -> tuple[list[str], list[str]]:
        """The texts found, and the true ones."""
        reads: list[Read] = self.collected()
        return [one.text for one in reads], [one.truth for one in reads]

    def result(self) -> Result:
        return Result(self.brief())
