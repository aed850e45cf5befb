from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from pytorchcv.models.inceptionresnetv1 import inceptionresnetv1
from torch import nn

from opsin.backbones import inception_resnet
from opsin.backbones.googlenet import Branches
from opsin.backbones.inception_resnet import InceptionResNet, ScaledResidual
from opsin.errors import InputError
from opsin.nn.counting import count_macs, count_parameters


def test_v2_equals_timm(assert_equal: Callable[..., None]) -> None:
    reference = lambda: timm.create_model("inception_resnet_v2")  # noqa: E731
    assert_equal(inception_resnet.inception_resnet_v2, reference, [(75, 75), (97, 84)])


def test_v1_equals_pytorchcv(assert_equal: Callable[..., None]) -> None:
    def pool_globally(model: nn.Module) -> None:
        model.features.final_pool = nn.AdaptiveAvgPool2d(1)  # type: ignore[union-attr]  # its own is an 8x8 window

    assert_equal(inception_resnet.inception_resnet_v1_512, inceptionresnetv1, [(75, 75), (97, 84)], pool_globally)


def on_meta(builder: Callable[..., InceptionResNet], **options: Any) -> InceptionResNet:
    with torch.device("meta"):
        return builder(**options)


def test_forms_of_v1_differ_in_the_head_alone() -> None:
    direct = on_meta(inception_resnet.inception_resnet_v1)
    embedding = on_meta(inception_resnet.inception_resnet_v1_512)
    heads = count_parameters(direct.head), count_parameters(embedding.head)
    assert heads == (1792 * 1000 + 1000, 1792 * 512 + 2 * 512 + 512 * 1000 + 1000)
    trunks = [count_parameters(model) - head for model, head in zip((direct, embedding), heads, strict=True)]
    assert trunks == [22_564_096, 22_564_096]


def test_a_module_is_its_formula() -> None:
    torch.manual_seed(0)
    branches = Branches([nn.Conv2d(4, 2, 1), nn.Conv2d(4, 3, 3, padding=1)])
    x = torch.randn(2, 4, 5, 5)
    for activate, residual in ((True, True), (False, True), (True, False)):
        module = ScaledResidual(branches, 5, 4, 0.17, activate, residual)
        found = torch.cat([branches[0](x), branches[1](x)], dim=1)
        y = module.linear(found)
        expected = x + 0.17 * y if residual else y
        torch.testing.assert_close(module(x), expected.clamp(min=0) if activate else expected)


def residuals(model: InceptionResNet) -> list[ScaledResidual]:
    return [module for module in model.modules() if isinstance(module, ScaledResidual)]


@pytest.mark.parametrize(
    ("builder", "depths"),
    [
        (inception_resnet.inception_resnet_v1, (5, 10, 5)),
        (inception_resnet.inception_resnet_v2, (10, 20, 9)),
    ],
)
def test_scales_of_the_stages_and_the_last_module(
    builder: Callable[..., InceptionResNet], depths: tuple[int, int, int]
) -> None:
    for scales in ((0.17, 0.10, 0.20), (0.3, 0.2, 0.1)):
        model = on_meta(builder, scales=scales)
        expected = [scale for scale, depth in zip(scales, depths, strict=True) for _ in range(depth)]
        assert [module.scale for module in residuals(model)] == [*expected, 1.0]
        assert [isinstance(m.activation, nn.ReLU) for m in residuals(model)] == [True] * sum(depths) + [False]


def test_v1_as_printed_is_one_module_less() -> None:
    model = on_meta(inception_resnet.inception_resnet_v1_2016)
    assert [module.scale for module in residuals(model)] == [0.17] * 5 + [0.10] * 10 + [0.20] * 5
    assert all(isinstance(module.activation, nn.ReLU) for module in residuals(model))
    pointwise, rows = 1792 * 192, 192 * 192 * 3
    module = 2 * (pointwise + 2 * 192) + 2 * (rows + 2 * 192) + 384 * 1792 + 1792  # figure 13, with batch norm
    assert count_parameters(model) == 24_357_096 - module


def test_v2_as_printed_is_the_sum_of_its_figures() -> None:
    # (times, in, out, kernel's area, places) of every convolution of figures 3, 7 and 16 to 19 for images of 299
    a, b, c = 35 * 35, 17 * 17, 8 * 8
    stem = [(1, 3, 32, 9, 149**2), (1, 32, 32, 9, 147**2), (1, 32, 64, 9, 147**2), (1, 64, 96, 9, 73**2)]
    stem += [(1, 160, 64, 1, 73**2), (1, 64, 96, 9, 71**2), (1, 192, 192, 9, a)]
    stem += [(1, 160, 64, 1, 73**2), (2, 64, 64, 7, 73**2), (1, 64, 96, 9, 71**2)]
    at35 = [(15, 384, 32, 1, a), (5, 32, 32, 9, a), (5, 32, 48, 9, a), (5, 48, 64, 9, a)]
    to17 = [(1, 384, 384, 9, b), (1, 384, 256, 1, a), (1, 256, 256, 9, a), (1, 256, 384, 9, b)]
    at17 = [(10, 1152, 192, 1, b), (10, 1152, 128, 1, b), (10, 128, 160, 7, b), (10, 160, 192, 7, b)]
    to8 = [(3, 1152, 256, 1, b), (1, 256, 384, 9, c), (1, 256, 288, 9, c), (1, 256, 288, 9, b), (1, 288, 320, 9, c)]
    at8 = [(10, 2144, 192, 1, c), (5, 192, 224, 3, c), (5, 224, 256, 3, c)]
    convolutions = [*stem, *at35, *to17, *at17, *to8, *at8]
    linear = [(5, 128, 384, 1, a), (10, 384, 1152, 1, b), (5, 448, 2144, 1, c), (1, 2144, 1000, 1, 1)]
    parameters = sum(times * (m * n * area + 2 * n) for times, m, n, area, _ in convolutions)  # with batch norm
    parameters += sum(times * (m * n * area + n) for times, m, n, area, _ in linear)
    macs = sum(times * m * n * area * places for times, m, n, area, places in [*convolutions, *linear])
    model = on_meta(inception_resnet.inception_resnet_v2_2016)
    assert (count_parameters(model), count_macs(model, (3, 299, 299))) == (parameters, macs)
    assert [module.scale for module in residuals(model)] == [0.17] * 5 + [0.10] * 10 + [0.20] * 5
    assert all(isinstance(module.activation, nn.ReLU) for module in residuals(model))


def test_residual_switch_changes_no_parameter() -> None:
    with_, without = (on_meta(inception_resnet.inception_resnet_v1, residual=r) for r in (True, False))
    assert count_parameters(with_) == count_parameters(without)
    assert {m.residual for m in residuals(with_)} == {True} and {m.residual for m in residuals(without)} == {False}


def test_wrong_options() -> None:
    with pytest.raises(InputError, match="scales are of three stages, got 2"):
        inception_resnet.inception_resnet_v1(scales=(0.1, 0.2))
    with pytest.raises(InputError, match="unknown norm 'batch'"):
        inception_resnet.inception_resnet_v2(norm="batch")
