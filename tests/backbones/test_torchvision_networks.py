"""torchvision's networks are themselves when they are taken apart, and read their published files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision import models

import opsin
from opsin import registry
from opsin.backbones import copy_in_order
from opsin.backbones.extraction import create_extractor
from opsin.errors import InputError

# name, the side of an image, and the sides of its maps as torchvision's own modules give them
NETWORKS = {
    "convnext_tiny": (64, (16, 8, 4, 2)),
    "swin_t": (64, (16, 8, 4, 2)),
    "vit_b_16": (32, (2,) * 12),
    "efficientnet_v2_s": (64, (32, 16, 8, 4, 2)),
    "mnasnet0_5": (64, (32, 16, 8, 4, 2)),
    "squeezenet1_1": (65, (16, 8, 4)),
    "densenet121": (64, (16, 8, 4, 2)),
    "googlenet": (64, (16, 8, 4, 2)),
}


def pair(name: str) -> tuple[Any, Any]:
    """Ours and torchvision's, with the same random weights; two classes."""
    options: dict[str, Any] = {"image_size": 32} if name == "vit_b_16" else {}
    ours = opsin.create_model(f"torchvision:{name}", num_classes=2, **options).eval()
    own: dict[str, Any] = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    theirs: Any = models.get_model(name, weights=None, num_classes=2, **options, **own).eval()
    with torch.no_grad():
        for tensor in theirs.state_dict().values():  # some begin with an answer of zeros
            if tensor.is_floating_point() and tensor.ndim == 1:
                tensor.uniform_(0.5, 1.0)
    copy_in_order(ours, theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize("name", NETWORKS)
def test_it_gives_what_torchvision_gives(name: str) -> None:
    ours, theirs = pair(name)
    side, sides = NETWORKS[name]
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        got, expected, maps = ours(images), theirs(images), ours.features(images)
    assert got.shape == (2, 2)
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert tuple(x.shape[-1] for x in maps) == sides
    assert tuple(x.shape[1] for x in maps) == ours.channels and len(maps) == len(ours.strides)


def test_maps_are_those_of_torchvisions_own_modules() -> None:
    ours, theirs = pair("swin_t")
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        x, expected = images, []
        for place, module in enumerate(theirs.features):
            x = module(x)
            if place in (1, 3, 5, 7):
                expected.append(x.permute(0, 3, 1, 2))
        for mine, map_ in zip(ours.features(images), expected, strict=True):
            torch.testing.assert_close(mine, map_)
    ours, theirs = pair("vit_b_16")
    images = torch.randn(1, 3, 32, 32)
    seen: list[torch.Tensor] = []
    theirs.encoder.layers[3].register_forward_hook(lambda module, given, output: seen.append(output))
    with torch.no_grad():
        theirs(images)
        torch.testing.assert_close(ours.features(images)[3].flatten(2), seen[0][:, 1:].transpose(1, 2))


def test_heads_and_channels_change() -> None:
    for name in ("squeezenet1_1", "convnext_tiny"):
        with torch.device("meta"):
            model: Any = opsin.create_model(f"torchvision:{name}", in_channels=1)
            assert model(torch.zeros(1, 1, 64, 64)).shape == (1, 1000)
            model.reset_head(7)
            assert model(torch.zeros(1, 1, 64, 64)).shape == (1, 7)
        assert all(len(model.get_parameter(key)) == 7 for key in model.class_rows()) and len(model.class_rows()) == 2


def test_output_stride_dilates_or_is_refused_in_a_line() -> None:
    with torch.device("meta"):
        fine: Any = opsin.create_model("torchvision:regnet_y_400mf", output_stride=8)
        assert [x.shape[-1] for x in fine.features(torch.zeros(1, 3, 64, 64))] == [16, 8, 8, 8]
        for name in ("swin_t", "vit_b_16"):
            with pytest.raises(InputError, match="output_stride"):
                opsin.create_model(f"torchvision:{name}", output_stride=8)


def test_a_published_file_fills_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = models.get_model("densenet121", weights=None)
    old = {k.replace("norm1.", "norm.1.").replace("conv1.", "conv.1."): v for k, v in theirs.state_dict().items()}
    torch.save(old, tmp_path / "densenet121.pth")  # names as in the published file, from before they changed
    monkeypatch.setattr("opsin.backbones.weights.fetch", lambda *_, **__: tmp_path / "densenet121.pth")
    model: Any = opsin.create_model("torchvision:densenet121", weights="imagenet1k").eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(images), theirs.eval()(images))
    assert model.preprocessing["crop_ratio"] == 224 / 256
    said: list[str] = []
    opsin.create_model("torchvision:densenet121", weights="imagenet1k", num_classes=3, say=said.append)
    assert "fresh: head.classifier.weight, head.classifier.bias" in said[-1]
    with pytest.raises(InputError, match="bn_size=2"):
        opsin.create_model("torchvision:densenet121", weights="imagenet1k", bn_size=2)


def test_weights_say_what_torchvision_says() -> None:
    weights = registry.find_weights("torchvision:convnext_tiny", "imagenet1k")
    stated: Any = models.ConvNeXt_Tiny_Weights.IMAGENET1K_V1
    assert (weights.url, weights.sha256) == (stated.url, "983f1562")
    assert weights.preprocessing["crop_ratio"] == 224 / 236 and weights.licence.startswith("BSD-3-Clause")
    assert weights.metrics["imagenet1k top-1"] == stated.meta["_metrics"]["ImageNet-1K"]["acc@1"]
    swag = registry.find_weights("torchvision:vit_b_16", "imagenet1k_swag_e2e_v1")
    assert swag.preprocessing["interpolation"] == "bicubic" and "CC-BY-NC" in swag.licence
    assert swag.options == {"image_size": 384}
    entry = registry.count(registry.find_model("torchvision:convnext_tiny"))
    assert entry.params == stated.meta["num_params"] and entry.family == "convnext"


def test_wrong_calls_are_one_line() -> None:
    with pytest.raises(InputError, match=r"did you mean convnext_tiny"):
        registry.find_model("torchvision:convnext_tinny")
    with pytest.raises(InputError, match="unknown option of torchvision:convnext_tiny 'stochastic_depth'"):
        opsin.create_model("torchvision:convnext_tiny", stochastic_depth=0.1)
    with (
        torch.device("meta"),
        pytest.raises(InputError, match="torchvision:vit_b_16 has no stage of stride 8, only 16"),
    ):
        create_extractor("torchvision:vit_b_16")
