"""How good a classifier is: one evaluation of its scores against the truth, for one class of many or many at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

import torch
import torchmetrics.functional.classification as reference
from torch import Tensor

from opsin.errors import InputError, JobError

BINS = 15  # Guo et al. 2017, table 1


class Bin(TypedDict):
    """Answers whose confidence lies in (low, high]: their mean confidence and how often they are right, if any."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclass
class Evaluation:
    """What `evaluate` found. Examples are named by their place in the scores.

    metrics: values in [0, 1], but nll in nats. per_class: class, examples, predicted, precision, recall, f1, and ap
    when multi-label; None where a class has no example. confusion: (K, K) int64, rows are the truth; None when
    multi-label. reliability: the bins behind ece. mistakes: wrong answers, the most confident first. scores, labels: as
    given, on the CPU. uncalibrated: the evaluation of the same answers before temperature scaling, where that was done.
    """

    metrics: dict[str, float]
    per_class: list[dict[str, Any]]
    confusion: Tensor | None
    reliability: list[Bin]
    mistakes: list[int]
    scores: Tensor
    labels: Tensor
    uncalibrated: Evaluation | None = None

    @property
    def multi_label(self) -> bool:
        return self.labels.ndim == 2

    @property
    def count(self) -> int:
        """Examples that have a label."""
        known = self.labels != -1
        return int((known.any(dim=1) if self.multi_label else known).sum())

    def to_dict(self) -> dict[str, Any]:
        """Everything but the scores as plain values, for JSON."""
        confusion = None if self.confusion is None else self.confusion.tolist()
        return {
            "examples": self.count,
            "metrics": self.metrics,
            "per_class": self.per_class,
            "confusion": confusion,
            "reliability": self.reliability,
            "mistakes": self.mistakes,
        }


def evaluate(scores: Tensor, labels: Tensor, classes: list[str]) -> Evaluation:
    """Compare probabilities with the truth.

    scores: (N, K) in [0, 1]. labels: (N,) int64, or (N, K) of 0 and 1 for multi-label; -1 is left out. classes: K
    names. Equal scores rank by class index, lowest first, so a result never depends on the machine. Averages over
    classes (precision, recall, f1, map) leave out classes without an example, as nothing can be found of them; a class
    that has examples but was never predicted has precision 0. top5_accuracy is given for more than five classes.
    Raises InputError where shapes, labels or scores are impossible, JobError where scores are not finite.
    """
    scores, labels = scores.detach().float().cpu(), labels.detach().cpu()
    _check(scores, labels, classes)
    return _evaluate_many(scores, labels, classes) if labels.ndim == 2 else _evaluate_one(scores, labels, classes)


def reliability(confidence: Tensor, correct: Tensor, bins: int = BINS) -> list[Bin]:
    """Confidence against accuracy in equal bins of confidence. Guo et al. 2017, arXiv:1706.04599, section 2.

    confidence: (N,) in [0, 1]; correct: (N,) bool. As in the paper, a bin is (low, high] and 0 belongs to the first.
    """
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    place = (torch.bucketize(confidence.double(), edges) - 1).clamp(0, bins - 1)
    count = torch.bincount(place, minlength=bins)
    sure = torch.bincount(place, confidence.double(), minlength=bins)
    right = torch.bincount(place, correct.double(), minlength=bins)
    return [
        {
            "low": i / bins,
            "high": (i + 1) / bins,
            "count": n,
            "confidence": sure[i].item() / n if n else None,
            "accuracy": right[i].item() / n if n else None,
        }
        for i, n in enumerate(count.tolist())
    ]


def expected_calibration_error(bins: list[Bin]) -> float:
    """Mean distance of confidence and accuracy over the answers. Guo et al. 2017, eq. 3.

    torchmetrics' differs where a confidence is exactly 1: it gives those a bin of their own.
    """
    total = sum(b["count"] for b in bins)
    gaps = (b["count"] * abs(b["accuracy"] - b["confidence"]) for b in bins if b["accuracy"] is not None)  # type: ignore[operator]
    return sum(gaps) / total if total else 0.0


def calibration_of(scores: Tensor, labels: Tensor) -> list[Bin]:
    """The reliability bins of scores (N, K) in [0, 1] against labels as `evaluate` takes them.

    Multi-label: every known (example, class) is one answer, its score the confidence that the class is there.
    """
    known = labels != -1
    if labels.ndim == 2:
        return reliability(scores[known], labels[known] > 0.5)
    confidence, predicted = scores[known].max(dim=1)
    return reliability(confidence, predicted == labels[known])


def _evaluate_one(scores: Tensor, labels: Tensor, classes: list[str]) -> Evaluation:
    known = (labels != -1).nonzero()[:, 0]
    chosen, truth = scores[known], labels[known].long()
    k, predicted = len(classes), chosen.argmax(dim=1)  # documented to take the first of equal scores
    confusion = reference.multiclass_confusion_matrix(predicted, truth, k)
    shares = {
        "precision": reference.multiclass_precision(predicted, truth, k, average="none"),
        "recall": reference.multiclass_recall(predicted, truth, k, average="none"),
        "f1": reference.multiclass_f1_score(predicted, truth, k, average="none"),
    }
    per_class = _per_class(classes, confusion.sum(dim=1), confusion.sum(dim=0), shares)
    bins = calibration_of(scores, labels)
    true_score = chosen.gather(1, truth[:, None])
    metrics = {"accuracy": (predicted == truth).double().mean().item()}
    if k > 5:  # among five, one of the first five is always right
        ahead = chosen > true_score
        ahead |= (chosen == true_score) & (torch.arange(k) < truth[:, None])
        metrics["top5_accuracy"] = (ahead.sum(dim=1) < 5).double().mean().item()
    metrics |= _macro(per_class, shares)
    metrics["nll"] = -_log(true_score).mean().item()
    metrics["ece"] = expected_calibration_error(bins)

    wrong = predicted != truth
    order = chosen.max(dim=1).values[wrong].argsort(descending=True, stable=True)
    return Evaluation(metrics, per_class, confusion, bins, known[wrong][order].tolist(), scores, labels)


