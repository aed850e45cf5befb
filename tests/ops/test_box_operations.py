"""Boxes: torchvision's numbers, scenes worked by hand, and offsets that lead back."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision
from torch import Tensor

from opsin.errors import InputError
from opsin.ops import box_area, clip_boxes, convert_boxes, decode_boxes, encode_boxes, iou, pairwise_iou

KINDS = ["iou", "giou", "diou", "ciou"]
SSD = (0.1, 0.1, 0.2, 0.2)


def some_boxes(count: int = 30, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator, dtype=dtype) * 20
    return torch.cat([corners, corners + torch.rand(count, 2, generator=generator, dtype=dtype) * 15 + 0.5], dim=1)


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


def test_forms() -> None:
    box = torch.tensor([[1.0, 2, 4, 8]])
    assert convert_boxes(box, "xyxy", "xywh").tolist() == [[1, 2, 3, 6]]
    assert convert_boxes(box, "xyxy", "cxcywh").tolist() == [[2.5, 5, 3, 6]]
    for source in ("xyxy", "xywh", "cxcywh"):
        for target in ("xyxy", "xywh", "cxcywh"):
            there = convert_boxes(some_boxes(), "xyxy", source)  # type: ignore[arg-type]
            back = convert_boxes(convert_boxes(there, source, target), target, "xyxy")  # type: ignore[arg-type]
            torch.testing.assert_close(back, some_boxes())


def test_area_and_clipping() -> None:
    boxes = torch.tensor([[0.0, 0, 2, 3], [-5, 1, 4, 20], [30, 30, 40, 40], [5, 5, 1, 1]])
    assert box_area(boxes).tolist() == [6, 171, 100, 0]  # nothing adds 1; inverted sides count as none
    assert clip_boxes(boxes, (10, 20)).tolist() == [[0, 0, 2, 3], [0, 1, 4, 10], [20, 10, 20, 10], [5, 5, 1, 1]]


@pytest.mark.parametrize("variances", [(1.0, 1.0, 1.0, 1.0), SSD])
class TestCoding:
    def test_decode_inverts_encode(self, variances: tuple[float, ...]) -> None:
        boxes, anchors = some_boxes(), some_boxes(seed=1)
        offsets = encode_boxes(boxes, anchors, variances)
        torch.testing.assert_close(decode_boxes(offsets, anchors, variances), boxes)
        torch.testing.assert_close(encode_boxes(decode_boxes(offsets, anchors, variances), anchors, variances), offsets)

    def test_is_torchvisions_coder(self, variances: tuple[float, ...]) -> None:
        from torchvision.models.detection._utils import BoxCoder

        coder = BoxCoder(tuple(1 / v for v in variances))  # type: ignore[arg-type]
        boxes, anchors = some_boxes(), some_boxes(seed=1)
        torch.testing.assert_close(encode_boxes(boxes, anchors, variances), coder.encode_single(boxes, anchors))
        offsets = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)).double() * 30  # beyond the clamp
        torch.testing.assert_close(decode_boxes(offsets, anchors, variances), coder.decode_single(offsets, anchors))

    def test_gradient(self, variances: tuple[float, ...]) -> None:
        boxes, anchors = some_boxes(6).requires_grad_(), some_boxes(6, seed=1).requires_grad_()
        assert torch.autograd.gradcheck(lambda b, a: encode_boxes(b, a, variances), (boxes, anchors))
        offsets = torch.randn(6, 4, dtype=torch.float64).requires_grad_()
        assert torch.autograd.gradcheck(lambda o, a: decode_boxes(o, a, variances), (offsets, anchors))


def test_coding_by_hand() -> None:
    anchor, box = torch.tensor([[0.0, 0, 10, 20]]), torch.tensor([[6.0, 5, 26, 15]])
    # centres (5, 10) and (16, 10), sides (10, 20) and (20, 10)
    assert encode_boxes(box, anchor, SSD)[0].tolist() == pytest.approx([11, 0, math.log(2) / 0.2, -math.log(2) / 0.2])
    grown = decode_boxes(torch.tensor([[0.0, 0, 100, 100]]), torch.tensor([[-8.0, -8, 8, 8]]))
    assert grown[0].tolist() == pytest.approx([-500, -500, 500, 500])


def test_coding_broadcasts() -> None:
    boxes, anchors = some_boxes(5), some_boxes(3, seed=1)
    assert encode_boxes(boxes[:, None], anchors).shape == (5, 3, 4)
    assert decode_boxes(torch.zeros(5, 3, 7, 4).double(), anchors[:, None]).shape == (5, 3, 7, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: iou(torch.zeros(3, 5), torch.zeros(3, 4)), r"boxes must be \(..., 4\), got \(3, 5\)"),
        (lambda: iou(torch.zeros(3, 4), torch.zeros(())), r"others must be \(..., 4\), got \(\)"),
        (lambda: iou(torch.zeros(3, 4), torch.zeros(3, 4), "gio"), "unknown kind of overlap 'gio'; did you mean"),  # type: ignore[arg-type]
        (lambda: pairwise_iou(torch.zeros(2, 3, 4), torch.zeros(3, 4)), "use iou"),
        (lambda: convert_boxes(torch.zeros(3, 4), "xyxy", "xyhw"), "unknown form of boxes 'xyhw'; did you mean"),  # type: ignore[arg-type]
        (
            lambda: encode_boxes(torch.zeros(1, 4), torch.ones(1, 4)),
            r"box \[0.0, 0.0, 0.0, 0.0\] has no width or height",
        ),
        (lambda: decode_boxes(torch.zeros(1, 4), torch.ones(1, 4)), r"anchor \[1.0, 1.0, 1.0, 1.0\] has no width"),
        (lambda: encode_boxes(torch.full((1, 4), math.nan), torch.ones(1, 4)), "has no width or height"),
        (lambda: decode_boxes(torch.zeros(1, 4), torch.ones(1, 4), (0.1, 0.2)), "variances must be four numbers"),
    ],
)
def test_wrong_calls_are_named(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
