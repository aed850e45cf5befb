"""Norms, gates, pyramids and cheaper convolutions written out, against torch and against the operation in full."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose
from torch import Tensor
from torchvision.ops import SqueezeExcitation

from opsin.scratch.atrous_pyramid import atrous_pyramid, reach, receptive_field_block
from opsin.scratch.dropconnect import dropconnect, dropconnect_backward, gaussian_inference, moments
from opsin.scratch.dropout import dropout, dropout_as_published
from opsin.scratch.factorised_convolution import (
    separable,
    separable_kernel,
    spatial,
    spatial_kernel,
    weights,
)
from opsin.scratch.group_norm import group_norm, group_norm_backward, switchable_norm
from opsin.scratch.l2_norm import l2_norm, l2_norm_backward
from opsin.scratch.padding import caffe_pool_places, pool_line, tensorflow_border, tensorflow_places, torch_places
from opsin.scratch.pyramid_pooling import pyramid_pool, pyramid_pool_backward
from opsin.scratch.squeeze_excitation import squeeze_excitation, squeeze_excitation_backward
from opsin.scratch.winograd import winograd, winograd_line

Witness = Callable[..., tuple[np.ndarray, list[np.ndarray]]]
Rng = np.random.Generator

assert_close = partial(assert_allclose, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_norm(rng: Rng, by_torch: Witness, groups: int) -> None:
    x, gamma, beta, dy = rng.normal(size=(2, 6, 3, 4)), *rng.normal(size=(2, 6)), rng.normal(size=(2, 6, 3, 4))
    expected, gradients = by_torch(lambda x, g, b: F.group_norm(x, groups, g, b), dy, x, gamma, beta)
    y, n, var = group_norm(x, gamma, beta, groups)
    assert_close(y, expected)
    for mine, one in zip(group_norm_backward(dy, n, var, gamma), gradients, strict=True):
        assert_close(mine, one)
    with pytest.raises(ValueError, match="6 channels do not divide into 4 groups"):
        group_norm(x, gamma, beta, 4)


@pytest.mark.parametrize("chosen", [0, 1, 2])
def test_switchable_norm_that_has_chosen_is_what_it_chose(rng: Rng, chosen: int) -> None:
    x, gamma, beta = rng.normal(1, 2, size=(3, 4, 5, 2)), *rng.normal(size=(2, 4))
    logits = np.where(np.arange(3) == chosen, 50.0, -50.0)
    given = torch.tensor(x), torch.tensor(gamma), torch.tensor(beta)
    expected = (
        lambda x, g, b: F.instance_norm(x, weight=g, bias=b),
        lambda x, g, b: F.group_norm(x, 1, g, b),
        lambda x, g, b: F.batch_norm(x, None, None, g, b, training=True),
    )[chosen](*given)
    assert_close(switchable_norm(x, gamma, beta, logits, logits), expected.numpy())


def test_l2_norm(rng: Rng, by_torch: Witness) -> None:
    x, gamma, dy = rng.normal(size=(2, 5, 3, 2)), rng.normal(size=5), rng.normal(size=(2, 5, 3, 2))
    expected, gradients = by_torch(lambda x, g: F.normalize(x, dim=1) * g[:, None, None], dy, x, gamma)
    y, n, length = l2_norm(x, gamma)
    assert_close(y, expected)
    for mine, one in zip(l2_norm_backward(dy, n, length, gamma), gradients, strict=True):
        assert_close(mine, one)
    assert not l2_norm(np.zeros((1, 3)), np.ones(3))[0].any()


def test_dropconnect(rng: Rng, by_torch: Witness) -> None:
    x, weight, bias = rng.normal(size=(3, 5)), rng.normal(size=(2, 5)), rng.normal(size=2)
    u, masks = dropconnect(x, weight, bias, 0.4, rng)
    du = rng.normal(size=u.shape)
    expected, gradients = by_torch(
        lambda x, w, b: torch.einsum("boi,oi,bi->bo", torch.tensor(masks), w, x) + b, du, x, weight, bias
    )
    assert_close(u, expected)
    for mine, one in zip(dropconnect_backward(du, x, weight, masks), gradients, strict=True):
        assert_close(mine, one)
    draws = np.stack([dropconnect(x, weight, bias, 0.4, rng)[0] for _ in range(4000)])
    mean, var = moments(x, weight, bias, 0.4)
    assert (np.abs(draws.mean(axis=0) - mean) < 5 * np.sqrt(var / 4000)).all()
    assert_allclose(draws.var(axis=0), var, rtol=0.2)
    # The mean of a rectified normal is known: m Phi(m / s) + s phi(m / s).
    normal = torch.distributions.Normal(0.0, 1.0)
    s = torch.tensor(np.sqrt(var))
    m = torch.tensor(mean)
    rectified = m * normal.cdf(m / s) + s * torch.exp(normal.log_prob(m / s))
    found = gaussian_inference(x, weight, bias, 0.4, lambda u: np.maximum(u, 0), 20_000, rng)
    assert_allclose(found, rectified.numpy(), atol=5 * float(s.max()) / 20_000**0.5)


def test_dropout_as_published_has_the_same_mean(rng: Rng) -> None:
    x = np.arange(1.0, 5.0)
    one, mask = dropout_as_published(x, 0.75, np.random.default_rng(1))
    assert set(np.unique(mask)) <= {0.0, 1.0} and (one == x * mask).all()
    assert_close(one, 0.25 * dropout(x, 0.75, np.random.default_rng(1))[0])


def test_winograd_is_a_convolution(rng: Rng) -> None:
    d, g = rng.normal(size=4), rng.normal(size=3)
    assert_close(winograd_line(d, g), [d[:3] @ g, d[1:] @ g])
    for height, width in ((4, 4), (7, 10), (3, 3)):  # whole tiles, tiles that are filled up, one output
        x, weight = rng.normal(size=(2, 3, height, width)), rng.normal(size=(4, 3, 3, 3))
        assert_allclose(winograd(x, weight), F.conv2d(torch.tensor(x), torch.tensor(weight)).numpy(), atol=1e-10)


def test_factorised_convolutions_are_one_with_a_large_kernel(rng: Rng) -> None:
    x = rng.normal(size=(2, 3, 6, 7))
    column, row = rng.normal(size=(4, 3, 3, 1)), rng.normal(size=(5, 4, 1, 3))
    depthwise, pointwise = rng.normal(size=(3, 1, 3, 3)), rng.normal(size=(5, 3, 1, 1))
    for found, kernel in (
        (spatial(x, column, row), spatial_kernel(column, row)),
        (separable(x, depthwise, pointwise), separable_kernel(depthwise, pointwise)),
    ):
        assert_allclose(found, F.conv2d(torch.tensor(x), torch.tensor(kernel)).numpy(), atol=1e-12)
    counted = weights(32, 64, 3)
    assert counted["full"] == torch.nn.Conv2d(32, 64, 3, bias=False).weight.numel()
    assert counted["separable"] / counted["full"] == pytest.approx(1 / 64 + 1 / 9)


def test_padding_of_three_frameworks(rng: Rng) -> None:
    x = rng.normal(size=11)

    def theirs(n: int, k: int, s: int, p: int, ceil: bool) -> np.ndarray:
        return F.max_pool1d(torch.tensor(x[None, :n]), k, s, p, ceil_mode=ceil)[0].numpy()

    for n in range(3, 12):
        for k, s in ((2, 2), (3, 1), (3, 2), (3, 3)):
            for p in range(k // 2 + 1):
                assert_close(pool_line(x[:n], torch_places(n, k, s, p), k), theirs(n, k, s, p, False))
                # torch's other rounding, which drops a window that would begin in the border behind, is Caffe's
                assert_close(pool_line(x[:n], caffe_pool_places(n, k, s, p), k), theirs(n, k, s, p, True))
    # TensorFlow's documentation: 13 wide, a kernel of 6, a stride of 5: one zero before and two behind.
    assert tensorflow_border(13, 6, 5) == (1, 2) and tensorflow_places(13, 6, 5) == [-1, 4, 9]
    assert tensorflow_border(224, 3, 2) == (0, 1) and tensorflow_border(225, 3, 2) == (1, 1)


def test_squeeze_excitation(rng: Rng, by_torch: Witness) -> None:
    x, dy = rng.normal(size=(2, 2, 4, 3, 5))
    w1, b1, w2, b2 = rng.normal(size=(2, 4)), rng.normal(size=2), rng.normal(size=(4, 2)), rng.normal(size=4)
    block = SqueezeExcitation(4, 2).double()

    def theirs(x: Tensor, *state: Tensor) -> Tensor:
        names = ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
        given = {n: v[..., None, None] if n.endswith("weight") else v for n, v in zip(names, state, strict=True)}
        return torch.func.functional_call(block, given, (x,))

    expected, gradients = by_torch(theirs, dy, x, w1, b1, w2, b2)
    y, *kept = squeeze_excitation(x, w1, b1, w2, b2)
    assert_close(y, expected)
    for mine, one in zip(squeeze_excitation_backward(dy, x, w1, w2, *kept), gradients, strict=True):
        assert_close(mine, one)


@pytest.mark.parametrize("size", [(7, 5), (6, 6), (2, 9)])
def test_pyramid_pooling(rng: Rng, by_torch: Witness, size: tuple[int, int]) -> None:
    x, levels = rng.normal(size=(2, 3, *size)), (1, 2, 3)
    dy = rng.normal(size=(2, 3 * 14))
    expected, (dx,) = by_torch(
        lambda x: torch.cat([F.adaptive_max_pool2d(x, n).flatten(1) for n in levels], dim=1), dy, x
    )
    y, places = pyramid_pool(x, levels)
    assert_close(y, expected)
    assert_close(pyramid_pool_backward(dy, places, x.shape, levels), dx)


def test_pyramids_of_dilated_convolutions(rng: Rng) -> None:
    x, mean = rng.normal(size=(1, 2, 9, 8)), rng.normal(size=(3, 2, 1, 1))
    kernels, rates = [rng.normal(size=(3, 2, k, k)) for k in (1, 3, 3)], [1, 2, 5]
    t = torch.tensor(x)
    branches = [
        F.conv2d(t, torch.tensor(one), padding=rate * (one.shape[-1] // 2), dilation=rate)
        for one, rate in zip(kernels, rates, strict=True)
    ]
    whole = F.conv2d(F.adaptive_avg_pool2d(t, 1), torch.tensor(mean)).expand(-1, -1, 9, 8)
    assert_close(atrous_pyramid(x, kernels, rates, mean), torch.cat([*branches, whole], dim=1).numpy())

    blurs, looks = [rng.normal(size=(3, 2, k, k)) for k in (1, 3, 5)], [rng.normal(size=(3, 3, 3, 3)) for _ in range(3)]
    mix = rng.normal(size=(2, 9, 1, 1))
    parts = [
        F.conv2d(F.conv2d(t, torch.tensor(blur), padding="same").relu(), torch.tensor(look), padding=r, dilation=r)
        for blur, look, r in zip(blurs, looks, (1, 3, 5), strict=True)
    ]
    expected = (t + 0.1 * F.conv2d(torch.cat(parts, dim=1), torch.tensor(mix))).relu()
    assert_close(receptive_field_block(x, blurs, looks, (1, 3, 5), mix), expected.numpy())
    assert [reach(blur, rate) for blur, rate in ((1, 1), (3, 3), (5, 5))] == [3, 9, 15]
