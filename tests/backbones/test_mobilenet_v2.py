from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision.models
from torch import nn

from opsin import registry
from opsin.backbones import Backbone
from opsin.backbones.mobilenet_v2 import InvertedResidual, scale_channels
from opsin.errors import InputError
from opsin.nn.counting import count_parameters


def test_outputs_equal_torchvision(assert_equal: Callable[..., None]) -> None:
    ours = partial(registry.create_model, "mobilenet_v2")
    assert_equal(ours, torchvision.models.mobilenet_v2, [(64, 64), (75, 97)])


@pytest.mark.parametrize("width", [0.75, 1.3])
def test_widths_equal_torchvision(width: float, assert_equal: Callable[..., None]) -> None:
    ours = partial(registry.create_model, f"mobilenet_v2_x{width}".replace(".", "_"))
    assert_equal(ours, partial(torchvision.models.mobilenet_v2, width_mult=width), [(64, 64), (33, 47)])


@pytest.mark.parametrize(("suffix", "reference"), [("x0_5", "050"), ("x1_4", "140")])
def test_those_with_timms_weights_equal_timm(suffix: str, reference: str, assert_equal: Callable[..., None]) -> None:
    ours = partial(registry.create_model, f"mobilenet_v2_{suffix}")
    assert_equal(ours, partial(timm.create_model, f"mobilenetv2_{reference}"), [(64, 64), (33, 47)])


def test_one_block_by_hand() -> None:
    block = InvertedResidual(8, 48, 8).eval()
    tensors = [v for k, v in block.state_dict().items() if not k.endswith("num_batches_tracked")]
    for tensor in tensors:
        tensor.uniform_(-0.5, 1.0).abs_() if tensor.ndim == 1 else tensor.normal_()
    x = torch.randn(2, 8, 7, 6)
    y = x
    for place, groups in enumerate((1, 48, 1)):
        kernel, weight, bias, mean, var = tensors[5 * place : 5 * place + 5]
        y = F.conv2d(y, kernel, padding=kernel.shape[-1] // 2, groups=groups)
        y = F.batch_norm(y, mean, var, weight, bias)
        y = y.clamp(0, 6) if place < 2 else y
    with torch.no_grad():
        torch.testing.assert_close(block(x), x + y, rtol=1e-4, atol=1e-4)


def test_switches() -> None:
    model = registry.create_model("mobilenet_v2", residual=False, linear=False, width=0.35)
    blocks = [m for m in model.modules() if isinstance(m, InvertedResidual)]
    assert len(blocks) == 17 and not any(block.residual for block in blocks)
    with torch.no_grad():
        y = blocks[1].eval()(torch.randn(1, 8, 8, 8))
    assert float(y.min()) >= 0 and float(y.max()) <= 6
    default = registry.create_model("mobilenet_v2", width=0.35)
    assert sum(m.residual for m in default.modules() if isinstance(m, InvertedResidual)) == 10
    assert count_parameters(model) == count_parameters(default)


def test_rounding_of_channels() -> None:
    # to the nearest multiple of 8, one more where more than a tenth would be lost, never below 8
    assert [scale_channels(c, w) for c, w in [(32, 0.35), (16, 0.35), (24, 0.75), (1, 1), (90, 1), (20, 1)]] == [
        *(16, 8, 24, 8, 88, 24),
    ]
    # plain rounding would make another net: trap of the counts
    assert registry.find_model("mobilenet_v2_x0_75").published.params == 2_636_424


def test_the_last_layer_never_shrinks() -> None:
    with torch.device("meta"):
        widths = [
            [
                m.in_features
                for m in registry.create_model("mobilenet_v2", width=w).modules()
                if isinstance(m, nn.Linear)
            ]
            for w in (0.35, 1.0, 1.4)
        ]
    assert widths == [[1280], [1280], [1792]]


def test_small_images() -> None:
    with torch.device("meta"):
        model = registry.create_model("mobilenet_v2", small_images=True, in_channels=1, num_classes=10)
    assert isinstance(model, Backbone)
    assert model.strides == (1, 1, 2, 4, 8)
    assert [m.shape[2] for m in model.features(torch.empty(1, 1, 28, 28, device="meta"))] == [28, 28, 14, 7, 4]


@pytest.mark.parametrize("options", [{"width": 0}, {"width": "1"}, {"padding": "same"}, {"dropout": 2.0}])
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        registry.create_model("mobilenet_v2", **options)
