"""Assigning a batch's truth to anchors, and choosing the best predictions without a look at the rest."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from opsin.detect.matching import assign_anchors, gather_positives
from opsin.detect.postprocess import Selection, select, select_candidates
from opsin.errors import InputError
from opsin.structures import Instances

ANCHORS = torch.tensor([[0.0, 0, 4, 4], [4, 0, 8, 4], [8, 0, 12, 4]])


def truth(boxes: list[list[float]], labels: list[int]) -> Instances:
    return Instances(torch.tensor(boxes).view(-1, 4), torch.tensor(labels, dtype=torch.int64))


def test_places_are_among_all_truths_of_an_image() -> None:
    # The region is first: the truths keep their places behind it.
    one = truth([[0, 0, 4, 4], [8, 0, 12, 3], [4, 0, 8, 3]], [-1, 1, 0])
    assigned = assign_anchors(ANCHORS, [one, truth([], []), Instances(torch.zeros(0, 4))], 2)
    assert [a.matched.tolist() for a in assigned] == [[-2, 2, 1], [-1, -1, -1], [-1, -1, -1]]
    hits = gather_positives(assigned, [one, truth([], []), Instances(torch.zeros(0, 4))])
    assert hits.rows.tolist() == [0, 0]
    assert hits.places.tolist() == [1, 2]
    assert hits.labels.tolist() == [0, 1]
    assert hits.boxes.tolist() == [[4, 0, 8, 3], [8, 0, 12, 3]]


def test_positives_of_later_images_have_their_own_truth() -> None:
    targets = [truth([[0, 0, 4, 4]], [1]), truth([], []), truth([[4, 0, 8, 4], [0, 0, 4, 4]], [0, 2])]
    hits = gather_positives(assign_anchors(ANCHORS, targets, 3), targets)
    assert list(zip(hits.rows.tolist(), hits.places.tolist(), hits.labels.tolist(), strict=True)) == [
        (0, 0, 1),
        (2, 0, 2),
        (2, 1, 0),
    ]


def test_the_last_of_those_with_one_best_anchor_gets_it() -> None:
    # Both are best on the first anchor, 3/4 and 1/2; the third is best on the last one, 1/4. A region and a truth
    # without area play no part.
    one = truth([[0, 0, 12, 4], [0, 0, 4, 3], [0, 0, 4, 2], [8, 0, 12, 1], [5, 1, 5, 3]], [-1, 1, 0, 1, 0])
    assert assign_anchors(ANCHORS, [one], 2, rescue="last")[0].matched.tolist() == [2, -2, 3]
    assert assign_anchors(ANCHORS, [one], 2, rescue=None)[0].matched.tolist() == [1, -2, -2]
    for nothing in (truth([], []), truth([[0, 0, 4, 4]], [-1]), truth([[20, 0, 24, 4]], [0])):
        assert max(assign_anchors(ANCHORS, [nothing], 2, rescue="last")[0].matched.tolist()) < 0
    assert assign_anchors(ANCHORS[:0], [one], 2, rescue="last")[0].matched.tolist() == []


def test_truths_without_labels_are_regions_to_ignore() -> None:
    one = Instances(torch.tensor([[0.0, 0, 4, 4]]))
    assert assign_anchors(ANCHORS, [one], 2)[0].matched.tolist() == [-2, -1, -1]


def test_a_label_without_a_class_is_named() -> None:
    with pytest.raises(InputError, match=r"label 3.*num_classes=4"):
        assign_anchors(ANCHORS, [truth([[0, 0, 4, 4]], [3])], 3)


# Choosing


def predictions(count: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 60
    boxes = torch.cat([corner, corner + 5 + 20 * torch.rand(count, 2, generator=generator)], dim=1)
    return boxes, torch.rand(count, classes, generator=generator) ** 4


def choose(boxes: Tensor, scores: Tensor, selection: Selection, levels: Tensor | None = None) -> Instances:
    return select_candidates(
        scores.amax(dim=1), lambda places: scores[places], lambda places: boxes[places], selection, levels
    )


@pytest.mark.parametrize("limit", [1, 5, 40, 10_000])
@pytest.mark.parametrize("count", [1, 3, 400, 3000])
def test_it_finds_what_a_look_at_all_finds(count: int, limit: int) -> None:
    boxes, scores = predictions(count, 3, count)
    selection = Selection(0.1, 0.3, candidates=10**6, limit=limit)
    expected, found = select(boxes, scores, selection), choose(boxes, scores, selection)
    assert torch.equal(found.boxes, expected.boxes)
    assert torch.equal(found.labels, expected.labels)  # type: ignore[arg-type]
    assert torch.equal(found.scores, expected.scores)  # type: ignore[arg-type]


def test_crowds_that_suppress_nearly_all_are_looked_through() -> None:
    boxes, scores = predictions(3000, 2, 0)
    boxes = boxes.clone()
    boxes[scores.amax(dim=1).argsort(descending=True)[:2500]] = torch.tensor([0.0, 0, 9, 9])
    selection = Selection(0.01, 0.5, candidates=10**6, limit=20)
    assert torch.equal(choose(boxes, scores, selection).boxes, select(boxes, scores, selection).boxes)


def test_equal_scores_are_all_seen() -> None:
    boxes, scores = predictions(500, 2, 1)
    scores = torch.full_like(scores, 0.5)
    selection = Selection(0.1, 1.0, candidates=10**6, limit=10**6)
    assert len(choose(boxes, scores, selection)) == 1000
    assert len(choose(boxes, scores, replace(selection, limit=7))) == 7


def test_candidates_are_of_each_group() -> None:
    boxes, scores = predictions(400, 3, 2)
    selection = Selection(0.0, 1.0, candidates=10, limit=1000)
    found = choose(boxes, scores, selection)
    assert torch.bincount(found.labels).tolist() == [10, 10, 10]  # type: ignore[arg-type]
    for label in range(3):
        own = found.scores[found.labels == label]  # type: ignore[index]
        assert torch.equal(own, scores[:, label].topk(10).values)
    levels = torch.arange(400) // 300
    found = choose(boxes, scores, selection, levels)
    for level in range(2):
        wanted = scores[levels == level].flatten().topk(10).values
        own = torch.cat([found.scores[(found.boxes == box).all(dim=1)] for box in boxes[levels == level]])  # type: ignore[index]
        assert torch.equal(own.sort(descending=True).values, wanted)


def test_nothing_certain_and_no_places() -> None:
    boxes, scores = predictions(50, 3, 3)
    assert len(choose(boxes, scores * 0.01, Selection(0.5))) == 0
    assert len(choose(boxes[:0], scores[:0], Selection())) == 0


@pytest.mark.parametrize("method", ["diou", "linear", "gaussian"])
def test_other_suppressions(method: str) -> None:
    boxes, scores = predictions(200, 2, 4)
    selection = Selection(0.05, 0.3, candidates=10**6, limit=30, suppression=method)  # type: ignore[arg-type]
    expected, found = select(boxes, scores, selection), choose(boxes, scores, selection)
    assert torch.equal(found.boxes, expected.boxes)
    assert torch.equal(found.scores, expected.scores)  # type: ignore[arg-type]
