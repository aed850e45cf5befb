"""U-Net: the sizes of the paper, its skips, and segmentation-models-pytorch's on copied weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from opsin import create_model
from opsin.backbones.fitting import copy_in_order
from opsin.errors import InputError
from opsin.nn.counting import count_parameters
from opsin.segment.unet import UNet, ValidUNet


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("unet_valid", {}, 31_030_658),  # 1 -> 2 channels
        ("unet_valid", {"in_channels": 3}, 31_031_810),
        ("unet", {}, 31_037_633),  # 3 -> 1
        ("unet", {"norm": None}, 31_031_745),
        ("unet_bilinear", {}, 17_262_977),
        ("unet_resnet34", {}, 24_436_369),
    ],
)
def test_counts(name: str, options: dict[str, Any], expected: int) -> None:
    with torch.device("meta"):
        assert count_parameters(create_model(name, **options)) == expected


def test_the_papers_sizes() -> None:
    with torch.device("meta"):
        model = create_model("unet_valid")
        assert isinstance(model, ValidUNet)
        maps = model.backbone(torch.empty(1, 1, 572, 572))
        assert [x.shape[-1] for x in maps] == [568, 280, 136, 64, 28]  # figure 1
        assert model(torch.empty(1, 1, 572, 572))["logits"].shape == (1, 2, 388, 388)
    assert model.output_size((572, 572)) == (388, 388)
    assert model.next_size((512, 512)) == (524, 524) and model.next_size((1, 188)) == (188, 188)
    for size in ((512, 572), (572, 573), (172, 172)):
        with pytest.raises(InputError, match=r"16k.*the next size is"):
            model.output_size(size)


def test_every_size_of_the_rule_is_taken_and_none_below() -> None:
    model = ValidUNet(width=2).eval()
    for side in range(188, 300, 16):
        found = model(torch.zeros(1, 1, side, 188))["logits"]
        assert found.shape[-2:] == (side - 184, 4) == model.output_size((side, 188))


def test_the_output_of_the_valid_net_is_the_middle_of_its_input() -> None:
    """Of a larger image it says the same wherever both see it, at offsets of 16: nothing of it is a border."""
    torch.manual_seed(0)
    model = ValidUNet(width=4).double().eval()
    images = torch.randn(1, 1, 252, 236, dtype=torch.float64)
    whole = model(images)["logits"]
    part = model(images[..., 32:220, 16:204])["logits"]
    torch.testing.assert_close(part, whole[..., 32:36, 16:20], atol=1e-12, rtol=0)


@pytest.mark.parametrize("upsampling", ["transposed", "bilinear", "nearest"])
def test_skips_are_of_the_same_place(upsampling: Any) -> None:
    """With all channels equal, the finest skip alone leaves every pixel where it was: each is laid on its own."""
    model: Any = UNet(width=2, upsampling=upsampling, norm=None).eval()
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.zeros_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
            if isinstance(layer, nn.Conv2d):
                layer.weight.data[..., layer.kernel_size[0] // 2, layer.kernel_size[1] // 2] = 1
    last = model.steps[-1].convs[0][0]
    last.weight.data[:, :2] = 0  # what comes from below
    images = torch.rand(1, 3, 37, 50)
    logits = model(images)["logits"][0, 0]
    torch.testing.assert_close(logits / logits.max(), images.sum(dim=1)[0] / images.sum(dim=1).max())


@pytest.mark.parametrize("backbone", ["resnet18", "vgg11_bn", "googlenet", "inception_v3", "alexnet", "highway10_16"])
def test_any_backbone(backbone: str) -> None:
    model = create_model("unet", backbone=backbone, num_classes=3).eval()
    assert isinstance(model, UNet)
    strides = [1 << step for step in range(model.coarsest.bit_length() - 1)]
    assert set(model.backbone.strides) <= {*strides, model.coarsest}  # type: ignore[arg-type]
    for size in ((128, 96), (101, 97)):
        with torch.no_grad():
            assert model(torch.zeros(1, 3, *size))["logits"].shape == (1, 3, *size)


def test_networks_of_other_libraries_are_backbones() -> None:
    model = create_model("unet", backbone="torchvision:shufflenet_v2_x0_5", num_classes=3).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 65, 70))["logits"].shape == (1, 3, 65, 70)


def test_options_of_a_backbone_need_one() -> None:
    with pytest.raises(InputError, match="backbone='resnet34'"):
        UNet(backbone_weights="imagenet1k")
    with pytest.raises(InputError, match="did you mean bilinear"):
        UNet(upsampling="bilinar")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="5 numbers"):
        UNet(backbone="resnet18", channels=(16, 8))


def test_it_is_segmentation_models_pytorchs() -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    theirs = smp.Unet("resnet34", encoder_weights=None, classes=3).eval()
    ours = create_model("unet_resnet34", num_classes=3).eval()
    for layer in theirs.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None and layer.running_var is not None
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.normal_(layer.running_mean, std=0.1)
    copy_in_order(ours, {k: v for k, v in theirs.state_dict().items() if not k.startswith("encoder.fc")})
    images = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images)["logits"], theirs(images), rtol=1e-4, atol=1e-5)
