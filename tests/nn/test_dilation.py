"""Dilated layers against torch's own on every rate-th pixel, and what `dilate` refuses, on networks of a few layers."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.errors import InputError
from opsin.nn.conv import SameConv2d, create_conv
from opsin.nn.dilation import dilate
from opsin.nn.pooling import SameAveragePool2d, SameMaxPool2d, StochasticPool2d

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "max 3/2, border 1": lambda: nn.MaxPool2d(3, 2, 1),
    "max 3/2": lambda: nn.MaxPool2d(3, 2),
    "max 3/2, rounding up": lambda: nn.MaxPool2d(3, 2, ceil_mode=True),
    "max 2/2": lambda: nn.MaxPool2d(2),
    "max 2/2, rounding up": lambda: nn.MaxPool2d(2, ceil_mode=True),
    "max 3/3": lambda: nn.MaxPool2d(3),
    "max 3x2/(2, 1)": lambda: nn.MaxPool2d((3, 2), (2, 1)),
    "max 3/1, border 1": lambda: nn.MaxPool2d(3, 1, 1),
    "average 2/2": lambda: nn.AvgPool2d(2),
    "average 2/2, rounding up": lambda: nn.AvgPool2d(2, ceil_mode=True),
    "average 3/2, rounding up": lambda: nn.AvgPool2d(3, 2, ceil_mode=True),
    "average 3/2, border 1": lambda: nn.AvgPool2d(3, 2, 1),
    "average 3/1, border 1": lambda: nn.AvgPool2d(3, 1, 1),
    "average 3/1, border 1 not counted": lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    "average 5/3": lambda: nn.AvgPool2d(5, 3),
    "max 3/2 of TensorFlow": lambda: SameMaxPool2d(3, 2),
    "max 2/1 of TensorFlow": lambda: SameMaxPool2d(2, 1),
    "average 3/2 of TensorFlow": lambda: SameAveragePool2d(3, 2),
    "average 3/1 of TensorFlow": lambda: SameAveragePool2d(3, 1),
    "conv 3/2, border 1": lambda: nn.Conv2d(2, 3, 3, 2, 1),
    "conv 3/2": lambda: nn.Conv2d(2, 3, 3, 2),
    "conv 1/2": lambda: nn.Conv2d(2, 3, 1, 2),
    "conv 4/4": lambda: nn.Conv2d(2, 3, 4, 4),
    "conv 1x5/(1, 2)": lambda: nn.Conv2d(2, 3, (1, 5), (1, 2), (0, 2)),
    "conv 3/1, dilated by 2": lambda: nn.Conv2d(2, 3, 3, 1, 2, 2),
    "conv 3/2 of TensorFlow": lambda: create_conv(2, 3, 3, 2, padding="tf"),
    "conv 5/2 of TensorFlow": lambda: create_conv(2, 3, 5, 2, padding="tf"),
    "conv 3/1 of TensorFlow": lambda: create_conv(2, 3, 3, padding="tf"),
}


def hold(network: nn.Module, limit: int, growth: int, *, tail: str = "tail", apart: str = "apart") -> nn.Module:
    """A dilated copy, for images of two channels."""
    fresh = copy.deepcopy(network)
    dilate(fresh, limit, (2, 64, 64), growth, tail=tail, apart=apart)
    return fresh


def draw(height: int, width: int) -> Tensor:
    return torch.randn(2, 2, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(height))


@pytest.mark.parametrize("rate", [1, 2, 4])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_sees_on_the_finer_map_what_it_saw(kind: str, rate: int) -> None:
    """Before the layer every rate-th pixel is taken, and later no longer: what it gives must be found in between."""
    torch.manual_seed(0)
    layer: Any = LAYERS[kind]().double()
    steps = layer.stride if isinstance(layer.stride, tuple) else (layer.stride, layer.stride)
    strided = nn.Sequential(nn.MaxPool2d(1, rate), layer)  # a pooling of one pixel: only its stride
    dilated = hold(strided, 1, growth=64 * rate * max(steps) * 3)
    for height, width in itertools.product((17, 24, 29, 31), (18, 27)):
        x = draw(rate * height - rate // 2, rate * width)
        coarse, fine = strided(x), dilated(x)
        apart = tuple(rate * step for step in steps)
        torch.testing.assert_close(fine[:, :, :: apart[0], :: apart[1]], coarse, rtol=0, atol=1e-12)
    assert [tuple(p.shape) for p in dilated.parameters()] == [tuple(p.shape) for p in strided.parameters()]


@pytest.mark.parametrize("kind", ["max 2/2", "average 2/2", "max 3/2, rounding up", "conv 3/2 of TensorFlow"])
def test_maps_that_lost_no_border_stay_as_large_as_they_were(kind: str) -> None:
    chain = nn.Sequential(
        nn.Conv2d(2, 2, 1), LAYERS[kind](), nn.Conv2d(3 if "conv" in kind else 2, 2, 1), nn.Identity()
    )
    chain[3] = LAYERS[kind]()
    dilated = hold(chain.double(), 1, growth=32)
    assert dilated(draw(32, 24)).shape[2:] == (32, 24) and chain(draw(32, 24)).shape[2:] == (8, 6)


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(2, 2, 5, 4, 2), nn.MaxPool2d(4), nn.MaxPool2d(5, 4), nn.AvgPool2d(5, 4, 2), SameConv2d(2, 2, 3, 4)],
    ids=str,
)
def test_a_stride_may_be_lost_in_part(layer: nn.Module) -> None:
    torch.manual_seed(0)
    strided = nn.Sequential(nn.Conv2d(2, 2, 3, 2, 1), layer, nn.Conv2d(2, 2, 3, 1, 1)).double()
    dilated: Any = hold(strided, 4, growth=64)
    x = draw(67, 52)
    torch.testing.assert_close(dilated(x)[:, :, ::2, ::2], strided(x), rtol=0, atol=1e-12)
    assert [each.stride for each in dilated] == [(2, 2), (2, 2), (1, 1)]
    assert dilated[1].dilation in (1, (1, 1)) and dilated[2].dilation == (2, 2)


def test_branches_lose_their_strides_alike() -> None:
    class Parallel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(2, 2, 3, 2, 1)
            self.long = nn.Sequential(nn.Conv2d(2, 2, 3, 1, 1), nn.Conv2d(2, 2, 3, 2, 1), nn.Conv2d(2, 2, 3, 1, 1))
            self.short = nn.Conv2d(2, 2, 1, 2)
            self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(2, 2, 1), nn.Sigmoid())
            self.tail = nn.MaxPool2d(3, 2, 1)
            self.apart = nn.Conv2d(2, 1, 3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            y = self.long(x) + self.short(x)
            self.side = self.apart(y)
            return self.tail(y) * self.gate(y).mean()

    dilated: Any = hold(Parallel(), 2, growth=32)
    shapes = {
        name: (layer.stride, layer.dilation) for name, layer in dilated.named_modules() if hasattr(layer, "stride")
    }
    one, two, same = (1, 1), (2, 2), ((1, 1), (1, 1))
    assert shapes == {
        "stem": (two, one),
        "long.0": same,
        "long.1": same,  # the one that loses its stride is not dilated yet
        "long.2": (one, two),
        "short": same,
        "gate.1": same,
        "tail": (two, two),
        "apart": (two, one),
    }


class Functional(nn.Module):
    """Strides outside of any layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(self.conv(x), 2)


