"""M2Det: published counts, its boxes, matching and loss on an image worked by hand, decoding, switches, refusals."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from opsin import create_model
from opsin.detect.m2det import M2Det
from opsin.errors import InputError
from opsin.nn.counting import count_macs, count_parameters
from opsin.ops import encode_boxes
from opsin.structures import Instances


def small(**options: Any) -> M2Det:
    torch.manual_seed(0)
    chosen: dict[str, Any] = {
        "num_classes": 3,
        "backbone": "resnet18",
        "planes": 8,
        "levels": 2,
        "neck_options": {"base_channels": (16, 16)},
        "shrink_last": False,
        "fractions": (0.2, 0.4, 0.6, 0.8),
    }
    return M2Det(**{**chosen, **options})


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def truth(*boxes: tuple[float, ...]) -> Instances:
    """x1, y1, x2, y2, label of each."""
    rows = torch.tensor(boxes, dtype=torch.float32).view(-1, 5)
    return Instances(rows[:, :4], rows[:, 4].long())


@pytest.mark.parametrize(("size", "macs"), [(320, 74_307_014_656), (512, 190_105_829_376), (800, 464_783_376_384)])
def test_counts(size: int, macs: int) -> None:
    with torch.device("meta"):
        model = create_model(f"m2det{size}_vgg16")
    assert count_parameters(model) == 133_159_604
    assert count_macs(model, (3, size, size)) == macs


def test_counts_of_the_releases_configuration_and_of_the_paper() -> None:
    variants: tuple[dict[str, Any], ...] = ({}, {"shared": False})
    with torch.device("meta"):
        counts = [count_parameters(M2Det(sfam=False, **options)) for options in variants]
    assert counts == [132_633_140, 132_633_140 + 7 * (768 * 128 + 2 * 128)]


def test_boxes_are_the_releases() -> None:
    """A cell of M2Det320 by the release's formula, and its steps: 107 pixels for 3 cells."""
    model = small(fractions=(0.08, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05))
    maps = [torch.zeros(1, 1, side, side) for side in (40, 20, 10, 5, 3, 1)]
    boxes = model._anchors(maps, 320, 320)
    assert boxes.shape == (12_810, 4) and boxes.min() == 0 and boxes.max() == 320
    place = (20 * 40 + 21) * 6  # far enough inside not to be cut
    side, between = 0.08 * 320, math.sqrt(0.08 * 0.15) * 320
    sides = [(side, side), (between, between)]
    for ratio in (2, 1 / 2, 3, 1 / 3):
        sides.append((side * math.sqrt(ratio), side / math.sqrt(ratio)))
    x, y = 21.5 * 8, 20.5 * 8
    expected = [[x - w / 2, y - h / 2, x + w / 2, y + h / 2] for w, h in sides]
    torch.testing.assert_close(boxes[place : place + 6], torch.tensor(expected))
    # Three cells a side: the second is centred on 1.5 * 107, not on 160.
    fifth = boxes[(1600 + 400 + 100 + 25 + 4) * 6]
    assert float(fifth[0] + fifth[2]) / 2 == pytest.approx(160.5)


def test_matching_by_hand() -> None:
    model = small(match_threshold=0.6)
    anchors = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 20], [50, 50, 60, 60], [30, 0, 40, 10]], dtype=torch.float32)
    outputs = {"anchors": anchors}
    found = model.assign(
        outputs,
        [
            truth((0, 0, 10, 14, 2)),  # IoU 10/14 and 14/20: both answer
            truth((52, 50, 70, 60, 0)),  # 8/20 only: its best one answers all the same
            truth((0, 0, 10, 10, 1), (0, 0, 10, 20, 2)),
            truth((0, 0, 10, 10, -1), (30, 0, 30, 10, 1)),  # a region to ignore holds 0 and half of 1; no area, nobody
            truth(),
        ],
    )
    assert [assigned.matched.tolist() for assigned in found] == [
        [0, 0, -1, -1],
        [-1, -1, 0, -1],
        [0, 1, -1, -1],
        [-2, -1, -1, -1],
        [-1, -1, -1, -1],
    ]


def test_many_truths_match_as_few_do() -> None:
    """In parts of 64 as in one, against both rules written plainly."""
    model = small()
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(150, 2, generator=generator) * 100
    boxes = torch.cat([corner, corner + 5 + torch.rand(150, 2, generator=generator) * 60], dim=1)
    anchors = model(torch.zeros(1, 3, 128, 128))["anchors"]
    (found,) = model.assign({"anchors": anchors}, [Instances(boxes, torch.zeros(150, dtype=torch.int64))])
    overlap = box_iou(boxes, anchors)
    value, expected = overlap.max(dim=0)
    expected[value < 0.5] = -1
    for row, anchor in enumerate(overlap.argmax(dim=1).tolist()):
        expected[anchor] = row
    assert torch.equal(found.matched, expected)


