"""Pooling: the papers' own numbers, plain loops, and what the random ones do on average."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.errors import InputError
from opsin.nn.pooling import SpaceToDepth, SpatialPyramidPooling, StochasticPool2d, create_pool, list_pools


def test_pyramid_is_the_papers_sliding_windows() -> None:
    # He et al. 2014, figure 5: a 13x13 map, pool3x3 by windows of 5 and stride 4, pool2x2 by 7 and 6, pool1x1 by 13
    x = torch.randn(2, 3, 13, 13)
    expected = torch.cat([F.max_pool2d(x, k, s).flatten(1) for k, s in ((5, 4), (7, 6), (13, 13))], dim=1)
    assert torch.equal(SpatialPyramidPooling((3, 2, 1))(x), expected)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (7, 9), (13, 13), (24, 11)])
def test_pyramid_takes_any_size(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size)
    pyramid = create_pool("spatial_pyramid")
    assert pyramid(x).shape == (2, 3 * 21)  # {4x4, 2x2, 1x1}, figure 3
    height, width = size
    place = 0
    for n in (4, 2, 1):
        for c, i, j in itertools.product(range(3), range(n), range(n)):
            rows, columns = (slice(k * side // n, -(-(k + 1) * side // n)) for k, side in ((i, height), (j, width)))
            assert pyramid(x)[1, place].item() == x[1, c, rows, columns].max().item()
            place += 1
    assert create_pool("spatial_pyramid", levels=[6, 3, 2, 1])(x).shape == (2, 3 * 50)


def test_pyramid_of_means_ends_in_the_mean() -> None:
    x = torch.randn(2, 3, 5, 6)
    torch.testing.assert_close(SpatialPyramidPooling((2, 1), mode="average")(x)[:, -3:], x.mean(dim=(2, 3)))


def windows(x: Tensor, kernel: int, stride: int) -> Tensor:
    return F.unfold(x, kernel, stride=stride).unflatten(1, (x.shape[1], -1))


def test_stochastic_pooling_weighs_by_share_in_evaluation() -> None:
    x = torch.randn(2, 3, 7, 8, dtype=torch.float64)
    pool = StochasticPool2d(3, 2).eval()
    cells = windows(x.clamp(min=0), 3, 2)
    shares = cells / cells.sum(dim=2, keepdim=True)
    torch.testing.assert_close(pool(x).flatten(2), (shares * cells).sum(dim=2))
    # Zeiler and Fergus, figure 1: activations 1.6 and 2.4 with probabilities 0.4 and 0.6
    figure = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.6, 0.0], [0.0, 0.0, 2.4]])[None, None]
    assert pool(figure).item() == pytest.approx(0.4 * 1.6 + 0.6 * 2.4)


def test_stochastic_pooling_draws_by_share_in_training() -> None:
    torch.manual_seed(0)
    x = torch.tensor([[1.0, 0.0], [3.0, -5.0]]).expand(20000, 1, 2, 2)
    drawn = StochasticPool2d(2)(x).flatten()
    assert set(drawn.tolist()) == {1.0, 3.0} and (drawn == 3).float().mean().item() == pytest.approx(0.75, abs=0.015)


@pytest.mark.parametrize("training", [True, False])
def test_stochastic_pooling_of_nothing_is_nothing(training: bool) -> None:
    x = -torch.rand(1, 2, 4, 4)
    x.requires_grad_()
    y = StochasticPool2d(2).train(training)(x)
    assert not y.any()
    y.sum().backward()
    assert x.grad is not None and not x.grad.any()


def test_stochastic_pooling_sends_the_gradient_to_what_it_drew() -> None:
    x = torch.rand(1, 1, 4, 4, requires_grad=True)
    y = StochasticPool2d(2)(x)
    y.sum().backward()
    assert x.grad is not None and x.grad.sum() == 4 and torch.equal(x[x.grad > 0].sort()[0], y.flatten().sort()[0])
    smooth = torch.rand(1, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(StochasticPool2d(3, 2).eval(), smooth)


def reorg(x: Tensor, stride: int) -> Tensor:
    """Darknet's reorg layer, index by index in flat memory (blas.c), as its cfg files run it."""
    channels, height, width = x.shape
    memory, out = x.flatten(), torch.empty(x.numel())
    inner = channels // stride**2
    for k, j, i in itertools.product(range(channels), range(height), range(width)):
        offset, c = divmod(k, inner)
        row, column = j * stride + offset // stride, i * stride + offset % stride
        out[i + width * (j + height * k)] = memory[column + width * stride * (row + height * stride * c)]
    return out.view(channels * stride**2, height // stride, width // stride)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_passthrough_in_darknets_order(stride: int) -> None:
    x = torch.randn(2, 2 * stride**2, 2 * stride, 3 * stride)
    expected = torch.stack([reorg(image, stride) for image in x])
    assert torch.equal(SpaceToDepth(stride, "darknet")(x), expected)


def test_passthrough_channels_by_hand() -> None:
    x = torch.randn(1, 3, 4, 6)
    for order, place in (("torch", lambda c, r, q: c * 4 + r * 2 + q), ("tf", lambda c, r, q: (r * 2 + q) * 3 + c)):
        y = create_order(order)(x)
        assert y.shape == (1, 12, 2, 3)
        for c, r, q in itertools.product(range(3), range(2), range(2)):
            assert torch.equal(y[:, place(c, r, q)], x[:, c, r::2, q::2])
    assert torch.equal(F.pixel_shuffle(SpaceToDepth()(x), 2), x)


def create_order(order: str) -> nn.Module:
    return SpaceToDepth(order=order)  # type: ignore[arg-type]


def test_global_and_overlapping() -> None:
    x = torch.randn(2, 3, 13, 13)
    torch.testing.assert_close(create_pool("global_average")(x)[..., 0, 0], x.mean(dim=(2, 3)))
    assert torch.equal(create_pool("overlapping")(x), F.max_pool2d(x, 3, 2))
    assert torch.equal(create_pool("max")(x), F.max_pool2d(x, 2))
    assert torch.equal(create_pool("average", kernel_size=(3, 2), stride=1)(x), F.avg_pool2d(x, (3, 2), 1))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", list_pools())
def test_an_empty_batch(name: str, training: bool) -> None:
    pool = create_pool(name).train(training)
    assert pool(torch.zeros(0, 3, 8, 8)).shape[1:] == pool(torch.zeros(2, 3, 8, 8)).shape[1:]


def test_errors() -> None:
    with pytest.raises(InputError, match="unknown pool 'maxi'; did you mean max"):
        create_pool("maxi")
    with pytest.raises(InputError, match="levels is empty"):
        SpatialPyramidPooling(())
    with pytest.raises(InputError, match="a level must be a whole number of at least 1, got 0"):
        SpatialPyramidPooling((2, 0))
    with pytest.raises(InputError, match="unknown mode 'mean'"):
        SpatialPyramidPooling(mode="mean")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="5x6 has no whole squares of 2x2; pad it to multiples of 2"):
        SpaceToDepth()(torch.zeros(1, 4, 5, 6))
    with pytest.raises(InputError, match="a multiple of 4 channels, got 6"):
        SpaceToDepth(order="darknet")(torch.zeros(1, 6, 4, 4))
    with pytest.raises(InputError, match="unknown order 'caffe'"):
        create_order("caffe")
    with pytest.raises(InputError, match=r"a window of 3 does not fit into a map of \(2, 5\)"):
        StochasticPool2d()(torch.zeros(1, 1, 2, 5))
    with pytest.raises(InputError, match=r"takes maps of shape \(B, C, H, W\)"):
        SpatialPyramidPooling()(torch.zeros(3, 4))
