"""The curves of a detector's report: heights worked by hand, and a class of which nothing was found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from opsin.detect import report
from opsin.detect.metrics import Evaluation, evaluate
from opsin.engine.report import Gallery, Text
from opsin.structures import Instances

pytestmark = pytest.mark.rendered

Curve = Callable[[int], tuple[list[float], list[float]]]


def scene() -> Evaluation:
    """Of "a" two objects, found first and third of three predictions; of "b" one object and no prediction."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]])
    nothing_there = torch.tensor([[60.0, 0, 70, 10]])
    truth = Instances(boxes, torch.tensor([0, 0, 1]))
    found = Instances(
        torch.cat([boxes[:1], nothing_there, boxes[1:2]]),
        torch.zeros(3, dtype=torch.int64),
        torch.tensor([0.9, 0.8, 0.7]),
    )
    return evaluate([truth], [found], ["a", "b"])


def test_precision_and_recall_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    curves: list[Curve] = []

    def keep(evaluation: Evaluation, curve: Curve, *_: Any, **options: Any) -> bytes:
        curves.append(curve)
        return b""

    monkeypatch.setattr(report, "_class_curves", keep)
    report.precision_recall(scene())
    recall, precision = curves[0](0)
    assert recall == [0, 1 / 2, 1 / 2, 1]  # of 1 in 1, 1 in 2, 2 in 3 predictions
    assert precision == [1, 1, 2 / 3, 2 / 3]  # the best at that recall or a higher one: not 1 / 2 at the second
    assert curves[0](1) == ([0.0], [0.0])


def test_a_class_of_which_nothing_was_found_is_drawn() -> None:
    evaluation = scene()
    for figure in (report.precision_recall(evaluation), report.f1_curves(evaluation)):
        assert b"<svg" in figure.image


class Grey:
    """An image of one colour for each place."""

    def read(self, index: int) -> torch.Tensor:
        return torch.full((3, 10, 70), 128, dtype=torch.uint8)

    def name(self, index: int) -> str:
        return f"{index}.png"


def test_worst_images_are_those_with_errors() -> None:
    boxes, label = torch.tensor([[0.0, 0, 10, 10]]), torch.zeros(1, dtype=torch.int64)
    right = Instances(boxes, label, torch.ones(1))
    both = torch.cat([boxes + 30, boxes + 50])  # beside the object, which is missed: three errors
    wrong = Instances(both, torch.zeros(2, dtype=torch.int64), torch.ones(2))
    truth = Instances(boxes, label)
    none = report.worst_images(evaluate([truth], [right], ["a"]), Grey())
    assert isinstance(none, Text) and none.body == "None: all 1 objects were found, and nothing else."
    found = report.worst_images(
        evaluate([truth] * 3, [right, Instances(boxes[:0], label[:0], torch.ones(0)), wrong], ["a"]), Grey()
    )
    assert isinstance(found, Gallery)
    assert [item.caption for item in found.items] == [
        "2 wrong, 1 missed, 0 right\n2.png",
        "0 wrong, 1 missed, 0 right\n1.png",
    ]
