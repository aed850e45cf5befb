from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import timm
import torch
import torchvision.models
from torch import nn
from torchvision.ops import SqueezeExcitation, StochasticDepth

from opsin import registry
from opsin.backbones import Backbone
from opsin.backbones.efficientnet import EfficientNet
from opsin.backbones.mobilenet_v2 import InvertedResidual
from opsin.errors import InputError
from opsin.nn.counting import count_parameters


@pytest.mark.parametrize("place", [0, 2, 5])
def test_outputs_equal_torchvision(place: int, assert_equal: Callable[..., None]) -> None:
    name = f"efficientnet_b{place}"
    assert_equal(partial(registry.create_model, name), getattr(torchvision.models, name), [(64, 64), (45, 57)])


@pytest.mark.parametrize("place", [0, 3])
def test_outputs_of_the_authors_form_equal_timm(place: int, assert_equal: Callable[..., None]) -> None:
    name = f"tf_efficientnet_b{place}"
    assert_equal(partial(registry.create_model, name), partial(timm.create_model, name), [(64, 64), (45, 58)])


@pytest.mark.parametrize("place", [0, 4, 5])
def test_norms_are_those_of_the_references(place: int) -> None:
    with torch.device("meta"):
        for name, reference in [
            (f"efficientnet_b{place}", getattr(torchvision.models, f"efficientnet_b{place}")()),
            (f"tf_efficientnet_b{place}", timm.create_model(f"tf_efficientnet_b{place}")),
        ]:
            ours = next(m for m in registry.create_model(name).modules() if isinstance(m, nn.BatchNorm2d))
            theirs = next(m for m in reference.modules() if isinstance(m, nn.BatchNorm2d))
            assert ours.eps == theirs.eps
            if name[:2] != "tf":  # timm has torch's momentum there; the authors' code has a decay of 0.99
                assert ours.momentum == theirs.momentum


def test_stochastic_depth_grows_with_the_place_and_can_be_left_out() -> None:
    with torch.device("meta"):
        model, sure = (registry.create_model("efficientnet_b0", stochastic_depth=p) for p in (0.2, 0.0))
    drops = [m.p for m in model.modules() if isinstance(m, StochasticDepth)]
    places = [i for i, m in enumerate(m for m in model.modules() if isinstance(m, InvertedResidual)) if m.residual]
    assert drops == [pytest.approx(0.2 * place / 16) for place in places]
    assert not any(isinstance(m, StochasticDepth) for m in sure.modules())


def test_a_dropped_block_is_its_shortcut() -> None:
    block = InvertedResidual(8, 16, 8, drop=0.999999).train()
    x = torch.randn(4, 8, 6, 6)
    torch.testing.assert_close(block(x), x)
    assert not torch.allclose(block.eval()(x), x)


def test_switches_by_their_counts() -> None:
    def build(**options: Any) -> nn.Module:
        with torch.device("meta"):
            return registry.create_model("efficientnet_b0", **options)

    full = build()
    squeezes = [m for m in full.modules() if isinstance(m, SqueezeExcitation)]
    assert len(squeezes) == 16
    removed = sum(p.numel() for m in squeezes for p in m.parameters())
    assert count_parameters(full) - count_parameters(build(se=False)) == removed
    assert count_parameters(build(residual=False)) == count_parameters(full)
    assert not any(m.residual for m in build(residual=False).modules() if isinstance(m, InvertedResidual))


def test_compound_scaling_is_reachable_by_its_options() -> None:
    # B3: width 1.2, depth 1.4
    with torch.device("meta"):
        scaled = EfficientNet(width=1.2, depth=1.4)
    assert count_parameters(scaled) == registry.find_model("efficientnet_b3").published.params


def test_small_images() -> None:
    with torch.device("meta"):
        model = registry.create_model("efficientnet_b0", small_images=True, width=0.5, in_channels=1, num_classes=10)
    assert isinstance(model, Backbone)
    assert model.strides == (1, 1, 2, 4, 8)
    assert [m.shape[2] for m in model.features(torch.empty(1, 1, 28, 28, device="meta"))] == [28, 28, 14, 7, 4]


@pytest.mark.parametrize("place", range(8))
def test_weights_are_named_by_their_hash(place: int) -> None:
    for name, kinds in [
        (f"efficientnet_b{place}", {"imagenet1k", "imagenet1k_v2"} if place == 1 else {"imagenet1k"}),
        (f"tf_efficientnet_b{place}", {"imagenet1k", "imagenet1k_advprop", "imagenet1k_noisy_student"}),
    ]:
        weights = registry.find_model(name).weights
        assert set(weights) == kinds
        assert all(len(w.sha256) == 8 and w.url.endswith(f"-{w.sha256}.pth") for w in weights.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be"),
        ({"depth": 0}, "depth must be"),
        ({"stochastic_depth": 1.0}, "stochastic_depth must be"),
        ({"padding": "same"}, "unknown padding"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        registry.create_model("efficientnet_b0", **options)
