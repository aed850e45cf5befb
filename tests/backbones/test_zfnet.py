from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from pytorchcv.models.alexnet import AlexConv
from pytorchcv.models.zfnet import zfnet as pytorchcv_zfnet
from pytorchcv.models.zfnet import zfnetb as pytorchcv_zfnetb
from torch import nn

from opsin import registry
from opsin.backbones import zfnet
from opsin.errors import InputError
from opsin.nn.counting import count_macs, count_parameters


def _without_norm_and_narrow(reference: nn.Module) -> None:
    for module in reference.modules():
        if isinstance(module, AlexConv):
            module.use_lrn = False
    head = reference.output
    in_features = head.fc1.fc.in_features  # type: ignore[union-attr]
    head.fc1.fc = nn.Linear(in_features, 8)  # type: ignore[union-attr, assignment]
    head.fc2.fc = nn.Linear(8, 8)  # type: ignore[union-attr, assignment]
    head.fc3 = nn.Linear(8, 5)  # type: ignore[union-attr, assignment]


@pytest.mark.parametrize(
    ("ours", "reference"), [(zfnet.zfnet, pytorchcv_zfnet), (zfnet.zfnetb, pytorchcv_zfnetb)], ids=["zfnet", "zfnetb"]
)
def test_outputs_equal_pytorchcv(
    ours: Callable[..., nn.Module], reference: Callable[..., nn.Module], assert_equal: Callable[..., None]
) -> None:
    narrow = partial(ours, norm=None, hidden_features=8, num_classes=5)
    # 220 and 230 give maps of 6x6 at the end as well, which is all that pytorchcv's head takes
    assert_equal(narrow, reference, [(224, 224), (220, 230)], _without_norm_and_narrow)


def test_maps_are_those_of_figure_3() -> None:
    with torch.device("meta"):
        model = zfnet.zfnet()
        images = torch.empty(1, 3, 224, 224)
        assert model.stem[:2](images).shape == (1, 96, 110, 110)  # type: ignore[index]
        assert model.stem(images).shape == (1, 96, 55, 55)
        assert [f.shape[1:] for f in model.features(images)] == [(256, 26, 26), (256, 13, 13)]
        assert model.head[:2](model.features(images)[-1]).shape == (1, 256, 6, 6)  # type: ignore[index]


def test_norm_stands_behind_the_first_two_poolings() -> None:
    with torch.device("meta"):
        names = [type(m).__name__ for m in zfnet.zfnet().modules()]
        plain = [type(m).__name__ for m in zfnet.zfnet(norm=None).modules()]
    places = [place for place, name in enumerate(names) if name == "LocalResponseNorm"]
    assert len(places) == 2 and all(names[place - 1] == "MaxPool2d" for place in places)
    assert "LocalResponseNorm" not in plain


def test_alexnets_first_layer_costs_less_and_sees_less() -> None:
    with torch.device("meta"):
        model, coarse = zfnet.zfnet(), zfnet.zfnet(kernel_size=11, stride=4)
        assert coarse.strides == (16, 32)
        assert coarse.features(torch.empty(1, 3, 224, 224))[-1].shape[2:] == (6, 6)
    assert count_parameters(coarse) - count_parameters(model) == (11**2 - 7**2) * 3 * 96
    assert count_macs(coarse, (3, 224, 224)) < count_macs(model, (3, 224, 224)) / 2


def test_initial_weights() -> None:
    model = zfnet.zfnet(hidden_features=64)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            assert module.bias is not None and not module.bias.any()
            assert float(module.weight.detach().std()) == pytest.approx(0.01, rel=0.1)


def test_options_are_checked() -> None:
    with pytest.raises(InputError, match="unknown norm 'bn'"):
        registry.create_model("zfnet", norm="bn")
    with pytest.raises(InputError, match="stride must be"):
        registry.create_model("zfnet", stride=0)
