"""FCN: the release's counts, offsets and kernels, weights of a classifier, and stages that begin as the one before."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin import create_model
from opsin.nn.counting import count_parameters
from opsin.nn.surgery import linear_to_conv
from opsin.segment.fcn import FCN

SMALL: dict[str, Any] = {"num_classes": 3, "hidden_features": 8, "backbone": "vgg11"}


SMALL_HEAD = {"hidden_features": 8}


def build(finest: int, **options: Any) -> FCN:
    torch.manual_seed(finest)
    return FCN(finest, **{**SMALL, **options}).eval()


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("fcn32s", {}, 134_346_581),
        ("fcn16s", {}, 134_357_354),
        ("fcn8s", {}, 134_362_751),
        # The release's prototxts count their deconvolutions, K x K x k x k each.
        ("fcn32s", {"upsampling": "all_learned"}, 136_152_917),
        ("fcn16s", {"upsampling": "all_learned"}, 134_815_994),
        ("fcn8s", {"upsampling": "all_learned"}, 134_489_759),
        ("fcn8s", {"upsampling": "learned"}, 134_362_751 + 2 * 7_056),
    ],
)
def test_counts(name: str, options: dict[str, Any], expected: int) -> None:
    with torch.device("meta"):
        assert count_parameters(create_model(name, **options)) == expected


def test_an_untrained_network_says_nothing() -> None:
    for finest in (32, 16, 8):
        assert not build(finest)(torch.randn(1, 3, 64, 80))["logits"].any()


def plain(model: FCN, images: Tensor, finest: int) -> Tensor:
    """The release's prototxt layer by layer: Caffe's rounding, kernels of every pair of classes, crops by offset."""
    weights = model.state_dict()
    convs = [k.removesuffix(".weight") for k in weights if k.startswith("backbone") and k.endswith("weight")]
    x, maps = images, {}
    for stage in range(5):
        for name in (c for c in convs if f".stages.{stage}." in c):
            border = 100 if name == convs[0] else 1
            x = F.relu(F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=border))
        x = F.max_pool2d(x, 2, 2, ceil_mode=True)
        maps[stage] = x
    for place in ("0", "3"):
        x = F.relu(F.conv2d(x, weights[f"fc.{place}.weight"], weights[f"fc.{place}.bias"]))

    def score(y: Tensor, level: int) -> Tensor:
        return F.conv2d(y, weights[f"scores.{level}.weight"], weights[f"scores.{level}.bias"])

    def deconvolve(y: Tensor, size: int, stride: int) -> Tensor:
        factor = (size + 1) // 2
        middle = factor - 1 if size % 2 else factor - 0.5
        side = torch.tensor([1 - abs(i - middle) / factor for i in range(size)])
        kernel = torch.zeros(3, 3, size, size)
        for k in range(3):
            kernel[k, k] = side[:, None] * side
        return F.conv_transpose2d(y, kernel, stride=stride)

    def crop(y: Tensor, like: Tensor, offset: int) -> Tensor:
        return y[..., offset : offset + like.shape[2], offset : offset + like.shape[3]]

    x = score(x, 32)
    if finest == 32:
        return crop(deconvolve(x, 64, 32), images, 19)
    x = deconvolve(x, 4, 2)
    x = x + crop(score(maps[3], 16), x, 5)
    if finest == 16:
        return crop(deconvolve(x, 32, 16), images, 27)
    x = deconvolve(x, 4, 2)
    x = x + crop(score(maps[2], 8), x, 9)
    return crop(deconvolve(x, 16, 8), images, 31)


@pytest.mark.parametrize("finest", [32, 16, 8])
def test_it_is_the_release_layer_by_layer(finest: int) -> None:
    model = build(finest)
    for score in model.scores.values():
        nn.init.normal_(score.weight, std=0.1)  # type: ignore[arg-type]
    for size in ((61, 90), (33, 500)):
        images = torch.randn(1, 3, *size)
        with torch.no_grad():
            logits = model(images)["logits"]
            assert logits.shape == (1, 3, *size) and logits.any()
            torch.testing.assert_close(logits, plain(model, images, finest), rtol=1e-4, atol=1e-5)


def test_a_stage_begins_as_the_one_before() -> None:
    """Section 4.2: 16s starts from 32s, whose new scores are zero: it differs by how it is interpolated alone."""
    images = torch.randn(1, 3, 150, 170)
    before = build(32)
    nn.init.normal_(before.scores["32"].weight)  # type: ignore[arg-type]
    for finest, level in ((16, 16), (8, 8)):
        after = build(finest)
        assert after.initialize_from(before.state_dict()) == [f"scores.{level}.weight", f"scores.{level}.bias"]
        with torch.no_grad():
            one, other = before(images)["logits"], after(images)["logits"]
        assert (one - other).abs().mean() < 0.1 * one.abs().mean()
        before = after


def test_fully_connected_layers_become_convolutions() -> None:
    """At the size of the classifier's images the window of fc6 is its whole map, and says what the classifier says."""
    torch.manual_seed(0)
    network = create_model("vgg11", num_classes=4, hidden_features=8).eval()
    model: Any = FCN(32, num_classes=4, backbone="vgg11", hidden_features=8).eval()
    assert model.initialize_from(network.state_dict()) == ["scores.32.weight", "scores.32.bias"]
    sliding: Any = linear_to_conv(network, (3, 224, 224), average=False).model.head  # our own surgery
    x = torch.randn(1, 512, 9, 11)
    with torch.no_grad():
        features = model.fc(x)
        torch.testing.assert_close(sliding[9](features), sliding[3:](x))  # type: ignore[index]
    # A classifier of other sizes fills its convolutions alone.
    other = create_model("vgg11", hidden_features=16, pooled_size=1)
    fresh = model.initialize_from(other.state_dict())
    assert {name.partition(".")[0] for name in fresh} == {"fc", "scores"}


