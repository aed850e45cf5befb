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
from opsin.nn.counting import count_parameters


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


def test_residual_switch_changes_no_parameter() -> None:
    with_, without = (on_meta(inception_resnet.inception_resnet_v1, residual=r) for r in (True, False))
    assert count_parameters(with_) == count_parameters(without)
    assert {m.residual for m in residuals(with_)} == {True} and {m.residual for m in residuals(without)} == {False}


def test_wrong_options() -> None:
    with pytest.raises(InputError, match="scales are of three stages, got 2"):
        inception_resnet.inception_resnet_v1(scales=(0.1, 0.2))
    with pytest.raises(InputError, match="unknown norm 'batch'"):
        inception_resnet.inception_resnet_v2(norm="batch")
