"""Surgery: outputs unchanged on whole networks, savings by hand, what must not be touched, and the way back."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from opsin import registry
from opsin.errors import InputError
from opsin.nn.conv import create_conv
from opsin.nn.counting import count_macs, count_parameters
from opsin.nn.surgery import conv_to_linear, decompose_linear, fold_batch_norm, linear_to_conv

SMALL: dict[str, Any] = {"num_classes": 10, "hidden_features": 64}


def lived_in(model: nn.Module) -> nn.Module:
    """The model with the norms, biases and statistics of one that has been trained, in eval."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.track_running_stats:
            assert module.running_mean is not None and module.running_var is not None
            for tensor, low, high in ((module.running_mean, -0.5, 0.5), (module.running_var, 0.5, 2.0)):
                tensor.uniform_(low, high, generator=generator)
            if module.affine:
                module.weight.data.uniform_(0.5, 1.5, generator=generator)
                module.bias.data.uniform_(-0.5, 0.5, generator=generator)
    return model.eval()


@torch.no_grad()
def assert_same(before: nn.Module, after: nn.Module, x: Tensor, tolerance: float = 1e-5) -> None:
    expected, got = before.eval()(x), after.eval()(x)
    scale = expected.abs().max()
    torch.testing.assert_close(got / scale, expected / scale, rtol=0, atol=tolerance)


# --- linear to convolution -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "size"), [("vgg11", 224), ("alexnet", 224), ("alexnet_2012", 227)])
def test_classifier_takes_larger_images(name: str, size: int) -> None:
    model = registry.create_model(name, **SMALL).eval()
    surgery = linear_to_conv(model, (3, size, size))
    assert surgery.params_saved == surgery.macs_saved == 0 and len(surgery.changed) == 3
    assert surgery.model.state_dict().keys() == model.state_dict().keys()
    x = torch.randn(1, 3, size, size)
    assert_same(model, surgery.model, x)
    with torch.no_grad():
        large = torch.randn(1, 3, size + 32, size + 64)
        logits = linear_to_conv(model, (3, size, size), average=False).model(large)
        assert logits.shape[:2] == (1, 10) and logits.shape[2] > 1 and logits.shape[3] > logits.shape[2]
        torch.testing.assert_close(surgery.model(large), logits.mean(dim=(2, 3)))


def test_every_window_is_the_classifier() -> None:
    # without padding before it, what a window of the converted network sees is a crop of the image
    head = [nn.Flatten(), nn.Linear(4 * 3 * 5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3)]
    model = lived_in(nn.Sequential(nn.Conv2d(2, 4, 3), nn.MaxPool2d(2), *head)).double()
    logits = linear_to_conv(model, (2, 8, 12), average=False).model
    x = torch.randn(2, 2, 14, 16, dtype=torch.float64)
    got = logits(x)
    assert got.shape == (2, 3, 4, 3)
    for i, j in ((0, 0), (3, 2), (1, 0)):
        crop = x[:, :, 2 * i : 2 * i + 8, 2 * j : 2 * j + 12]
        torch.testing.assert_close(got[:, :, i, j], model(crop))


def test_many_windows_are_few_windows() -> None:
    # past some number of windows another kernel computes them
    model: Any = linear_to_conv(nn.Sequential(nn.Flatten(), nn.Linear(2 * 4 * 3, 5)), (2, 4, 3), average=False).model
    conv = model[1]
    x = torch.randn(2, 2, 14, 16)
    many = conv(x)
    few = torch.cat([conv(x[:, :, i : i + 4]) for i in range(11)], dim=2)
    torch.testing.assert_close(many, few)
    torch.testing.assert_close(many, F.conv2d(x, conv.weight, conv.bias))
    assert many.shape == (2, 5, 11, 14)
    program = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(program(x), many)


def test_pooling_that_works_stays() -> None:
    model: Any = registry.create_model("resnet20").eval()
    surgery = linear_to_conv(model, (3, 32, 32))
    assert isinstance(surgery.model.head[0], nn.AdaptiveAvgPool2d)
    for size in (32, 48):
        assert_same(model, surgery.model, torch.randn(2, 3, size, size))