def test_loss_by_hand() -> None:
    model = small(num_classes=2, negatives=1.0)
    anchors = torch.tensor([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]], dtype=torch.float32)
    logits = torch.tensor([[[0.0, 1.0, 2.0], [3.0, 0.0, 0.0], [0.0, 1.0, 0.0]]], requires_grad=True)
    offsets = torch.zeros(1, 3, 4, requires_grad=True)
    outputs = {"anchors": anchors, "logits": logits, "offsets": offsets, "size": torch.tensor([20, 60])}
    losses = model.loss(outputs, [truth((1, 0, 11, 10, 1))])
    # Box 0 answers, IoU 9/11: class 1 is the third logit; of the others the one of the higher loss counts, box 2.
    expected = -F.log_softmax(logits[0, 0], dim=0)[2] - F.log_softmax(logits[0, 2], dim=0)[0]
    torch.testing.assert_close(losses["class"], expected)
    assert float(losses["box"].detach()) == pytest.approx(
        1 / 10 / 0.1 - 0.5
    )  # the truth is a tenth to the right: dx = 1
    total(losses).backward()
    assert torch.equal(logits.grad[0, 1], torch.zeros(3))  # type: ignore[index]


def test_loss_of_nothing_and_of_strange_boxes_is_finite() -> None:
    model = small()
    outputs = model(torch.randn(2, 3, 64, 64))
    for targets in (
        [truth(), truth()],
        [truth((5, 5, 5, 5, 0), (9, 3, 2, 8, 1)), truth((-50, -50, -10, -10, 2))],
        [truth((0, 0, 64, 64, -1)), truth((0, 0, 64, 64, 2), (0, 0, 64, 64, 2))],
    ):
        losses = model.loss(outputs, targets)
        assert all(value.isfinite() for value in losses.values())
        total(losses).backward(retain_graph=True)
    with pytest.raises(InputError, match="a box has label 3, the model was built for 3 classes"):
        model.loss(outputs, [truth((0, 0, 9, 9, 3)), truth()])


def test_what_answers_for_a_truth_decodes_to_it() -> None:
    model = small().eval()
    outputs = model(torch.zeros(1, 3, 128, 128))
    target = truth((10, 20, 60, 90, 2), (70, 70, 120, 110, 0))
    (assigned,) = model.assign(outputs, [target])
    logits, offsets = torch.zeros_like(outputs["logits"]), torch.zeros_like(outputs["offsets"])
    logits[..., 0] = 20.0
    places = (assigned.matched >= 0).nonzero()[:, 0]
    owners = assigned.matched[places]
    logits[0, places, 1 + target.labels[owners]] = 40.0  # type: ignore[index]
    offsets[0, places] = encode_boxes(target.boxes[owners], outputs["anchors"][places], (0.1, 0.1, 0.2, 0.2))
    (found,) = model.decode({**outputs, "logits": logits, "offsets": offsets}, suppression="hard")
    order = found.labels.argsort()  # type: ignore[union-attr]
    torch.testing.assert_close(found.boxes[order], target.boxes[[1, 0]], rtol=1e-4, atol=1e-3)
    assert found.labels[order].tolist() == [0, 2]  # type: ignore[index]


def test_it_learns_four_images() -> None:
    model = small(planes=16, fractions=(0.25, 0.5, 0.75, 1.0))
    generator = torch.Generator().manual_seed(0)
    images = 0.1 * torch.randn(4, 3, 64, 64, generator=generator)
    targets = []
    for row, (x, y, side, label) in enumerate([(4, 4, 24, 0), (30, 8, 28, 1), (8, 30, 30, 2), (20, 20, 20, 0)]):
        images[row, label, y : y + side, x : x + side] += 2.0
        targets.append(truth((x, y, x + side, y + side, label)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(40):
        optimizer.zero_grad()
        losses = model.loss(model(images), targets)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
    # As trained: the batch statistics are those of the four images.
    for found, target in zip(model.decode(model(images), score_threshold=0.3), targets, strict=True):
        assert found.labels[0] == target.labels[0]  # type: ignore[index]
        assert box_iou(found.boxes[:1], target.boxes)[0, 0] > 0.5


@pytest.mark.parametrize("neck", ["fpn", None])
def test_other_necks(neck: str | None) -> None:
    options = {"out_channels": 12} if neck else {"out_channels": None}
    model = small(neck=neck, neck_options=options).eval()
    outputs = model(torch.randn(1, 3, 96, 64))
    cells = 12 * 8 + 6 * 4 + 3 * 2
    assert outputs["logits"].shape == (1, cells * 6, 4) and outputs["anchors"].shape == (cells * 6, 4)


def test_one_image_trains_where_the_coarsest_map_is_one_place() -> None:
    model = small(fractions=(0.1, 0.2, 0.4, 0.6, 0.8), shrink_last=True)
    images = torch.randn(1, 3, 72, 72)
    losses = model.loss(model(images), [truth((4, 4, 40, 40, 1))])
    total(losses).backward()
    assert all(value.isfinite() for value in losses.values())


def test_refusals() -> None:
    model = small(shrink_last=True)
    with pytest.raises(InputError, match="images of at least 33x33, got 32x64"):
        model(torch.zeros(1, 3, 32, 64))
    with pytest.raises(InputError, match="fractions must grow from above 0"):
        small(fractions=(0.5, 0.4, 0.9))
    with pytest.raises(InputError, match="match_threshold must be a number above 0"):
        small(match_threshold=0)
    with pytest.raises(InputError, match="did you mean num_classes"):
        create_model("m2det320_vgg16", num_clases=3)


def test_it_exports() -> None:
    model = small().eval()
    batch = torch.export.Dim("batch", max=64)
    program = torch.export.export(model, (torch.randn(2, 3, 64, 64),), dynamic_shapes=({0: batch},))
    images = torch.randn(3, 3, 64, 64)
    got, expected = program.module()(images), model(images)
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor)