class OwnKernel(nn.Module):
    """A convolution of its own, which no one can tell to dilate."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 2, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, padding=1)


def halved(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 2, 1, 2), *layers)


REFUSED: dict[str, tuple[nn.Module, str]] = {
    "strides that do not divide": (nn.Sequential(nn.MaxPool2d(3), nn.MaxPool2d(2)), "1 takes a map from stride 3 to 6"),
    "functional": (nn.Sequential(Functional(), Functional()), "1 strides outside of its layers"),
    "functional behind": (halved(Functional()), "1 strides outside of its layers"),
    "own stride": (
        halved(StochasticPool2d(2)),
        r"1, StochasticPool2d\(.*\), strides or has kernels in a way of its own",
    ),
    "own kernel": (nn.Sequential(nn.MaxPool2d(2), halved(OwnKernel())), r"1\.1, OwnKernel\(\), strides or has kernels"),
    "upsampled": (nn.Sequential(nn.MaxPool2d(4), nn.Upsample(scale_factor=2)), r"1, Upsample\(.*a way of its own"),
    "reflected": (halved(nn.Conv2d(2, 2, 3, 2, 1, padding_mode="reflect")), "1, Conv2d.*has no dilated form"),
    "even": (halved(nn.MaxPool2d(1, 2), nn.Conv2d(2, 2, 2, padding="same")), "2, Conv2d.*has no dilated form"),
    "dilated SAME": (halved(SameConv2d(2, 2, 3, 2, dilation=2)), "1, SameConv2d.*has no dilated form"),
    "rounding up a border": (halved(nn.MaxPool2d(3, 2, 1, ceil_mode=True)), "1, MaxPool2d.*has no dilated form"),
    "rounding up a gap": (halved(nn.AvgPool2d(2, 4, ceil_mode=True)), "1, AvgPool2d.*has no dilated form"),
    "dilated pooling": (halved(nn.MaxPool2d(3, 2, dilation=2)), "1, MaxPool2d.*has no dilated form"),
    "divided": (halved(nn.AvgPool2d(2, divisor_override=3)), "1, AvgPool2d.*has no dilated form"),
    "subclassed": (halved(type("Mine", (nn.MaxPool2d,), {})(2)), "1, Mine.*has no dilated form"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_dilated_is_refused(case: str) -> None:
    network, reason = REFUSED[case]
    with pytest.raises(InputError, match=rf"Sequential cannot have output_stride=2: {reason}.*; take another network"):
        hold(network, 2, growth=96)
