"""Layers written out, against torch: values and gradients in float64."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose
from torch import nn

from opsin.scratch.batch_norm import batch_norm, batch_norm_backward, batch_norm_inference, update_running
from opsin.scratch.convolution import convolve, convolve_backward, output_size
from opsin.scratch.dropout import dropout, dropout_backward
from opsin.scratch.im2col import col2im, convolve_im2col, convolve_im2col_backward, im2col
from opsin.scratch.linear import linear, linear_backward
from opsin.scratch.numerical_gradient import numerical_gradient
from opsin.scratch.pooling import max_pool, max_pool_backward, mean_pool, mean_pool_backward
from opsin.scratch.receptive_field import Layer, receptive_field
from opsin.scratch.response_norm import ACROSS_CHANNELS, WITHIN_CHANNEL, response_norm, response_norm_backward
from opsin.scratch.transposed_convolution import output_size as transposed_size
from opsin.scratch.transposed_convolution import transpose_convolve, transpose_convolve_backward

Witness = Callable[..., tuple[np.ndarray, list[np.ndarray]]]
Rng = np.random.Generator

assert_close = partial(assert_allclose, rtol=1e-9, atol=1e-11)


def test_numerical_gradient_of_known_functions(rng: Rng) -> None:
    x = rng.normal(size=(2, 3))
    assert_allclose(numerical_gradient(lambda x: float(np.sin(x).sum()), x), np.cos(x), atol=1e-8)
    assert_allclose(numerical_gradient(lambda x: float(x.prod()), x), x.prod() / x, atol=1e-8)


@pytest.mark.parametrize("shape", [(4, 3), (2, 5, 3)])
def test_linear(shape: tuple[int, ...], rng: Rng, by_torch: Witness) -> None:
    x, weight, bias = rng.normal(size=shape), rng.normal(size=(2, 3)), rng.normal(size=2)
    dy = rng.normal(size=(*shape[:-1], 2))
    y, gradients = by_torch(F.linear, dy, x, weight, bias)
    assert_close(linear(x, weight, bias), y)
    for own, theirs in zip(linear_backward(dy, x, weight), gradients, strict=True):
        assert_close(own, theirs)


# stride, padding, dilation, groups
CONVOLUTIONS = [(1, 0, 1, 1), (2, 1, 1, 1), (1, 2, 2, 1), (3, 2, 1, 2), (2, 3, 2, 4), (2, 0, 1, 1)]


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
def test_convolution(options: tuple[int, int, int, int], rng: Rng, by_torch: Witness) -> None:
    stride, padding, dilation, groups = options
    x, weight, bias = rng.normal(size=(2, 4, 7, 6)), rng.normal(size=(4, 4 // groups, 3, 2)), rng.normal(size=4)
    settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    own = convolve(x, weight, bias, **settings)
    dy = rng.normal(size=own.shape)
    y, gradients = by_torch(partial(F.conv2d, **settings), dy, x, weight, bias)
    assert_close(own, y)
    found = [convolve_backward(dy, x, weight, stride, padding, dilation, groups)]
    if groups == 1:
        y_im2col, columns = convolve_im2col(x, weight, bias, stride, padding, dilation)
        assert_close(y_im2col, y)
        found.append(convolve_im2col_backward(dy, columns, x, weight, stride, padding, dilation))
    for gradients_found in found:
        for mine, theirs in zip(gradients_found, gradients, strict=True):
            assert_close(mine, theirs)


def test_the_way_back_of_a_convolution_is_a_transposed_one(rng: Rng) -> None:
    weight, dy = rng.normal(size=(4, 3, 3, 3)), rng.normal(size=(1, 4, 5, 5))
    dx = convolve_backward(dy, np.zeros((1, 3, 9, 9)), weight, stride=2, padding=1)[0]
    transposed = F.conv_transpose2d(torch.tensor(dy), torch.tensor(weight), stride=2, padding=1)
    assert_close(dx, transposed.numpy())


# stride, padding, output padding
TRANSPOSED = [(1, 0, 0), (2, 0, 0), (2, 1, 1), (3, 2, 2), (2, 2, 0), (4, 0, 3)]


@pytest.mark.parametrize("options", TRANSPOSED, ids=str)
def test_transposed_convolution(options: tuple[int, int, int], rng: Rng, by_torch: Witness) -> None:
    stride, padding, more = options
    x, weight, bias = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(3, 2, 3, 2)), rng.normal(size=2)
    own = transpose_convolve(x, weight, bias, stride, padding, more)
    dy = rng.normal(size=own.shape)
    theirs = partial(F.conv_transpose2d, stride=stride, padding=padding, output_padding=more)
    y, gradients = by_torch(theirs, dy, x, weight, bias)
    assert_close(own, y)
    for mine, other in zip(transpose_convolve_backward(dy, x, weight, stride, padding), gradients, strict=True):
        assert_close(mine, other)
    # Its way back is a convolution of the same weight.
    if not more:
        assert_close(gradients[0], convolve(dy, weight, np.zeros(3), stride, padding))


def test_sizes_of_a_transposed_convolution() -> None:
    """A convolution of stride 2 makes 4 of 7 and of 8: the output padding says of which it is the way back."""
    assert [output_size(size, 3, stride=2, padding=1) for size in (7, 8)] == [4, 4]
    assert [transposed_size(4, 3, 2, 1, more) for more in (0, 1)] == [7, 8]
    with pytest.raises(ValueError, match="an output padding of 2 is not below the stride, 2"):
        transposed_size(4, 3, 2, 1, 2)
    with pytest.raises(ValueError, match="channels differ"):
        transpose_convolve(np.zeros((1, 2, 3, 3)), np.zeros((3, 2, 2, 2)), np.zeros(2))


@pytest.mark.parametrize("options", [(1, 0, 1), (2, 1, 1), (2, 2, 2)], ids=str)
def test_im2col_and_col2im_are_unfold_and_fold(options: tuple[int, int, int], rng: Rng) -> None:
    stride, padding, dilation = options
    x = rng.normal(size=(2, 3, 7, 6))
    columns = im2col(x, (3, 2), stride, padding, dilation)
    settings = {"kernel_size": (3, 2), "stride": stride, "padding": padding, "dilation": dilation}
    assert_allclose(columns, F.unfold(torch.tensor(x), **settings).numpy())
    folded = F.fold(torch.tensor(columns), (7, 6), **settings).numpy()
    assert_close(col2im(columns, x.shape, (3, 2), stride, padding, dilation), folded)


def test_output_sizes_and_their_errors() -> None:
    assert [output_size(size, 3, stride=2, padding=1) for size in (7, 8, 9)] == [4, 4, 5]
    with pytest.raises(ValueError, match="a kernel that spans 5 pixels does not fit into 3"):
        output_size(3, 3, dilation=2)
    with pytest.raises(ValueError, match=r"weight of shape \(4, 3, 3, 3\) in 1 groups does not fit x of shape"):
        convolve(np.zeros((1, 2, 5, 5)), np.zeros((4, 3, 3, 3)), np.zeros(4))
    with pytest.raises(ValueError, match="channels differ"):
        convolve_im2col(np.zeros((1, 2, 5, 5)), np.zeros((4, 3, 3, 3)), np.zeros(4))


# size, stride, padding: apart, overlapping, with a frame, with pixels left out, global
POOLS = [(2, 2, 0), (3, 2, 0), (3, 2, 1), (2, 3, 0), (3, 1, 1), (6, 1, 0)]


@pytest.mark.parametrize("options", POOLS, ids=str)
def test_pooling(options: tuple[int, int, int], rng: Rng, by_torch: Witness) -> None:
    size, stride, padding = options
    x = rng.normal(size=(2, 3, 8, 6)) - 3  # mostly below 0: the frame must not win
    own, place = max_pool(x, size, stride, padding)
    dy = rng.normal(size=own.shape)
    y, (dx,) = by_torch(lambda x: F.max_pool2d(x, size, stride, padding), dy, x)
    assert_allclose(own, y)
    assert_close(max_pool_backward(dy, place, x, size, stride, padding), dx)
    y, (dx,) = by_torch(lambda x: F.avg_pool2d(x, size, stride, padding), dy, x)
    assert_close(mean_pool(x, size, stride, padding), y)
    assert_close(mean_pool_backward(dy, x, size, stride, padding), dx)


def test_of_equal_pixels_the_first_gets_the_gradient(by_torch: Witness) -> None:
    x, dy = np.zeros((1, 1, 4, 4)), np.arange(1.0, 5).reshape(1, 1, 2, 2)
    _, place = max_pool(x, 2, 2)
    _, (dx,) = by_torch(lambda x: F.max_pool2d(x, 2), dy, x)
    assert_allclose(max_pool_backward(dy, place, x, 2, 2), dx)


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5), (3, 2, 4, 5)], ids=str)
def test_batch_norm(shape: tuple[int, ...], rng: Rng, by_torch: Witness) -> None:
    channels, count = shape[1], int(np.prod(shape)) // shape[1]
    x, dy = 5 + 3 * rng.normal(size=shape), rng.normal(size=shape)
    gamma, beta = rng.normal(size=channels), rng.normal(size=channels)
    layer = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)](channels).double()
    settings = (layer.running_mean, layer.running_var)

    def theirs(x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
        return F.batch_norm(x, *settings, gamma, beta, training=True)

    y, gradients = by_torch(theirs, dy, x, gamma, beta)
    own, n, mean, var = batch_norm(x, gamma, beta)
    assert_close(own, y)
    for mine, other in zip(batch_norm_backward(dy, n, var, gamma), gradients, strict=True):
        assert_close(mine, other)
    running = update_running(np.zeros(channels), np.ones(channels), mean, var, count)
    for mine, other in zip(running, settings, strict=True):
        assert_close(mine, other.numpy())
    use = F.batch_norm(torch.tensor(x), *settings, torch.tensor(gamma), torch.tensor(beta))
    assert_close(batch_norm_inference(x, gamma, beta, *running), use.numpy())


def test_a_bias_before_batch_norm_has_no_effect(rng: Rng) -> None:
    x, ones, zeros = rng.normal(size=(8, 3)), np.ones(3), np.zeros(3)
    assert_close(batch_norm(x, ones, zeros)[0], batch_norm(x + 7, ones, zeros)[0])
    with pytest.raises(ValueError, match="at least 2 numbers"):
        update_running(zeros, ones, zeros, ones, count=1)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_response_norm_across_channels(size: int, rng: Rng, by_torch: Witness) -> None:
    x, dy = 5 * rng.normal(size=(2, 7, 3, 3)), rng.normal(size=(2, 7, 3, 3))
    y, (dx,) = by_torch(lambda x: F.local_response_norm(x, size, alpha=0.3, beta=0.75, k=2.0), dy, x)
    own, s = response_norm(x, size, alpha=0.3, axes=ACROSS_CHANNELS)
    assert_close(own, y)
    assert_close(response_norm_backward(dy, s, x, size, alpha=0.3), dx)


def test_response_norm_within_a_channel(rng: Rng, by_torch: Witness) -> None:
    x, dy = 5 * rng.normal(size=(2, 3, 6, 5)), rng.normal(size=(2, 3, 6, 5))
    y, (dx,) = by_torch(lambda x: x * (1 + 0.3 * F.avg_pool2d(x**2, 3, 1, 1)) ** -0.75, dy, x)
    own, s = response_norm(x, 3, alpha=0.3, k=1.0, axes=WITHIN_CHANNEL)
    assert_close(own, y)
    assert_close(response_norm_backward(dy, s, x, 3, alpha=0.3, axes=WITHIN_CHANNEL), dx)


def test_dropout(rng: Rng, by_torch: Witness) -> None:
    x, dy = rng.normal(size=(50, 40)), rng.normal(size=(50, 40))
    own, mask = dropout(x, 0.3, rng)
    # torch's draw is another one, of the same two values; by our mask, its product and gradient are ours.
    assert_allclose(np.unique(mask), np.unique(F.dropout(torch.ones(999, dtype=torch.float64), 0.3).numpy()))
    y, (dx,) = by_torch(lambda x: x * torch.tensor(mask), dy, x)
    assert_allclose(own, y)
    assert_allclose(dropout_backward(dy, mask), dx)
    assert abs((mask == 0).mean() - 0.3) < 0.05  # 2,000 draws: four standard deviations
    assert_allclose(dropout(x, 0.0, rng)[0], x)
    with pytest.raises(ValueError, match="p is 1"):
        dropout(x, 1, rng)


CHAINS = [
    [Layer(3)],
    [Layer(3), Layer(3)],
    [Layer(5), Layer(2, 2), Layer(5), Layer(2, 2), Layer(5)],
    [Layer(7, 2, 3), Layer(3, 2, 1), Layer(3, 1, 1), Layer(3, 2, 1)],
    [Layer(3, dilation=2), Layer(3, 2, 2, dilation=3)],
]


@pytest.mark.parametrize("layers", CHAINS, ids=len)
def test_receptive_field_is_where_the_gradient_is(layers: list[Layer], by_torch: Witness) -> None:
    ones = torch.ones(1, 1, 1, dtype=torch.float64)

    def chain(x: torch.Tensor) -> torch.Tensor:
        for layer in layers:
            x = F.conv1d(x, ones.expand(1, 1, layer.kernel), None, layer.stride, layer.padding, layer.dilation)
        return x

    x = np.zeros((1, 1, 120))
    outputs = chain(torch.tensor(x)).shape[-1]
    place = outputs // 2
    _, (dx,) = by_torch(chain, np.eye(outputs)[place], x)
    seen = np.flatnonzero(dx[0, 0])
    field = receptive_field(layers)
    assert seen[0] == field.start + place * field.jump
    assert seen[-1] == field.start + place * field.jump + field.size - 1


def test_receptive_fields_of_the_papers() -> None:
    pool, same = Layer(2, 2), Layer(3, padding=1)
    vgg16 = [same, same, pool, same, same, pool] + 3 * [same, same, same, pool]
    assert receptive_field(vgg16).size == 212
    assert receptive_field([Layer(5), pool, Layer(5), pool, Layer(5)]) == (32, 4, 0)  # LeNet's C5 sees all of 32x32
