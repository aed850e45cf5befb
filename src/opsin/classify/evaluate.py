"""Evaluation of classifiers: their logits over a split, held against the labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from opsin.backbones.backbone import Outputs, logits_of
from opsin.classify.calibration import fit_temperature
from opsin.classify.metrics import Evaluation, evaluate
from opsin.data import Split
from opsin.engine.evaluator import Evaluator, Result
from opsin.engine.predict import Predictor
from opsin.losses import binary_cross_entropy, cross_entropy
from opsin.structures import Batch

if TYPE_CHECKING:
    from opsin.engine.report import Section


class ClassifyEvaluator(Evaluator):
    """Collects logits and labels, on the CPU in float32. `loss` is the plain negative log-likelihood, always."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__(predictor)
        self._batches: list[tuple[Tensor, Tensor, Tensor]] = []  # whole ones: a tensor for each image is slow to send

    def update(self, outputs: Outputs, batch: Batch) -> None:
        self._batches.append((logits_of(outputs).float().cpu(), batch["label"].cpu(), batch["index"].cpu()))

    def state(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        return self._batches

    def merge(self, states: Sequence[list[tuple[Tensor, Tensor, Tensor]]]) -> None:
        self._batches = [batch for state in states for batch in state]

    def gathered(self) -> tuple[Tensor, Tensor]:
        """Logits (N, K) and labels, in the order of the split whatever process saw them."""
        logits, labels, index = (torch.cat(column) for column in zip(*self._batches, strict=True))
        order = index.argsort()
        return logits[order], labels[order]

    @property
    def multi_label(self) -> bool:
        """Whether each class is decided by itself."""
        return self.predictor.model.multi_label

    def brief(self) -> dict[str, float]:
        logits, labels = self.gathered()
        if self.multi_label:
            loss = binary_cross_entropy(logits, labels)
            right = ((logits >= 0) == labels.bool()).all(dim=1)
        else:
            loss = cross_entropy(logits, labels)
            right = (logits.argmax(dim=1) == labels)[labels != -1]
        return {"loss": float(loss), "accuracy": float(right.float().mean())}

    def compared(self) -> tuple[Tensor, Tensor]:
        """Scores (N, K) in [0, 1], as `predict` gives them, and labels: (N,) int64, or (N, K) of 0 and 1.

        Examples without a label are left out.
        """
        logits, labels = self.gathered()
        scores = self.predictor.model.decode(logits)["scores"]
        known = labels != -1 if labels.ndim == 1 else torch.ones(len(labels), dtype=torch.bool)
        return scores[known], labels[known] if labels.ndim == 1 else labels.long()

    def calibrate(self) -> None:
        """Fit the temperature; see `opsin.classify.calibration`."""
        self.predictor.model.temperature = fit_temperature(*self.gathered(), self.multi_label)

    def result(self) -> Result:
        logits, labels = self.gathered()
        model, classes = self.predictor.model, self.predictor.classes
        evaluation = evaluate(model.decode(logits)["scores"], labels, classes)
        metrics = dict(evaluation.metrics)
        if model.temperature != 1.0:
            scores = torch.sigmoid(logits) if self.multi_label else logits.softmax(dim=1)
            raw = evaluation.uncalibrated = evaluate(scores, labels, classes)
            metrics |= {f"{k}_uncalibrated": raw.metrics[k] for k in ("ece", "nll") if k in raw.metrics}
        details = {
            "per_class": evaluation.per_class,
            "confusion": None if evaluation.confusion is None else evaluation.confusion.tolist(),
            "temperature": float(model.temperature),
        }
        return Result(metrics, details, evaluation)

    def sections(self, result: Result, split: Split) -> list[Section]:
        from opsin.classify import report  # drawing takes long to import

        evaluation: Evaluation = result.evidence
        return report.sections(
            evaluation, split, self.predictor.classes, temperature=float(self.predictor.model.temperature)
        )
