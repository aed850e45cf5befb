from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import timm
import torch
from pytorchcv.models.darknet import darknet19 as pytorchcv_darknet19
from pytorchcv.models.darknet53 import darknet53 as pytorchcv_darknet53
from torch import nn

from opsin import registry
from opsin.backbones import darknet
from opsin.backbones.darknet import Layers, Residual
from opsin.errors import InputError
from opsin.nn.counting import count_macs, count_parameters


def _pool_any_size(reference: nn.Module) -> None:
    """pytorchcv's last pooling is of 7x7; its slope of leaky ReLU is Darknet's."""
    for part in (reference.features, reference.output):
        if hasattr(part, "final_pool"):
            part.final_pool = nn.AdaptiveAvgPool2d(1)  # type: ignore[union-attr]


def test_darknet19_equals_pytorchcv(assert_equal: Callable[..., None]) -> None:
    assert_equal(darknet.darknet19, pytorchcv_darknet19, [(64, 64), (96, 160)], _pool_any_size)


def test_darknet53_equals_pytorchcv(assert_equal: Callable[..., None]) -> None:
    assert_equal(darknet.darknet53, pytorchcv_darknet53, [(64, 64), (75, 97)], _pool_any_size)


def test_darknet53_timm_equals_timm(assert_equal: Callable[..., None]) -> None:
    assert_equal(darknet.darknet53_timm, partial(timm.create_model, "darknet53"), [(64, 64), (75, 97)])


def test_the_slope_is_what_tells_timm_from_darknet() -> None:
    with torch.device("meta"):
        slopes = [
            {m.negative_slope for m in build().modules() if isinstance(m, nn.LeakyReLU)}
            for build in (darknet.darknet19, darknet.darknet53, darknet.resnet50_darknet, darknet.darknet53_timm)
        ]
    assert slopes == [{0.1}, {0.1}, {0.1}, {0.01}]


def test_weights_are_those_of_timm() -> None:
    weights = registry.find_model("darknet53_timm").weights["imagenet1k"]
    published = timm.get_pretrained_cfg("darknet53")
    assert published is not None and weights.url == published.url and weights.sha256 in weights.url
    assert weights.preprocessing["size"] == list(published.test_input_size or ())[1:]
    assert weights.preprocessing["crop_ratio"] == published.test_crop_pct
    assert weights.preprocessing["interpolation"] == published.interpolation


def test_darknet19_at_the_size_of_its_paper() -> None:
    with torch.device("meta"):
        model = darknet.darknet19()
    assert 2 * count_macs(model, (3, 224, 224)) == 5_581_979_648  # "5.58 billion operations"


def test_odd_borders_are_pooled_by_themselves() -> None:
    with torch.device("meta"):
        maps = darknet.darknet19().features(torch.empty(1, 3, 97, 64))
    assert [map_.shape[2:] for map_ in maps] == [(49, 32), (25, 16), (13, 8), (7, 4), (4, 2)]


def test_shortcut_keeps_what_it_can_and_pads() -> None:
    x = torch.randn(1, 4, 6, 6)
    body = nn.Conv2d(4, 10, 3, 2, 1)
    expected = body(x)
    expected[:, :4] += x[:, :, ::2, ::2]
    torch.testing.assert_close(Residual(body, 4, 10, stride=2)(x), expected)
    assert torch.equal(Residual(body, 4, 10, stride=2, residual=False)(x), body(x))


def test_blocks_learn_through_their_sum() -> None:
    layers = Layers("bn", "leaky_relu", 0.1)
    x = torch.randn(2, 8, 5, 5, requires_grad=True)
    for block in (darknet.dark_block(layers, 8, 4, 8), darknet.bottleneck(layers, 8, 4, 8)):
        block(x).sum().backward()
        assert all(p.grad is not None for p in block.parameters())


@pytest.mark.parametrize("name", ["darknet19", "darknet53", "resnet50_darknet"])
def test_without_norm_a_bias_takes_its_place(name: str) -> None:
    with torch.device("meta"):
        model, plain = registry.create_model(name), registry.create_model(name, norm=None)
    norms = sum(m.num_features for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert count_parameters(model) - count_parameters(plain) == norms


@pytest.mark.parametrize("name", ["darknet53", "resnext50_darknet"])
@pytest.mark.parametrize("options", [{"residual": False}, {"activation": "mish"}, {"negative_slope": 0.2}])
def test_switches_cost_nothing(name: str, options: dict[str, Any]) -> None:
    with torch.device("meta"):
        model, other = registry.create_model(name), registry.create_model(name, **options)
        assert other(torch.empty(2, 3, 45, 64)).shape == (2, 1000)
    assert count_parameters(model) == count_parameters(other)
    assert any(isinstance(m, nn.Mish) for m in other.modules()) == ("activation" in options)


def test_initial_weights_are_he_normal() -> None:
    torch.manual_seed(0)
    conv = next(m for m in darknet.darknet19().stages[4].modules() if isinstance(m, nn.Conv2d))
    assert float(conv.weight.detach().std()) == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)


def test_options_are_checked() -> None:
    with pytest.raises(InputError, match="unknown norm 'layer'"):
        registry.create_model("darknet53", norm="layer")
    with pytest.raises(InputError, match=r"unknown activation 'mich'.*mish"):
        registry.create_model("darknet53", activation="mich")
