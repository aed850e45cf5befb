"""Suppression: torchvision's indices from every way of finding them, and soft-NMS by a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor

from opsin.errors import InputError
from opsin.ops import batched_nms, diou_nms, nms, non_maximum_suppression, overlapping_pairs, pairwise_iou, soft_nms
from opsin.ops.iou import numpy_columns

THRESHOLDS = [0.0, 0.04, 0.1, 0.25, 1 / 3, 0.5, 0.7, 0.75, 0.95, 1.0]
KINDS = ["spread", "heaps", "one heap", "ties and flat", "chain", "all sizes", "lines of text"]


def scene(kind: str, count: int, random: np.random.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
    """Boxes (N, 4) of one kind, some 10 pixels apart."""
    centres = random.random((count, 2)) * 10
    sides = np.exp(random.normal(0, 0.3, (count, 2)))
    if kind == "heaps":
        heap = random.integers(0, max(1, count // 12), count)
        centres = centres[heap] + random.normal(0, 0.1, (count, 2))
    elif kind == "one heap":
        centres = random.normal(0, 0.1, (count, 2))
    elif kind == "ties and flat":  # equal boxes, IoUs that are fractions, and sides of 0 and below
        centres, sides = random.integers(0, 7, (count, 2)) / 1.0, random.integers(-1, 6, (count, 2)) / 1.0
    elif kind == "chain":
        centres, sides = np.cumsum(np.full((count, 2), 0.2), axis=0), np.ones((count, 2))
    elif kind == "all sizes":
        sides = np.exp(random.normal(0, 2, (count, 2)))
    elif kind == "lines of text":
        centres, sides = centres * [100, 0.1], sides * [10, 0.1]
    return torch.from_numpy(np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)).to(dtype)


def scores_for(count: int, random: np.random.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
    """Either all different, or many equal, 0 and -0 among them."""
    values = random.random(count) if random.random() < 0.5 else random.integers(-3, 4, count) / 4 * -1.0
    return torch.from_numpy(values).to(dtype)


@pytest.fixture(params=["everywhere a grid", "small steps", "as it is"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every path through the code, on scenes small enough to be quick."""
    if request.param != "as it is":
        pairs, chunk = (1e9, 1 << 16) if request.param == "everywhere a grid" else (2, 50)
        settings = {"_FEW": 0, "_HEAD": 7, "_CROWDED": 0, "_NEIGHBOURS": math.inf, "_PAIRS": pairs}
        for name, value in settings.items():
            monkeypatch.setattr(non_maximum_suppression, name, value)
        monkeypatch.setattr(overlapping_pairs, "_CHUNK", chunk)
    return request.param


@pytest.mark.parametrize("kind", KINDS)
def test_is_torchvisions(kind: str, way: str) -> None:
    random = np.random.default_rng(KINDS.index(kind))
    for count in (0, 1, 2, 40, 300):
        for threshold in THRESHOLDS:
            dtype = torch.float32 if random.random() < 0.7 else torch.float64
            boxes = scene(kind, count, random, dtype) * 10.0 ** random.integers(-3, 4) + random.choice([0, 1e4])
            scores = scores_for(count, random, dtype)
            expected = torchvision.ops.nms(boxes, scores, threshold)
            assert torch.equal(nms(boxes, scores, threshold), expected), (count, threshold, dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_is_torchvisions_for_many_boxes(kind: str) -> None:
    random = np.random.default_rng(3)
    boxes, scores = scene(kind, 2500, random), scores_for(2500, random)
    for threshold in (0.3, 0.7):
        assert torch.equal(nms(boxes, scores, threshold), torchvision.ops.nms(boxes, scores, threshold))


@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e30, -3e38, 1e-38, 0.0])
def test_extreme_numbers_change_nothing(value: float, way: str) -> None:
    random = np.random.default_rng(1)
    for place in range(4):
        boxes, scores = scene("heaps", 60, random), scores_for(60, random)
        boxes[::5, place] = value
        scores[::7] = value
        assert torch.equal(nms(boxes, scores, 0.3), torchvision.ops.nms(boxes, scores, 0.3))


def test_a_threshold_between_two_floats(way: str) -> None:
    """0.1 is no float32: IoU 1 / 10, which rounds up, is above it in the float64 that torchvision compares in."""
    boxes = torch.tensor([[0.0, 0, 10, 1], [0, 0, 1, 1]]).repeat(20, 1) + torch.arange(40)[:, None] // 2 * 100
    scores = torch.linspace(1, 0, 40)
    assert nms(boxes, scores, 0.1).tolist() == list(range(0, 40, 2))
    assert torch.equal(nms(boxes, scores, 0.1), torchvision.ops.nms(boxes, scores, 0.1))


