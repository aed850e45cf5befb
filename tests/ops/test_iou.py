"""Overlap: torchvision's numbers, scenes worked by hand, and a slow plain version of every form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor

from opsin.errors import InputError
from opsin.ops import iou, pairwise_iou, shape_iou
from opsin.ops.iou import (
    iou_by_column,
    lie_within,
    numpy_columns,
    numpy_ioa,
    numpy_iou,
    numpy_iou_by_column,
    overlap_any,
)

KINDS = ["iou", "giou", "diou", "ciou"]
# Two with one, inverted, flat and far ones among them.
ODD = [[0.0, 0, 2, 2], [0, 0, 2, 2], [1, 1, 0, 0], [0, 0, 4, 0], [3, 3, 3, 3], [50, 50, 60, 60]]


def some_boxes(count: int = 30, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator, dtype=dtype) * 20
    return torch.cat([corners, corners + torch.rand(count, 2, generator=generator, dtype=dtype) * 15 + 0.5], dim=1)


def plain(box: list[float], other: list[float], *, of_first: bool = False) -> float:
    """IoU of two boxes, step by step; or the share of the first one's area that the other covers."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    shared = max(width, 0) * max(height, 0)
    area, other_area = ((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
    whole = area if of_first else area + other_area - shared
    return shared / whole if whole > 0 else 0.0


def plain_table(boxes: Tensor, others: Tensor, *, of_first: bool = False) -> Tensor:
    rows = [[plain(a, b, of_first=of_first) for b in others.tolist()] for a in boxes.tolist()]
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
class TestOverlap:
    def test_element_wise_is_torchvisions(self, kind: str) -> None:
        boxes, others = some_boxes(), some_boxes(seed=1)
        names = {
            "iou": "box_iou",
            "giou": "generalized_box_iou",
            "diou": "distance_box_iou",
            "ciou": "complete_box_iou",
        }
        expected = getattr(torchvision.ops, names[kind])(boxes, others)
        # 1e-7: torchvision's constant in the denominators of DIoU and CIoU
        torch.testing.assert_close(iou(boxes[:, None], others, kind), expected, rtol=0, atol=1e-7)  # type: ignore[arg-type]
        torch.testing.assert_close(pairwise_iou(boxes, others, kind), expected, rtol=0, atol=0)  # type: ignore[arg-type]
        torch.testing.assert_close(iou(boxes, others, kind), expected.diagonal(), rtol=0, atol=1e-7)  # type: ignore[arg-type]

    def test_gradient(self, kind: str) -> None:
        boxes, others = some_boxes(8).requires_grad_(), some_boxes(8, seed=1).requires_grad_()
        if kind != "ciou":  # the gradient of CIoU leaves out a term on purpose
            assert torch.autograd.gradcheck(lambda a, b: iou(a, b, kind), (boxes, others))  # type: ignore[arg-type]
        else:
            loss = torchvision.ops.complete_box_iou_loss(boxes, others).sum()
            ours = torch.autograd.grad(-iou(boxes, others, "ciou").sum(), (boxes, others))
            torch.testing.assert_close(ours, torch.autograd.grad(loss, (boxes, others)), rtol=1e-5, atol=1e-6)

    def test_a_box_with_itself_is_one(self, kind: str) -> None:
        boxes = some_boxes()
        torch.testing.assert_close(iou(boxes, boxes, kind), torch.ones(30).double())  # type: ignore[arg-type]

    def test_degenerate_boxes_are_finite(self, kind: str) -> None:
        boxes = torch.tensor(
            [[0.0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 4, 0], [1, 1, 0, 0], [0, 0, 2, 2]], requires_grad=True
        )
        others = torch.tensor(
            [[0.0, 0, 0, 0], [3, 4, 3, 4], [0, 0, 4, 0], [0, 0, 1, 1], [1, 1, 1, 1]], requires_grad=True
        )
        values = iou(boxes, others, kind)  # type: ignore[arg-type]
        gradients = torch.autograd.grad(values.sum(), (boxes, others))
        assert values.isfinite().all() and all(gradient.isfinite().all() for gradient in gradients)
        table = pairwise_iou(boxes.detach(), others.detach(), kind)  # type: ignore[arg-type]
        torch.testing.assert_close(table, iou(boxes[:, None], others, kind).detach())  # type: ignore[arg-type]

    def test_empty_and_half(self, kind: str) -> None:
        assert pairwise_iou(torch.zeros(0, 4), some_boxes(3).float(), kind).shape == (0, 3)  # type: ignore[arg-type]
        assert iou(torch.zeros(0, 4), torch.zeros(0, 4), kind).shape == (0,)  # type: ignore[arg-type]
        boxes, others = some_boxes(dtype=torch.float32).half(), some_boxes(seed=1, dtype=torch.float32).half()
        values = iou(boxes, others, kind)  # type: ignore[arg-type]
        assert values.dtype is torch.float32
        torch.testing.assert_close(values, iou(boxes.float(), others.float(), kind))  # type: ignore[arg-type]


def test_overlaps_by_hand() -> None:
    boxes, others = torch.tensor([0.0, 0, 2, 2]), torch.tensor([1.0, 1, 3, 3])
    assert iou(boxes, others).item() == pytest.approx(1 / 7)
    assert iou(boxes, others, "giou").item() == pytest.approx(1 / 7 - 2 / 9)
    assert iou(boxes, others, "diou").item() == pytest.approx(1 / 7 - 2 / 18)
    assert iou(boxes, others, "ciou").item() == pytest.approx(1 / 7 - 2 / 18)  # same shape
    tall = torch.tensor([0.0, 0, 1, 4])
    v = 4 / math.pi**2 * (math.atan(1) - math.atan(1 / 4)) ** 2
    distance = 1 / 3 - (0.5**2 + 1) / (2**2 + 4**2)
    assert iou(boxes, tall, "ciou").item() == pytest.approx(distance - v * v / (1 - 1 / 3 + v))
    point = torch.tensor([0.0, 0, 0, 0])
    assert iou(point, point + 3, "giou").item() == -1  # two points, and a square of which they cover nothing
    assert iou(point, point + 3, "diou").item() == -1


def test_every_form_is_the_plain_one() -> None:
    boxes, others = torch.cat([some_boxes(), torch.tensor(ODD).double()]), some_boxes(100, seed=1)
    solid = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    expected = plain_table(boxes, others)
    torch.testing.assert_close(pairwise_iou(boxes, others)[solid], expected[solid])
    torch.testing.assert_close(iou_by_column(boxes[solid], others.T.contiguous()), expected[solid])
    torch.testing.assert_close(torch.from_numpy(numpy_iou(boxes.numpy(), others.numpy())), expected)
    columns, other_columns = numpy_columns(boxes.numpy()), numpy_columns(others.numpy())
    by_column = numpy_iou_by_column(columns[:, :, None], other_columns[:, None])
    torch.testing.assert_close(torch.from_numpy(by_column), expected)
    shares = torch.from_numpy(numpy_ioa(boxes.numpy(), others.numpy()))
    torch.testing.assert_close(shares, plain_table(boxes, others, of_first=True))


def test_a_form_by_column_is_torchvisions_bit_for_bit() -> None:
    boxes, others = some_boxes(dtype=torch.float32), some_boxes(100, seed=1, dtype=torch.float32)
    expected = torchvision.ops.box_iou(boxes, others)
    assert torch.equal(iou_by_column(boxes, others.T.contiguous()), expected)
    columns, other_columns = numpy_columns(boxes.numpy()), numpy_columns(others.numpy())
    assert np.array_equal(numpy_iou_by_column(columns[:, :, None], other_columns[:, None]), expected.numpy())


def test_flat_boxes_overlap_nothing() -> None:
    flat = torch.tensor([[0.0, 0, 0, 0], [1, 1, 5, 1]])
    assert not iou_by_column(flat, flat.T.contiguous()).any()
    assert not numpy_iou(flat.numpy(), flat.numpy()).any() and not numpy_ioa(flat.numpy(), flat.numpy()).any()
    assert not lie_within(flat, torch.tensor([[-9.0, -9, 9, 9]])).any()


@pytest.mark.parametrize("threshold", [0.1, 0.5])
def test_any_overlap_is_iou(threshold: float) -> None:
    boxes = torch.rand(200, 4, generator=torch.Generator().manual_seed(0)).sort(dim=1).values
    others = torch.rand(150, 4, generator=torch.Generator().manual_seed(1)).sort(dim=1).values
    expected = pairwise_iou(boxes, others)
    assert torch.equal(overlap_any(boxes, others, threshold), (expected > threshold).any(dim=1))
    assert not overlap_any(boxes, others[:0], threshold).any()
    shares = plain_table(boxes, others, of_first=True)
    assert torch.equal(lie_within(boxes, others, threshold), (shares > threshold).any(dim=1))
    assert not lie_within(boxes, others[:0], threshold).any()


def test_half_a_box_within_a_region_is_not_more_than_half() -> None:
    boxes = torch.tensor([[0.0, 0, 4, 2], [1, 0, 4, 2], [5, 0, 9, 2]])
    assert lie_within(boxes, torch.tensor([[2.0, 0, 8, 8]])).tolist() == [False, True, True]


def test_shapes_are_boxes_on_one_centre() -> None:
    sides, others = (torch.rand(n, 2, generator=torch.Generator().manual_seed(n)) + 0.1 for n in (20, 7))
    centred = [torch.cat([-s, s], dim=1).double() / 2 for s in (sides, others)]
    torch.testing.assert_close(shape_iou(sides, others).double(), plain_table(*centred), rtol=1e-6, atol=1e-7)
    assert shape_iou(sides[:0], others).shape == (0, 7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: iou(torch.zeros(3, 5), torch.zeros(3, 4)), r"boxes must be \(..., 4\), got \(3, 5\)"),
        (lambda: iou(torch.zeros(3, 4), torch.zeros(())), r"others must be \(..., 4\), got \(\)"),
        (lambda: iou(torch.zeros(3, 4), torch.zeros(3, 4), "gio"), "unknown kind of overlap 'gio'; did you mean"),  # type: ignore[arg-type]
        (lambda: pairwise_iou(torch.zeros(2, 3, 4), torch.zeros(3, 4)), "use iou"),
    ],
)
def test_wrong_calls(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
