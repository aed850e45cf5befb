from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import pytest
import timm
import torch
import torchvision.models
from pytorchcv.models import regnet as pytorchcv_regnet
from timm.models.regnet import model_cfgs
from torch import nn

from opsin import registry
from opsin.backbones import regnet
from opsin.backbones.fitting import copy_in_order
from opsin.backbones.regnet import AnyNet, Block, Line, Stages, fit_groups, sample_anynetx, sample_regnetx
from opsin.errors import InputError
from opsin.nn.counting import count_macs, count_parameters

SIZES = ["200mf", "400mf", "600mf", "800mf", "1_6gf", "3_2gf", "4gf", "6_4gf", "8gf", "12gf", "16gf", "32gf"]
NAMES = [f"regnet{kind}_{size}" for kind in "xy" for size in SIZES]
# ours: torchvision's
PORTED = {
    "regnetx_400mf_torchvision": "regnet_x_400mf",
    "regnetx_800mf": "regnet_x_800mf",
    "regnety_400mf": "regnet_y_400mf",
    "regnety_800mf_torchvision": "regnet_y_800mf",
}


# of timm's weights
TAGS = {
    "regnety_3_2gf": ".ra_in1k",
    "regnety_4gf": ".ra3_in1k",
    "regnety_6_4gf": ".ra3_in1k",
    "regnety_8gf": ".ra3_in1k",
}


def on_meta(name: str, **options: Any) -> AnyNet:
    with torch.device("meta"):
        model = registry.create_model(name, **options)
    assert isinstance(model, AnyNet)
    return model


def count(name: str, **options: Any) -> int:
    return count_parameters(on_meta(name, **options))


@pytest.mark.parametrize("name", PORTED)
def test_outputs_equal_torchvision(name: str, assert_equal: Callable[..., None]) -> None:
    def reference() -> nn.Module:
        with torch.device("cpu"):  # it computes its widths with tensors
            return getattr(torchvision.models, PORTED[name])()

    assert_equal(partial(registry.create_model, name), reference, [(64, 64), (47, 70)])


