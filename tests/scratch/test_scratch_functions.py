"""Activations, softmax and cross-entropies written out, against torch, and where a plain form would overflow."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose
from torchvision.transforms import v2

from opsin.scratch.activations import ACTIVATIONS, prelu, prelu_backward
from opsin.scratch.cross_entropy import (
    one_hot,
    sigmoid_cross_entropy,
    sigmoid_cross_entropy_backward,
    softmax_cross_entropy,
    softmax_cross_entropy_backward,
)
from opsin.scratch.mixup import draw_share, mix, mixed_labels, mixed_losses
from opsin.scratch.numerical_gradient import numerical_gradient
from opsin.scratch.sigmoid import sigmoid, sigmoid_backward, softplus
from opsin.scratch.softmax import log_softmax, logsumexp, softmax, softmax_backward

Witness = Callable[..., tuple[np.ndarray, list[np.ndarray]]]
Rng = np.random.Generator

assert_close = partial(assert_allclose, rtol=1e-9, atol=1e-12)

TORCH = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "relu6": F.relu6,
    "swish": F.silu,
    "hard_sigmoid": F.hardsigmoid,
    "hard_swish": F.hardswish,
    "mish": F.mish,
    "gelu": F.gelu,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name: str, by_torch: Witness) -> None:
    x = np.concatenate([np.linspace(-12, 12, 241), [0.0, -3.0, 3.0, 6.0, -100.0, 100.0]])  # with all the kinks
    function, slope = ACTIVATIONS[name]
    y, (dx,) = by_torch(TORCH[name], np.ones_like(x), x)
    assert_close(function(x), y)
    # 5e-9: torch's slope of the hard sigmoid is the float32 nearest to 1/6.
    assert_allclose(slope(x), dx, rtol=1e-9, atol=5e-9 if name == "hard_sigmoid" else 1e-12)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_keeps_float32_and_stays_finite(name: str) -> None:
    x = np.array([-1e4, -100, -1, 0, 1, 100, 1e4], np.float32)
    for function in ACTIVATIONS[name]:
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            y = function(x)
        assert y.dtype == np.float32
        assert np.isfinite(y).all()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slope_is_the_one_found_by_differences(name: str) -> None:
    x = np.linspace(-7.05, 7.05, 48)  # between the kinks
    function, slope = ACTIVATIONS[name]
    assert_allclose(slope(x), numerical_gradient(lambda x: float(function(x).sum()), x), atol=1e-7)


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 4, 5)])
def test_prelu(shape: tuple[int, ...], rng: Rng, by_torch: Witness) -> None:
    x, dy, leak = rng.normal(size=shape), rng.normal(size=shape), rng.normal(size=3)
    y, gradients = by_torch(F.prelu, dy, x, leak)
    assert_close(prelu(x, leak), y)
    for own, theirs in zip(prelu_backward(dy, x, leak), gradients, strict=True):
        assert_close(own, theirs)


def test_sigmoid_and_softplus_at_the_ends(rng: Rng, by_torch: Witness) -> None:
    z = np.concatenate([rng.normal(size=20), [-1e4, -745.0, -30.0, 0.0, 30.0, 745.0, 1e4]])
    dy = rng.normal(size=z.shape)
    with np.errstate(over="raise", invalid="raise"):
        y = sigmoid(z)
        logarithm = -softplus(-z)
    theirs, (dz,) = by_torch(torch.sigmoid, dy, z)
    assert_allclose(y, theirs, rtol=1e-12, atol=1e-300)  # torch has 0 at -745, where a float64 holds more
    assert_close(sigmoid_backward(dy, y), dz)
    assert_allclose(logarithm, F.logsigmoid(torch.tensor(z)).numpy(), rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_softmax(axis: int, rng: Rng, by_torch: Witness) -> None:
    z, dp = 10 * rng.normal(size=(3, 4, 5)), rng.normal(size=(3, 4, 5))
    p, (dz,) = by_torch(lambda z: torch.softmax(z, axis), dp, z)
    assert_close(softmax(z, axis), p)
    assert_close(softmax_backward(dp, p, axis), dz)
    assert_close(log_softmax(z, axis), torch.log_softmax(torch.tensor(z), axis).numpy())
    assert_close(logsumexp(z, axis), torch.logsumexp(torch.tensor(z), axis, keepdim=True).numpy())


def test_softmax_at_the_ends() -> None:
    z = np.array([[1e4, 0.0, -1e4], [-1e4, -1e4, -np.inf]])
    with np.errstate(over="raise", invalid="raise"):
        assert_allclose(softmax(z), [[1, 0, 0], [0.5, 0.5, 0]])
        assert_allclose(log_softmax(z)[0], [0, -1e4, -2e4])


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4])
def test_softmax_cross_entropy(scale: float, rng: Rng, by_torch: Witness) -> None:
    logits, labels = scale * rng.normal(size=(6, 4)), rng.integers(0, 4, 6)
    soft = rng.dirichlet(np.ones(4), 6)
    for own, theirs in ((one_hot(labels, 4), torch.tensor(labels)), (soft, torch.tensor(soft))):
        loss, (gradient,) = by_torch(lambda z, t=theirs: F.cross_entropy(z, t), 1.0, logits)
        assert_close(softmax_cross_entropy(logits, own), loss)
        assert_close(softmax_cross_entropy_backward(logits, own), gradient)


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4])
def test_sigmoid_cross_entropy(scale: float, rng: Rng, by_torch: Witness) -> None:
    logits, targets = scale * rng.normal(size=(3, 4)), rng.random((3, 4))
    theirs = torch.tensor(targets)
    loss, (gradient,) = by_torch(lambda z: F.binary_cross_entropy_with_logits(z, theirs), 1.0, logits)
    assert_close(sigmoid_cross_entropy(logits, targets), loss)
    assert_close(sigmoid_cross_entropy_backward(logits, targets), gradient)


def test_two_classes_are_one_yes_or_no(rng: Rng) -> None:
    z, labels = rng.normal(size=(5, 1)), rng.integers(0, 2, 5)
    pair = np.concatenate([np.zeros_like(z), z], axis=1)
    assert_allclose(softmax_cross_entropy(pair, one_hot(labels, 2)), sigmoid_cross_entropy(z, labels[:, None]))


def test_labels_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"labels reach from 0 to 3; 3 classes are 0 \.\.\. 2"):
        one_hot(np.array([0, 3]), 3)


def test_mixup_mixes_as_torchvision_does(rng: Rng) -> None:
    images, labels = rng.random((4, 1, 3, 3)), np.array([0, 2, 1, 2])
    torch.manual_seed(0)
    mixed, targets = v2.MixUp(alpha=0.4, num_classes=3)(torch.tensor(images), torch.tensor(labels))
    # Its share is read off a pair of labels that differ; it mixes each with its neighbour before.
    share, order = float(targets[0, 0]), np.roll(np.arange(4), 1)
    assert_allclose(mix(images, order, share), mixed.numpy(), rtol=1e-6)
    assert_allclose(mix(one_hot(labels, 3), order, share), targets.numpy(), rtol=1e-6)


def test_both_forms_of_mixup_are_equal_and_torchs(rng: Rng, by_torch: Witness) -> None:
    logits, labels, order = rng.normal(size=(6, 4)), rng.integers(0, 4, 6), rng.permutation(6)
    for share in (0.0, 0.3, draw_share(0.2, rng), 1.0):
        a, b = torch.tensor(labels), torch.tensor(labels[order])
        loss, (gradient,) = by_torch(
            lambda z, a=a, b=b, s=share: s * F.cross_entropy(z, a) + (1 - s) * F.cross_entropy(z, b), 1.0, logits
        )
        assert_close(mixed_losses(logits, labels, order, share), loss)
        assert_close(mixed_labels(logits, labels, order, share), loss)
        targets = mix(one_hot(labels, 4), order, share)
        assert_close(softmax_cross_entropy_backward(logits, targets), gradient)


def test_shares_follow_their_distribution(rng: Rng) -> None:
    shares = np.array([draw_share(0.2, rng) for _ in range(4000)])
    # Of Beta(a, a): mean 1/2, variance 1 / (4 (2 a + 1)).
    assert abs(shares.mean() - 0.5) < 0.03
    assert abs(shares.var() - 1 / (4 * 1.4)) < 0.01
