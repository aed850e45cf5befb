"""Classification as a task: one class of many, or any number of classes at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from opsin import registry
from opsin.backbones.backbone import Outputs, logits_of
from opsin.classify import drawing, report
from opsin.classify.calibration import fit_temperature
from opsin.classify.metrics import Evaluation, evaluate
from opsin.data import Preprocessing, Source
from opsin.engine.recipe import Recipe
from opsin.engine.report import Section
from opsin.engine.task import Task
from opsin.errors import InputError
from opsin.losses import binary_cross_entropy, create_loss, cross_entropy
from opsin.structures import Batch

if TYPE_CHECKING:
    from opsin.engine.predict import Predictor


class Logits:
    """Collects logits and labels of a split, on the CPU in float32."""

    def __init__(self, multi_label: bool) -> None:
        self.multi_label = multi_label
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []

    def update(self, outputs: Outputs, batch: Batch) -> None:
        self._parts.append((logits_of(outputs).float().cpu(), batch["label"].cpu(), batch["index"].cpu()))

    def state(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        return self._parts

    def merge(self, states: Sequence[list[tuple[Tensor, Tensor, Tensor]]]) -> None:
        self._parts = [part for state in states for part in state]

    def collected(self) -> tuple[Tensor, Tensor]:
        """Logits (N, K) and labels, in the order of the split whatever process saw them."""
        logits, labels, index = (torch.cat(column) for column in zip(*self._parts, strict=True))
        order = index.argsort()
        return logits[order], labels[order]

    def metrics(self) -> dict[str, float]:
        logits, labels = self.collected()
        if self.multi_label:
            loss = binary_cross_entropy(logits, labels)
            right = ((logits >= 0) == labels.bool()).all(dim=1)
        else:
            loss = cross_entropy(logits, labels)
            right = (logits.argmax(dim=1) == labels)[labels != -1]
        return {"loss": float(loss), "accuracy": float(right.float().mean())}


class ClassifyTask(Task):
    """Trains a Backbone. `val_loss` is the plain negative log-likelihood, whatever the training loss is."""

    monitor: ClassVar[str] = "val_accuracy"
    monitor_mode: ClassVar[str] = "max"

    @classmethod
    def build(cls, recipe: Recipe, preprocessing: Preprocessing, source: Source, labels: np.ndarray) -> ClassifyTask:
        model = registry.create_model(
            recipe.model.name,
            num_classes=len(source.classes),
            in_channels=preprocessing.channels,
            **recipe.model.options,
        )
        _check_size(model, recipe.model.name, preprocessing.size)
        model.multi_label = recipe.data.multi_label  # type: ignore[assignment]
        criterion = _create_criterion(recipe, labels, len(source.classes))
        if criterion is not None:
            model.criterion = criterion
        return cls(model, recipe, preprocessing, source.classes)

    def targets(self, batch: Batch) -> Tensor:
        return batch["label"]

    def create_evaluator(self) -> Logits:
        return Logits(self.recipe.data.multi_label)

    def calibrate(self, evaluator: Logits) -> None:
        logits, labels = evaluator.collected()
        self.model.temperature = fit_temperature(logits, labels, self.recipe.data.multi_label)  # type: ignore[assignment]

    def evaluate(self, evaluator: Logits) -> tuple[dict[str, float], Evaluation]:
        logits, labels = evaluator.collected()
        decoded = self.model.decode(logits)  # type: ignore[operator]
        evaluation = evaluate(decoded["scores"], labels, self.classes)
        temperature = float(self.model.temperature)  # type: ignore[arg-type]
        metrics = dict(evaluation.metrics)
        if temperature != 1.0:
            raw = evaluate(
                torch.sigmoid(logits) if self.recipe.data.multi_label else logits.softmax(dim=1), labels, self.classes
            )
            evaluation.uncalibrated = raw
            metrics |= {f"{k}_uncalibrated": raw.metrics[k] for k in ("ece", "nll") if k in raw.metrics}
        return metrics, evaluation

    def details(self, evaluation: Evaluation) -> dict[str, Any]:
        return {
            "per_class": evaluation.per_class,
            "confusion": None if evaluation.confusion is None else evaluation.confusion.tolist(),
            "temperature": float(self.model.temperature),  # type: ignore[arg-type]
        }

    def sections(self, evaluation: Evaluation, split: Any) -> list[Section]:
        return report.sections(evaluation, split, self.classes, temperature=float(self.model.temperature))  # type: ignore[arg-type]

    def choices(self) -> list[str]:
        loss = self.recipe.loss
        lines = []
        smoothing = loss.options.get("smoothing", 0.0)
        if smoothing:
            lines.append(f"label smoothing {smoothing:g}: training loss cannot reach zero, val_loss is without it")
        if loss.class_weights is not None:
            weights = "by inverse frequency" if loss.class_weights == "balanced" else f"{loss.class_weights}"
            lines.append(f"classes are weighted {weights} in the training loss")
        if self.recipe.data.multi_label:
            lines.append("multi-label: each class is decided by itself, at a probability of one half")
        return lines

    @staticmethod
    def answers(
        predictor: Predictor, outputs: Outputs, sizes: Sequence[tuple[int, int]], *, top: int = 5
    ) -> list[dict[str, Any]]:
        """Label, score and the `top` most probable classes of each image."""
        classes, decoded = predictor.classes, predictor.model.decode(outputs)  # type: ignore[operator]
        scores = decoded["scores"].cpu()
        ranked = scores.topk(min(top, len(classes)), dim=1)
        answers = []
        for row, (values, places) in enumerate(zip(ranked.values.tolist(), ranked.indices.tolist(), strict=True)):
            best = [{"label": classes[i], "score": v} for v, i in zip(values, places, strict=True)]
            if decoded["labels"].ndim == 2:
                chosen = decoded["labels"][row].nonzero()[:, 0].tolist()
                chosen.sort(key=lambda i: -float(scores[row, i]))
                found = [{"label": classes[i], "score": float(scores[row, i])} for i in chosen]
                answers.append({"labels": found, "top": best})
            else:
                answers.append({"label": best[0]["label"], "score": best[0]["score"], "top": best})
        return answers

    @staticmethod
    def annotate(image: Tensor, answer: dict[str, Any], classes: list[str]) -> Any:
        """The image with its class and probability, a PIL image."""
        return drawing.annotate(image, answer)

    @staticmethod
    def describe(answer: dict[str, Any]) -> str:
        """`cat 98.3 %`, or several of these of a multi-label model."""
        found = answer.get("labels", [answer])
        return ", ".join(f"{one['label']} {100 * one['score']:.1f} %" for one in found) or "nothing"


_MULTI_LABEL = ("bce", "focal", "sigmoid_cross_entropy")  # losses that evaluate each class by itself


def _create_criterion(recipe: Recipe, labels: np.ndarray, num_classes: int) -> torch.nn.Module | None:
    """The recipe's criterion; None keeps the model's own."""
    loss, multi_label = recipe.loss, recipe.data.multi_label
    mixed = recipe.mixing.mixup > 0 or recipe.mixing.cutmix > 0
    if loss.name is None and not (multi_label or mixed or loss.class_weights or loss.options):
        return None
    name = loss.name or ("bce" if multi_label else "cross_entropy")
    if (name in _MULTI_LABEL) != multi_label:
        fitting = " or ".join(_MULTI_LABEL) if multi_label else "cross_entropy"
        raise InputError(
            f"loss.name={name} does not fit data.multi_label={str(multi_label).lower()}; use loss.name={fitting}"
        )
    if loss.class_weights is not None and multi_label and name != "bce":
        raise InputError(f"loss.class_weights needs loss.name=bce for several labels; {name} takes none")
    options = dict(loss.options)
    if loss.class_weights is not None:
        weights = _balanced(labels, num_classes) if loss.class_weights == "balanced" else loss.class_weights
        if len(weights) != num_classes:
            raise InputError(f"loss.class_weights has {len(weights)} values for {num_classes} classes")
        options["pos_weight" if multi_label else "weight"] = weights
    return create_loss(name, **options)


def _balanced(labels: np.ndarray, num_classes: int) -> list[float]:
    """n / (K * n_k) for one label each; negatives over positives of each class for several."""
    if labels.ndim == 2:
        positives = np.maximum(labels.sum(axis=0), 1)
        return ((len(labels) - labels.sum(axis=0)) / positives).tolist()
    counts = np.bincount(labels[labels >= 0], minlength=num_classes)
    return (counts.sum() / (num_classes * np.maximum(counts, 1))).tolist()


def _check_size(model: torch.nn.Module, name: str, size: tuple[int, int]) -> None:
    fixed, smallest = getattr(model, "fixed_size", None), getattr(model, "min_size", 1)
    if fixed is not None and size != (fixed, fixed):
        raise InputError(
            f"{name} takes {fixed}x{fixed} images only, the recipe gives {size[0]}x{size[1]}; set data.size={fixed}"
        )
    if min(size) < smallest:
        raise InputError(
            f"{name} needs images of at least {smallest}x{smallest}, the recipe gives {size[0]}x{size[1]}; "
            "raise data.size"
        )
