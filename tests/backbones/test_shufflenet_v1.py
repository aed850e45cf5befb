from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pytorchcv.models import shufflenet as pytorchcv_shufflenet
from torch import Tensor, nn

from opsin import registry
from opsin.backbones.shufflenet_v1 import ShuffleNetV1, Unit
from opsin.nn.counting import count_parameters

# ours: pytorchcv's
PORTED = {
    "shufflenet_v1_g1_x1_0": "shufflenet_g1_w1",
    "shufflenet_v1_g3_x0_5": "shufflenet_g3_wd2",
    "shufflenet_v1_g8_x1_0": "shufflenet_g8_w1",
}


@pytest.mark.parametrize("name", PORTED)
def test_outputs_equal_pytorchcv(name: str, assert_equal: Callable[..., None]) -> None:
    def pool_all(model: Any) -> None:  # pytorchcv's window of 7x7 takes one size of images
        model.features.final_pool = nn.AdaptiveAvgPool2d(1)

    reference = getattr(pytorchcv_shufflenet, PORTED[name])
    assert_equal(lambda: registry.create_model(name), reference, [(64, 64), (47, 70)], pool_all)


def test_megvii_unit_written_out() -> None:
    torch.manual_seed(0)
    groups, width, made = 3, 12, 36  # as the authors' blocks.py does it
    unit = Unit(12, 48, 2, groups, groups, True, "megvii").eval()
    x = torch.rand(2, 12, 7, 7)
    tensors = unit.parameters()

    def conv(x: Tensor, **options: Any) -> Tensor:  # with statistics of 0 and 1
        kernel, weight, bias = (next(tensors) for _ in range(3))
        return F.conv2d(x, kernel, **options) * (weight / (1 + 1e-5) ** 0.5)[:, None, None] + bias[:, None, None]

    with torch.no_grad():
        y = conv(x, groups=groups).relu()
        y = conv(y, stride=2, padding=1, groups=width)
        dealt = torch.cat([y[:, start::groups] for start in range(groups)], dim=1)
        y = conv(dealt, groups=groups).relu()
        expected = torch.cat([F.avg_pool2d(x, 3, 2, 1), y], dim=1)
        assert y.shape[1] == made and next(tensors, None) is None
        torch.testing.assert_close(unit(x), expected)


def test_shuffle_lets_every_group_see_all_others() -> None:
    def reach(shuffle: bool) -> Tensor:
        """Which input channels reach which outputs of a unit, by gradients."""
        torch.manual_seed(0)
        unit = Unit(36, 36, 1, 3, 3, shuffle, "paper").eval()
        unit.relu = nn.Identity()  # type: ignore[assignment]
        x = torch.rand(1, 36, 3, 3, requires_grad=True)
        rows = [torch.autograd.grad(unit(x)[0, c].sum(), x)[0][0].abs().sum(dim=(1, 2)) > 0 for c in range(36)]
        return torch.stack(rows)

    apart, mixed = reach(shuffle=False), reach(shuffle=True)
    blocks = torch.block_diag(*[torch.ones(12, 12)] * 3).bool()
    assert not apart[~blocks].any() and mixed[~blocks].float().mean() > 0.5


def test_shuffle_costs_nothing() -> None:
    with torch.device("meta"):
        for name in ("shufflenet_v1_g3_x1_0", "shufflenet_v1_g8_x1_0_megvii"):
            with_, without = (registry.create_model(name, shuffle=shuffle) for shuffle in (True, False))
            assert count_parameters(with_) == count_parameters(without)


def test_the_forms_differ_by_biases_and_stems() -> None:
    def build(name: str) -> ShuffleNetV1:
        with torch.device("meta"):
            model = registry.create_model(name)
        assert isinstance(model, ShuffleNetV1)
        return model

    ours, theirs = build("shufflenet_v1_g3_x1_0"), build("shufflenet_v1_g3_x1_0_megvii")
    assert count_parameters(ours) - count_parameters(theirs) == 1000
    stems = {"g3_x0_5": 12, "g3_x1_5": 24, "g3_x2_0": 48, "g8_x0_5": 16, "g8_x1_5": 24, "g8_x2_0": 48}
    for name, width in stems.items():
        assert build(f"shufflenet_v1_{name}_megvii").stem[0].out_channels == width  # type: ignore[index]
    assert build("shufflenet_v1_g3_x0_25").channels == (60, 120, 240)


def test_the_first_convolution_is_not_grouped() -> None:
    with torch.device("meta"):
        model = registry.create_model("shufflenet_v1_g4_x1_0")
    convs = [m for m in model.stages.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]  # type: ignore[union-attr]
    assert convs[0].groups == 1 and {c.groups for c in convs[1:]} == {4}


def test_small_images() -> None:
    with torch.device("meta"):
        model = registry.create_model("shufflenet_v1_g3_x0_5", small_images=True, in_channels=1)
        assert model.strides == (2, 4, 8)
        assert [m.shape[-1] for m in model.features(torch.empty(1, 1, 28, 28))] == [14, 7, 4]  # type: ignore[operator]
