"""Regions: pooling against plain versions, samples, the head's loss by hand and torchvision's, and decoding."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torchvision.models.detection.roi_heads as reference
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign

from opsin.detect.postprocess import Selection
from opsin.detect.regions import (
    ConvHead,
    RegionPredictor,
    Regions,
    RoIPooler,
    RoISampler,
    Samples,
    TwoLayerHead,
    any_regions,
    decode_regions,
    draw,
    region_losses,
    sample_regions,
)
from opsin.errors import InputError
from opsin.structures import Instances


def rand(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def truth(boxes: list[list[float]], labels: list[int]) -> Instances:
    return Instances(torch.tensor(boxes).view(-1, 4), torch.tensor(labels, dtype=torch.int64))


BOXES = torch.tensor([[0.0, 0, 64, 48], [13, 7, 40, 61], [30, 30, 33, 32], [50, 40, 79, 62], [-9, -5, 20, 100]])
ROWS = torch.tensor([0, 1, 0, 1, 1])


# Pooling


def plain_roi_pool(x: Tensor, box: list[float], size: int, stride: int) -> Tensor:
    """Fast R-CNN's, cell by cell, as its Caffe layer rounds: corners to the nearest cell of the map, both inclusive."""
    x1, y1, x2, y2 = (math.floor(value / stride + 0.5) for value in box)
    width, height = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
    pooled = torch.zeros(x.shape[0], size, size)
    for row in range(size):
        for column in range(size):
            top = min(max(math.floor(row * height / size) + y1, 0), x.shape[1])
            bottom = min(max(math.ceil((row + 1) * height / size) + y1, 0), x.shape[1])
            left = min(max(math.floor(column * width / size) + x1, 0), x.shape[2])
            right = min(max(math.ceil((column + 1) * width / size) + x1, 0), x.shape[2])
            if top < bottom and left < right:
                pooled[:, row, column] = x[:, top:bottom, left:right].amax(dim=(1, 2))
    return pooled


def plain_roi_align(x: Tensor, box: list[float], size: int, stride: int, sampling: int, aligned: bool) -> Tensor:
    """Mask R-CNN's: the mean of points, each from its four neighbours; -1 ... side is held at the border, else 0."""
    shift = 0.5 if aligned else 0.0
    x1, y1, x2, y2 = (value / stride - shift for value in box)
    width, height = x2 - x1, y2 - y1
    if not aligned:
        width, height = max(width, 1.0), max(height, 1.0)

    def value_at(y: float, x_: float) -> Tensor:
        rows, columns = x.shape[1:]
        if y < -1 or y > rows or x_ < -1 or x_ > columns:
            return torch.zeros(x.shape[0])
        y, x_ = min(max(y, 0.0), rows - 1.0), min(max(x_, 0.0), columns - 1.0)
        top, left = int(y), int(x_)
        bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
        down, across = y - top, x_ - left
        upper = x[:, top, left] * (1 - across) + x[:, top, right] * across
        lower = x[:, bottom, left] * (1 - across) + x[:, bottom, right] * across
        return upper * (1 - down) + lower * down

    pooled = torch.zeros(x.shape[0], size, size)
    for row in range(size):
        for column in range(size):
            points = [
                value_at(
                    y1 + (row + (i + 0.5) / sampling) * height / size,
                    x1 + (column + (j + 0.5) / sampling) * width / size,
                )
                for i in range(sampling)
                for j in range(sampling)
            ]
            pooled[:, row, column] = torch.stack(points).mean(dim=0)
    return pooled


def test_roi_pooling_is_the_plain_one() -> None:
    x = rand(2, 3, 8, 10)
    (pooled,) = RoIPooler([8], 4, "pool")([x], Regions(BOXES, ROWS))
    for place, (box, row) in enumerate(zip(BOXES.tolist(), ROWS.tolist(), strict=True)):
        assert torch.equal(pooled[place], plain_roi_pool(x[row], box, 4, 8))


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("sampling", [1, 2])
def test_roi_align_is_the_plain_one(sampling: int, aligned: bool) -> None:
    x = rand(2, 3, 8, 10)
    (pooled,) = RoIPooler([8], 4, sampling=sampling, aligned=aligned)([x], Regions(BOXES, ROWS))
    for place, (box, row) in enumerate(zip(BOXES.tolist(), ROWS.tolist(), strict=True)):
        assert torch.allclose(pooled[place], plain_roi_align(x[row], box, 4, 8, sampling, aligned), atol=1e-5)


