from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin import registry
from opsin.backbones import cspnet
from opsin.backbones.cspnet import CrossStage
from opsin.backbones.resnet import ResNet
from opsin.errors import InputError
from opsin.nn.conv import ConvNormActivation
from opsin.nn.counting import count_macs, count_parameters


def transition(in_channels: int, out_channels: int) -> nn.Module:
    return ConvNormActivation(in_channels, out_channels, 1)


def count(name: str, **options: Any) -> int:
    with torch.device("meta"):
        return count_parameters(registry.create_model(name, **options))


def _steeper(reference: nn.Module) -> None:
    for module in reference.modules():
        if isinstance(module, nn.LeakyReLU):
            module.negative_slope = 0.1


@pytest.mark.parametrize("name", ["cspresnet50", "cspresnext50", "cspdarknet53"])
def test_timm_forms_equal_timm(name: str, assert_equal: Callable[..., None]) -> None:
    ours = partial(registry.create_model, f"{name}_timm")
    assert_equal(ours, partial(timm.create_model, name), [(64, 64), (75, 97)])


def test_cspdarknet53_is_timms_with_the_slope_of_darknet(assert_equal: Callable[..., None]) -> None:
    assert_equal(cspnet.cspdarknet53, partial(timm.create_model, "cspdarknet53"), [(64, 64), (75, 97)], _steeper)


@pytest.mark.parametrize("name", ["cspresnet50", "cspresnext50", "cspdarknet53"])
def test_weights_are_those_of_timm(name: str) -> None:
    weights, published = registry.find_model(f"{name}_timm").weights["imagenet1k"], timm.get_pretrained_cfg(name)
    assert published is not None and weights.url == published.url and weights.sha256 in weights.url
    assert weights.preprocessing["size"] == list(published.input_size)[1:]
    assert weights.preprocessing["crop_ratio"] == published.crop_pct
    assert weights.preprocessing["interpolation"] == published.interpolation


def test_first_stage_of_the_authors_resnet_layer_by_layer() -> None:
    """As csresnet50.cfg has it: two 1x1 convolutions of one map, of 128 and of 64, and a shortcut of 64 onto 128."""
    model = cspnet.cspresnet50(norm=None)
    stage = model.stages[0]
    tensors = iter(list(stage.state_dict().values()))
    x = torch.randn(1, 64, 9, 7)

    def conv(x: Tensor, linear: bool = False) -> Tensor:
        weight, bias = next(tensors), next(tensors)
        y = F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
        return y if linear else F.leaky_relu(y, 0.1)

    weight, bias = next(tensors), next(tensors)
    passing = F.leaky_relu(F.conv2d(x, weight[:128], bias[:128]), 0.1)
    y = F.leaky_relu(F.conv2d(x, weight[128:], bias[128:]), 0.1)
    assert y.shape[1] == 64
    for _ in range(3):
        wider = conv(conv(conv(y)), linear=True)
        wider[:, : y.shape[1]] += y
        y = F.leaky_relu(wider, 0.1)
    expected = conv(torch.cat([passing, conv(y)], dim=1))
    with torch.no_grad():
        torch.testing.assert_close(stage(x), expected, rtol=1e-4, atol=1e-5)
    assert next(tensors, None) is None


def test_splits_of_the_authors_are_linear_in_the_middle() -> None:
    for build, expected in ((cspnet.cspresnet50, [2, 1, 1, 2]), (cspnet.cspresnet50_timm, [1, 1, 1, 1])):
        with torch.device("meta"):
            model = build(norm=None)
        splits = [m.split for m in model.modules() if isinstance(m, CrossStage)]
        assert [len(list(split)) for split in splits] == expected  # type: ignore[call-overload]


@pytest.mark.parametrize(("fusion", "channels"), [("both", 48 + 32), ("first", 48 + 32), ("last", 48 + 16)])
def test_cross_stage_is_figure_3(fusion: cspnet.Fusion, channels: int) -> None:
    blocks = nn.Conv2d(16, 32, 3, padding=1)
    stage = CrossStage(64, 64, blocks, (16, 32), partial(nn.Conv2d, kernel_size=1), fusion=fusion)
    x = torch.randn(2, 64, 5, 5)
    part = blocks(x[:, 48:])
    if fusion != "first":
        part = stage.transition(part)
    together = torch.cat([x[:, :48], part], dim=1)
    assert together.shape[1] == channels
    torch.testing.assert_close(stage(x), together if fusion == "last" else stage.fusion(together))


