"""Context blocks: plain poolings, torchvision's ASPP on copied weights, the receptive fields that the papers claim."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.segmentation import deeplabv3

from opsin.errors import InputError
from opsin.nn.context import ASPP, SPPBlock, SummedASPP, rfb, rfb_s
from opsin.nn.counting import count_parameters


def test_spp_is_the_plain_poolings_in_darknets_order() -> None:
    x = -1 - torch.rand(2, 3, 16, 11)  # below zero, so that the padding would show
    expected = torch.cat([F.max_pool2d(x, k, 1, k // 2) for k in (13, 9, 5)] + [x], dim=1)
    assert torch.equal(SPPBlock()(x), expected)
    assert torch.equal(SPPBlock((13, 5, 9))(x), expected)
    assert torch.equal(SPPBlock((3,))(x), torch.cat([F.max_pool2d(x, 3, 1, 1), x], dim=1))


def test_spp_gradient() -> None:
    x = torch.randn(1, 2, 6, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(SPPBlock((3, 5)), x)


def copy_parameters(ours: nn.Module, theirs: nn.Module) -> None:
    for own, other in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        own.copy_(other)


@pytest.mark.parametrize("training", [True, False])
def test_aspp_is_torchvisions(training: bool) -> None:
    theirs = deeplabv3.ASPP(6, [2, 3, 4], 8)
    theirs.project[3] = nn.Identity()  # its dropout
    ours = ASPP(6, 8, (2, 3, 4))
    copy_parameters(ours, theirs)
    x = torch.randn(2, 6, 9, 10)
    torch.testing.assert_close(ours.train(training)(x), theirs.train(training)(x))


def test_aspp_counts() -> None:
    # DeepLabv3 on ResNet's 2048 channels: 1x1, three 3x3, image, projection of 5 x 256, and six norms of 256
    convs = 2048 * 256 * (1 + 3 * 9 + 1) + 5 * 256 * 256
    assert count_parameters(ASPP(2048)) == convs + 6 * 512
    separable = 2048 * 256 * (1 + 3 + 1) + 3 * 9 * 2048 + 5 * 256 * 256
    assert count_parameters(ASPP(2048, separable=True)) == separable + 6 * 512


def reach(block: nn.Module, channels: int, size: int) -> list[int]:
    """Columns that the middle output depends on, relative to it, through one block of positive weights."""
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.ones_(module.weight)
    x = torch.zeros(1, channels, size, size, requires_grad=True)
    block.eval()(x + 1)[0, :, size // 2, size // 2].sum().backward()
    assert x.grad is not None
    return [int(i) - size // 2 for i in x.grad[0].sum(dim=0)[size // 2].nonzero()[:, 0]]


def test_rates_of_rfb() -> None:
    block = rfb(16, 8)
    assert [reach(branch, 16, 21) for branch in block.branches] == [
        [-1, 0, 1],  # 1x1, rate 1
        [-4, -3, -2, -1, 0, 1, 2, 3, 4],  # 3x3, rate 3: no holes
        [*range(-7, 8)],  # 5x5, rate 5: no holes
    ]
    assert reach(rfb(16, 8), 16, 31) == [*range(-7, 8)]


def test_rfb_by_its_formula() -> None:
    block, x = rfb(32, 24, scale=0.1).eval(), torch.randn(2, 32, 8, 8)
    branches = torch.cat([branch(x) for branch in block.branches], dim=1)
    torch.testing.assert_close(block(x), torch.relu(block.shortcut(x) + 0.1 * block.join(branches)))
    # SSD's conv7 -> RFB, 1024 channels: an eighth is 128
    block, narrow = rfb(1024, 1024), 128
    wide, middle = 2 * narrow, narrow // 2 * 3
    branches = 1024 * (wide + 2 * narrow) + 9 * (narrow * wide + narrow * middle + middle * wide + 3 * wide * wide)
    norms = 2 * (2 * wide + (narrow + 2 * wide) + (narrow + middle + 2 * wide) + 2 * 1024)
    assert count_parameters(block) == branches + 3 * wide * 1024 + 1024 * 1024 + norms


def test_rfb_s_branches() -> None:
    block: Any = rfb_s(512, 512)
    shapes = [[tuple(m.kernel_size) for m in b.modules() if isinstance(m, nn.Conv2d)] for b in block.branches]
    one, three = (1, 1), (3, 3)
    assert shapes == [[one, three], [one, (3, 1), three], [one, (1, 3), three], [one, (1, 3), (3, 1), three]]
    widths = [[m.out_channels for m in b.modules() if isinstance(m, nn.Conv2d)] for b in block.branches]
    assert widths == [[128, 128], [128] * 3, [128] * 3, [64, 96, 128, 128]]
    assert [b[-1][0].dilation[0] for b in block.branches] == [1, 3, 3, 5]


@pytest.mark.parametrize("build", [rfb, rfb_s])
@pytest.mark.parametrize("stride", [1, 2])
def test_rfb_strides_and_learns(build: Callable[..., nn.Module], stride: int) -> None:
    block = build(32, 24, stride)
    y = block(torch.randn(2, 32, 9, 10))
    assert y.shape == (2, 24, -(-9 // stride), -(-10 // stride))
    y.sum().backward()
    assert all(p.grad is not None for p in block.parameters())


def test_errors() -> None:
    with pytest.raises(InputError, match="must be odd to keep the size of the map, got 4"):
        SPPBlock((5, 4))
    with pytest.raises(InputError, match="kernel_sizes is empty"):
        SPPBlock(())
    with pytest.raises(InputError, match=r"rates must be 3, one for each branch, got \[1, 2\]"):
        rfb(16, 8, rates=(1, 2))
    with pytest.raises(InputError, match="in_channels must be a whole number of at least 16, got 8"):
        rfb_s(8, 8)
    with pytest.raises(InputError, match="takes maps of shape"):
        ASPP(4, 4)(torch.zeros(4, 4))


def test_summed_aspp_is_a_sum_of_dilated_convolutions() -> None:
    # On VGG's 512 channels: four branches of fc6, fc7 and fc8; on ResNet-101's 2048 four 3x3 to the classes.
    assert count_parameters(SummedASPP(512, 21, hidden_features=1024)) == 4 * (4_719_616 + 1_049_600 + 21_525)
    assert count_parameters(SummedASPP(2048, 21)) == 4 * (2048 * 21 * 9 + 21)
    block, x = SummedASPP(4, 3, (1, 2)).eval(), torch.randn(2, 4, 9, 10)
    options = zip(block.branches, (1, 2), strict=True)
    expected = [F.conv2d(x, b.weight, b.bias, padding=r, dilation=r) for b, r in options]  # type: ignore[arg-type]
    torch.testing.assert_close(block(x), expected[0] + expected[1])
    with pytest.raises(InputError, match="rates is empty"):
        SummedASPP(4, 3, ())


def test_aspp_trains_on_one_image() -> None:
    block = ASPP(4, 4, (1, 2)).train()
    assert block(torch.randn(1, 4, 8, 8)).isfinite().all()
