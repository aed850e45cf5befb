"""Evaluation of a file of class predictions, of whatever tool, against a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from opsin.classify.metrics import Evaluation, evaluate, expected_calibration_error, reliability
from opsin.classify.prediction_files import Prediction, Predictions, read_predictions
from opsin.data import Source
from opsin.data.class_names import class_names, translate
from opsin.data.source import listed
from opsin.engine.evaluator import Result
from opsin.engine.image_names import ImageNames
from opsin.errors import InputError, say

_OF_SCORES = ("nll", "ece", "top5_accuracy")  # what labels alone say nothing of


def score(path: Path, source: Source, split: str, *, multi_label: bool = False) -> Result:
    """What a file of class predictions is worth on a split of a source, by the rules of `opsin.classify.metrics`.

    With the probabilities of all classes every metric; with the best few of each image, as `opsin predict --json` lists
    them, all but nll; with a label and its score not top5_accuracy either, and with labels alone no ece. Every image of
    the split has one prediction. A class that the data does not have makes a prediction wrong, with a line.
    multi_label: an image has any number of classes. Raises InputError for a file that is none, that lacks images, or
    that has images which the data does not have.
    """
    chosen, classes = source.splits[split], list(source.classes)
    truth = torch.from_numpy(chosen.kind.labels)
    found = read_predictions(path, classes)
    rows = _by_image(found, path, source, split, several=multi_label)
    if found.classes:
        scores = torch.tensor([one.probabilities for one in rows], dtype=torch.float64)
        extra = [name for name in found.classes if name not in classes] if truth.ndim == 1 else []
        order = [found.classes.index(name) for name in [*classes, *extra]]
        if extra:
            _say_extra(extra)
        evaluation = evaluate(scores[:, order], truth, [*classes, *extra])
    else:
        spoken, names = _names(found, rows, classes, source.name)
        number = {name: label for label, name in enumerate(spoken)}
        evaluation = (_decided if multi_label else _labelled)(rows, truth, number, names)
    details = {key: value for key, value in evaluation.to_dict().items() if key not in ("metrics", "mistakes")}
    unread = f", {found.unread} images that the tool could not read" if found.unread else ""
    return Result(evaluation.metrics, details, evaluation, data=f"; {len(rows):,} predictions ({found.form}){unread}")


def _by_image(found: Predictions, path: Path, source: Source, split: str, *, several: bool) -> list[Prediction]:
    """The prediction for each image of the split, in its order; of several rows for an image the labels together."""
    names, chosen = ImageNames(source, split), source.splits[split]
    by_place: dict[int, Prediction] = {}
    for one in found.rows:
        place = names.find(one.image, one.place)
        if place is None:
            continue
        before = by_place.setdefault(place, one)
        if before is one:
            continue
        if not several or found.classes:
            raise InputError(f"{one.place}: {chosen.name(place)} has a prediction already, at {before.place}")
        before.labels += one.labels
    names.check(path, "predictions")
    missing = [i for i in range(len(chosen)) if i not in by_place]
    if missing:
        raise InputError(
            f"{path} has no prediction for {len(missing):,} of {len(chosen):,} images of the {split} split of "
            f"{source.name}, the first is {chosen.name(missing[0])}; predict them, or give the --split that it is of"
        )
    return [by_place[i] for i in range(len(chosen))]


def _say_extra(names: Sequence[str]) -> None:
    what = "classes of the file are not in the truth, and wrong wherever they are predicted"
    say(f"{len(names)} {what}: {listed(names)}")


def _names(
    found: Predictions, rows: Sequence[Prediction], classes: list[str], source: str
) -> tuple[list[str], list[str]]:
    """The classes, the truth's first and behind them those that it does not have: as the file calls them, by name."""
    said = list(dict.fromkeys(name for one in rows for name in (*one.labels, *(n for n, _ in one.ranked))))
    spoken, numbers = classes, [str(label) for label in range(len(classes))]
    if not set(said) & set(classes):
        english = translate(classes, class_names("imagenet1k", 1000)) if classes[0].startswith("n0") else classes
        if set(said) & set(english):
            spoken = english
        elif found.numbered or set(said) <= set(numbers):
            order = ", ".join(f"{label} {name}" for label, name in enumerate(classes[:10]))
            say(f"class numbers are taken as places among the classes of {source}: {order}")
            spoken = numbers
        else:
            raise InputError(
                f"no label of the file is a class of {source}: it has {listed(said)}, not {listed(classes)}"
            )
    extra = [name for name in said if name not in spoken]
    if extra:
        _say_extra(extra)
    return [*spoken, *extra], [*classes, *extra]


def _labelled(rows: Sequence[Prediction], truth: Tensor, number: Mapping[str, int], names: list[str]) -> Evaluation:
    """Of one label an image, and what the scores that are listed beside it say."""
    for one in rows:
        if len(one.labels) != 1:
            raise InputError(f"{one.place}: {len(one.labels)} labels; expected one, or the option multi_label")
    labels = torch.tensor([number[one.labels[0]] for one in rows])
    evaluation = evaluate(torch.eye(len(names), dtype=torch.float32)[labels], truth, names)
    metrics = {name: value for name, value in evaluation.metrics.items() if name not in _OF_SCORES}
    known = truth != -1
    least = min(5, len(names))
    if len(names) > 5 and all(len(one.ranked) >= least for one in rows):
        pairs = zip(rows, truth.tolist(), strict=True)
        hits = [any(number[name] == label for name, _ in one.ranked[:5]) for one, label in pairs if label != -1]
        metrics["top5_accuracy"] = sum(hits) / len(hits)
    evaluation.reliability = []
    if all(one.ranked for one in rows):
        sure = torch.tensor([one.ranked[0][1] for one in rows], dtype=torch.float64)
        _check_probabilities(sure, rows)
        evaluation.reliability = reliability(sure[known], (labels == truth)[known])
        metrics["ece"] = expected_calibration_error(evaluation.reliability)
    evaluation.metrics = metrics
    return evaluation


def _check_probabilities(scores: Tensor, rows: Sequence[Prediction]) -> None:
    wrong = ((scores < 0) | (scores > 1 + 1e-5)).nonzero()[:, 0].tolist()
    if wrong:
        raise InputError(
            f"{rows[wrong[0]].place}: the score is {scores[wrong[0]]:g}; expected a probability from 0 to 1: take the "
            "softmax of logits, or leave the column out"
        )


def _decided(rows: Sequence[Prediction], truth: Tensor, number: Mapping[str, int], names: list[str]) -> Evaluation:
    """Of any number of labels an image; what ranks classes or measures confidence needs their probabilities."""
    scores = torch.zeros(len(rows), len(names))
    for row, one in enumerate(rows):
        scores[row, [number[name] for name in one.labels]] = 1.0
    padded = torch.zeros_like(scores)
    padded[:, : truth.shape[1]] = truth
    evaluation = evaluate(scores, padded, names)
    for name in ("map", "nll", "ece"):
        evaluation.metrics.pop(name, None)
    for one in evaluation.per_class:
        one.pop("ap", None)
    evaluation.reliability = []
    return evaluation
