"""Boxes on images: where they should be, in the colour of their class, with words that can be read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from opsin.data.drawing import IGNORED, PALETTE
from opsin.data.masks import encode_masks
from opsin.detect import drawing
from opsin.detect.detector import Assignment
from opsin.structures import Instances

CLASSES = ["cat", "dog", "a very long name of a class that nobody would ever read to its end"]


def blank(height: int = 240, width: int = 400) -> torch.Tensor:
    return torch.full((3, height, width), 90, dtype=torch.uint8)


def colored(image: object, color: tuple[int, int, int]) -> np.ndarray:
    return (np.asarray(image) == color).all(axis=2)


def answer(*found: tuple[str, float, tuple[float, ...]]) -> dict[str, object]:
    return {"instances": [{"label": label, "score": score, "box": list(box)} for label, score, box in found]}


def test_a_box_is_where_it_should_be() -> None:
    image = drawing.annotate(blank(), answer(("dog", 0.9, (100, 60, 200, 160))), CLASSES)
    assert image.size == (400, 240)
    rows, columns = colored(image, PALETTE[1]).nonzero()
    assert (columns.min(), columns.max()) == (100, 199)  # x2 is exclusive
    assert rows.max() == 159
    inside = np.asarray(image)[65:155, 105:195]
    assert (inside == 90).all()


def test_a_mask_tints_what_it_covers() -> None:
    mask = torch.zeros(240, 400, dtype=torch.bool)
    mask[100:120, 130:170] = True
    told: Any = answer(("dog", 0.9, (100, 60, 200, 160)))
    told["instances"][0]["mask"] = encode_masks(mask[None])[0]
    image = np.asarray(drawing.annotate(blank()[:1], told, CLASSES))
    tinted = colored(image, tuple((90 + c) // 2 for c in PALETTE[1]))  # type: ignore[arg-type]
    assert np.array_equal(tinted, mask.numpy())


def test_every_class_has_its_colour_in_every_image() -> None:
    both = drawing.annotate(
        blank(), answer(("dog", 0.9, (10, 60, 90, 160)), ("cat", 0.8, (200, 60, 300, 160))), CLASSES
    )
    one = drawing.annotate(blank(), answer(("cat", 0.8, (200, 60, 300, 160))), CLASSES)
    np.testing.assert_array_equal(colored(both, PALETTE[0]), colored(one, PALETTE[0]))


def test_a_tiny_image_is_enlarged_with_its_boxes() -> None:
    image = drawing.annotate(blank(16, 32), answer(("cat", 0.5, (8, 4, 16, 12))), CLASSES)
    assert image.size == (320, 160)
    rows, columns = colored(image, PALETTE[0]).nonzero()
    assert columns.min() == 80
    assert rows.max() == 119


def test_words_never_cover_each_other_and_a_legend_names_what_has_none() -> None:
    crowd = answer(*[("cat", 0.9 - k / 100, (100 + k, 100, 160 + k, 140)) for k in range(40)])
    image = drawing.annotate(blank(), crowd, CLASSES)
    assert image.height > 240  # the legend
    few = drawing.annotate(blank(), answer(("cat", 0.9, (100, 100, 160, 140))), CLASSES)
    assert few.height == 240


@pytest.mark.parametrize(
    "box", [(-50, -50, 20, 20), (390, 230, 900, 900), (50, 50, 50, 50), (0, 0, 400, 240), (-9, -9, 999, 999)]
)
@pytest.mark.parametrize("label", [CLASSES[0], CLASSES[2]])
def test_any_box_can_be_drawn(box: tuple[float, ...], label: str) -> None:
    assert drawing.annotate(blank(), answer((label, 1.0, box)), CLASSES).width == 400


def test_nothing_found_leaves_the_image_as_it_is() -> None:
    image = drawing.annotate(blank(), {"instances": []}, CLASSES)
    assert (np.asarray(image) == 90).all()


def test_grey_images() -> None:
    assert drawing.annotate(torch.zeros(1, 300, 400, dtype=torch.uint8), {"instances": []}, CLASSES).mode == "RGB"


def test_a_comparison_tells_right_wrong_missed_and_ignored() -> None:
    truth = Instances(
        torch.tensor([[10.0, 10, 60, 60], [200, 10, 260, 60], [300, 100, 380, 200]]), torch.tensor([0, 1, -1])
    )
    found = Instances(
        torch.tensor([[10.0, 10, 60, 60], [100, 100, 150, 150]]), torch.tensor([0, 1]), torch.tensor([0.9, 0.8])
    )
    image = drawing.compare(blank(), truth, found, CLASSES, [0], [1], [1])
    for color, columns in ((drawing.RIGHT, (10, 59)), (drawing.MISSED, (200, 259)), (IGNORED, (300, 379))):
        found_columns = colored(image, color)[11:].any(axis=0).nonzero()[0]
        assert (found_columns.min(), found_columns.max()) == columns
    assert colored(image, drawing.WRONG)[100:151, 100:151].any()


def test_an_assignment_shows_positive_ignored_and_background() -> None:
    boxes = torch.tensor([[0.0, 0, 8, 8], [40, 40, 120, 120], [200, 100, 260, 160]])
    assignment = Assignment(boxes, torch.tensor([-1, 0, -2]))
    truth = Instances(torch.tensor([[44.0, 44, 110, 118]]), torch.tensor([1]))
    image = drawing.draw_assignment(blank(), assignment, truth, CLASSES)
    assert colored(image, drawing.RIGHT)[40:120, 40:120].any()
    assert colored(image, drawing.WRONG)[120:140, 220:240].any()
    assert colored(image, IGNORED)[:10, :10].any()
    assert not colored(image, drawing.WRONG)[100:104, 200:260].any()  # ignored ones are dots, no boxes
