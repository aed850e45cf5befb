"""Boxes: torchvision's numbers, scenes worked by hand, and offsets that lead back."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from opsin.errors import InputError
from opsin.ops import box_area, clip_boxes, convert_boxes, decode_boxes, encode_boxes

SSD = (0.1, 0.1, 0.2, 0.2)


def some_boxes(count: int = 30, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator, dtype=dtype) * 20
    return torch.cat([corners, corners + torch.rand(count, 2, generator=generator, dtype=dtype) * 15 + 0.5], dim=1)


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