def test_published_weights_of_the_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    """They come with its fully connected layers."""
    from opsin import registry

    torch.manual_seed(3)
    filled = create_model("vgg11", hidden_features=8)
    build_plain = registry.create_model

    def published(name: str, **options: Any) -> nn.Module:
        assert options.pop("weights", None) == "imagenet1k"
        assert name == "vgg11"
        model = build_plain(name, **options)
        model.load_state_dict(filled.state_dict())
        return model

    monkeypatch.setattr(registry, "create_model", published)
    model: Any = FCN(8, backbone="vgg11", backbone_weights="imagenet1k", hidden_features=8, backbone_options=SMALL_HEAD)
    assert torch.equal(model.fc[0].weight.flatten(1), filled.state_dict()["head.3.weight"])
    assert torch.equal(model.backbone.backbone.stages[0][0][0].weight, filled.state_dict()["stages.0.0.0.weight"])  # type: ignore[index]


def test_at_once_scales_the_skips() -> None:
    plain_one: Any = build(8)
    at_once: Any = build(8, at_once=True)
    for score in plain_one.scores.values():
        nn.init.normal_(score.weight)  # type: ignore[arg-type]
    at_once.load_state_dict(plain_one.state_dict())
    with torch.no_grad():
        for level, scale in ((16, 0.01), (8, 0.0001)):
            at_once.scores[str(level)].weight /= scale  # type: ignore[operator]
        images = torch.randn(1, 3, 64, 64)
        torch.testing.assert_close(at_once(images)["logits"], plain_one(images)["logits"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("finest", [32, 16, 8])
def test_scores_of_any_backbone_lie_on_their_pixels(finest: int) -> None:
    """On a backbone without borders of its own every step is plain interpolation, and skips need no offsets."""
    torch.manual_seed(0)
    model: Any = FCN(finest, num_classes=2, backbone="resnet18").eval()
    for score in model.scores.values():
        nn.init.normal_(score.weight, std=0.1)  # type: ignore[arg-type]
    images = torch.randn(1, 3, 128, 160)
    with torch.no_grad():
        *finer, expected = (
            model.scores[str(s)](x) for s, x in zip(model.backbone.strides, model.backbone(images), strict=True)
        )
        for skip in finer[::-1]:
            expected = F.interpolate(expected, scale_factor=2, mode="bilinear") + skip
        expected = F.interpolate(expected, scale_factor=finest, mode="bilinear")
        torch.testing.assert_close(model(images)["logits"], expected, rtol=1e-4, atol=1e-4)
