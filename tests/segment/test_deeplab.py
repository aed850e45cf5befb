"""DeepLab: torchvision's on copied weights, output strides changed on the same weights, rates, and batches of one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation import deeplabv3_resnet50

from opsin import create_model, load_weights
from opsin.errors import InputError
from opsin.nn.counting import count_parameters
from opsin.segment.deeplab import Atrous, DeepLabV2, DeepLabV3, DeepLabV3Plus

NARROW: dict[str, Any] = {"num_classes": 3, "backbone": "resnet18", "channels": 8}


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("deeplabv1", {}, 20_505_429),
        ("deeplabv2", {}, 37_877_652),
        ("deeplabv2_resnet101", {}, 44_048_532),
        ("deeplabv3", {"aux_heads": True}, 42_004_074),
        ("deeplabv3", {}, 39_638_869),
        ("deeplabv3_resnet101", {"aux_heads": True}, 60_996_202),
        ("deeplabv3plus", {}, 40_352_181),
        ("deeplabv3plus_resnet101", {}, 59_344_309),
    ],
)
def test_counts(name: str, options: dict[str, Any], expected: int) -> None:
    with torch.device("meta"):
        assert count_parameters(create_model(name, **options)) == expected


def test_large_field_of_view_is_the_releases_chain_of_layers() -> None:
    """Of VGG-11, layer by layer: poolings of 3x3, the last two of stride 1, dilation 2, an average, fc6 at rate 12."""
    torch.manual_seed(0)
    model = create_model("deeplabv1", num_classes=3, backbone="vgg11", hidden_features=8).eval()
    images = torch.randn(1, 3, 97, 129)
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    x = images
    for place, layer in enumerate(layers[:8]):
        rate = 1 if place < 6 else 2
        x = F.conv2d(x, layer.weight, layer.bias, padding=rate, dilation=rate).relu()
        if place in (0, 1, 3, 5, 7):
            x = F.max_pool2d(x, 3, 2 if place < 4 else 1, 1)
    x = F.avg_pool2d(x, 3, 1, 1)
    for layer, rate in zip(layers[8:], (12, 0, 0), strict=True):
        x = F.conv2d(x, layer.weight, layer.bias, padding=rate, dilation=max(1, rate))
        x = x if layer is layers[-1] else x.relu()
    with torch.no_grad():
        expected = F.interpolate(x, (97, 129), mode="bilinear", align_corners=True)
        torch.testing.assert_close(model(images)["logits"], expected, rtol=1e-4, atol=1e-6)


def test_torchvisions_file_gives_torchvisions_logits(tmp_path: Any) -> None:
    """A saved state dict, read by `load_weights`: equal outputs, the auxiliary head's too."""
    torch.manual_seed(0)
    theirs = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=4, aux_loss=True).eval()
    for layer in theirs.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None and layer.running_var is not None
            nn.init.normal_(layer.running_mean, std=0.1)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    images = torch.randn(1, 3, 65, 90)
    with torch.no_grad():
        expected = theirs(images)
        for heads in (True, None):
            ours = create_model("deeplabv3", num_classes=4, aux_heads=heads).eval()
            load_weights(ours, tmp_path / "theirs.pth", say=lambda line: None)
            found = ours(images)
            torch.testing.assert_close(found["logits"], expected["out"], rtol=1e-4, atol=1e-5)
            if heads:
                torch.testing.assert_close(found["aux"], expected["aux"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["deeplabv1", "deeplabv2", "deeplabv3", "deeplabv3plus"])
def test_another_output_stride_on_the_same_weights(name: str) -> None:
    options: dict[str, Any] = {"num_classes": 3, "backbone": "resnet18"}
    if "v3" in name:
        options["channels"] = 8
    if name == "deeplabv1":
        options = {"num_classes": 3, "backbone": "vgg11", "hidden_features": 8}
    torch.manual_seed(0)
    coarse = create_model(name, output_stride=16, **options).eval()
    fine = create_model(name, output_stride=8, **options).eval()
    fine.load_state_dict(coarse.state_dict())
    images = torch.randn(1, 3, 97, 128)
    parameters = [id(p) for p in coarse.parameters()]
    assert isinstance(coarse, Atrous)
    with torch.no_grad():
        before, expected = coarse(images)["logits"], fine(images)["logits"]
        coarse.set_output_stride(8)
        assert torch.equal(coarse(images)["logits"], expected) and not torch.equal(before, expected)
        assert coarse.output_stride == 8 and coarse.strides == fine.strides
        coarse.set_output_stride(16)
        assert torch.equal(coarse(images)["logits"], before)
    assert [id(p) for p in coarse.parameters()] == parameters
    with pytest.raises(InputError, match="output_stride must be one of"):
        coarse.set_output_stride(12)


def rates(model: Atrous) -> list[int]:
    return [m.dilation[0] for m in model.aspp.modules() if isinstance(m, nn.Conv2d) and m.kernel_size[0] > 1]


def test_rates_follow_the_output_stride() -> None:
    for stride, expected in ((8, [12, 24, 36]), (16, [6, 12, 18]), (32, [3, 6, 9])):
        assert rates(DeepLabV3(output_stride=stride, **NARROW)) == expected
        assert rates(DeepLabV3Plus(output_stride=stride, **NARROW)) == expected
    assert rates(DeepLabV2(num_classes=3, backbone="resnet18")) == [6, 12, 18, 24]
    assert rates(DeepLabV2(num_classes=3, backbone="resnet18", output_stride=16)) == [3, 6, 9, 12]


def test_rates_beyond_the_map_are_found() -> None:
    model: Any = DeepLabV3(**NARROW)
    assert model.size_warnings((520, 520)) == []
    [line] = model.size_warnings((180, 240))
    assert "rates 24, 36" in line and "23x30" in line and "at least 289 pixels" in line
    assert model.size_warnings((289, 289)) == [] and model.size_warnings((288, 400))
    model.set_output_stride(16)
    [line] = model.size_warnings((180, 240))
    assert "rates 12, 18" in line and "12x15" in line
    # There the kernel's other places see nothing of the map: the branch is its middle, a 1x1.
    branch = model.aspp.branches[3].eval()  # type: ignore[union-attr]
    x = torch.randn(1, 512, 12, 15)
    conv = branch[0]  # type: ignore[index]
    middle = F.conv2d(x, conv.weight[:, :, 1:2, 1:2])
    assert torch.allclose(conv(x), middle, atol=1e-4)


def test_the_release_on_vgg_lies_on_every_eighth_pixel() -> None:
    """3x3 poolings around every second pixel: of 8k + 1 pixels the map is as symmetric as the image."""
    torch.manual_seed(0)
    model = DeepLabV2(num_classes=2, backbone="vgg11", hidden_features=8, rates=(12,)).eval()
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data = layer.weight.data + layer.weight.data.flip(-1)
    images = torch.rand(1, 3, 97, 129)
    with torch.no_grad():
        x, logits = model.backbone(images)[0], model(images)["logits"]
        assert x.shape[-2:] == (13, 17) and logits.shape[-2:] == (97, 129)
        torch.testing.assert_close(model(images.flip(-1))["logits"], logits.flip(-1), rtol=1e-3, atol=1e-5)
        # At its places the logits are the map's, not a mixture: they lie on pixels 0, 8, 16, ...
        torch.testing.assert_close(logits[..., ::8, ::8], model.aspp(model.pool(x)), rtol=1e-4, atol=1e-6)


def test_fully_connected_layers_are_thinned_out() -> None:
    torch.manual_seed(0)
    network = create_model("vgg11", hidden_features=32)
    model: Any = create_model("deeplabv2", backbone="vgg11", num_classes=3, hidden_features=8)
    fresh = model.initialize_from(network.state_dict())  # type: ignore[operator]
    assert fresh == [f"aspp.branches.{k}.6.{part}" for k in range(4) for part in ("weight", "bias")]
    first = network.state_dict()["head.3.weight"].view(32, 512, 7, 7)
    for branch in model.aspp.branches:  # type: ignore[union-attr]
        conv = branch[0]
        assert torch.equal(conv.weight[1, :, 0, 2], first[4, :, 0, 6]) and conv.dilation[0] in (6, 12, 18, 24)


def test_branches_are_summed() -> None:
    model: Any = DeepLabV2(num_classes=3, backbone="resnet18").eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        x = model.backbone(images)[0]
        total: Tensor = sum(
            F.conv2d(x, conv.weight, conv.bias, padding=rate, dilation=rate)
            for conv, rate in zip(model.aspp.branches, (6, 12, 18, 24), strict=True)
        )  # type: ignore[assignment]
        expected = F.interpolate(total, size=(64, 64), mode="bilinear")
        torch.testing.assert_close(model(images)["logits"], expected)


def test_one_image_in_training_goes_by_running_statistics() -> None:
    """torchvision fails there: the mean of a map is one pixel, which has no variance."""
    torch.manual_seed(0)
    theirs = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=3)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        theirs.train()(torch.randn(1, 3, 32, 32))
    model: Any = DeepLabV3(**NARROW).train()
    images = torch.randn(1, 3, 96, 96)
    norm = model.aspp.image[1][1]  # type: ignore[index]
    before = norm.running_mean.clone()
    x = model.backbone(images)[0]
    conv = model.aspp.image[1][0]  # type: ignore[index]
    expected = torch.relu(conv(x.mean(dim=(2, 3), keepdim=True)) / (1 + norm.eps) ** 0.5)
    torch.testing.assert_close(model.aspp.image(x), expected)  # type: ignore[operator]
    assert torch.equal(norm.running_mean, before)
    model(torch.cat([images, -images]))
    assert not torch.equal(norm.running_mean, before)  # of two it learns them


def test_low_level_features_are_the_last_of_stride_4() -> None:
    for backbone, channels in (("resnet18", 64), ("vgg11", 256), ("mobilenet_v3_small", 16), ("googlenet", 192)):
        model = DeepLabV3Plus(**{**NARROW, "backbone": backbone})
        assert model.backbone.strides == (4, 16) and model.backbone.channels[0] == channels
    with pytest.raises(InputError, match="map of stride 4"):
        DeepLabV3Plus(**{**NARROW, "backbone": "resnet20"})


def test_frozen_norms_keep_their_statistics() -> None:
    model = DeepLabV3(**NARROW, frozen_norm=True).train()
    before = {k: v.clone() for k, v in model.backbone.state_dict().items()}
    model(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(v, before[k]) for k, v in model.backbone.state_dict().items())
    model.set_output_stride(16)
    model(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(v, before[k]) for k, v in model.backbone.state_dict().items())
