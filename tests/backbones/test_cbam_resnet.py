from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pytorchcv.models.cbamresnet import CbamResUnit, cbam_resnet18, cbam_resnet50
from torch import nn

from opsin import registry
from opsin.backbones import cbam_resnet
from opsin.backbones.resnet import Block
from opsin.errors import InputError
from opsin.nn.attention import CBAM
from opsin.nn.counting import count_parameters


def build_on_meta(name: str, **options: Any) -> nn.Module:
    with torch.device("meta"):
        return registry.create_model(name, **options)


def arrange(net: Any) -> None:
    """Any size, the projection behind the attention as with us, and the mean before the maximum."""
    net.features.final_pool = nn.AdaptiveAvgPool2d(1)
    for unit in net.modules():
        if isinstance(unit, CbamResUnit):
            if unit.resize_identity:
                unit.add_module("identity_conv", unit._modules.pop("identity_conv"))
            unit.cbam.sp_gate.conv.register_forward_pre_hook(lambda _, inputs: (inputs[0].flip(1),))


@pytest.mark.parametrize(
    ("ours", "theirs"), [(cbam_resnet.cbam_resnet18, cbam_resnet18), (cbam_resnet.cbam_resnet50, cbam_resnet50)]
)
def test_outputs_equal_pytorchcv(
    ours: Callable[..., nn.Module], theirs: Callable[..., nn.Module], assert_equal: Callable[..., None]
) -> None:
    assert_equal(ours, theirs, [(64, 64), (75, 97)], arrange)


def test_the_form_of_the_paper_has_no_norm_over_places() -> None:
    paper, code = build_on_meta("cbam_resnet18_paper"), build_on_meta("cbam_resnet18")
    assert {type(m.places) for m in paper.modules() if isinstance(m, CBAM)} == {nn.Conv2d}
    # One scale and one shift in each of eight blocks
    assert count_parameters(code) - count_parameters(paper) == 8 * 2


@pytest.mark.parametrize(("name", "plain"), [("cbam_resnet18", "resnet18"), ("cbam_resnet50_paper", "resnet50")])
def test_without_cbam_it_is_a_resnet(name: str, plain: str) -> None:
    state = {k: v.shape for k, v in build_on_meta(name, cbam=False).state_dict().items()}
    assert state == {k: v.shape for k, v in build_on_meta(plain).state_dict().items()}


def test_a_block_is_weighed_before_the_addition() -> None:
    block = next(m for m in cbam_resnet.cbam_resnet18().eval().modules() if isinstance(m, Block))
    convolutions, weigh = block.body[:-1], block.body[-1]
    assert isinstance(weigh, CBAM)
    x = torch.randn(2, 64, 9, 9)
    with torch.no_grad():
        y = convolutions(x)
        y = y * (weigh.channels(y.mean(dim=(2, 3))) + weigh.channels(y.amax(dim=(2, 3)))).sigmoid()[..., None, None]
        gate = weigh.places(torch.stack([y.mean(dim=1), y.amax(dim=1)], dim=1)).sigmoid()
        torch.testing.assert_close(block(x), (x + y * gate).relu())


def test_options() -> None:
    # Two matrices of C * C / r and biases of C / r and C, section 3.1
    ratios = [count_parameters(build_on_meta("cbam_resnet18", ratio=ratio)) for ratio in (8, 16)]
    assert ratios[0] - ratios[1] == sum(2 * (2 * c + 1) * (c // 8 - c // 16) for c in (64, 128, 256, 512))
    with pytest.raises(InputError, match="ratio must be"):
        build_on_meta("cbam_resnet18", ratio=0)


@pytest.mark.parametrize("options", [{"residual": False}, {"norm": None}, {"shortcut": "A"}, {"dropout": 0.5}])
def test_every_variant_runs(options: dict[str, Any]) -> None:
    with torch.device("meta"):
        model = registry.create_model("cbam_resnet50", num_classes=4, **options)
        assert model(torch.empty(2, 3, 45, 64)).shape == (2, 4)