def test_candidates_miss_no_pair() -> None:
    random = np.random.default_rng(0)
    for kind in ("spread", "heaps", "all sizes", "lines of text"):
        boxes = scene(kind, 200, random, torch.float64)
        values = pairwise_iou(boxes, boxes).triu(1)
        for threshold in (0.0, 0.3, 0.7):
            grid = overlapping_pairs.Grid(numpy_columns(boxes.numpy()), threshold)
            one, other = grid.pairs().above(threshold)
            found = sorted(zip(np.minimum(one, other).tolist(), np.maximum(one, other).tolist(), strict=True))
            assert found == [tuple(pair) for pair in (values > threshold).nonzero().tolist()]
            some, others = np.arange(0, 200, 3), np.setdiff1d(np.arange(200), np.arange(0, 200, 3))
            between = [pair for pairs in grid.pairs_between(some, others) for pair in zip(*pairs.above(threshold))]  # noqa: B905
            expected = [(i, j) for i, j in found if (i % 3 == 0) != (j % 3 == 0)]
            assert sorted((min(pair), max(pair)) for pair in between) == expected


def test_a_grid_of_spread_boxes_looks_at_few_pairs() -> None:
    boxes = scene("spread", 3000, np.random.default_rng(0)) * torch.tensor([10.0, 10, 10, 10])
    boxes[:, 2:] = boxes[:, :2] + 1
    assert overlapping_pairs.Grid(numpy_columns(boxes.numpy()), 0.5).pairs().count < 10 * len(boxes)


def test_half_precision_and_mixed_types() -> None:
    random = np.random.default_rng(2)
    boxes, scores = scene("heaps", 50, random).half(), scores_for(50, random, torch.float64)
    expected = torchvision.ops.nms(boxes.double(), scores, 0.5)
    assert torch.equal(nms(boxes, scores, 0.5), expected)
    assert torch.equal(nms(boxes.requires_grad_(), scores, 0.5), expected)


def test_compiles() -> None:
    """Within torch.compile it is the kernel: nothing of it looks at numbers."""
    random = np.random.default_rng(2)
    boxes, scores = scene("heaps", 50, random), scores_for(50, random)
    compiled = torch.compile(lambda b, s: nms(b, s, 0.5), backend="eager", fullgraph=True)
    assert torch.equal(compiled(boxes, scores), nms(boxes, scores, 0.5))


@pytest.mark.parametrize("kind", KINDS)
def test_batched_is_nms_of_each_group(kind: str, way: str) -> None:
    random = np.random.default_rng(4)
    for count in (0, 1, 100):
        boxes, scores = scene(kind, count, random), scores_for(count, random)
        groups = torch.from_numpy(random.integers(-2, 4, count))
        kept = torch.zeros(count, dtype=torch.bool)
        for group in groups.unique():
            places = (groups == group).nonzero()[:, 0]
            kept[places[torchvision.ops.nms(boxes[places], scores[places], 0.4)]] = True
        order = scores.argsort(descending=True, stable=True)
        assert torch.equal(batched_nms(boxes, scores, groups, 0.4), order[kept[order]])


def plain_soft_nms(
    boxes: Tensor, scores: Tensor, method: str, threshold: float, sigma: float, least: float
) -> list[tuple[int, float]]:
    """The paper's figure 2, box by box."""
    overlap = pairwise_iou(boxes.double(), boxes.double())
    left, taken = dict(enumerate(scores.double().tolist())), []
    while left and max(left.values()) >= least:
        best = max(left, key=lambda i: left[i])
        taken.append((best, left.pop(best)))
        for i in left:
            value = float(overlap[best, i])
            if method == "gaussian":
                left[i] *= math.exp(-value * value / sigma)
            elif value >= threshold:
                left[i] *= 1 - value
    return taken


@pytest.mark.parametrize("method", ["linear", "gaussian"])
def test_soft_nms_is_the_plain_loop(method: str) -> None:
    random = np.random.default_rng(5)
    for kind in KINDS:
        boxes, scores = scene(kind, 60, random), torch.rand(60, generator=torch.Generator().manual_seed(0))
        indices, values = soft_nms(boxes, scores, method, iou_threshold=0.4, sigma=0.3, score_threshold=0.05)  # type: ignore[arg-type]
        expected = plain_soft_nms(boxes, scores, method, 0.4, 0.3, 0.05)
        assert indices.tolist() == [i for i, _ in expected]
        assert values.tolist() == pytest.approx([value for _, value in expected], rel=1e-6)
        assert (values.diff() <= 0).all()


