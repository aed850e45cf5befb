from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import timm
import torch
from pytorchcv.models.seresnet import seresnet18, seresnet50
from timm.models.senet import SEBottleneck, SENet
from torch import nn
from torchvision.ops import SqueezeExcitation

from opsin import registry
from opsin.backbones import senet
from opsin.backbones.resnet import Block, ResNet
from opsin.errors import InputError
from opsin.nn.attention import squeeze_excitation
from opsin.nn.counting import count_macs, count_parameters


def build_on_meta(name: str, **options: Any) -> nn.Module:
    with torch.device("meta"):
        return registry.create_model(name, **options)


@pytest.mark.parametrize("name", ["legacy_seresnet18", "legacy_seresnext50_32x4d"])
def test_outputs_equal_timm(name: str, assert_equal: Callable[..., None]) -> None:
    ours = partial(registry.create_model, name.replace("legacy_seresnext", "se_resnext"))
    assert_equal(ours, partial(timm.create_model, name), [(64, 64), (75, 98)])


def test_the_blocks_of_senet154_equal_timm(assert_equal: Callable[..., None]) -> None:
    ours = partial(ResNet, (1, 2, 1, 1), "senet154", (64, 128, 256, 512), "deep", 64, 4, squeeze_excitation)
    options = {"inplanes": 128, "input_3x3": True, "downsample_kernel_size": 3, "downsample_padding": 1}
    assert_equal(ours, partial(SENet, SEBottleneck, (1, 2, 1, 1), 64, 16, **options), [(64, 64), (75, 98)])


@pytest.mark.parametrize("name", ["se_resnet50", "se_resnet101", "se_resnet152", "se_resnext101_32x4d", "senet154"])
def test_the_larger_have_the_tensors_of_their_files(name: str) -> None:
    with torch.device("meta"):
        theirs = timm.create_model("legacy_" + name.replace("se_", "se"))
    assert [v.shape for v in build_on_meta(name).state_dict().values()] == [
        v.shape for v in theirs.state_dict().values()
    ]


@pytest.mark.parametrize(("ours", "theirs"), [(senet.se_resnet18, seresnet18), (senet.se_resnet50, seresnet50)])
def test_outputs_equal_pytorchcv(
    ours: Callable[..., nn.Module], theirs: Callable[..., nn.Module], assert_equal: Callable[..., None]
) -> None:
    def pool_as_caffe(net: Any) -> None:
        net.features.init_block.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        net.features.final_pool = nn.AdaptiveAvgPool2d(1)

    assert_equal(ours, theirs, [(64, 64), (75, 98)], pool_as_caffe)


@pytest.mark.parametrize(
    ("name", "plain"),
    [("se_resnet18", "resnet18"), ("se_resnet50", "resnet50_v1"), ("se_resnext50_32x4d", "resnext50_32x4d")],
)
def test_without_se_it_is_the_network_that_it_came_from(name: str, plain: str) -> None:
    without, ordinary = build_on_meta(name, se=False), build_on_meta(plain)
    assert {k: v.shape for k, v in without.state_dict().items()} == {
        k: v.shape for k, v in ordinary.state_dict().items()
    }
    size = (3, 224, 224)
    assert count_macs(without, size) == count_macs(ordinary, size)


def test_a_block_is_weighed_before_the_addition() -> None:
    block = next(m for m in senet.se_resnet18().eval().modules() if isinstance(m, Block))
    convolutions, weigh = block.body[:-1], block.body[-1]
    assert isinstance(weigh, SqueezeExcitation)
    x = torch.randn(2, 64, 9, 9)
    with torch.no_grad():
        y = convolutions(x)
        hidden = weigh.fc1(y.mean(dim=(2, 3), keepdim=True)).relu()
        torch.testing.assert_close(block(x), (x + y * weigh.fc2(hidden).sigmoid()).relu())


def test_ratio_sets_the_hidden_channels() -> None:
    # Two matrices of C * C / r and biases of C / r and C in each block, section 4
    def added(ratio: int) -> int:
        return count_parameters(build_on_meta("se_resnet18", ratio=ratio)) - 11_689_512

    for ratio in (4, 16):
        assert added(ratio) == sum(2 * (2 * c * (c // ratio) + c // ratio + c) for c in (64, 128, 256, 512))
    with pytest.raises(InputError, match="ratio must be"):
        build_on_meta("se_resnet18", ratio=0)


def test_senet154_is_built_as_the_paper_says() -> None:
    model = build_on_meta("senet154")
    block = next(m for m in model.stages[1].modules() if isinstance(m, Block))  # type: ignore[index]
    convolutions = [m for m in block.body if isinstance(m, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size[0], c.groups) for c in convolutions] == [
        (256, 256, 1, 1),
        (256, 512, 3, 64),
        (512, 512, 1, 1),
    ]
    projection = next(m for m in block.shortcut.modules() if isinstance(m, nn.Conv2d))  # type: ignore[union-attr]
    assert (projection.kernel_size, projection.stride) == ((3, 3), (2, 2))
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.2]


@pytest.mark.parametrize(
    "options", [{"residual": False}, {"norm": None}, {"shortcut": "A"}, {"zero_init_residual": True}]
)
def test_every_variant_runs(options: dict[str, Any]) -> None:
    with torch.device("meta"):
        for name in ("se_resnet18", "se_resnext50_32x4d"):
            model = registry.create_model(name, num_classes=4, **options)
            assert model(torch.empty(2, 3, 45, 64)).shape == (2, 4)


def test_zero_init_starts_every_block_as_its_shortcut() -> None:
    block = next(m for m in senet.se_resnet18(zero_init_residual=True).modules() if isinstance(m, Block))
    x = torch.rand(2, 64, 8, 8)
    torch.testing.assert_close(block.train()(x), x)
