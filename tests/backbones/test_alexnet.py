from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import torchvision.models
from pytorchcv.models.alexnet import alexnet as pytorchcv_alexnet
from torch import nn

from opsin import registry
from opsin.backbones import alexnet
from opsin.errors import InputError
from opsin.nn.counting import count_macs, count_parameters
from opsin.nn.norm import alexnet_lrn


def _narrow(reference: nn.Module) -> None:
    reference.classifier[1] = nn.Linear(256 * 6 * 6, 8)  # type: ignore[index, operator]
    reference.classifier[4] = nn.Linear(8, 8)  # type: ignore[index, operator]
    reference.classifier[6] = nn.Linear(8, 5)  # type: ignore[index, operator]


def test_outputs_equal_torchvision(assert_equal: Callable[..., None]) -> None:
    ours = partial(alexnet.alexnet, hidden_features=8, num_classes=5)
    assert_equal(ours, torchvision.models.alexnet, [(224, 224), (65, 131)], _narrow)


def test_ungrouped_2012_net_equals_pytorchcv(assert_equal: Callable[..., None]) -> None:
    def ours() -> nn.Module:
        model = alexnet.alexnet_2012(groups=1)
        for module in model.modules():
            if isinstance(module, nn.LocalResponseNorm):
                module.alpha = 1e-4  # Caffe's reading of the paper's constant, which is pytorchcv's
        return model

    assert_equal(ours, pytorchcv_alexnet, [(227, 227)])


def test_2012_net_layer_by_layer() -> None:
    with torch.device("meta"):
        model = alexnet.alexnet_2012()
        ungrouped = alexnet.alexnet_2012(groups=1)
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    counts = [sum(p.numel() for p in layer.parameters()) for layer in layers]
    assert counts == [34_944, 307_456, 885_120, 663_936, 442_624, 37_752_832, 16_781_312, 4_097_000]
    shapes = [f.shape[1:] for f in model.features(torch.empty(1, 3, 227, 227, device="meta"))]
    assert shapes == [(256, 27, 27), (256, 13, 13)]
    assert count_parameters(ungrouped) == 62_378_344
    assert count_macs(ungrouped, (3, 227, 227)) == 1_135_256_096


def test_towers_meet_in_the_third_convolution_only() -> None:
    model = alexnet.alexnet_2012(norm=None, hidden_features=8)
    conv2, conv3, conv4, conv5 = (m for m in model.stages.modules() if isinstance(m, nn.Conv2d))
    assert [m.groups for m in (conv2, conv3, conv4, conv5)] == [2, 1, 2, 2]
    x = torch.randn(1, 96, 9, 9)
    towers = [
        F.conv2d(half, weight, bias, padding=2)
        for half, weight, bias in zip(x.chunk(2, 1), conv2.weight.chunk(2), conv2.bias.chunk(2), strict=True)  # type: ignore[union-attr]
    ]
    torch.testing.assert_close(conv2(x), torch.cat(towers, dim=1), rtol=1e-4, atol=1e-6)


def test_lrn_is_the_formula_of_the_paper() -> None:
    x = torch.randn(2, 8, 3, 3, dtype=torch.float64) * 30
    expected = torch.empty_like(x)
    for i in range(8):
        near = x[:, max(0, i - 2) : min(8, i + 3)]
        expected[:, i] = x[:, i] / (2 + 1e-4 * near.square().sum(dim=1)) ** 0.75
    torch.testing.assert_close(alexnet_lrn()(x), expected)


def test_initial_weights_of_2012() -> None:
    layers = [m for m in alexnet.alexnet_2012(hidden_features=64).modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert [float(m.weight.detach().std()) for m in layers] == pytest.approx([0.01] * 8, rel=0.05)
    assert [set(m.bias.tolist()) for m in layers] == [{b} for b in (0, 1, 0, 1, 1, 1, 1, 0)]  # type: ignore[union-attr]


def test_dropout_stands_where_each_net_has_it() -> None:
    def order(model: nn.Module) -> str:
        short = {"Linear": "l", "Dropout": "d"}
        return "".join(short.get(type(m).__name__, "") for m in model.head)  # type: ignore[union-attr]

    with torch.device("meta"):
        assert order(alexnet.alexnet_2012()) == "ldldl"
        assert order(alexnet.alexnet()) == "dldll"


def test_options_are_checked() -> None:
    for options, message in [({"norm": "bn"}, "unknown norm 'bn'"), ({"groups": 5}, "groups=5 does not divide")]:
        with pytest.raises(InputError, match=message):
            registry.create_model("alexnet_2012", **options)