@pytest.mark.parametrize("name", ["regnetx_200mf", "regnety_200mf", "regnety_600mf"])
def test_outputs_equal_timm(name: str) -> None:
    arrange = registry.find_model("regnety_4gf").weights["imagenet1k"].arrange
    assert arrange is not None
    torch.manual_seed(0)
    other = timm.create_model(f"{name[:7]}_00{name[8]}").eval()
    for tensor in other.state_dict().values():
        if tensor.ndim == 1:
            tensor.uniform_(0.5, 1.5)
    model = registry.create_model(name).eval()
    copy_in_order(model, arrange(other.state_dict()))  # type: ignore[arg-type]
    for height, width in [(64, 64), (47, 70)]:
        images = torch.randn(1, 3, height, width)
        with torch.no_grad():
            torch.testing.assert_close(model(images), other(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_lines_are_those_of_pycls_as_timm_has_them(name: str) -> None:
    kind, _, size = name.partition("_")
    digits = f"{round(float(size[:-2].replace('_', '.')) * (10 if size.endswith('gf') else 0.01)):03d}"
    theirs, (ours, *_) = model_cfgs[f"{kind}_{digits}"], regnet._NETS[name]
    assert (ours.depth, ours.w_0, ours.w_a, ours.w_m) == (theirs.depth, theirs.w0, theirs.wa, theirs.wm)
    assert (ours.group_width, ours.bottleneck_ratio) == (theirs.group_size, theirs.bottle_ratio)


def test_stages_of_the_paper() -> None:
    assert regnet._NETS["regnetx_400mf"][0].stages() == Stages((1, 2, 7, 12), (32, 64, 160, 384), (1,) * 4, (16,) * 4)
    assert regnet._NETS["regnety_32gf"][0].stages() == Stages(
        (2, 5, 12, 1), (232, 696, 1392, 3712), (1,) * 4, (232,) * 4
    )
    # 392 is 24.5 groups of 16: to 24 of them in pycls, to 25 in torchvision
    line = regnet._NETS["regnetx_400mf_torchvision"][0]
    assert line.block_widths()[-1] == 392
    assert line.stages("torchvision").widths == (32, 64, 160, 400)
    # 192 is 3.4 groups of 56: 3 of them would take an eighth away, which torchvision does not let pass
    line = regnet._NETS["regnety_8gf"][0]
    assert line.block_widths()[0] == 192
    assert line.stages().widths[0] == 168 and line.stages("torchvision").widths[0] == 224


@pytest.mark.parametrize("name", ["regnetx002", "regnety004", "regnety032"])
def test_counts_equal_pytorchcv(name: str) -> None:
    ours = {"regnetx002": "regnetx_200mf", "regnety004": "regnety_400mf", "regnety032": "regnety_3_2gf"}[name]
    with torch.device("meta"):
        theirs = getattr(pytorchcv_regnet, name)()
    assert count_parameters(theirs) == count(ours)


def test_weights_are_those_of_torchvision_and_timm() -> None:
    seen = []
    for name in registry.list_models("regnet*"):
        for key, weights in registry.find_model(name).weights.items():
            assert len(weights.sha256) == 8 and weights.url.endswith(f"-{weights.sha256}.pth")
            seen.append(weights.url)
            if "torchvision" in weights.source:
                kind, size = name.removesuffix("_torchvision").split("_", 1)
                theirs = torchvision.models.get_model_weights(f"regnet_{kind[-1]}_{size}")
                theirs = theirs[weights.source.rpartition(" ")[2]]
                transforms = theirs.transforms()
                assert weights.url == theirs.url
                assert list(weights.metrics.values()) == list(theirs.meta["_metrics"]["ImageNet-1K"].values())
                assert weights.preprocessing["size"] == transforms.crop_size * 2
                assert weights.preprocessing["crop_ratio"] == transforms.crop_size[0] / transforms.resize_size[0]
                assert weights.preprocessing["interpolation"] == transforms.interpolation.value
                assert ("NC" in weights.licence) == ("swag" in key)
            else:
                cfg = timm.models.get_pretrained_cfg(weights.url.rpartition("/")[2][:11] + TAGS[name])
                assert cfg is not None and cfg.test_input_size is not None
                assert weights.url == cfg.url and weights.preprocessing["size"] == list(cfg.test_input_size[1:])
                assert weights.preprocessing["crop_ratio"] == cfg.test_crop_pct == 1
    assert len(set(seen)) == 14 * 2 + 4 + 4


def test_anynet_holds_resnext50() -> None:
    model = on_meta(
        "anynetx",
        depths=(3, 4, 6, 3),
        widths=(256, 512, 1024, 2048),
        bottleneck_ratios=(2, 2, 2, 2),
        group_widths=(4, 8, 16, 32),
        strides=(1, 2, 2, 2),
        stem="resnet",
        stem_width=64,
    )
    assert count_parameters(model) == 25_028_904
    assert count_macs(model, (3, 224, 224)) == 4_230_479_872
    assert model.strides == (4, 8, 16, 32)


def test_squeeze_excitation_is_by_what_comes_into_the_block() -> None:
    stages = regnet._NETS["regnety_400mf"][0].stages()
    extra, channels = 0, 32
    for depth, width in zip(stages.depths, stages.widths, strict=True):
        for _ in range(depth):
            hidden = round(channels / 4)
            extra += 2 * width * hidden + width + hidden
            channels = width
    assert count("regnety_400mf") - count("regnety_400mf", se=False) == extra
    assert count("regnetx_200mf", se=True) == count("regnety_200mf")
    assert count("regnety_400mf", se_ratio=0.5) > count("regnety_400mf")


def test_plain_net_is_the_body_alone() -> None:
    torch.manual_seed(0)
    model = registry.create_model("regnetx_200mf", residual=False).eval()
    block = next(m for m in model.modules() if isinstance(m, Block))
    x = torch.randn(1, 32, 8, 8)
    assert torch.equal(block(x), block.body(x).relu())
    projections = [(32, 24), (24, 56), (56, 152), (152, 368)]
    assert count("regnetx_200mf") - count("regnetx_200mf", residual=False) == sum(a * b + 2 * b for a, b in projections)


def test_small_images() -> None:
    model = on_meta("regnetx_200mf", small_images=True, in_channels=1, num_classes=10)
    assert model.strides == (2, 4, 8, 16)
    maps = model.features(torch.empty(1, 1, 28, 28, device="meta"))
    assert [m.shape[-1] for m in maps] == [14, 7, 4, 2]


def test_inverted_bottlenecks() -> None:
    stages = fit_groups((1, 1), (32, 60), (0.25, 0.25), (24, 24))
    assert stages.widths == (30, 60)  # 120 and 240 inside: multiples of 24 and of 4
    assert count_parameters(AnyNet(stages, num_classes=2)) > 0
    assert fit_groups((1,), (8,), (4,), (32,)) == Stages((1,), (8,), (4,), (2,))  # two channels inside: one group


def test_initial_weights() -> None:
    torch.manual_seed(0)
    model = registry.create_model("regnety_400mf")
    block = [m for m in model.modules() if isinstance(m, Block)][-1]
    conv = block.body[-1][0]  # type: ignore[index]
    assert float(conv.weight.detach().std()) == pytest.approx((2 / 440) ** 0.5, rel=0.02)
    assert all(not m.bias.any() for m in model.modules() if isinstance(m, nn.Linear))


@pytest.mark.parametrize("space", ["A", "B", "C", "D", "E"])
def test_samples_are_in_their_space(space: Any) -> None:
    random = Random(0)
    samples = [sample_anynetx(space, random) for _ in range(200)]
    for stages in samples:
        assert len(stages.depths) == 4
        assert all(1 <= d <= 16 for d in stages.depths) and all(8 <= w <= 1024 for w in stages.widths)
        assert set(stages.bottleneck_ratios) <= {1, 2, 4} and all(g <= 32 for g in stages.group_widths)
    assert all(len(set(s.bottleneck_ratios)) == 1 for s in samples) == (space >= "B")
    assert all(sorted(s.widths) == list(s.widths) for s in samples) == (space >= "D")
    assert all(sorted(s.depths) == list(s.depths) for s in samples) == (space >= "E")
    assert len(set(samples)) == 200
    assert samples[0] == sample_anynetx(space, Random(0))
    with torch.device("meta"):
        assert count_macs(AnyNet(samples[0]), (3, 32, 32)) > 0


def test_sampled_regnets_have_four_stages() -> None:
    random = Random(1)
    lines = [sample_regnetx(random) for _ in range(100)]
    assert lines[0] == sample_regnetx(Random(1))
    for line in lines:
        assert 4 <= line.depth < 64 and 8 <= line.w_0 < 256 and 8 <= line.w_a <= 256 and 1.5 <= line.w_m <= 3
        assert sum(line.stages().depths) == line.depth
        assert len(set(line.block_widths())) == 4
    blocks = Line(20, 48, 24.0, 2.0, 8).block_widths()
    assert blocks == [48 * 2 ** round(math.log2((48 + 24 * j) / 48)) for j in range(20)]


def test_options_are_checked() -> None:
    for options, message in [
        ({"depths": (1, 2)}, "a number for each stage"),
        ({"widths": (32, 64, 160, 380)}, "group_width=16 does not divide width=380"),
        ({"depths": (1, 2, 0, 4)}, "depths must be a whole number"),
        ({"bottleneck_ratios": (1, 1, 0, 1)}, "does not divide"),
        ({"stem": "patchify"}, "unknown stem 'patchify'"),
        ({"se": True, "se_ratio": 0}, "se_ratio must be above 0"),
        ({"dropout": 1.0}, "dropout"),
    ]:
        with pytest.raises(InputError, match=message):
            on_meta("anynetx", **options)
    with pytest.raises(InputError, match="w_0=12"):
        Line(12, 12, 8.0, 2.0, 8)
    with pytest.raises(InputError, match="unknown rounding"):
        fit_groups((1,), (8,), (1,), (8,), "timm")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="above 0"):
        fit_groups((1,), (8,), (0,), (8,))
    with pytest.raises(InputError, match="unknown space"):
        sample_anynetx("F", Random(0))  # type: ignore[arg-type]