def pyramid() -> list[Tensor]:
    return [rand(2, 3, 512 // stride, 512 // stride) for stride in (4, 8, 16, 32)]


def squares(*sides: float) -> Tensor:
    return torch.tensor([[10.0, 5, 10 + side, 5 + side] for side in sides])


def test_levels_by_hand() -> None:
    # Side 224 belongs to stride 16; half of it one level finer, one pixel less than either to the one before.
    pooler = RoIPooler([4, 8, 16, 32])
    assert pooler.levels(squares(1, 55, 56, 111, 112, 223, 224, 447, 448, 1000)).tolist() == [
        0, 0, 0, 0, 1, 1, 2, 2, 3, 3
    ]  # fmt: skip
    assert RoIPooler([16]).levels(squares(4, 400)).tolist() == [0, 0]
    assert RoIPooler([8, 16]).levels(squares(0, 223, 224)).tolist() == [0, 0, 1]


def test_pyramids_are_pooled_as_torchvision_does() -> None:
    boxes = torch.cat([squares(8, 60, 130, 250, 460), torch.tensor([[0.0, 100, 300, 180]])])
    theirs = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    maps = pyramid()
    expected = theirs({str(k): x for k, x in enumerate(maps)}, [boxes[:4], boxes[4:]], [(512, 512)] * 2)
    (pooled,) = RoIPooler([4, 8, 16, 32])([*maps, rand(2, 3, 8, 8)], Regions.gather([boxes[:4], boxes[4:]]))
    assert torch.equal(pooled, expected)


def test_all_levels_are_each_pooled() -> None:
    maps, regions = pyramid(), Regions(squares(8, 300), torch.tensor([1, 0]))
    pooler = RoIPooler([4, 8, 16, 32], 3, all_levels=True)
    found = pooler(maps, regions)
    assert len(found) == pooler.views == 4
    for x, stride, pooled in zip(maps, (4, 8, 16, 32), found, strict=True):
        for place, row in enumerate((1, 0)):
            plain = plain_roi_align(x[row], regions.boxes[place].tolist(), 3, stride, 2, False)
            assert torch.allclose(pooled[place], plain, atol=1e-5)


def test_pooling_of_nothing_and_its_gradient() -> None:
    maps = [x.requires_grad_() for x in pyramid()]
    (pooled,) = RoIPooler([4, 8, 16, 32])(maps, Regions.gather([torch.zeros(0, 4), torch.zeros(0, 4)]))
    assert pooled.shape == (0, 3, 7, 7)
    (pooled,) = RoIPooler([4, 8, 16, 32])(maps, Regions(squares(20), torch.tensor([1])))
    pooled.sum().backward()
    assert maps[0].grad is not None and maps[0].grad[1].any() and not maps[0].grad[0].any()


def test_half_precision_keeps_coordinates() -> None:
    x = rand(1, 2, 128, 128)
    regions = Regions(torch.tensor([[501.3, 480.7, 511.9, 509.2]]), torch.tensor([0]))
    (full,), (half,) = RoIPooler([4])([x], regions), RoIPooler([4])([x.bfloat16()], regions)
    assert torch.allclose(full, half, atol=0.01)


# Heads


def test_heads_of_several_views_keep_the_largest() -> None:
    head = TwoLayerHead(2, 3, 8, views=3).eval()
    views = [rand(4, 2, 3, 3) - 0.5, rand(4, 2, 3, 3), -rand(4, 2, 3, 3)]
    expected = torch.stack([fc(view.flatten(1)) for fc, view in zip(head.fc6, views, strict=True)]).amax(0).relu()
    assert torch.allclose(head(views), head.fc7(expected).relu())
    assert ConvHead(2, 3, 8, convs=2, norm="batch", views=3)(views).shape == (4, 8)
    for wrong in (views[:2], [*views, views[0]]):  # a view is not left out in silence
        with pytest.raises(ValueError, match="zip"):
            head(wrong)


def test_predictor_starts_without_an_opinion() -> None:
    with torch.no_grad():
        logits, offsets = RegionPredictor(16, 4)(rand(3, 16))
    assert logits.shape == (3, 5) and offsets.shape == (3, 5, 4)
    assert float(logits.abs().max()) < 0.2 and float(offsets.abs().max()) < 0.02


# Samples


def test_drawing() -> None:
    matched = torch.tensor([0] * 10 + [-1] * 50 + [-2] * 40)
    answering, background = draw(matched, 20, 0.25)
    assert len(answering.unique()) == 5 and bool((matched[answering] == 0).all())
    assert len(background.unique()) == 15 and bool((matched[background] == -1).all())
    assert [len(part) for part in draw(matched, 80, 0.5)] == [10, 50]
    assert [len(part) for part in draw(matched[60:], 8, 0.5)] == [0, 0]
    torch.manual_seed(3)
    first = draw(matched, 20, 0.25)
    torch.manual_seed(3)
    assert torch.equal(torch.cat(first), torch.cat(draw(matched, 20, 0.25)))


def test_samples_by_hand() -> None:
    # IoU with the truth: 1, 1/2, 5/12, 1/9, 1/11 and 0; the last lies in a region to ignore.
    strips = [[0, 0, 8, 8], [0, 0, 8, 4], [0, 0, 8, 10 / 3], [0, 0, 8, 8 / 9], [0, 0, 8, 8 / 11], [40, 0, 48, 8]]
    proposals = [torch.tensor(strips), torch.tensor(strips[:2])]
    one = truth([[90, 90, 99, 99], [0, 0, 8, 8], [36, 0, 60, 8]], [0, 2, -1])
    found = sample_regions(proposals, [one, truth([], [])], RoISampler(positives=1.0), 3)
    assert found.regions.rows.tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert found.labels.tolist() == [2, 2, -1, -1, -1, -1, -1]
    assert found.sources.tolist() == [1, 1, -1, -1, -1, -1, -1]
    assert found.boxes[:2].tolist() == [[0, 0, 8, 8]] * 2
    assert torch.equal(found.regions.boxes[:5], proposals[0][:5])
    hard = sample_regions(proposals, [one, truth([], [])], RoISampler(positives=1.0, background=(0.1, 0.5)), 3)
    assert hard.regions.rows.tolist() == [0, 0, 0, 0]  # neither 1/11, nor what is far from any truth
    assert hard.labels.tolist() == [2, 2, -1, -1]


def test_sources_count_through_the_batch() -> None:
    box = [[0.0, 0, 8, 8]]
    targets = [truth([*box, [1, 1, 9, 9]], [0, 1]), truth([[9, 9, 20, 20], *box], [1, 1])]
    found = sample_regions([torch.tensor(box)] * 2, targets, RoISampler(positives=1.0), 2)
    assert found.sources.tolist() == [0, 3] and found.labels.tolist() == [0, 1]


def test_truth_without_labels_is_to_be_ignored() -> None:
    found = sample_regions(
        [torch.tensor([[0.0, 0, 8, 8]])], [Instances(torch.tensor([[0.0, 0, 8, 8]]))], RoISampler(), 2
    )
    assert len(found.labels) == 0


def test_nothing_to_sample() -> None:
    found = sample_regions([torch.zeros(0, 4)] * 2, [truth([], []), truth([[0, 0, 8, 8]], [1])], RoISampler(), 2)
    assert [len(part) for part in (found.regions.boxes, found.regions.rows, found.labels, found.boxes)] == [0] * 4


# Loss


def some_samples(count: int = 12, classes: int = 4) -> tuple[Tensor, Tensor, Samples]:
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(2, count, 4, generator=generator) * 30 + torch.tensor([0.0, 0, 40, 40])
    labels = torch.randint(-1, classes, (count,), generator=generator)
    logits = torch.randn(count, classes + 1, generator=generator)
    offsets = torch.randn(count, classes + 1, 4, generator=generator)
    rows = torch.zeros(count, dtype=torch.int64)
    return logits, offsets, Samples(Regions(boxes[0], rows), labels, boxes[1], labels)


def test_losses_are_torchvisions() -> None:
    from torchvision.models.detection._utils import BoxCoder

    logits, offsets, samples = some_samples()
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    wanted = coder.encode_single(samples.boxes, samples.regions.boxes)
    expected = reference.fastrcnn_loss(logits, offsets.flatten(1), [samples.labels + 1], [wanted])
    found = region_losses(logits, offsets, samples, beta=1 / 9)
    assert torch.allclose(found["class"], expected[0]) and torch.allclose(found["box"], expected[1])


def test_loss_by_hand() -> None:
    regions = Regions(torch.tensor([[0.0, 0, 8, 8], [0, 0, 4, 4]]), torch.tensor([0, 0]))
    samples = Samples(
        regions, torch.tensor([1, -1]), torch.tensor([[0.0, 0, 8, 6], [0, 0, 4, 4]]), torch.tensor([0, -1])
    )
    losses = region_losses(torch.zeros(2, 3), torch.zeros(2, 3, 4), samples)
    assert float(losses["class"]) == pytest.approx(math.log(3))
    moved, grown = 1 / 8 / 0.1, -math.log(6 / 8) / 0.2  # the middle of the truth lies one pixel higher
    assert float(losses["box"]) == pytest.approx((moved - 0.5 + grown - 0.5) / 2)


def test_loss_of_no_samples_is_nothing() -> None:
    _, _, samples = some_samples(0)
    logits, offsets = torch.zeros(0, 5, requires_grad=True), torch.zeros(0, 5, 4, requires_grad=True)
    losses = region_losses(logits, offsets, samples)
    assert [float(term.detach()) for term in losses.values()] == [0, 0]
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert logits.grad is not None


# Answers


def test_decoding_is_torchvisions() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes = [torch.rand(n, 4, generator=generator) * 30 + torch.tensor([0.0, 0, 40, 40]) for n in (60, 0, 40)]
    regions = Regions.gather(boxes)
    logits = 2 * torch.randn(100, 5, generator=generator)
    offsets = torch.randn(100, 5, 4, generator=generator)
    theirs: Any = reference.RoIHeads(None, None, None, 0.5, 0.5, 512, 0.25, None, 0.05, 0.5, 30)
    expected = theirs.postprocess_detections(logits, offsets.flatten(1), boxes, [(64, 72)] * 3)
    found = decode_regions(logits, offsets, regions, 3, (64, 72), Selection(candidates=1000, limit=30))
    assert [len(one) for one in found] == [30, 0, 30]
    for one, box, score, label in zip(found, *expected, strict=True):
        assert torch.allclose(one.boxes, box, atol=1e-4)
        assert torch.allclose(one.scores, score) and torch.equal(one.labels, label - 1)  # type: ignore[arg-type]


def test_soft_suppression_and_cut() -> None:
    logits = torch.tensor([[0.0, 3, -9], [0, 2, -9]])
    regions = Regions(torch.tensor([[0.0, 0, 8, 8], [0, 0, 8, 7]]), torch.tensor([0, 0]))
    options: dict[str, Any] = {"score_threshold": 0.3}
    (hard,) = decode_regions(logits, torch.zeros(2, 3, 4), regions, 1, (8, 8), Selection(**options))
    assert len(hard) == 1
    options["suppression"] = "linear"
    options["score_threshold"] = 0.05
    (soft,) = decode_regions(logits, torch.zeros(2, 3, 4), regions, 1, (8, 8), Selection(**options))
    certain = math.exp(2) / (1 + math.exp(2) + math.exp(-9))
    assert float(soft.scores[1]) == pytest.approx(certain / 8)  # type: ignore[index]  # times 1 - 7/8
    options["candidates"] = 1
    assert len(decode_regions(logits, torch.zeros(2, 3, 4), regions, 1, (8, 8), Selection(**options))[0]) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RoIPooler([8], kind="align2"), "align"),  # type: ignore[arg-type]
        (lambda: RoIPooler([]), "double"),
        (lambda: RoIPooler([4, 16]), "double"),
        (lambda: RoIPooler([8], 0), "roi_size"),
        (lambda: RoIPooler([8], canonical_size=0), "canonical_size"),
        (lambda: RoISampler(0), "count"),
        (lambda: RoISampler(positives=1.5), "positives"),
        (lambda: RoISampler(background=(0.5, 0.1)), "background"),
        (lambda: TwoLayerHead(4, hidden=0), "hidden"),
        (lambda: ConvHead(4, convs=0), "convs"),
        (lambda: Regions.gather([]), "at least one image"),
        (lambda: sample_regions([torch.rand(1, 4)], [truth([[0, 0, 1, 1]], [7])], RoISampler(), 3), "label 7"),
    ],
)
def test_errors(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_regions_without_values_have_the_types_of_real_ones() -> None:
    boxes = torch.zeros(5, 4, dtype=torch.float16, device="meta")
    regions = any_regions(boxes, 3)
    assert (regions.boxes.shape, regions.boxes.dtype, regions.boxes.device) == ((3, 4), boxes.dtype, boxes.device)
    assert (regions.rows.shape, regions.rows.dtype, regions.rows.device) == ((3,), torch.int64, boxes.device)