def _evaluate_many(scores: Tensor, labels: Tensor, classes: list[str]) -> Evaluation:
    k, known = len(classes), labels != -1
    truth = torch.where(known, labels > 0.5, -1).long()
    predicted = (scores >= 0.5).long()
    shares = {
        "precision": reference.multilabel_precision(predicted, truth, k, average="none", ignore_index=-1),
        "recall": reference.multilabel_recall(predicted, truth, k, average="none", ignore_index=-1),
        "f1": reference.multilabel_f1_score(predicted, truth, k, average="none", ignore_index=-1),
        "ap": _average_precision(scores, truth),
    }
    per_class = _per_class(classes, (truth == 1).sum(dim=0), (predicted * known).sum(dim=0), shares)
    bins = calibration_of(scores, labels)
    macro = _macro(per_class, shares)
    whole = ((predicted == truth) | ~known)[known.any(dim=1)].all(dim=1)
    f1_micro = reference.multilabel_f1_score(predicted, truth, k, average="micro", ignore_index=-1)
    hamming = reference.multilabel_accuracy(predicted, truth, k, average="micro", ignore_index=-1)
    metrics = {
        "map": macro.pop("ap"),
        "f1_micro": f1_micro.item(),
        **macro,
        "subset_accuracy": whole.double().mean().item(),
        "hamming_accuracy": hamming.item(),
        "nll": -_log(torch.where(truth == 1, scores, 1 - scores)[known]).mean().item(),
        "ece": expected_calibration_error(bins),
    }
    error = torch.where(known, (scores - truth).abs(), -1).max(dim=1).values
    wrong = ((predicted != truth) & known).any(dim=1).nonzero()[:, 0]
    order = error[wrong].argsort(descending=True, stable=True)
    return Evaluation(metrics, per_class, None, bins, wrong[order].tolist(), scores, labels)


def _average_precision(scores: Tensor, truth: Tensor) -> Tensor:
    """Of each class, NaN without a positive."""
    values = []
    for column, target in zip(scores.T, truth.T, strict=True):
        if not (target == 1).any():
            values.append(torch.tensor(torch.nan))
        else:
            values.append(reference.binary_average_precision(column, target, ignore_index=-1))
    return torch.stack(values)


def _per_class(classes: list[str], truth: Tensor, predicted: Tensor, shares: dict[str, Tensor]) -> list[dict[str, Any]]:
    columns = {metric: values.tolist() for metric, values in shares.items()}
    return [
        {"class": name, "examples": n, "predicted": p}
        | {metric: values[i] if n else None for metric, values in columns.items()}
        for i, (name, n, p) in enumerate(zip(classes, truth.tolist(), predicted.tolist(), strict=True))
    ]


def _macro(per_class: list[dict[str, Any]], shares: dict[str, Tensor]) -> dict[str, float]:
    """Means over the classes that have examples; 0 where none has."""
    means = {}
    for metric in shares:
        values = [row[metric] for row in per_class if row[metric] is not None]
        means[metric] = sum(values) / len(values) if values else 0.0
    return means


def _log(probability: Tensor) -> Tensor:
    """A probability of 0 counts as the smallest positive float32, about 1e-38: 87 nats and not infinitely many."""
    return probability.double().clamp(min=torch.finfo(torch.float32).tiny).log()


def _check(scores: Tensor, labels: Tensor, classes: list[str]) -> None:
    if scores.ndim != 2 or scores.shape[1] != len(classes) or len(classes) < 2:
        raise InputError(
            f"scores of shape {tuple(scores.shape)} do not fit {len(classes)} classes; "
            "expected one column for each class, and two or more classes"
        )
    if labels.shape not in (scores.shape, scores.shape[:1]):
        raise InputError(
            f"labels of shape {tuple(labels.shape)} do not fit scores of shape {tuple(scores.shape)}; "
            f"expected ({len(scores)},), or {tuple(scores.shape)} for multi-label"
        )
    if not (labels != -1).any():
        raise InputError("there is nothing to evaluate: not one example has a label")
    wrong = (labels < -1) | (labels > (1 if labels.ndim == 2 else len(classes) - 1))
    if wrong.any():
        place = wrong.nonzero()[0].tolist()
        raise InputError(
            f"label {labels[tuple(place)].item()} of example {place[0]} is out of range; expected -1 (none) or "
            + ("0 to 1" if labels.ndim == 2 else f"0 to {len(classes) - 1}")
        )
    lost = (~scores.isfinite()).any(dim=1).nonzero()[:, 0]
    if len(lost):
        raise JobError(
            f"the model's scores are not finite for {len(lost)} of {len(scores)} examples, the first is number "
            f"{int(lost[0])}; its weights or its input hold NaN or infinity"
        )
    if len(scores) and (scores.min() < 0 or scores.max() > 1 + 1e-5):
        raise InputError(
            f"scores lie in [{scores.min():.3g}, {scores.max():.3g}], expected probabilities in [0, 1]; "
            "take softmax or sigmoid of logits first"
        )