def test_any_stage_can_cross() -> None:
    plain = ResNet((2,), widths=(64,)).stages[0]
    half = ResNet((2,), widths=(32,)).stages[0]
    crossed = CrossStage(64, 64, half, (32, 32), transition)
    x = torch.randn(2, 64, 8, 8)
    assert crossed(x).shape == plain(x).shape == x.shape
    transitions = (32 * 32 + 2 * 32) + (64 * 64 + 2 * 64)
    assert count_parameters(crossed) == count_parameters(half) + transitions < count_parameters(plain)
    crossed(x).sum().backward()
    assert all(p.grad is not None for p in crossed.parameters())


def test_without_fusion_cspdarknet53_is_darknet53() -> None:
    with torch.device("meta"):
        plain, darknet53 = cspnet.cspdarknet53(fusion=None), registry.create_model("darknet53")
    shapes = [[tuple(v.shape) for v in m.state_dict().values()] for m in (plain, darknet53)]
    assert shapes[0] == shapes[1]


def test_without_a_passing_part_cspdensenet121_is_densenet121(assert_equal: Callable[..., None]) -> None:
    ours = partial(cspnet.cspdensenet121, partial=0.0)
    assert_equal(ours, partial(timm.create_model, "densenet121"), [(64, 64), (75, 97)])


def test_fusions_differ_by_their_transitions() -> None:
    both, first, last = (count("cspdensenet121", fusion=fusion) for fusion in ("both", "first", "last"))
    assert last < first < both
    difference = 0
    for channels, depth, width in [(64, 6, 128), (128, 12, 256), (256, 24, 512), (512, 16, 1024)]:
        given = channels // 2 + 32 * depth
        early, late = 2 * given + given * (given // 2), channels // 2 + given // 2
        difference += early + late * (2 + width) - (channels // 2 + given) * (2 + width)
    assert both - first == difference


@pytest.mark.parametrize("name", ["cspresnet50", "cspresnext50_timm", "cspdarknet53"])
@pytest.mark.parametrize("fusion", ["first", "last"])
def test_every_fusion_runs_and_is_cheaper(name: str, fusion: str) -> None:
    with torch.device("meta"):
        model, both = registry.create_model(name, fusion=fusion), registry.create_model(name)
        assert model(torch.empty(2, 3, 45, 64)).shape == (2, 1000)
    assert count_macs(model, (3, 64, 64)) < count_macs(both, (3, 64, 64))


@pytest.mark.parametrize("options", [{"residual": False}, {"norm": None}, {"activation": "mish"}, {"fusion": None}])
@pytest.mark.parametrize("name", ["cspresnext50", "cspdarknet53"])
def test_every_switch_runs(name: str, options: dict[str, Any]) -> None:
    with torch.device("meta"):
        model = registry.create_model(name, num_classes=4, **options)
        assert model(torch.empty(2, 3, 45, 64)).shape == (2, 4)


def test_the_partial_ratio_is_what_passes_by() -> None:
    with torch.device("meta"):
        models = [cspnet.cspdensenet121(partial=ratio) for ratio in (0.25, 0.5, 0.75)]
    parts = [next(m for m in model.modules() if isinstance(m, CrossStage)).parts for model in models]
    assert parts == [[16, 48], [32, 32], [48, 16]]
    assert count_macs(models[0], (3, 64, 64)) > count_macs(models[1], (3, 64, 64)) > count_macs(models[2], (3, 64, 64))


def test_options_are_checked() -> None:
    blocks = nn.Identity()
    for build, message in [
        (lambda: cspnet.cspresnet50(fusion="middle"), "unknown fusion 'middle'"),
        (lambda: cspnet.cspdarknet53(norm="layer"), "unknown norm 'layer'"),
        (lambda: cspnet.cspdensenet121(partial=1.0), "partial is the share"),
        (lambda: CrossStage(64, 64, blocks, (64, 64), transition), "0 channels cannot pass by"),
        (lambda: CrossStage(64, 32, blocks, (32, 32), transition, fusion="last"), "32 channels cannot pass by"),
    ]:
        with pytest.raises(InputError, match=message):
            build()
