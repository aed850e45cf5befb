from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torchvision.models
from pytorchcv.models.wrn_cifar import wrn16_10_cifar10
from torch import nn

from opsin import registry
from opsin.backbones import wide_resnet
from opsin.errors import InputError
from opsin.nn.counting import count_parameters


def shapes(name: str, **options: Any) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {k: v.shape for k, v in registry.create_model(name, **options).state_dict().items()}


def test_outputs_equal_torchvision(assert_equal: Callable[..., None]) -> None:
    assert_equal(wide_resnet.wide_resnet50_2, torchvision.models.wide_resnet50_2, [(64, 64), (75, 97)])


def test_cifar_net_equals_pytorchcv(assert_equal: Callable[..., None]) -> None:
    def pool_globally(net: Any) -> None:
        net.features.final_pool = nn.AdaptiveAvgPool2d(1)

    assert_equal(partial(wide_resnet.wrn16_8, widening=10), wrn16_10_cifar10, [(32, 32), (17, 22)], pool_globally)


def test_a_net_of_width_one_is_thin() -> None:
    assert shapes("wide_resnet50_2", width_per_group=64) == shapes("resnet50")
    with torch.device("meta"):
        thin, wide = (wide_resnet.wrn40_4(widening=widening) for widening in (1, 4))
    # Section 2.2: parameters grow with the square of the widening. 2.7 and 5.2 % are what is linear in it.
    assert count_parameters(wide) / count_parameters(thin) == pytest.approx(16, rel=0.03)


def test_widening_keeps_the_maps_between_the_blocks() -> None:
    with torch.device("meta"):
        assert wide_resnet.wide_resnet50_2().channels == registry.create_model("resnet50").channels


def test_dropout_is_in_the_blocks_of_a_cifar_net() -> None:
    with torch.device("meta"):
        model = wide_resnet.wrn28_10(dropout=0.3)
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.3] * 12


@pytest.mark.parametrize("options", [{"residual": False}, {"norm": None}, {"shortcut": "A"}])
def test_every_variant_runs(options: dict[str, Any]) -> None:
    with torch.device("meta"):
        for name in ("wrn16_8", "wide_resnet50_2"):
            model = registry.create_model(name, num_classes=4, **options)
            assert model(torch.empty(2, 3, 45, 64)).shape == (2, 4)


def test_options_are_checked() -> None:
    options: dict[str, Any]
    for options, message in [({"widening": 0}, "widening must be"), ({"dropout": 1.0}, "dropout must be")]:
        with pytest.raises(InputError, match=message):
            registry.create_model("wrn16_8", **options)
