"""ICDAR's protocols for lines of text: scenes worked by hand."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from opsin.detect.text_hmean import deteval_matches, icdar_matches, text_metrics
from opsin.structures import Instances


def quad(x1: float, y1: float, x2: float, y2: float) -> np.ndarray:
    return np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], float)


def counts(lines: list[Any], found: list[Any], ignored: list[bool]) -> tuple[float, float, int, int]:
    return icdar_matches([quad(*one) for one in lines], [quad(*one) for one in found], np.array(ignored, bool))[:4]


def deteval(lines: list[Any], found: list[Any], ignored: list[bool] | None = None) -> tuple[float, float, int, int]:
    boxes, others = (np.array(one, float).reshape(-1, 4) for one in (lines, found))
    return deteval_matches(boxes, others, np.array(ignored or [False] * len(lines), bool))[:4]


def test_icdar_pairs_need_more_than_half() -> None:
    line = (0, 0, 30, 10)
    assert counts([line], [(0, 0, 30, 10)], [False]) == (1, 1, 1, 1)
    assert counts([line], [(0, 0, 15, 10)], [False]) == (0, 0, 1, 1)  # exactly 0.5
    assert counts([line], [(0, 0, 16, 10)], [False]) == (1, 1, 1, 1)
    # One to one: the second on the same line is wrong, and one quad finds one line.
    assert counts([line], [line, line], [False]) == (1, 1, 1, 2)
    assert counts([line, line], [line], [False, False]) == (1, 1, 2, 1)
    assert counts([], [line], []) == (0, 0, 0, 1)
    assert counts([line], [], [False]) == (0, 0, 1, 0)


def test_icdar_ignores_what_lies_on_lines_to_ignore() -> None:
    line, region = (0, 0, 30, 10), (100, 0, 200, 50)
    assert counts([line, region], [line, (110, 5, 130, 15), (90, 0, 109, 10)], [False, True]) == (1, 1, 1, 2)
    assert counts([region], [region], [True]) == (0, 0, 0, 0)


def test_deteval_knows_three_kinds_of_matches() -> None:
    line = (0, 0, 100, 10)
    assert deteval([line], [(0, 0, 85, 10)]) == (1, 1, 1, 1)
    assert deteval([line], [(0, 0, 79, 10)]) == (0, 0, 1, 1)  # 0.79 of the line
    assert deteval([line], [(0, 0, 100, 26)]) == (0, 0, 1, 1)  # 0.38 of the box
    # In two parts: the line counts 0.8, and so does each part.
    assert deteval([line], [(0, 0, 50, 10), (50, 0, 100, 10)]) == (0.8, 1.6, 1, 2)
    # Three lines by one box: all are found, and the box is right.
    lines = [line, (0, 12, 100, 22), (0, 24, 100, 34)]
    assert deteval(lines, [(0, 0, 100, 34)]) == (3, 1, 3, 1)
    # Of two lines each has 0.45 of the box: as in the script the first is taken for one in a single part.
    assert deteval(lines[:2], [(0, 0, 100, 22)]) == (1, 1, 2, 1)
    # Two boxes fit one line: not one to one, but then in parts.
    assert deteval([line], [line, (0, 0, 90, 10)]) == (0.8, 1.6, 1, 2)
    assert deteval([line], [(0, 0, 100, 10)], [True]) == (0, 0, 0, 0)
    assert deteval([], [line], []) == (0, 0, 0, 1)


def test_metrics_of_two_images() -> None:
    one = Instances(torch.tensor([[0.0, 0, 30, 10], [0, 20, 30, 30]]), torch.tensor([0, 0]))
    two = Instances(torch.tensor([[0.0, 0, 30, 10], [50, 50, 90, 90]]), torch.tensor([0, -1]))
    found = [
        Instances(torch.tensor([[0.0, 0, 30, 10], [0, 40, 30, 50]]), torch.tensor([0, 0]), torch.tensor([0.9, 0.8])),
        Instances(torch.tensor([[0.0, 0, 24, 10], [0, 0, 30, 10]]), torch.tensor([0, 0]), torch.tensor([0.7, 0.2])),
    ]
    metrics = text_metrics([one, two], found, 0.5)
    # 2 of 3 lines, 2 of 3 found; IoU 1 and 0.8.
    assert metrics == pytest.approx(
        {
            "hmean": 2 / 3,
            "hmean_precision": 2 / 3,
            "hmean_recall": 2 / 3,
            "deteval_hmean": 2 / 3,
            "deteval_precision": 2 / 3,
            "deteval_recall": 2 / 3,
            "matched_iou": 0.9,
        }
    )
    slanted = Instances(
        torch.tensor([[0.0, 0, 40, 40]]),
        torch.tensor([0]),
        polygons=[torch.tensor([[0.0, 0], [40, 30], [40, 40], [0, 10]])],
    )
    level = Instances(torch.tensor([[0.0, 0, 40, 40]]), torch.tensor([0]), torch.tensor([1.0]))
    assert text_metrics([slanted], [level], 0.5)["hmean"] == 0  # IoU of quads: 400 / 1600
    assert text_metrics([Instances(torch.zeros(0, 4))], [level], 0.5) == {}


@pytest.mark.skipif("OPSIN_DATA" not in os.environ, reason="OPSIN_DATA names no folder of data sets")
def test_the_truth_of_two_competitions_finds_itself() -> None:
    folder, truth = Path(os.environ["OPSIN_DATA"]) / "icdar_gt", {"13": [], "15": []}
    for year, images in truth.items():
        with zipfile.ZipFile(folder / f"gt_IC{year}.zip") as archive:
            for name in archive.namelist()[:60]:
                images.append(_read(archive.read(name).decode("utf-8-sig"), 8 if year == "15" else 4))
    for images in truth.values():
        found = [Instances(one.boxes, one.labels, torch.ones(len(one)), polygons=one.polygons) for one in images]
        metrics = text_metrics(images, found, 0.5)
        assert metrics["hmean"] == 1 and metrics["matched_iou"] == pytest.approx(1)
        assert metrics["deteval_hmean"] == pytest.approx(1, abs=0.01)  # a word may lie upon another
    kept = [one[torch.arange(len(one)) % 2 == 0] for one in truth["15"]]
    halves = [Instances(one.boxes, one.labels, torch.ones(len(one)), polygons=one.polygons) for one in kept]
    lines = sum(int((one.labels >= 0).sum()) for one in truth["15"])  # type: ignore[operator]
    wanted = sum(int((one.labels >= 0).sum()) for one in kept) / lines  # type: ignore[operator]
    assert text_metrics(truth["15"], halves, 0.5)["hmean_recall"] == pytest.approx(wanted)


def _read(text: str, count: int) -> Instances:
    """A file of `x, y, ... , text`, of corners or of two."""
    rows = [line.split(",", count) for line in text.splitlines() if line.strip()]
    numbers = torch.tensor([[float(value) for value in row[:count]] for row in rows]).reshape(-1, count // 2, 2)
    labels = torch.tensor([-1 if row[count].strip() == "###" else 0 for row in rows])
    boxes = torch.cat([numbers.amin(dim=1), numbers.amax(dim=1)], dim=1)
    return Instances(boxes, labels, polygons=list(numbers) if count == 8 else None)
