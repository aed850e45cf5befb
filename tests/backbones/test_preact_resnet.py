from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import timm
import torch
from pytorchcv.models.preresnet import preresnet18, preresnet50b
from pytorchcv.models.preresnet_cifar import preresnet20_cifar10, preresnet164bn_cifar10
from torch import nn

from opsin import registry
from opsin.backbones import preact_resnet
from opsin.backbones.preact_resnet import PreActBlock, PreActResNet
from opsin.errors import InputError
from opsin.nn.counting import count_parameters

CIFAR_20 = partial(PreActResNet, (3, 3, 3), False, (16, 32, 64), 16, True, num_classes=10)


def pool_globally(net: Any) -> None:
    net.features.final_pool = nn.AdaptiveAvgPool2d(1)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(preact_resnet.preact_resnet18, preresnet18), (preact_resnet.preact_resnet50, preresnet50b)],
)
def test_outputs_equal_pytorchcv(
    ours: Callable[..., nn.Module], theirs: Callable[..., nn.Module], assert_equal: Callable[..., None]
) -> None:
    assert_equal(ours, theirs, [(64, 64), (75, 97)], pool_globally)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(CIFAR_20, preresnet20_cifar10), (preact_resnet.preact_resnet164, preresnet164bn_cifar10)],
)
def test_cifar_nets_equal_pytorchcv(
    ours: Callable[..., nn.Module], theirs: Callable[..., nn.Module], assert_equal: Callable[..., None]
) -> None:
    assert_equal(ours, theirs, [(32, 32), (21, 30)], pool_globally)


@pytest.mark.parametrize("depth", [18, 50])
def test_without_the_norm_of_the_stem_it_is_timms(depth: int, assert_equal: Callable[..., None]) -> None:
    def arrange(net: Any) -> None:
        for stage in net.stages:
            for block in stage.blocks:  # the projection is declared first there, and last here
                if "downsample" in block._modules:
                    block._modules["downsample"] = block._modules.pop("downsample")
        net.head.fc = nn.Sequential(nn.Flatten(), nn.Linear(net.num_features, 1000))  # which is a 1x1 convolution there

    ours = partial(registry.create_model, f"preact_resnet{depth}", stem_norm=False)
    assert_equal(ours, partial(timm.create_model, f"resnetv2_{depth}"), [(64, 64), (75, 97)], arrange)


def test_the_path_of_the_additions_is_clean() -> None:
    """Eq. 4: x_L = x_l + sum of the residuals, from block to block within a stage."""
    model = CIFAR_20().eval()
    x = start = torch.randn(2, 16, 8, 8)
    residuals = []
    with torch.no_grad():
        for block in model.stages[0]:  # type: ignore[union-attr]
            residuals.append(block.body(block.activation(x)))
            x = block(x)
        torch.testing.assert_close(x, start + torch.stack(residuals).sum(dim=0))


def test_plain_net_is_the_body_alone() -> None:
    for norm in ("bn", None):
        model = CIFAR_20(residual=False, norm=norm).eval()
        block = next(m for m in model.modules() if isinstance(m, PreActBlock))
        x = torch.randn(1, 16, 8, 8)
        kept = x.clone()
        assert torch.equal(block(x), block.body(block.activation(x)))
        assert torch.equal(x, kept)


def test_switches_change_the_parameters_that_they_name() -> None:
    def count(**options: Any) -> int:
        with torch.device("meta"):
            return count_parameters(CIFAR_20(**options))

    projections = 16 * 32 + 32 * 64
    assert count() - count(shortcut="A") == projections
    assert count(residual=False) == count(shortcut="A")
    assert count(stem_norm=True) - count() == 2 * 16
    # Without norms every convolution has a bias; with them each but the stem's has a norm before it, and the head one.
    outputs = [16] * 7 + [32] * 6 + [64] * 6 + [32, 64]
    inputs = [16] * 7 + [32] * 6 + [64] * 5
    assert count(norm=None) - count() == sum(outputs) - 2 * (sum(inputs) + 64)


def test_dropout_is_between_the_convolutions() -> None:
    block = next(m for m in CIFAR_20(dropout=0.4).modules() if isinstance(m, PreActBlock))
    kinds = [type(m).__name__ for m in block.body]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU", "Dropout", "Conv2d"]


def test_initial_weights() -> None:
    conv = [m for m in preact_resnet.preact_resnet18().stages[3].modules() if isinstance(m, nn.Conv2d)][-1]
    assert float(conv.weight.detach().std()) == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)


@pytest.mark.parametrize("name", ["preact_resnet18", "preact_resnet50", "wrn16_8"])
@pytest.mark.parametrize("options", [{"shortcut": "A"}, {"residual": False}, {"norm": None}, {"stem_norm": True}])
def test_every_variant_runs(name: str, options: dict[str, Any]) -> None:
    with torch.device("meta"):
        model = registry.create_model(name, num_classes=4, **options)
        assert model(torch.empty(2, 3, 45, 64)).shape == (2, 4)


def test_options_are_checked() -> None:
    for options, message in [
        ({"shortcut": "C"}, "unknown shortcut 'C'"),
        ({"norm": "layer"}, "unknown norm 'layer'"),
        ({"dropout": 1.0}, "dropout must be"),
    ]:
        with pytest.raises(InputError, match=message):
            registry.create_model("preact_resnet18", **options)
