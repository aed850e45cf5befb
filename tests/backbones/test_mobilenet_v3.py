from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import timm
import torch
import torchvision.models
from torch import nn

from opsin import registry
from opsin.backbones import Backbone, copy_in_order
from opsin.backbones.mobilenet_v3 import MobileNetV3
from opsin.errors import InputError
from opsin.nn.counting import count_macs, count_parameters

from .conftest import build_empty, randomize


@pytest.mark.parametrize("size", ["large", "small"])
def test_outputs_equal_torchvision(size: str, assert_equal: Callable[..., None]) -> None:
    name = f"mobilenet_v3_{size}"
    assert_equal(partial(registry.create_model, name), getattr(torchvision.models, name), [(64, 64), (75, 97)])


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("tf_mobilenet_v3_large", "tf_mobilenetv3_large_100"),
        ("tf_mobilenet_v3_small", "tf_mobilenetv3_small_100"),
        ("tf_mobilenet_v3_large_x0_75", "tf_mobilenetv3_large_075"),
        ("tf_mobilenet_v3_small_x0_75", "tf_mobilenetv3_small_075"),
        ("tf_mobilenet_v3_large_minimalistic", "tf_mobilenetv3_large_minimal_100"),
        ("tf_mobilenet_v3_small_minimalistic", "tf_mobilenetv3_small_minimal_100"),
    ],
)
def test_outputs_equal_timm_through_the_arrangement_of_the_weights(name: str, reference: str) -> None:
    model, other = build_empty(partial(registry.create_model, name)), build_empty(partial(timm.create_model, reference))
    randomize(other)
    arrange = registry.find_model(name).weights["imagenet1k"].arrange
    assert arrange is not None
    copy_in_order(model, arrange(other.state_dict()))
    for height, width in [(64, 64), (75, 98)]:
        images = torch.randn(1, 3, height, width)
        with torch.no_grad():
            got, expected = model(images), other(images)
        assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("size", ["large", "small"])
def test_padding_is_all_that_tells_the_two_apart(size: str) -> None:
    torch.manual_seed(0)
    ours = registry.create_model(f"mobilenet_v3_{size}", num_classes=4).eval()
    tf = registry.create_model(f"tf_mobilenet_v3_{size}", num_classes=4).eval()
    tf.load_state_dict(ours.state_dict())
    odd, even = torch.randn(1, 3, 33, 33), torch.randn(1, 3, 64, 64)
    with torch.no_grad():  # an odd map of 2^n + 1 is padded alike on both sides in either
        torch.testing.assert_close(ours(odd), tf(odd), rtol=1e-4, atol=1e-6)
        assert not torch.allclose(ours(even), tf(even), rtol=1e-4, atol=1e-6)


def test_switches_by_their_counts() -> None:
    def count(size: str, **options: Any) -> int:
        with torch.device("meta"):
            return count_parameters(registry.create_model(f"mobilenet_v3_{size}", **options))

    # a squeeze of c channels through s has c * s + s and s * c + c numbers; s is c / 4, rounded to 8
    pairs = [(72, 24), (120, 32), (120, 32), (480, 120), (672, 168), (672, 168), (960, 240), (960, 240)]
    assert count("large") - count("large", se=False) == sum(2 * c * s + c + s for c, s in pairs)
    deep = [72, 120, 120, 672, 960, 960]  # the depthwise channels with 5x5 kernels
    assert count("large") - count("large", large_kernels=False) == 16 * sum(deep)
    assert count("small") == count("small", hard_swish=False) == count("small", residual=False)
    for size in ("large", "small"):
        minimalistic = registry.find_model(f"mobilenet_v3_{size}_minimalistic").published.params
        assert count(size, se=False, hard_swish=False, large_kernels=False) == minimalistic


def test_minimalistic_has_nothing_but_3x3_and_relu() -> None:
    model = registry.create_model("mobilenet_v3_small_minimalistic")
    assert not any(isinstance(m, nn.Hardswish | nn.Hardsigmoid) for m in model.modules())
    assert {m.kernel_size for m in model.modules() if isinstance(m, nn.Conv2d)} == {(1, 1), (3, 3)}


def test_a_narrow_net_for_small_images() -> None:
    with torch.device("meta"):
        model = registry.create_model("mobilenet_v3_small", width=0.5, small_images=True, in_channels=1, num_classes=10)
    assert isinstance(model, Backbone)
    assert model.strides == (1, 2, 4, 8)
    assert [tuple(m.shape[2:]) for m in model.features(torch.empty(1, 1, 28, 28, device="meta"))] == [
        (28, 28),
        (14, 14),
        (7, 7),
        (4, 4),
    ]
    assert count_macs(model, (1, 28, 28)) < 6_000_000
    with torch.device("meta"):
        large = registry.create_model("mobilenet_v3_large", small_images=True)
    assert isinstance(large, MobileNetV3) and large.strides == (1, 1, 2, 4, 8)


def test_a_wider_net_widens_its_last_layer_too() -> None:
    with torch.device("meta"):
        wide, narrow = (registry.create_model("mobilenet_v3_small", width=w) for w in (1.25, 0.5))
    hidden = [next(m.out_features for m in model.modules() if isinstance(m, nn.Linear)) for model in (wide, narrow)]
    assert hidden == [1280, 1024]


@pytest.mark.parametrize("width", [0, -1.0, True, "1"])
def test_width_is_checked(width: Any) -> None:
    with pytest.raises(InputError, match=r"width must be (above 0|a number)"):
        registry.create_model("mobilenet_v3_small", width=width)


def test_padding_is_checked() -> None:
    with pytest.raises(InputError, match="unknown padding"):
        registry.create_model("mobilenet_v3_small", padding="same")
