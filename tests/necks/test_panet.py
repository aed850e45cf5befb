"""PANet against its formula, and YOLOv4's form against its published count."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.backbones.extraction import create_extractor
from opsin.necks import FPN, ConcatPANet, PANet
from opsin.nn.counting import count_parameters

CHANNELS, STRIDES = (6, 8, 12), (8, 16, 32)


@pytest.fixture
def given() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = ((12, 10), (6, 5), (3, 3))
    return [torch.randn(2, c, *size, generator=generator) for c, size in zip(CHANNELS, sizes, strict=True)]


def conv(x: Tensor, block: nn.Sequential, stride: int = 1) -> Tensor:
    layer = block[0]
    return F.conv2d(x, layer.weight, layer.bias, stride, layer.padding)  # type: ignore[arg-type]


def test_the_formula(given: list[Tensor]) -> None:
    torch.manual_seed(0)
    neck = PANet(CHANNELS, STRIDES, out_channels=4)
    p3, p4, p5 = neck.fpn(given)
    n3 = p3
    n4 = conv(p4 + conv(n3, neck.down[0], 2).relu(), neck.fuse[0]).relu()  # type: ignore[arg-type]
    n5 = conv(p5 + conv(n4, neck.down[1], 2).relu(), neck.fuse[1]).relu()  # type: ignore[arg-type]
    for x, y in zip(neck(given), (n3, n4, n5), strict=True):
        torch.testing.assert_close(x, y)


def test_without_the_second_path_it_is_an_fpn(given: list[Tensor]) -> None:
    torch.manual_seed(0)
    neck = PANet(CHANNELS, STRIDES, out_channels=4, bottom_up=False)
    fpn = FPN(CHANNELS, STRIDES, out_channels=4)
    fpn.load_state_dict(neck.fpn.state_dict())
    for x, y in zip(neck(given), fpn(given), strict=True):
        torch.testing.assert_close(x, y)
    with torch.device("meta"):
        whole = PANet((512, 1024, 2048), STRIDES)
        half = PANet((512, 1024, 2048), STRIDES, bottom_up=False)
    assert count_parameters(whole) - count_parameters(half) == 2 * 2 * (256 * 256 * 9 + 256)


def test_a_change_of_the_finest_map_reaches_the_coarsest(given: list[Tensor]) -> None:
    changed = [given[0] + 1, *given[1:]]
    for neck, reaches in ((FPN(CHANNELS, STRIDES), False), (PANet(CHANNELS, STRIDES), True)):
        assert torch.equal(neck(given)[-1], neck(changed)[-1]) is not reaches


def test_side_by_side_in_the_order_of_yolov4(given: list[Tensor]) -> None:
    torch.manual_seed(0)
    neck = ConcatPANet(CHANNELS, STRIDES, spp=False).eval()
    assert neck.channels == (3, 4, 6)
    c3, c4, c5 = given
    t5 = neck.top(c5)
    up = F.interpolate(neck.reduce[1](t5), size=(6, 5))
    t4 = neck.top_down[1](torch.cat([neck.laterals[1](c4), up], dim=1))
    up = F.interpolate(neck.reduce[0](t4), scale_factor=2)
    n3 = neck.top_down[0](torch.cat([neck.laterals[0](c3), up], dim=1))
    n4 = neck.bottom_up[0](torch.cat([neck.down[0](n3), t4], dim=1))
    n5 = neck.bottom_up[1](torch.cat([neck.down[1](n4), t5], dim=1))
    for x, y in zip(neck(given), (n3, n4, n5), strict=True):
        torch.testing.assert_close(x, y)


def test_yolov4_has_its_published_count() -> None:
    with torch.device("meta"):
        backbone = create_extractor("cspdarknet53")
        neck = ConcatPANet(backbone.channels, backbone.strides)
        # On each level a 3x3 that doubles the channels, with its norm, and a 1x1 to 3 anchors of 80 classes and 5.
        heads = [
            nn.Sequential(nn.Conv2d(c, 2 * c, 3, bias=False), nn.BatchNorm2d(2 * c), nn.Conv2d(2 * c, 3 * 85, 1))
            for c in neck.channels
        ]
    assert neck.channels == (128, 256, 512)
    assert sum(count_parameters(part) for part in (backbone, neck, *heads)) == 64_363_101