def test_lenet_takes_another_size_at_last() -> None:
    model: Any = registry.create_model("lenet5").eval()
    x = torch.randn(2, 1, 36, 40)
    with pytest.raises(InputError, match="32x32 only"):
        model(x)
    surgery = linear_to_conv(model, (1, 32, 32))
    assert surgery.model(x).shape == (2, 10) and model.fixed_size == 32
    assert_same(model, surgery.model, x[:, :, :32, :32])


def test_a_smaller_image_is_refused() -> None:
    model = linear_to_conv(registry.create_model("vgg11", **SMALL), (3, 224, 224)).model
    with pytest.raises(InputError, match="window of 7x7 does not fit into a map of 3x6; enlarge the image"):
        model(torch.randn(1, 3, 96, 192))


@pytest.mark.parametrize(("name", "size"), [("vgg11", 224), ("alexnet", 224)])
def test_there_and_back(name: str, size: int) -> None:
    model = registry.create_model(name, **SMALL).eval()
    there = linear_to_conv(model, (3, size, size))
    back = conv_to_linear(there.model, (3, size, size))
    assert back.changed == there.changed and len(back.changed) == 3
    ours, theirs = back.model.state_dict(), model.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in theirs)
    assert_same(model, back.model, torch.randn(1, 3, size, size), tolerance=0)


def test_lenets_c5_is_linear() -> None:
    # LeCun et al. 1998: C5 is a convolution only because the image might be larger
    model: Any = registry.create_model("lenet5").eval()
    surgery = conv_to_linear(model, (1, 32, 32))
    kinds = [type(m) for m in surgery.model.modules()]
    assert kinds.count(nn.Conv2d) == 2 and kinds.count(nn.Linear) == 3
    assert surgery.params_saved == surgery.macs_saved == 0
    assert_same(model, surgery.model, torch.randn(2, 1, 32, 32))
    maps = [m.shape for m in surgery.model.features(torch.randn(2, 1, 32, 32))]
    assert maps == [m.shape for m in model.features(torch.randn(2, 1, 32, 32))]


def test_the_original_stays() -> None:
    model = registry.create_model("vgg11_bn", num_classes=3, hidden_features=8, pooled_size=1)
    before = copy.deepcopy(model.state_dict())
    for surgery in (linear_to_conv, fold_batch_norm):
        surgery(model, (3, 32, 32))
    assert model.training and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


# --- batch norm ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet20", "vgg11_bn", "resnet50"])
def test_folded_networks_compute_the_same(name: str) -> None:
    options: dict[str, Any] = {"hidden_features": 64, "pooled_size": 1} if name == "vgg11_bn" else {}
    model = lived_in(registry.create_model(name, **options))
    surgery = fold_batch_norm(model, (3, 64, 64))
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(surgery.changed) == len(norms)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in surgery.model.modules())
    # a norm has a scale and a shift; a convolution that had no bias gets one
    added = 0 if name == "vgg11_bn" else sum(n.num_features for n in norms)
    assert surgery.params_saved == sum(2 * n.num_features for n in norms) - added
    assert surgery.macs_before == surgery.macs_after == count_macs(model, (3, 64, 64))
    assert_same(model, surgery.model, torch.randn(2, 3, 64, 64))


def test_folds_networks_whose_layers_are_attributes() -> None:
    model = lived_in(torchvision.models.resnet18(num_classes=4))
    surgery = fold_batch_norm(model, (3, 64, 64))
    assert len(surgery.changed) == 20 and "layer2.0.downsample.0" in surgery.changed
    assert_same(model, surgery.model, torch.randn(1, 3, 64, 64))


def test_norm_macs_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2))
    surgery = fold_batch_norm(model, (3, 10, 9))
    assert surgery.norm_macs == surgery.macs_saved == 4 * 8 * 7 + 2 * 6 * 5
    assert surgery.params_saved == 2 * 4 + 2 * 2


