from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pytorchcv.models.pyramidnet import get_pyramidnet
from pytorchcv.models.pyramidnet_cifar import get_pyramidnet_cifar
from torch import nn

from opsin import registry
from opsin.backbones import pyramidnet
from opsin.backbones.pyramidnet import PyramidBlock, PyramidNet, pyramid
from opsin.errors import InputError
from opsin.nn.counting import count_parameters


def pool_globally(net: Any) -> None:
    net.features.final_pool = nn.AdaptiveAvgPool2d(1)


def test_outputs_equal_pytorchcv(assert_equal: Callable[..., None]) -> None:
    ours = partial(PyramidNet, (3, 4, 6, 3), True, alpha=100)
    assert_equal(ours, partial(get_pyramidnet, 50, 100), [(64, 64), (43, 57)], pool_globally)


@pytest.mark.parametrize(("name", "depth", "bottleneck"), [("110_a48", 110, False), ("164_a84", 164, True)])
def test_cifar_nets_equal_pytorchcv(name: str, depth: int, bottleneck: bool, assert_equal: Callable[..., None]) -> None:
    alpha = int(name.partition("_a")[2])
    theirs = partial(get_pyramidnet_cifar, 10, depth, alpha, bottleneck)
    assert_equal(partial(registry.create_model, f"pyramidnet{name}"), theirs, [(32, 32), (21, 26)], pool_globally)


@pytest.mark.parametrize(
    ("widening", "alpha", "last"),
    [("additive", 48, 64), ("additive", 270, 286), ("multiplicative", 4.75, 76), ("multiplicative", 27, 432)],
)
def test_the_pyramid_ends_where_its_readme_says(widening: Any, alpha: float, last: int) -> None:
    widths = pyramid(16, 54, alpha, widening)
    assert len(widths) == 54 and widths[-1] == last and widths == sorted(widths)
    if widening == "additive":
        assert {b - a for a, b in pairwise(widths)} <= {int(alpha / 54), int(alpha / 54) + 1}
    else:
        assert widths[26] == round(16 * alpha**0.5)


def test_the_paper_rounds_down() -> None:
    # by hand: 16 + 10 k / 4 and 16 * 2 ** (k / 4) = 19.03, 22.63, 26.91, 32
    assert pyramid(16, 4, 10) == [18, 21, 24, 26] and pyramid(16, 4, 10, rounding="down") == [18, 21, 23, 26]
    assert pyramid(16, 4, 2, "multiplicative", "nearest") == [19, 23, 27, 32]
    assert pyramid(16, 4, 2, "multiplicative", "down") == [19, 22, 26, 32]
    assert pyramid(16, 54, 48, rounding="down")[-1] == 64  # not 63, for a sum of 63.99999...
    widths = [16, *(16 + 48 * k // 54 for k in range(1, 55))]
    blocks = (2 * m + 9 * m * n + 2 * n + 9 * n * n + 2 * n for m, n in pairwise(widths))  # norms and two 3x3
    expected = 3 * 16 * 9 + 2 * 16 + sum(blocks) + 2 * 64 + 64 * 10 + 10
    with torch.device("meta"):
        assert count_parameters(pyramidnet.pyramidnet110_a48(rounding="down")) == expected
    with pytest.raises(InputError, match="up"):
        pyramid(16, 4, 10, rounding="up")  # type: ignore[arg-type]


def test_every_stage_widens() -> None:
    with torch.device("meta"):
        model = pyramidnet.pyramidnet164_a48()
    assert model.channels == (4 * 32, 4 * 48, 4 * 64)


def test_a_block_pads_its_shortcut_and_ends_in_a_norm() -> None:
    model = pyramidnet.pyramidnet110_a84().eval()
    first = model.stages[1][0]  # type: ignore[index]
    assert isinstance(first, PyramidBlock) and isinstance(first.body[-1], nn.BatchNorm2d)
    kinds = [type(m).__name__ for m in first.body]
    assert kinds == ["BatchNorm2d", "Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "BatchNorm2d"]
    convolution = first.body[1]
    assert isinstance(convolution, nn.Conv2d)
    in_channels = convolution.in_channels
    x = torch.randn(2, in_channels, 6, 8)
    with torch.no_grad():
        expected = first.body(x)
        expected[:, :in_channels] += F.avg_pool2d(x, 2)
        torch.testing.assert_close(first(x), expected)


def test_switches() -> None:
    def count(**options: Any) -> int:
        with torch.device("meta"):
            return count_parameters(registry.create_model("pyramidnet110_a48", **options))

    assert count(residual=False) == count()  # the shortcuts have no parameters
    assert count(alpha=4.75, widening="multiplicative") == 1_762_206
    assert count(alpha=0) < count()
    model = pyramidnet.pyramidnet110_a48(alpha=4, residual=False).eval()
    block, x = model.stages[0][0], torch.randn(1, 16, 8, 8)  # type: ignore[index]
    with torch.no_grad():
        assert torch.equal(block(x), block.body(x))
    with torch.device("meta"):
        models = [pyramidnet.pyramidnet200_a450(), pyramidnet.pyramidnet101_a360()]
    assert [[m.p for m in model.head.modules() if isinstance(m, nn.Dropout)] for model in models] == [[0.5], [0.0]]


def test_options_are_checked() -> None:
    for options, message in [
        ({"widening": "wild"}, "unknown widening 'wild'"),
        ({"alpha": -1}, "alpha must be at least 0"),
        ({"alpha": 0.5, "widening": "multiplicative"}, "alpha must be at least 1"),
        ({"dropout": 1.0}, "dropout must be"),
    ]:
        with pytest.raises(InputError, match=message):
            registry.create_model("pyramidnet110_a48", **options)
