from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torchvision.models
from torch import Tensor, nn

from opsin import registry
from opsin.backbones import copy_in_order, vgg
from opsin.errors import InputError
from opsin.nn.counting import count_parameters

IN_TORCHVISION = [f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")]
small: dict[str, Any] = {"hidden_features": 8, "pooled_size": 1, "num_classes": 5}


@pytest.mark.parametrize("name", IN_TORCHVISION)
def test_every_shape_is_that_of_torchvision(name: str) -> None:
    with torch.device("meta"):
        model, reference = registry.create_model(name), getattr(torchvision.models, name)()
    copy_in_order(model, reference.state_dict())
    assert count_parameters(model) == count_parameters(reference)


@pytest.mark.parametrize("name", IN_TORCHVISION)
def test_outputs_equal_torchvision(name: str, assert_equal: Callable[..., None]) -> None:
    def narrow(reference: nn.Module) -> None:  # 4096 hidden features take half a gigabyte and change nothing
        reference.classifier[0] = nn.Linear(512 * 7 * 7, 8)  # type: ignore[index, operator]
        reference.classifier[3] = nn.Linear(8, 8)  # type: ignore[index, operator]
        reference.classifier[6] = nn.Linear(8, 5)  # type: ignore[index, operator]

    ours = partial(registry.create_model, name, hidden_features=8, num_classes=5)
    assert_equal(ours, getattr(torchvision.models, name), [(64, 64), (47, 99)], narrow)


def test_c_is_b_with_1x1_convolutions() -> None:
    with torch.device("meta"):
        b, c = vgg.vgg13(), vgg.vgg16_c()
    assert count_parameters(c) - count_parameters(b) == (256 * 256 + 256) + 2 * (512 * 512 + 512)
    kernels = [m.kernel_size[0] for m in c.modules() if isinstance(m, nn.Conv2d)]
    assert kernels == [3, 3, 3, 3, 3, 3, 1, 3, 3, 1, 3, 3, 1]


def test_lrn_stands_behind_the_first_relu_only() -> None:
    with torch.device("meta"):
        names = [type(m).__name__ for m in vgg.vgg11_lrn().stages.modules() if not list(m.children())]
    assert names[:4] == ["Conv2d", "ReLU", "LocalResponseNorm", "MaxPool2d"]
    assert names.count("LocalResponseNorm") == 1


@pytest.mark.parametrize(("init", "deviation"), [("he", (2 / (512 * 9)) ** 0.5), ("paper", 0.01)])
def test_initial_weights(init: str, deviation: float) -> None:
    model = vgg.vgg11(init=init, **small)
    last = [m for m in model.modules() if isinstance(m, nn.Conv2d)][-1]
    assert float(last.weight.detach().std()) == pytest.approx(deviation, rel=0.01)
    assert all(not p.any() for n, p in model.named_parameters() if n.endswith("bias"))


def _filled(model: nn.Module, value: float) -> dict[str, Tensor]:
    return {k: torch.full_like(v, value) for k, v in model.state_dict().items()}


@pytest.mark.parametrize(("shallow", "deep"), [("vgg11", "vgg16"), ("vgg11", "vgg16_c"), ("vgg11_bn", "vgg19_bn")])
def test_a_deeper_net_takes_four_convolutions_and_the_head_of_net_a(shallow: str, deep: str) -> None:
    a, model = (registry.create_model(n, **small) for n in (shallow, deep))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = dict(reversed(_filled(a, 7.0).items()))  # the order of the file does not matter
    fresh = model.initialize_from(state)  # type: ignore[operator]
    after = model.state_dict()
    taken = ("stages.0.0.", "stages.1.1.", "stages.2.1.", "stages.2.2.", "head.")
    assert fresh == [k for k in after if not k.startswith(taken)]
    assert all((after[k] == 7).all() for k in after if k.startswith(taken))
    assert all(torch.equal(after[k], before[k]) for k in fresh)


def test_a_net_of_the_same_depth_is_taken_whole() -> None:
    model = vgg.vgg11(**small)
    other = vgg.vgg11(**(small | {"num_classes": 9}))
    assert model.initialize_from(_filled(other, 7.0)) == ["head.9.weight", "head.9.bias"]
    assert vgg.vgg11(**small).initialize_from({"stem.weight": torch.zeros(3)}) == list(model.state_dict())


def test_options_are_checked() -> None:
    with pytest.raises(InputError, match="unknown init 'xavier'"):
        registry.create_model("vgg11", init="xavier")
    with pytest.raises(InputError, match="pooled_size must be"):
        registry.create_model("vgg11", pooled_size=0)
    with pytest.raises(InputError, match=r"vgg16_bn cannot be built.*dropout"):
        registry.create_model("vgg16_bn", dropout=2.0, **small)
    with pytest.raises(InputError, match="unknown option of vgg16 'norm'"):
        registry.create_model("vgg16", norm="bn")  # the name says it
