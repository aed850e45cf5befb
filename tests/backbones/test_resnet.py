from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision.models
from pytorchcv.models.resnet import resnet50 as pytorchcv_resnet50
from pytorchcv.models.resnet_cifar import resnet20_cifar10
from torch import Tensor, nn

from opsin import registry
from opsin.backbones import resnet
from opsin.backbones.resnet import Block
from opsin.errors import InputError
from opsin.nn.counting import count_macs, count_parameters


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"])
def test_outputs_equal_torchvision(name: str, assert_equal: Callable[..., None]) -> None:
    assert_equal(partial(registry.create_model, name), getattr(torchvision.models, name), [(64, 64), (75, 97)])


def test_v1_equals_pytorchcv(assert_equal: Callable[..., None]) -> None:
    # pytorchcv pools the last map with a window of 7x7, so there is one size for it
    assert_equal(resnet.resnet50_v1, pytorchcv_resnet50, [(224, 224)])


def test_cifar_net_with_projections_equals_pytorchcv(assert_equal: Callable[..., None]) -> None:
    assert_equal(partial(resnet.resnet20, shortcut="B"), resnet20_cifar10, [(32, 32)])


def test_option_a_is_the_network_of_the_paper() -> None:
    model = resnet.resnet20().eval()
    _randomize_statistics(model)
    images = torch.randn(2, 3, 33, 31)
    with torch.no_grad():
        torch.testing.assert_close(model(images), _plainly(model, images), rtol=1e-4, atol=1e-5)


def _plainly(model: nn.Module, x: Tensor) -> Tensor:
    """resnet20 of section 4.2 with shortcut A, written out from the tensors in the order of the network."""
    tensors = iter([v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")])

    def conv_norm(x: Tensor, stride: int = 1) -> Tensor:
        kernel, weight, bias, mean, var = (next(tensors) for _ in range(5))
        x = F.conv2d(x, kernel, stride=stride, padding=1)
        scale = weight / torch.sqrt(var + 1e-5)
        return x * scale[:, None, None] + (bias - mean * scale)[:, None, None]

    x = conv_norm(x).clamp(min=0)
    for width in (16, 32, 64):
        for block in range(3):
            stride = 2 if width > 16 and block == 0 else 1
            y = conv_norm(conv_norm(x, stride).clamp(min=0))
            shortcut = torch.zeros_like(y)
            kept = F.avg_pool2d(x, kernel_size=1, stride=stride)
            shortcut[:, : kept.shape[1]] = kept
            x = (y + shortcut).clamp(min=0)
    return x.mean(dim=(2, 3)) @ next(tensors).T + next(tensors)


def _randomize_statistics(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)


@pytest.mark.parametrize(("depth", "params"), [(20, 272_474), (56, 855_770), (110, 1_730_714)])
def test_cifar_net_counts_with_projections(depth: int, params: int) -> None:
    with torch.device("meta"):
        assert count_parameters(registry.create_model(f"resnet{depth}", shortcut="B")) == params


@pytest.mark.parametrize(("name", "params"), [("resnet50", 22_780_456), ("resnext50_32x4d", 22_252_328)])
def test_darknets_baselines_have_no_projections(name: str, params: int) -> None:
    """Its resnet50.cfg and resnext50.cfg, the baselines of the CSPNet paper."""
    with torch.device("meta"):
        model = registry.create_model(name, shortcut="A")
    assert count_parameters(model) == params
    assert count_macs(model, (3, 256, 256)) == {"resnet50": 4_870_586_368, "resnext50_32x4d": 5_055_135_744}[name]


def test_dropout_leaves_the_names_of_the_tensors() -> None:
    model = resnet.resnet20(dropout=0.5)
    assert model.state_dict().keys() == resnet.resnet20().state_dict().keys()
    assert [m.p for m in model.head.modules() if isinstance(m, nn.Dropout)] == [0.5]


def test_shortcuts_differ_by_their_projections() -> None:
    def count(name: str, **options: Any) -> int:
        with torch.device("meta"):
            return count_parameters(registry.create_model(name, **options))

    # A projection from c to d maps has c * d weights and 2 * d of batch norm.
    assert count("resnet18", shortcut="B") - count("resnet18", shortcut="A") == sum(
        c * 2 * c + 2 * 2 * c for c in (64, 128, 256)
    )
    assert count("resnet18", shortcut="C") - count("resnet18", shortcut="A") == sum(
        c * d + 2 * d
        for c, d in [(64, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
    )
    assert count("resnet20", residual=False) == count("resnet20", shortcut="A")
    assert count("resnet50", residual=False) == count("resnet50", shortcut="A")
    # Without norms every convolution has a bias instead of a scale and a shift.
    norms = sum(2 * width for width in [16] * 7 + [32] * 6 + [64] * 6)
    assert count("resnet20", norm=None) == count("resnet20") - norms // 2


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet50_v1", "resnet20"])
@pytest.mark.parametrize("options", [{"shortcut": "A"}, {"shortcut": "C"}, {"residual": False}, {"norm": None}])
def test_every_variant_runs(name: str, options: dict[str, Any]) -> None:
    with torch.device("meta"):
        model = registry.create_model(name, num_classes=4, **options)
        assert model(torch.empty(2, 3, 45, 64)).shape == (2, 4)


def test_zero_init_starts_every_block_as_its_shortcut() -> None:
    model = resnet.resnet20(zero_init_residual=True).train()
    blocks = [m for m in model.modules() if isinstance(m, Block)]
    x = torch.rand(2, 16, 8, 8)
    for block in blocks[:3]:
        torch.testing.assert_close(block(x), x)


def test_plain_net_is_the_body_alone() -> None:
    model = resnet.resnet20(residual=False).eval()
    x = torch.randn(1, 16, 8, 8)
    block = next(m for m in model.modules() if isinstance(m, Block))
    assert torch.equal(block(x), block.body(x).relu())


def test_initial_weights() -> None:
    model = resnet.resnet18()
    conv = next(m for m in model.stages[3].modules() if isinstance(m, nn.Conv2d))
    assert float(conv.weight.detach().std()) == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)


def test_options_are_checked() -> None:
    for options, message in [
        ({"shortcut": "D"}, "unknown shortcut 'D'"),
        ({"norm": "layer"}, "unknown norm 'layer'"),
        ({"dropout": 1}, "dropout must be"),
        ({"zero_init_residual": True, "norm": None}, "zero_init_residual needs"),
        ({"zero_init_residual": True, "residual": False}, "zero_init_residual needs"),
    ]:
        with pytest.raises(InputError, match=message):
            registry.create_model("resnet20", **options)
