"""The report of a segmenter: what its tables say, and that a wrong pixel is seen to be wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from opsin.data import Split
from opsin.data.class_maps import ClassMaps, MapArray
from opsin.data.inputs import ImageArray
from opsin.engine.report import Figure, Gallery, Section, Table, Text, render
from opsin.segment import report
from opsin.segment.borders import ErrorsByDistance
from opsin.segment.evaluate import WorstMaps
from opsin.segment.metrics import Counts, confusion_matrix, evaluate

pytestmark = pytest.mark.rendered

CLASSES = ["sky", "road", "never"]


def scene(right: bool = False) -> list[Section]:
    random = np.random.default_rng(0)
    maps = random.integers(0, 2, (4, 16, 20)).astype(np.uint8)
    found = maps.copy()
    if not right:
        for i in range(4):
            found[i, : 2 * i + 1] = 0
    maps[:, -1] = 255
    images = torch.from_numpy(random.integers(0, 256, (4, 3, 16, 20)).astype(np.uint8))
    split = Split(ImageArray(images, "scene"), ClassMaps(MapArray(maps), CLASSES))
    worst, errors, matrices = WorstMaps(2), ErrorsByDistance(), []
    for i in range(4):
        matrices.append(confusion_matrix(maps[i], found[i], 3))
        worst.add(i, Counts.of(matrices[i]).miou, found[i])
        errors.add(maps[i], found[i])
    evaluation = evaluate(CLASSES, [Counts.of(one) for one in matrices], np.sum(matrices, axis=0))
    return report.sections(evaluation, split, CLASSES, worst.maps(), errors)


def test_sections() -> None:
    sections = scene()
    assert [section.title for section in sections] == [
        *("Classes", "Confusion matrix", "Most frequent confusions", "Errors by distance from a border"),
        *("Worst images", "How to read the numbers"),
    ]
    table, confusions, gallery = (
        next(s for s in sections if s.title == t) for t in ("Classes", "Most frequent confusions", "Worst images")
    )
    assert isinstance(table, Table) and isinstance(confusions, Table) and isinstance(gallery, Gallery)
    assert table.columns == ["class", "pixels", "of all", "IoU", "Dice", "precision", "recall"]
    assert table.rows[2] == ["never", 0, "0.00 %", None, None, None, None]
    assert sum(row[1] for row in table.rows if isinstance(row[1], int)) == 4 * 15 * 20
    assert [row[:2] for row in confusions.rows] == [["road", "sky"]]
    assert [item.caption.split("\n")[1] for item in gallery.items] == ["scene[3]", "scene[2]"]
    page = render("Report", {}, sections)
    assert "mIoU" in page and "adapted rand" not in page


def test_nothing_wrong() -> None:
    sections = scene(right=True)
    assert "Most frequent confusions" not in [section.title for section in sections]
    (worst,) = (section for section in sections if section.title == "Worst images")
    assert isinstance(worst, Text) and "every pixel" in worst.body


def test_wrong_pixels_are_orange_and_unknown_ones_grey() -> None:
    image, truth = torch.full((3, 4, 5), 100, dtype=torch.uint8), np.zeros((4, 5), np.uint8)
    found = truth.copy()
    truth[0], found[3, 2] = 255, 1
    found[0, 0] = 1
    drawn = report.paint_errors(image, truth, found)
    assert drawn[:, 3, 2].tolist() == [213, 94, 0]
    assert drawn[:, 0, 0].tolist() == drawn[:, 0, 4].tolist() == [150, 150, 150]
    assert drawn[:, 1, 1].tolist() == [146, 146, 146]
    planes = report.paint_errors(image, np.zeros((2, 4, 5), bool), np.stack([found == 1, found == 1]))
    assert (planes == torch.tensor([213, 94, 0])[:, None, None]).all(dim=0).sum() == 2


def test_the_chart_of_errors_says_how_many_are_near_a_border() -> None:
    errors = ErrorsByDistance()
    errors.pixels[[0, 5, 64]], errors.wrong[[0, 5]] = [10, 10, 10], [6, 2]
    chart = report.error_map(errors)
    assert isinstance(chart, Figure)
    assert chart.caption.startswith("75 % of all wrong pixels")


@pytest.mark.parametrize("size", [(1, 1), (40, 900)])
def test_images_of_any_size_are_compared(size: tuple[int, int]) -> None:
    image, truth = torch.zeros(1, *size, dtype=torch.uint8), np.zeros(size, np.uint8)
    drawn = report.compare(image, truth, truth, CLASSES, [(1, 2, 3)] * 3)
    assert drawn.width <= 2 * 320 + 4