def test_soft_nms_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 5, 10, 15], [20, 20, 30, 30]])  # IoU of the first two: 1 / 3
    indices, values = soft_nms(boxes, torch.tensor([0.9, 0.6, 0.5]), "linear")
    assert indices.tolist() == [0, 2, 1]
    assert values.tolist() == pytest.approx([0.9, 0.5, 0.6 * 2 / 3])
    _, values = soft_nms(boxes, torch.tensor([0.9, 0.6, 0.5]))
    assert values[1:].tolist() == pytest.approx([0.5, 0.6 * math.exp(-((1 / 3) ** 2) / 0.5)])


def test_soft_nms_within_groups() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10]]).repeat(3, 1)
    indices, values = soft_nms(boxes, torch.tensor([0.9, 0.8, 0.7]), "linear", groups=torch.tensor([0, 1, 0]))
    assert (indices.tolist(), values.tolist()) == ([0, 1], pytest.approx([0.9, 0.8]))
    assert [len(part) for part in soft_nms(torch.zeros(0, 4), torch.zeros(0))] == [0, 0]


@pytest.mark.parametrize("beta", [1.0, 0.6])
def test_diou_nms_is_the_plain_loop(beta: float) -> None:
    """Box by box, with torchvision's DIoU where beta is 1: IoU - d^2 / c^2."""
    random = np.random.default_rng(6)
    for kind in KINDS:
        boxes, scores = scene(kind, 60, random).double(), torch.rand(60, generator=torch.Generator().manual_seed(0))
        groups = torch.from_numpy(random.integers(0, 2, 60))
        overlap = pairwise_iou(boxes, boxes)
        apart = (overlap - torchvision.ops.distance_box_iou(boxes, boxes)).clamp(min=0) ** beta
        left, expected = scores.argsort(descending=True, stable=True).tolist(), []
        while left:
            best = left.pop(0)
            expected.append(best)
            left = [i for i in left if groups[i] != groups[best] or not overlap[best, i] - apart[best, i] > 0.3]
        assert diou_nms(boxes, scores, 0.3, groups=groups, beta=beta).tolist() == expected


def test_diou_nms_keeps_another_centre() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 16], [0, 0, 10, 10]])  # IoU 10 / 16, d^2 / c^2 = 9 / 356
    scores = torch.tensor([0.9, 0.8, 0.7])
    assert nms(boxes, scores, 0.61).tolist() == [0]
    assert diou_nms(boxes, scores, 0.61).tolist() == [0, 1]
    assert diou_nms(boxes, scores, 0.59).tolist() == [0]
    assert diou_nms(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []
    assert diou_nms(torch.ones(2, 4), torch.ones(2), 0.5).tolist() == [0, 1]  # of no size, as nms has it
    with pytest.raises(InputError, match="beta must be above 0"):
        diou_nms(boxes, scores, 0.5, beta=0)


@pytest.mark.parametrize("function", [nms, lambda b, s, t: batched_nms(b, s, torch.zeros(len(s)).long(), t)])
def test_wrong_calls_are_named(function) -> None:
    boxes, scores = torch.rand(3, 4), torch.rand(3)
    for call, message in (
        ((boxes[:, :3], scores, 0.5), r"boxes must be \(N, 4\) and scores \(N,\), got \(3, 3\) and \(3,\)"),
        ((boxes, scores[:2], 0.5), r"got \(3, 4\) and \(2,\)"),
        ((boxes[None], scores, 0.5), r"got \(1, 3, 4\)"),
        ((boxes.long(), scores, 0.5), "must be floating point, got torch.int64"),
        ((boxes, scores, 1.5), "iou_threshold=1.5 must be in"),
        ((boxes, scores, math.nan), "iou_threshold=nan must be in"),
        ((torch.cat([boxes[:2], boxes[:1] * math.nan]), scores, 0.5), r"box 2 is \[nan"),
        ((boxes, torch.tensor([1, math.nan, 0]), 0.5), "score 1 is nan; did the model diverge"),
    ):
        with pytest.raises(InputError, match=message):
            function(*call)


def test_wrong_options_are_named() -> None:
    boxes, scores = torch.rand(3, 4), torch.rand(3)
    with pytest.raises(InputError, match=r"groups must be 3 integers, one for each box; got torch.int64 \(2,\)"):
        batched_nms(boxes, scores, torch.zeros(2).long(), 0.5)
    with pytest.raises(InputError, match=r"got torch[.]float32"):
        soft_nms(boxes, scores, groups=scores)
    with pytest.raises(InputError, match="did you mean gaussian"):
        soft_nms(boxes, scores, "gausian")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="sigma must be above 0, got 0"):
        soft_nms(boxes, scores, sigma=0)
