"""FPN against torchvision's on copied weights, against numbers worked by hand, and its switches."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from opsin.backbones import copy_in_order
from opsin.necks import FPN
from opsin.nn.counting import count_parameters

CHANNELS, STRIDES = (6, 8, 12), (8, 16, 32)


def maps(*sizes: tuple[int, int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, c, *size, generator=generator) for c, size in zip(CHANNELS, sizes, strict=True)]


@pytest.mark.parametrize(
    ("options", "extra"),
    [
        ({}, None),
        ({"extra_levels": 1, "extra_from": "pool"}, LastLevelMaxPool),
        ({"extra_levels": 2, "extra_from": "p5"}, lambda: LastLevelP6P7(10, 10)),
        ({"extra_levels": 2, "extra_from": "c5"}, lambda: LastLevelP6P7(12, 10)),
    ],
)
@pytest.mark.parametrize("sizes", [((16, 24), (8, 12), (4, 6)), ((13, 9), (7, 5), (4, 3)), ((13, 9), (6, 4), (3, 2))])
def test_equals_torchvision(options: dict[str, Any], extra: Any, sizes: Any) -> None:
    torch.manual_seed(0)
    reference = FeaturePyramidNetwork(list(CHANNELS), 10, extra and extra())
    ours = FPN(CHANNELS, STRIDES, out_channels=10, **options)
    for parameter in reference.parameters():  # its biases start at 0
        torch.nn.init.normal_(parameter, std=0.3)
    copy_in_order(ours, reference.state_dict())
    given = maps(*sizes)
    expected = reference(OrderedDict((str(i), x) for i, x in enumerate(given)))
    got = ours(given)
    assert len(got) == len(expected) == len(ours.strides)
    for x, y in zip(got, expected.values(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5)


def test_worked_by_hand() -> None:
    neck: Any = FPN((1, 1), (8, 16), out_channels=1, smooth=False)
    for lateral, weight, bias in zip(neck.laterals, (2.0, 3.0), (1.0, 0.0), strict=True):
        torch.nn.init.constant_(lateral[0].weight, weight)
        torch.nn.init.constant_(lateral[0].bias, bias)
    fine = torch.arange(6.0).view(1, 1, 2, 3)
    coarse = torch.tensor([10.0, 20.0]).view(1, 1, 1, 2)
    p3, p4 = neck([fine, coarse])
    assert p4.flatten().tolist() == [30, 60]
    # 2 c + 1, and of the map above: columns 0, 1 and 2 of three lie over columns 0, 0 and 1 of two
    assert p3.flatten().tolist() == [1 + 30, 3 + 30, 5 + 60, 7 + 30, 9 + 30, 11 + 60]


def test_without_the_path_levels_know_nothing_of_each_other() -> None:
    neck = FPN(CHANNELS, STRIDES, out_channels=4, top_down=False)
    given = maps((8, 8), (4, 4), (2, 2))
    before = neck(given)
    after = neck([given[0], given[1] + 1, given[2] + 1])
    torch.testing.assert_close(before[0], after[0])
    with_path = FPN(CHANNELS, STRIDES, out_channels=4)
    assert not torch.equal(with_path(given)[0], with_path([given[0], given[1], given[2] + 1])[0])
    assert count_parameters(with_path) == count_parameters(neck)


def test_the_relu_before_p7() -> None:
    given = maps((8, 8), (4, 4), (2, 2))
    results = []
    for relu in (True, False):
        torch.manual_seed(0)
        neck = FPN(CHANNELS, STRIDES, out_channels=4, extra_levels=2, extra_relu=relu)
        *_, p6, p7 = neck(given)
        conv = neck.extra.convs[1]
        torch.testing.assert_close(p7, conv(p6.relu() if relu else p6))
        results.append(p7)
    assert not torch.equal(*results)


def test_counts_of_retinanet() -> None:
    # ResNet-50's maps: 1x1 laterals, three 3x3s, and P6 on C5 or on P5, which is 2048 - 256 = 1792 maps of 9 narrower.
    with torch.device("meta"):
        on_c5 = FPN((512, 1024, 2048), STRIDES, extra_levels=2)
        on_p5 = FPN((512, 1024, 2048), STRIDES, extra_levels=2, extra_from="p5")
    laterals, smooth = (512 + 1024 + 2048) * 256 + 3 * 256, 3 * (256 * 256 * 9 + 256)
    assert count_parameters(on_p5) == laterals + smooth + 2 * (256 * 256 * 9 + 256)
    assert count_parameters(on_c5) - count_parameters(on_p5) == 1792 * 256 * 9


def test_norm_and_activation_are_options() -> None:
    neck = FPN(CHANNELS, STRIDES, out_channels=4, norm="batch", activation="relu")
    assert all(x.min() >= 0 for x in neck(maps((8, 8), (4, 4), (2, 2))))
    assert not [n for n, p in neck.named_parameters() if n.endswith("0.bias") and p.ndim == 4]
