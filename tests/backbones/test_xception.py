from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.backbones import xception
from opsin.backbones.xception import Block, Xception
from opsin.errors import InputError
from opsin.nn.conv import SeparableConv
from opsin.nn.counting import count_parameters


def test_outputs_equal_timm(assert_equal: Callable[..., None]) -> None:
    assert_equal(xception.xception, lambda: timm.create_model("legacy_xception"), [(64, 64), (75, 97)])


def on_meta(**options: Any) -> Xception:
    with torch.device("meta"):
        return xception.xception(**options)


def test_a_block_is_its_figure() -> None:
    torch.manual_seed(0)
    block = xception.xception(depth=1).eval().stages[2][1]  # type: ignore[index]
    assert isinstance(block, Block)
    x = torch.randn(1, 728, 5, 5)
    tensors = [v for k, v in block.state_dict().items() if not k.endswith("num_batches_tracked")]

    def separable(x: Tensor, depthwise: Tensor, pointwise: Tensor, *norm: Tensor) -> Tensor:
        weight, bias, mean, var = norm
        x = F.conv2d(F.conv2d(x.clamp(min=0), depthwise, padding=1, groups=728), pointwise)
        return F.batch_norm(x, mean, var, weight, bias)

    with torch.no_grad():
        y = x
        for place in range(3):
            y = separable(y, *tensors[6 * place : 6 * place + 6])
        torch.testing.assert_close(block(x), y + x, rtol=1e-4, atol=1e-5)


def test_residual_switch() -> None:
    plain, full = on_meta(residual=False), on_meta()
    projections = [
        b.shortcut for b in full.modules() if isinstance(b, Block) and not isinstance(b.shortcut, nn.Identity)
    ]
    assert len(projections) == 4
    assert count_parameters(full) - count_parameters(plain) == sum(count_parameters(p) for p in projections if p)


def test_activation_between() -> None:
    def between(model: Xception) -> list[list[str]]:
        return [
            [type(m).__name__ for m in conv[0].children()]
            for conv in model.modules()
            if isinstance(conv, SeparableConv)
        ]

    assert between(on_meta()) == [["Conv2d"]] * 34
    assert between(on_meta(between="relu")) == [["Conv2d", "ReLU"]] * 34
    assert between(on_meta(between="elu")) == [["Conv2d", "ELU"]] * 34
    with pytest.raises(InputError, match="unknown between 'gelu'"):
        on_meta(between="gelu")


def test_depth_and_norm() -> None:
    assert count_parameters(on_meta()) - count_parameters(on_meta(depth=7)) == 3 * (728 * 9 + 728 * 728 + 2 * 728)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in on_meta(norm=None).modules())
    with pytest.raises(InputError, match="unknown norm 'layer'"):
        on_meta(norm="layer")
