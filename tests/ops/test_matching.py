"""Matching: the two rules by hand, by torchvision, and by loops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.models.detection import _utils
from torchvision.ops import box_iou

from opsin.errors import InputError
from opsin.ops.matching import match_anchors

# An image of 8x4, cut into two squares; boxes over them with IoUs that are fractions.
ANCHORS = torch.tensor([[0.0, 0, 4, 4], [4, 0, 8, 4]])


def boxes(*values: list[float]) -> Tensor:
    return torch.tensor(values).view(-1, 4)


def test_an_anchor_answers_from_the_threshold_on() -> None:
    found = boxes([0, 0, 4, 2], [4, 0, 8, 1])  # 1/2 of the first anchor, 1/4 of the second
    assert match_anchors(found, ANCHORS, rescue=None).tolist() == [0, -1]
    assert match_anchors(found, ANCHORS, rescue=None, positive=0.51).tolist() == [-1, -1]
    assert match_anchors(found, ANCHORS, rescue=None, positive=0.51, negative=0.25).tolist() == [-2, -2]
    assert match_anchors(found, ANCHORS, rescue=None, positive=0.51, negative=0.26).tolist() == [-2, -1]


def test_the_second_rule_brings_every_box_to_an_anchor() -> None:
    found = boxes([0, 0, 4, 1], [4, 0, 8, 1])
    assert match_anchors(found, ANCHORS).tolist() == [0, 1]
    assert match_anchors(found, ANCHORS, rescue="ties").tolist() == [0, 1]
    assert match_anchors(found, ANCHORS, rescue=None).tolist() == [-1, -1]


def test_two_boxes_with_one_best_anchor_get_one_each() -> None:
    # Both are best on the first anchor, 3/4 and 1/2; the loser goes to the second, which it overlaps by 1/8 of its own.
    found = boxes([0, 0, 4.5, 2], [0, 0, 4, 3])
    assert match_anchors(found, ANCHORS).tolist() == [1, 0]
    assert match_anchors(found.flip(0), ANCHORS).tolist() == [0, 1]
    # Without a free one that it overlaps it stays nobody's.
    assert match_anchors(boxes([0, 0, 4, 2], [0, 0, 4, 3]), ANCHORS).tolist() == [1, -1]


def test_ties_answer_for_what_they_overlap_most() -> None:
    found = boxes([2, 0, 6, 4], [4, 0, 8, 3])  # the first box has 1/3 with both anchors, the second 3/4 with one
    assert match_anchors(found, ANCHORS, rescue="ties", negative=0.4).tolist() == [0, 1]
    assert match_anchors(found, ANCHORS, rescue="own", negative=0.4).tolist() == [0, 1]


def test_boxes_without_area_or_overlap_are_nobodys() -> None:
    for found in (boxes([1, 1, 1, 3]), boxes([3, 3, 1, 1]), boxes([20, 20, 24, 24]), boxes([float("nan")] * 4)):
        for rescue in ("own", "ties", None):
            assert match_anchors(found, ANCHORS, rescue=rescue).tolist() == [-1, -1]  # type: ignore[arg-type]


def test_no_boxes_and_no_anchors() -> None:
    assert match_anchors(boxes(), ANCHORS).tolist() == [-1, -1]
    assert match_anchors(ANCHORS, boxes()).tolist() == []
    assert match_anchors(boxes(), ANCHORS, ignored=boxes()).tolist() == [-1, -1]


def test_regions_to_ignore() -> None:
    region = boxes([0, 0, 6, 4])  # all of the first, half of the second
    assert match_anchors(boxes(), ANCHORS, ignored=region).tolist() == [-2, -1]
    assert match_anchors(boxes(), ANCHORS, ignored=boxes([0, 0, 6.1, 4])).tolist() == [-2, -2]
    assert match_anchors(boxes([0, 0, 4, 3]), ANCHORS, ignored=region).tolist() == [0, -1]


def scene(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def some(n: int) -> Tensor:
        centre = torch.rand(n, 2, generator=generator) * 100
        sides = torch.rand(n, 2, generator=generator) * 40 + 2
        return torch.cat([centre - sides / 2, centre + sides / 2], dim=1)

    return some(count), some(700)


@pytest.mark.parametrize("count", [1, 7, 150])
def test_equal_to_torchvision(count: int) -> None:
    found, anchors = scene(count, count)
    overlap = box_iou(found, anchors)
    expected = _utils.Matcher(0.5, 0.4, allow_low_quality_matches=True)(overlap)
    assert torch.equal(match_anchors(found, anchors, negative=0.4, rescue="ties"), expected)
    expected = _utils.Matcher(0.5, 0.5)(overlap)
    assert torch.equal(match_anchors(found, anchors, rescue=None), expected)
    if len(overlap.argmax(dim=1).unique()) == count:  # else torchvision leaves some box without
        assert torch.equal(match_anchors(found, anchors), _utils.SSDMatcher(0.5)(overlap))


@pytest.mark.parametrize("count", [1, 40, 150])
def test_own_anchors_are_given_by_falling_overlap(count: int) -> None:
    found, anchors = scene(count, count)
    expected = match_anchors(found, anchors, rescue=None)
    overlap = box_iou(found, anchors)
    while overlap.max() > 0:
        box, anchor = divmod(int(overlap.argmax()), len(anchors))
        expected[anchor] = box
        overlap[box] = overlap[:, anchor] = 0
    assert torch.equal(match_anchors(found, anchors), expected)


def test_errors() -> None:
    with pytest.raises(InputError, match="0 <= negative <= positive"):
        match_anchors(boxes(), ANCHORS, positive=0.4, negative=0.5)
    with pytest.raises(InputError, match="rescue"):
        match_anchors(boxes(), ANCHORS, rescue="best")  # type: ignore[arg-type]