@pytest.mark.parametrize(
    ("layer", "norm", "shape"),
    [
        (nn.Linear(6, 4), nn.BatchNorm1d(4), (6, 1, 1)),
        (nn.Linear(6, 4, bias=False), nn.BatchNorm1d(4, affine=False), (6, 1, 1)),
        (nn.Conv2d(6, 4, 3, groups=2), nn.BatchNorm2d(4), (6, 7, 7)),
        (create_conv(6, 4, 3, 2, padding="tf"), nn.BatchNorm2d(4), (6, 8, 7)),
        (nn.ConvTranspose2d(6, 4, 3, 2), nn.BatchNorm2d(4), (6, 4, 4)),
        (nn.Conv2d(6, 4, 3), FrozenBatchNorm2d(4), (6, 7, 7)),
    ],
    ids=["linear", "no bias nor affine", "groups", "same", "transposed", "frozen"],
)
def test_pairs_that_fold(layer: nn.Module, norm: nn.Module, shape: tuple[int, int, int]) -> None:
    first = [nn.Flatten()] if isinstance(layer, nn.Linear) else []
    model: Any = lived_in(nn.Sequential(*first, layer, norm)).double()
    if isinstance(norm, FrozenBatchNorm2d):
        model[-1].running_var.uniform_(0.5, 2)
    surgery = fold_batch_norm(model, shape)
    assert surgery.changed == (str(len(first)),) and isinstance(surgery.model[-1], nn.Identity)
    assert type(surgery.model[len(first)]) is type(layer)
    assert_same(model, surgery.model, torch.randn(3, *shape, dtype=torch.float64), tolerance=1e-12)


class Residual(nn.Module):
    """A convolution whose output goes through a norm, and beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.norm(y) + y


class Twice(Residual):
    """One norm for two calls."""

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(self.norm(self.conv(x))))


class Seen(Residual):
    """Returns what came before the norm, too."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        y = self.conv(x)
        return self.norm(y), y


@pytest.mark.parametrize(
    "model",
    [
        Residual(),
        Twice(),
        Seen(),
        nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(inplace=True), nn.BatchNorm2d(3)),
        nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)),
        nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)),
        nn.Sequential(nn.ConvTranspose2d(3, 3, 1, groups=3), nn.BatchNorm2d(3)),
        nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 1)), nn.BatchNorm2d(3)),
        nn.Sequential(nn.Flatten(2), nn.Linear(16, 4), nn.BatchNorm1d(3)),
    ],
    ids=["residual", "twice", "seen", "relu", "before", "batch statistics", "groups", "weight norm", "sequence"],
)
def test_pairs_that_do_not_fold(model: nn.Module) -> None:
    surgery = fold_batch_norm(lived_in(model), (3, 4, 4))
    assert not surgery.changed and surgery.params_saved == surgery.macs_saved == 0


# --- singular values -------------------------------------------------------------------------------------------------


def layers(thin: nn.Sequential) -> list[nn.Linear]:
    return [module for module in thin if isinstance(module, nn.Linear)]


@torch.no_grad()
def relative_error(thin: nn.Sequential, layer: nn.Linear) -> float:
    first, second = layers(thin)
    return float((second.weight @ first.weight - layer.weight).norm() / layer.weight.norm())


@pytest.mark.parametrize(("features", "outputs"), [(30, 12), (12, 30), (20, 20)])
@pytest.mark.parametrize("rank", [1, 5, 12])
def test_truncated_svd_is_the_best_of_its_rank(features: int, outputs: int, rank: int) -> None:
    layer = nn.Linear(features, outputs).double()
    surgery = decompose_linear(layer, rank=rank)
    u, s, v = torch.linalg.svd(layer.weight.detach(), full_matrices=False)
    first, second = layers(surgery.model)
    torch.testing.assert_close(second.weight @ first.weight, (u[:, :rank] * s[:rank]) @ v[:rank])
    kept = float(s[:rank].square().sum() / s.square().sum())
    assert surgery.kept_energy == pytest.approx(kept, rel=1e-12)
    assert relative_error(surgery.model, layer) == pytest.approx(max(1 - kept, 0) ** 0.5, abs=1e-7)
    assert first.bias is None and torch.equal(second.bias, layer.bias)
    assert surgery.macs_after == rank * (features + outputs) == count_parameters(surgery.model) - outputs
    assert surgery.params_saved == surgery.macs_saved == features * outputs - rank * (features + outputs)


