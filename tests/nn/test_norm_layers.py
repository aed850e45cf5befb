"""Normalisation: plain formulas one number at a time, torch's and torchvision's layers, degenerate mixtures."""

from __future__ import annotations

import itertools
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d as TorchvisionLayerNorm2d
from torchvision.ops import FrozenBatchNorm2d

from opsin.errors import InputError
from opsin.nn.norm import (
    L2Norm,
    LayerNorm2d,
    LocalResponseNormWithin,
    SwitchableNorm2d,
    create_norm,
    freeze_batch_norm,
    list_norms,
)

LEARNED = ["batch", "layer", "switchable", "l2"]


def maps(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(*(shape or (3, 4, 5, 6)), generator=generator, dtype=torch.float64) * 3 + 1


@pytest.mark.parametrize("name", list_norms())
def test_keeps_shape_and_gradients(name: str) -> None:
    norm = create_norm(name, 4, **({"groups": 2} if name == "group" else {})).double()
    x = maps(2, 4, 3, 3).requires_grad_()
    assert norm(x).shape == x.shape
    assert torch.autograd.gradcheck(norm.eval(), x)


@pytest.mark.parametrize("name", list_norms())
def test_an_empty_batch_leaves_no_trace(name: str) -> None:
    norm = create_norm(name, 32)
    assert norm(torch.zeros(0, 32, 4, 4)).shape == (0, 32, 4, 4)
    assert all(tensor.isfinite().all() for tensor in norm.state_dict().values())


@pytest.mark.parametrize("name", ["batch", "group", "layer", "instance", "switchable"])
def test_normalises(name: str) -> None:
    x = maps(4, 8, 6, 6)
    y = create_norm(name, 8, **({"groups": 2} if name == "group" else {})).double()(x)
    dims = {"batch": (0, 2, 3), "instance": (2, 3), "layer": (1,), "group": (1, 2, 3), "switchable": (0, 1, 2, 3)}
    y = y.unflatten(1, (2, 4)).transpose(0, 1)[0] if name == "group" else y  # the first group
    assert y.mean(dim=dims[name]).abs().max() < (0.1 if name == "switchable" else 1e-9)


def test_layer_norm_is_torchvisions() -> None:
    x = maps()
    ours, theirs = LayerNorm2d(4, eps=1e-6).double(), TorchvisionLayerNorm2d(4, eps=1e-6).double()
    nn.init.uniform_(ours.weight)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(x), theirs(x))


def plain_switchable(norm: SwitchableNorm2d, x: Tensor) -> Tensor:
    """Equation 3, with every statistic from its own set of pixels."""
    sets = [(2, 3), (1, 2, 3), (0, 2, 3)]
    a, b = norm.mean_logits.softmax(0), norm.var_logits.softmax(0)
    mean, var = torch.zeros(1), torch.zeros(1)
    for place, dim in enumerate(sets):
        mean = mean + a[place] * x.mean(dim=dim, keepdim=True)
        var = var + b[place] * x.var(dim=dim, keepdim=True, correction=0)
    return (x - mean) / torch.sqrt(var + norm.eps) * norm.weight[:, None, None] + norm.bias[:, None, None]


def test_switchable_norm_equals_the_formula() -> None:
    norm, x = SwitchableNorm2d(4).double(), maps().requires_grad_()
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    torch.testing.assert_close(norm(x), plain_switchable(norm, x))
    assert torch.autograd.gradcheck(lambda t: norm(t), x)
    weights = torch.randn_like(x)
    expected = torch.autograd.grad((plain_switchable(norm, x) * weights).sum(), list(norm.parameters()))
    got = torch.autograd.grad((norm(x) * weights).sum(), list(norm.parameters()))
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("place", "kind"), [(0, "instance"), (1, "group"), (2, "batch")])
def test_switchable_norm_at_its_corners(place: int, kind: str, training: bool) -> None:
    norm, x = SwitchableNorm2d(4).double(), maps()
    logits = torch.full((3,), -1e3)
    logits[place] = 1e3
    norm.mean_logits.data, norm.var_logits.data = logits.double(), logits.double()
    reference: Any = create_norm(kind, 4, **({"groups": 1} if kind == "group" else {})).double()
    if kind == "batch":
        for _ in range(200):  # until the first values are forgotten
            norm(x)
            reference(x)
        # torch keeps the unbiased variance, the paper's is the biased one
        pixels = x.numel() / 4
        torch.testing.assert_close(norm.running_var, reference.running_var * (pixels - 1) / pixels)
        torch.testing.assert_close(norm.running_mean, reference.running_mean)
        reference.running_var.mul_((pixels - 1) / pixels)
    torch.testing.assert_close(norm.train(training)(x), reference.train(training)(x))


def test_switchable_norm_evaluates_images_alone() -> None:
    norm, x = SwitchableNorm2d(4).double(), maps()
    norm(x)
    norm.eval()
    torch.testing.assert_close(norm(x), torch.cat([norm(image[None]) for image in x]))


