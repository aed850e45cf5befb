"""Convolution blocks: torchvision's on copied weights, parameter counts by hand, and channel moves one by one."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.mobilenetv3 import InvertedResidual, InvertedResidualConfig
from torchvision.models.shufflenetv2 import channel_shuffle as torchvision_shuffle
from torchvision.ops.misc import Conv2dNormActivation

from opsin.errors import InputError
from opsin.nn.activation import list_activations
from opsin.nn.conv import (
    ConvNormActivation,
    FactorizedConv,
    SeparableConv,
    channel_shuffle,
    channel_split,
    create_conv,
)
from opsin.nn.counting import count_macs, count_parameters
from opsin.nn.norm import create_norm, list_norms


def kinds(module: nn.Module) -> list[str]:
    return [type(m).__name__ for m in module.modules() if not any(m.children())]


@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        ({}, {}),
        ({"stride": 2, "activation": "silu"}, {"stride": 2, "activation_layer": nn.SiLU}),
        ({"dilation": 2, "groups": 2}, {"dilation": 2, "groups": 2}),
        ({"norm": None, "activation": None}, {"norm_layer": None, "activation_layer": None}),
    ],
)
def test_block_is_torchvisions(options: dict, theirs: dict) -> None:
    x = torch.randn(2, 4, 9, 8)
    reference = Conv2dNormActivation(4, 6, **theirs)
    block = ConvNormActivation(4, 6, **options)
    block.load_state_dict(reference.state_dict())
    torch.testing.assert_close(block(x), reference(x))
    assert [tuple(p.shape) for p in block.parameters()] == [tuple(p.shape) for p in reference.parameters()]


def test_bias_only_without_a_norm() -> None:
    assert ConvNormActivation(2, 3)[0].bias is None and ConvNormActivation(2, 3, norm=None)[0].bias is not None
    assert ConvNormActivation(2, 3, bias=True)[0].bias is not None


def test_norm_and_activation_may_be_functions() -> None:
    block = ConvNormActivation(4, 8, norm=partial(create_norm, "group", groups=4), activation=lambda: nn.LeakyReLU(0.1))
    assert kinds(block) == ["Conv2d", "GroupNorm", "LeakyReLU"] and block[1].num_groups == 4


@pytest.mark.parametrize("activation", list_activations())
@pytest.mark.parametrize("norm", [*list_norms(), None])
def test_every_norm_with_every_activation_learns(norm: str | None, activation: str) -> None:
    block = ConvNormActivation(3, 32, norm=norm, activation=activation)
    block(torch.randn(2, 3, 5, 5)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in block.parameters())


def test_mobilenets_order() -> None:
    block = SeparableConv(32, 64, stride=2)
    assert kinds(block) == ["Conv2d", "BatchNorm2d", "ReLU"] * 2
    # MobileNet, table 1: conv dw s2 on 112x112x64, then 1x1x64x128 (weights; norms have two for each channel)
    block = SeparableConv(64, 128, stride=2)
    assert count_parameters(block) == 9 * 64 + 64 * 128 + 2 * (64 + 128)
    assert count_macs(block, (64, 112, 112)) == (9 * 64 + 64 * 128) * 56 * 56


def test_xceptions_order() -> None:
    block = SeparableConv(8, 16, order="xception")
    assert kinds(block) == ["Conv2d", "Conv2d", "BatchNorm2d", "ReLU"]
    assert not [m for m in block.modules() if isinstance(m, nn.Conv2d) and m.bias is not None]
    # without anything in between, both are one convolution whose kernels are products
    plain = SeparableConv(8, 16, order="xception", norm=None, activation=None).double()
    x = torch.randn(2, 8, 6, 7, dtype=torch.float64)
    depthwise, pointwise = (m for m in plain.modules() if isinstance(m, nn.Conv2d))
    kernel = pointwise.weight * depthwise.weight.transpose(0, 1)
    torch.testing.assert_close(plain(x), F.conv2d(x, kernel, pointwise.bias, padding=1))
    assert depthwise.bias is None and pointwise.bias is not None


def test_separable_is_torchvisions_mobilenet_v3_block() -> None:
    # without expansion, squeeze and shortcut that block is MobileNet's, less the last activation
    config = InvertedResidualConfig(8, 5, 8, 16, False, "HS", 2, 1, 1.0)
    reference = InvertedResidual(config, partial(nn.BatchNorm2d, eps=1e-5)).block
    block = SeparableConv(8, 16, 5, 2, activation="hard_swish")
    for ours, theirs in zip(block.parameters(), reference.parameters(), strict=True):
        ours.data.copy_(theirs)
    x = torch.randn(2, 8, 8, 8)
    torch.testing.assert_close(block(x), F.hardswish(reference(x)))


def test_factorised_is_nxn_for_products() -> None:
    block = FactorizedConv(1, 1, 7, norm=None, activation=None).double()
    row, column = (m for m in block.modules() if isinstance(m, nn.Conv2d))
    nn.init.zeros_(row.bias)  # type: ignore[arg-type]
    x = torch.randn(1, 1, 9, 11, dtype=torch.float64)
    expected = F.conv2d(x, column.weight @ row.weight, column.bias, padding=3)
    torch.testing.assert_close(block(x), expected)


def test_factorised_costs_two_nths() -> None:
    block, full = FactorizedConv(64, 64, 7, norm=None), create_conv(64, 64, 7)
    assert count_parameters(block) - 2 * 64 == (count_parameters(full) - 64) * 2 // 7
    assert FactorizedConv(4, 6, 3, 2, middle_channels=5)(torch.randn(2, 4, 9, 8)).shape == (2, 6, 5, 4)
    assert kinds(FactorizedConv(4, 6)) == ["Conv2d", "BatchNorm2d", "ReLU"] * 2


def test_dilated_sees_further_for_the_same_weights() -> None:
    conv = create_conv(1, 1, 3, dilation=4, bias=False)
    x = torch.zeros(1, 1, 17, 17, requires_grad=True)
    conv(x)[0, 0, 8, 8].backward()
    assert x.grad is not None and sorted({int(i) for i in x.grad[0, 0].nonzero()[:, 0]}) == [4, 8, 12]


def test_shuffle_deals_out() -> None:
    x = torch.arange(6.0).view(1, 6, 1, 1)
    assert channel_shuffle(x, 2).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    assert channel_shuffle(x, 3).flatten().tolist() == [0, 2, 4, 1, 3, 5]


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 6, 12])
def test_shuffle_is_torchvisions(groups: int) -> None:
    x = torch.randn(2, 12, 3, 5, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(channel_shuffle(x, groups), torchvision_shuffle(x, groups))
    torch.testing.assert_close(channel_shuffle(channel_shuffle(x, groups), 12 // groups), x)  # its inverse
    assert torch.autograd.gradcheck(lambda t: channel_shuffle(t, groups), x)


def test_split() -> None:
    x = torch.randn(2, 12, 3, 5)
    left, right = channel_split(x)
    assert left.data_ptr() == x.data_ptr() and right.shape == (2, 6, 3, 5)
    parts: tuple[Tensor, ...] = channel_split(x, (2, 10))
    torch.testing.assert_close(torch.cat(parts, dim=1), x)
    assert [p.shape[1] for p in channel_split(x, 4)] == [3] * 4


def test_errors() -> None:
    x = torch.randn(1, 6, 2, 2)
    with pytest.raises(InputError, match="6 channels cannot be shuffled in 4 groups"):
        channel_shuffle(x, 4)
    with pytest.raises(InputError, match="6 channels cannot be cut into 4 equal parts"):
        channel_split(x, 4)
    with pytest.raises(InputError, match=r"parts \[2, 2\] make 4 channels, the map has 6"):
        channel_split(x, (2, 2))
    with pytest.raises(InputError, match="unknown order 'inception'"):
        SeparableConv(2, 2, order="inception")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="unknown norm 'bach'; did you mean batch"):
        ConvNormActivation(2, 2, norm="bach")
    with pytest.raises(InputError, match="out_channels must be a whole number of at least 1, got 0"):
        ConvNormActivation(2, 0)
