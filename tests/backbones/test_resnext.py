from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import timm
import torch
import torchvision.models
from pytorchcv.models.resnext_cifar import resnext29_32x4d_cifar10
from torch import Tensor, nn

from opsin import registry
from opsin.backbones import resnext
from opsin.backbones.resnet import BlockDesign
from opsin.errors import InputError
from opsin.nn.counting import count_macs, count_parameters


def build_on_meta(name: str, **options: Any) -> nn.Module:
    with torch.device("meta"):
        return registry.create_model(name, **options)


def test_outputs_equal_torchvision(assert_equal: Callable[..., None]) -> None:
    assert_equal(resnext.resnext50_32x4d, torchvision.models.resnext50_32x4d, [(64, 64), (75, 97)])


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("resnext101_32x4d", partial(timm.create_model, "resnext101_32x4d")),
        ("resnext101_32x8d", torchvision.models.resnext101_32x8d),
        ("resnext101_64x4d", torchvision.models.resnext101_64x4d),
    ],
)
def test_the_larger_have_the_tensors_of_their_files(name: str, theirs: Callable[[], nn.Module]) -> None:
    with torch.device("meta"):
        shapes = [v.shape for v in theirs().state_dict().values()]
    assert [v.shape for v in build_on_meta(name).state_dict().values()] == shapes


def test_cifar_net_equals_pytorchcv(assert_equal: Callable[..., None]) -> None:
    def pool_globally(net: nn.Module) -> None:
        net.features.final_pool = nn.AdaptiveAvgPool2d(1)  # type: ignore[union-attr]

    assert_equal(resnext.resnext29_32x4d, resnext29_32x4d_cifar10, [(32, 32), (45, 37)], pool_globally)


def test_one_group_is_a_resnet() -> None:
    state = {k: v.shape for k, v in build_on_meta("resnext50_32x4d", groups=1, width_per_group=64).state_dict().items()}
    assert state == {k: v.shape for k, v in build_on_meta("resnet50").state_dict().items()}


@pytest.mark.parametrize(("groups", "width"), [(1, 64), (2, 40), (4, 24), (8, 14), (32, 4)])
def test_more_groups_at_the_same_cost(groups: int, width: int) -> None:
    """Table 2 of the paper: every one of them has about 25 million parameters and 4.1 billion multiply-adds."""
    model = build_on_meta("resnext50_32x4d", groups=groups, width_per_group=width)
    assert count_parameters(model) == pytest.approx(25e6, rel=0.03)
    assert count_macs(model, (3, 224, 224)) == pytest.approx(4.1e9, rel=0.06)


def test_a_grouped_bottleneck_is_a_sum_of_small_ones() -> None:
    """Figure 3: (c), which is built, equals (a), the sum of 32 paths of 4 channels."""
    block = BlockDesign("v1.5", groups=32, width_per_group=4, norm=None).build(256, 64, stride=1)
    layers: Any = block.body
    reduce, _, grouped, _, expand = layers
    x = torch.randn(2, 256, 7, 7)
    total: Tensor | float = 0.0
    for path in range(32):
        rows = slice(4 * path, 4 * path + 4)
        y = nn.functional.conv2d(x, reduce.weight[rows], reduce.bias[rows]).relu()
        y = nn.functional.conv2d(y, grouped.weight[rows], grouped.bias[rows], padding=1).relu()
        total = total + nn.functional.conv2d(y, expand.weight[:, rows])
    with torch.no_grad():
        expected = (x + total + expand.bias[:, None, None]).relu()
        torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


def test_switches_of_the_resnet_hold_here() -> None:
    plain = build_on_meta("resnext29_32x4d", residual=False)
    assert count_parameters(plain) == count_parameters(build_on_meta("resnext29_32x4d", shortcut="A"))
    assert plain(torch.empty(2, 3, 33, 30, device="meta")).shape == (2, 10)
    assert any(
        isinstance(m, nn.Dropout) and m.p == 0.3 for m in build_on_meta("resnext29_8x64d", dropout=0.3).modules()
    )


def test_options_are_checked() -> None:
    for options, message in [
        ({"groups": 0}, "groups must be"),
        ({"width_per_group": 0}, "width_per_group must be"),
        ({"dropout": 1.5}, "dropout must be"),
    ]:
        with pytest.raises(InputError, match=message):
            registry.create_model("resnext29_32x4d", **options)