def test_lrn_across_channels_by_hand() -> None:
    x, (size, alpha, beta, k) = maps(1, 6, 2, 2), (5, 2e-2, 0.75, 2.0)
    y = create_norm("lrn", 6, size=size, alpha=alpha, beta=beta, k=k)(x)
    for c, i, j in itertools.product(range(6), range(2), range(2)):
        total = sum(float(x[0, near, i, j]) ** 2 for near in range(max(0, c - 2), min(6, c + 3)))
        assert y[0, c, i, j].item() == pytest.approx(float(x[0, c, i, j]) / (k + alpha / size * total) ** beta)


@pytest.mark.parametrize(("options", "k", "share"), [({}, 1, 1 / 9), ({"k": 2.0, "divided": False}, 2, 1)])
def test_lrn_within_a_channel_by_hand(options: dict[str, Any], k: int, share: float) -> None:
    x, (size, alpha, beta) = maps(2, 2, 4, 5), (3, 0.5, 0.75)
    y = create_norm("lrn_within", 2, size=size, alpha=alpha, beta=beta, **options)(x)
    for b, c, i, j in itertools.product(range(2), range(2), range(4), range(5)):
        near = itertools.product(range(max(0, i - 1), min(4, i + 2)), range(max(0, j - 1), min(5, j + 2)))
        total = sum(float(x[b, c, p, q]) ** 2 for p, q in near)
        assert y[b, c, i, j].item() == pytest.approx(float(x[b, c, i, j]) / (k + alpha * share * total) ** beta)


def test_l2_norm() -> None:
    x = maps()
    norm = create_norm("l2", 4).double()
    assert isinstance(norm, L2Norm)
    torch.testing.assert_close(norm(x).square().sum(dim=1).sqrt(), torch.full((3, 5, 6), 20.0, dtype=torch.float64))
    norm.weight.data = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    expected = nn.functional.normalize(x, dim=1) * norm.weight[:, None, None]
    torch.testing.assert_close(norm(x), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["l2", "switchable"])
def test_half_precision_neither_overflows_nor_divides_by_zero(name: str, dtype: torch.dtype) -> None:
    norm = create_norm(name, 64)
    x = torch.full((2, 64, 4, 4), 300.0, dtype=dtype)
    x[:, :, :2] = 0  # a dead place
    x.requires_grad_()
    y = norm(x.relu())  # as behind conv4_3: the steep gradient at a dead place is not passed on
    assert y.dtype == dtype and y.isfinite().all()
    y.float().sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


def test_frozen_batch_norm_stays_and_equals_eval() -> None:
    net: Any = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=1e-3), nn.Sequential(nn.BatchNorm2d(4, affine=False))
    )
    for _ in range(3):
        net(torch.randn(2, 3, 8, 8) * 2 + 1)
    nn.init.uniform_(net[1].weight)
    x = torch.randn(2, 3, 8, 8)
    expected = net.eval()(x)
    assert freeze_batch_norm(net.train()) is net
    assert isinstance(net[1], FrozenBatchNorm2d) and isinstance(net[2][0], FrozenBatchNorm2d)
    torch.testing.assert_close(net(x), expected, rtol=1e-5, atol=1e-5)
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias"]
    assert isinstance(freeze_batch_norm(nn.BatchNorm2d(2)), FrozenBatchNorm2d)


def test_defaults_are_the_papers() -> None:
    group, lrn, l2, batch = (cast(Any, create_norm(name, 64)) for name in ("group", "lrn", "l2", "batch"))
    assert group.num_groups == 32 and l2.weight.tolist() == [20.0] * 64 and batch.eps == 1e-5
    assert (lrn.size, lrn.alpha, lrn.beta, lrn.k) == (5, 1e-4, 0.75, 1.0)


def test_errors() -> None:
    with pytest.raises(InputError, match="unknown norm 'goup'; did you mean group"):
        create_norm("goup", 4)
    with pytest.raises(InputError, match="48 channels cannot be normalised in 32 groups"):
        create_norm("group", 48)
    with pytest.raises(InputError, match="unknown option of norm l2 'scales'; did you mean scale"):
        create_norm("l2", 4, scales=3)
    with pytest.raises(InputError, match="channels must be a whole number"):
        create_norm("batch", 0)
    with pytest.raises(InputError, match="size must be odd"):
        LocalResponseNormWithin(4)
    with pytest.raises(InputError, match="keeps no statistics"):
        freeze_batch_norm(nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False)))
    for name in LEARNED[1:]:
        with pytest.raises(InputError, match=r"built for 4 channels, got a map of \(1, 5, 2, 2\)"):
            create_norm(name, 4)(torch.zeros(1, 5, 2, 2))
        with pytest.raises(InputError, match=r"takes maps of shape \(B, C, H, W\), got \(4,\)"):
            create_norm(name, 4)(torch.zeros(4))