def test_full_rank_changes_nothing() -> None:
    layer, x = nn.Linear(40, 24), torch.randn(5, 40)
    torch.testing.assert_close(decompose_linear(layer, rank=24).model(x), layer(x), rtol=1e-4, atol=1e-5)


def test_energy_finds_the_rank() -> None:
    u, v = (torch.linalg.qr(torch.randn(n, 4, dtype=torch.float64))[0] for n in (10, 16))
    layer = nn.Linear(16, 10, bias=False).double()
    layer.weight.data = (u * torch.tensor([4.0, 2.0, 2.0, 1.0])) @ v.T  # squares 16, 4, 4, 1 of 25
    for energy, rank in ((0.5, 1), (0.63, 1), (0.65, 2), (0.9, 3), (0.97, 4)):
        surgery = decompose_linear(layer, energy=energy)
        assert layers(surgery.model)[0].out_features == rank and surgery.kept_energy >= energy
    assert layers(surgery.model)[1].bias is None and relative_error(surgery.model, layer) < 1e-12
    assert decompose_linear(layer, energy=1.0).kept_energy == pytest.approx(1)


def test_fast_rcnns_numbers() -> None:
    # section 3.1 and 4.4: fc6 25088 x 4096 to 1024 values, fc7 4096 x 4096 to 256
    for features, rank, weights in ((25088, 1024, 29_884_416), (4096, 256, 2_097_152)):
        assert rank * (features + 4096) == weights
    times_less = (102_760_448 + 16_777_216) / (29_884_416 + 2_097_152)
    assert times_less == pytest.approx(3.74, abs=0.01)


def test_decomposition_keeps_type_and_state() -> None:
    layer = nn.Linear(8, 6).to(torch.bfloat16).requires_grad_(False).eval()
    result = decompose_linear(layer, rank=3).model
    assert all(p.dtype == torch.bfloat16 and not p.requires_grad for p in result.parameters()) and not result.training
    trainable = decompose_linear(nn.Linear(8, 6), rank=3).model
    trainable(torch.randn(2, 8)).sum().backward()
    assert all(p.grad is not None for p in trainable.parameters())


def test_errors() -> None:
    layer = nn.Linear(8, 6)
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "give either rank or energy, got rank=None and energy=None"),
        ({"rank": 2, "energy": 0.5}, "give either rank or energy"),
        ({"rank": 7}, "rank must be from 1 to 6 for 8 to 6 features, got 7"),
        ({"energy": 0.0}, "energy must be a share above 0 and up to 1, got 0.0"),
    ]
    for options, message in cases:
        with pytest.raises(InputError, match=message):
            decompose_linear(layer, **options)
    broken = nn.Linear(2, 2)
    broken.weight.data[0, 0] = torch.nan
    with pytest.raises(InputError, match="not all finite"):
        decompose_linear(broken, rank=1)
    convert = partial(linear_to_conv, input_size=(2, 4, 4))
    with pytest.raises(InputError, match=r"Conv2d has no nn\.Sequential of a Flatten and linear layers"):
        convert(nn.Conv2d(2, 2, 1))
    with pytest.raises(InputError, match="2 is a LayerNorm, which cannot slide over a map"):
        convert(nn.Sequential(nn.Flatten(), nn.Linear(32, 3), nn.LayerNorm(3)))
    with pytest.raises(InputError, match=r"flattens \(2,\) at input \(2, 4, 4\), not a map"):
        convert(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Sequential(nn.Flatten(), nn.Linear(2, 3))))
    with pytest.raises(InputError, match="no convolution that sees a whole map"):
        conv_to_linear(nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU()), (2, 4, 4))
