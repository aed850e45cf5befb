from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision.models
from torch import Tensor, nn

from opsin import registry
from opsin.backbones import shufflenet_v2
from opsin.backbones.shufflenet_v2 import ShuffleNetV2, Unit
from opsin.errors import InputError
from opsin.nn.counting import count_macs, count_parameters

NAMES = ["shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0"]


def count(name: str, **options: Any) -> int:
    with torch.device("meta"):
        return count_parameters(registry.create_model(name, **options))


@pytest.mark.parametrize("name", NAMES)
def test_outputs_equal_torchvision(name: str, assert_equal: Callable[..., None]) -> None:
    assert_equal(partial(registry.create_model, name), getattr(torchvision.models, name), [(64, 64), (75, 97)])


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_those_of_torchvision(name: str) -> None:
    theirs = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    ours = registry.find_model(name).weights["imagenet1k"]
    transforms = theirs.transforms()
    assert ours.url == theirs.url and len(ours.sha256) >= 8 and f"-{ours.sha256}.pth" in theirs.url
    assert list(ours.metrics.values()) == list(theirs.meta["_metrics"]["ImageNet-1K"].values())
    assert ours.preprocessing["crop_ratio"] == transforms.crop_size[0] / transforms.resize_size[0]


def test_unit_is_that_of_the_paper() -> None:
    unit = Unit(8, 8, 1, shuffle=True, residual=False, se=False).eval()
    x = torch.randn(2, 8, 5, 5)
    with torch.no_grad():
        joined = torch.cat([x[:, :4], unit.body(x[:, 4:])], dim=1)
        expected = torch.stack([joined[:, place // 2 + 4 * (place % 2)] for place in range(8)], dim=1)
        torch.testing.assert_close(unit(x), expected)


def test_without_shuffle_half_of_the_channels_pass_a_whole_stage() -> None:
    model = shufflenet_v2.shufflenet_v2_x0_5(shuffle=False).eval()
    with torch.no_grad():
        first, *rest = model.stages[1]  # type: ignore[misc]
        x = first(torch.randn(1, 48, 8, 8))
        y = nn.Sequential(*rest)(x)
    assert torch.equal(y[:, :48], x[:, :48]) and not torch.allclose(y[:, 48:], x[:, 48:])
    assert count("shufflenet_v2_x0_5", shuffle=False) == count("shufflenet_v2_x0_5")


@pytest.mark.parametrize("se", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_residual_and_se(residual: bool, se: bool) -> None:
    torch.manual_seed(0)
    unit = Unit(64, 64, 1, shuffle=False, residual=residual, se=se).eval()
    x = torch.randn(2, 64, 6, 6)
    past, through = x[:, :32], x[:, 32:]
    with torch.no_grad():
        y = through
        for layer in unit.body[:3]:
            y = layer(y)
        if se:
            y = y * _gate(unit.body[3], y)
        torch.testing.assert_close(unit(x), torch.cat([past, y + through if residual else y], dim=1))


def _gate(se: nn.Module, x: Tensor) -> Tensor:
    down, down_bias, up, up_bias = se.parameters()
    hidden = F.relu(F.conv2d(x.mean(dim=(2, 3), keepdim=True), down, down_bias))
    return torch.sigmoid(F.conv2d(hidden, up, up_bias))


def test_se_and_residual_cost() -> None:
    plain = count("shufflenet_v2_x1_0")
    assert count("shufflenet_v2_x1_0", residual=True) == plain
    blocks = [(58, 4), (116, 8), (232, 4)]  # width of a half, units
    extra = sum(n * (2 * w * (w // 16) + w + w // 16) for w, n in blocks)
    assert count("shufflenet_v2_x1_0", se=True) - plain == extra


def test_small_images() -> None:
    with torch.device("meta"):
        model = shufflenet_v2.shufflenet_v2_x0_5(small_images=True, num_classes=10, in_channels=1)
        maps = model.features(torch.empty(1, 1, 28, 28))
    assert model.strides == (2, 4, 8) and [m.shape[-1] for m in maps] == [14, 7, 4]
    # the stem has no weights more or less; an input four times smaller in both directions costs as much behind it
    with torch.device("meta"):
        large = shufflenet_v2.shufflenet_v2_x0_5(num_classes=10, in_channels=1)
    assert count_parameters(model) == count_parameters(large)
    stems = [24 * 9 * 32**2, 24 * 9 * 64**2]
    assert count_macs(model, (1, 32, 32)) - stems[0] == count_macs(large, (1, 128, 128)) - stems[1]


def test_initial_weights_keep_the_scale() -> None:
    torch.manual_seed(0)
    model = shufflenet_v2.shufflenet_v2_x1_0()
    unit = model.stages[2][1]  # type: ignore[index]
    pointwise, depthwise = unit.body[0][0], unit.body[1][0]  # type: ignore[union-attr, index]
    assert float(pointwise.weight.detach().std()) == pytest.approx((2 / 232) ** 0.5, rel=0.02)
    assert float(depthwise.weight.detach().std()) == pytest.approx((2 / 9) ** 0.5, rel=0.05)


def test_options_are_checked() -> None:
    with pytest.raises(InputError, match="dropout"):
        registry.create_model("shufflenet_v2_x1_0", dropout=1.5)
    model = shufflenet_v2.shufflenet_v2_x2_0
    with torch.device("meta"):
        assert isinstance(model(dropout=0.2), ShuffleNetV2)
