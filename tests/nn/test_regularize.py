"""Regularisation: nothing in evaluation, the right mean and share in training, shapes of what is dropped."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from opsin.errors import InputError
from opsin.nn.regularize import (
    DropConnectConv2d,
    DropConnectLinear,
    create_regularizer,
    gaussian_inference,
    list_regularizers,
)

OPTIONS = {"dropout": {"p": 0.3}, "stochastic_depth": {"p": 0.3}, "drop_block": {"p": 0.2, "block_size": 3}}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(7)


@pytest.mark.parametrize("name", list_regularizers())
def test_identity_in_evaluation_and_at_zero(name: str) -> None:
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(create_regularizer(name, **OPTIONS[name]).eval()(x), x)
    assert torch.equal(create_regularizer(name, **(OPTIONS[name] | {"p": 0.0}))(x), x)


@pytest.mark.parametrize("name", list_regularizers())
def test_inverted_so_that_the_mean_stays(name: str) -> None:
    layer = create_regularizer(name, **OPTIONS[name])
    total = sum(layer(torch.ones(500, 2, 10, 10)).mean().item() for _ in range(4)) / 4
    assert total == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("name", ["dropout", "stochastic_depth"])
def test_values_are_zero_or_scaled(name: str) -> None:
    y = create_regularizer(name, p=0.25)(torch.ones(4000, 2))
    kept = (y - 1 / 0.75).abs() < 1e-6
    assert (kept | (y == 0)).all() and kept.float().mean().item() == pytest.approx(0.75, abs=0.03)
    if name == "stochastic_depth":
        assert (kept[:, 0] == kept[:, 1]).all()


def test_stochastic_depth_of_a_batch() -> None:
    layer = create_regularizer("stochastic_depth", p=0.5, mode="batch")
    assert {len(layer(torch.ones(8, 2)).unique()) for _ in range(20)} == {1}


def test_dropped_blocks_are_squares() -> None:
    size = 5
    y = create_regularizer("drop_block", p=0.1, block_size=size)(torch.ones(64, 1, 24, 24))
    dropped = (y == 0).float()
    # every dropped place lies in a full square of dropped ones: opening by that square changes nothing
    inside = -F.max_pool2d(-dropped, size, 1)
    opened = F.max_pool2d(F.pad(inside, [size - 1] * 4), size, 1)
    assert torch.equal(opened, dropped)
    assert dropped.mean().item() == pytest.approx(0.1, abs=0.02)


def test_gradient_goes_through_what_is_kept() -> None:
    x = torch.ones(1000, requires_grad=True)
    y = create_regularizer("dropout", p=0.5)(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach())


@pytest.mark.parametrize("per_example", [True, False])
def test_drop_connect_has_the_moments_it_says(per_example: bool) -> None:
    linear = DropConnectLinear(6, 3, p=0.3, per_example=per_example).double()
    conv = DropConnectConv2d(4, 6, 3, padding=1, groups=2, p=0.3, per_example=per_example).double()
    for layer, x in ((linear, torch.randn(2, 6)), (conv, torch.randn(2, 4, 3, 3))):
        x = x.double()
        mean, variance = layer.moments(x)
        torch.testing.assert_close(layer.eval()(x), mean)
        with torch.no_grad():
            draws = torch.stack([layer.train()(x) for _ in range(4000)])
        # five standard errors of the mean of 4000; the variance's own spread is larger
        assert ((draws.mean(0) - mean).abs() <= 5 * (variance / 4000).sqrt() + 1e-12).all()
        torch.testing.assert_close(draws.var(0), variance, rtol=0.2, atol=1e-3)


def test_gaussian_inference_is_the_mean_over_masks() -> None:
    """Of many inputs, so that u is near normal; the mean over drawn masks is the truth, relu(mean of u) is not it."""
    torch.manual_seed(0)
    layer = DropConnectLinear(200, 8, p=0.5).double()
    x = torch.randn(3, 200).double()
    found = gaussian_inference(layer, x, torch.relu, 4000, torch.Generator().manual_seed(0))
    with torch.no_grad():
        drawn = torch.stack([layer.train()(x).relu() for _ in range(4000)])
        assert ((found - drawn.mean(0)).abs() <= 6 * (2 * drawn.var(0) / 4000).sqrt() + 1e-3).all()
        assert (layer.eval()(x).relu() - found).abs().max() > 0.05
    with pytest.raises(InputError, match="samples"):
        gaussian_inference(layer, x, torch.relu, 0)


def test_drop_connect_masks_each_example_alone() -> None:
    layer = DropConnectLinear(50, 20, p=0.5)
    x = torch.randn(1, 50).expand(3, 50)
    assert len(layer(x).unique(dim=0)) == 3
    layer.per_example = False
    y = layer(x)
    torch.testing.assert_close(y[1:], y[:1].expand(2, 20))
    conv = DropConnectConv2d(2, 4, 3, p=0.5)
    maps = torch.randn(1, 2, 6, 6).expand(3, 2, 6, 6)
    assert len(conv(maps).unique(dim=0)) == 3


def test_drop_connect_is_the_layer_with_masked_weights() -> None:
    layer = DropConnectLinear(5, 4, p=0.5)
    weight = torch.zeros(1, 4, 5)
    for i in range(5):  # read the mask off with unit vectors: the same seed, the same mask
        torch.manual_seed(1)
        weight[0, :, i] = layer(torch.eye(5)[i][None])[0].detach()
    torch.manual_seed(1)
    bias = layer(torch.zeros(1, 5)).detach()
    kept = (weight[0] - bias.T) / layer.weight.detach()
    assert (((kept - 2).abs() < 1e-4) | (kept.abs() < 1e-4)).all()
    ratio = bias[0] / layer.bias.detach()
    assert (((ratio - 2).abs() < 1e-4) | (ratio == 0)).all()


def test_drop_connect_shapes_gradients_and_empty_batches() -> None:
    layer = DropConnectLinear(6, 3)
    assert layer(torch.randn(2, 4, 5, 6)).shape == (2, 4, 5, 3)
    layer(torch.randn(2, 6)).sum().backward()
    assert layer.weight.grad is not None and layer.bias.grad is not None
    assert layer(torch.zeros(0, 6)).shape == (0, 3)
    conv = DropConnectConv2d(2, 4, 3, stride=2, padding="valid", bias=False)
    assert conv(torch.randn(2, 2, 7, 7)).shape == (2, 4, 3, 3) and conv(torch.zeros(0, 2, 7, 7)).shape == (0, 4, 3, 3)
    torch.testing.assert_close(DropConnectLinear(6, 3, p=0.0)(x := torch.randn(2, 6)).shape, nn.Linear(6, 3)(x).shape)


def test_errors() -> None:
    with pytest.raises(InputError, match="unknown regularizer 'dropot'; did you mean dropout"):
        create_regularizer("dropot")
    with pytest.raises(InputError, match=r"p must be a number of at least 0 and below 1, got 1.5"):
        create_regularizer("dropout", p=1.5)
    with pytest.raises(InputError, match="missing 1 required positional argument: 'p'"):
        create_regularizer("stochastic_depth")
    with pytest.raises(InputError, match="unknown mode 'column'; known: batch, row"):
        create_regularizer("stochastic_depth", p=0.1, mode="column")
    with pytest.raises(InputError, match="block_size must be odd"):
        create_regularizer("drop_block", p=0.1, block_size=4)
    with pytest.raises(InputError, match="below 1, got 1"):
        DropConnectLinear(2, 2, p=1)
    with pytest.raises(InputError, match="pads with zeros only"):
        DropConnectConv2d(2, 2, 3, padding=1, padding_mode="reflect")
