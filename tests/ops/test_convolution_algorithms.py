"""Five algorithms of convolution: one suite for all of them, and what they cost."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from opsin.errors import InputError
from opsin.ops import conv2d, convolution_cost
from opsin.ops.convolution import Algorithm
from opsin.ops.winograd import TRANSFORMS

ALGORITHMS = get_args(Algorithm)
# (kernel, stride, padding, dilation, groups)
LAYERS = [
    (3, 1, 1, 1, 1),
    (3, 1, 0, 1, 2),
    ((3, 3), (1, 1), (2, 0), (1, 1), 4),
    (1, 1, 0, 1, 1),
    (3, 2, 1, 1, 2),
    (5, 3, 2, 1, 1),
    (2, 1, 1, 3, 1),
    ((1, 4), (2, 1), (0, 3), (1, 2), 2),
    (3, 1, 2, 2, 4),
]
CASES = [
    (algorithm, layer)
    for algorithm, layer in itertools.product(ALGORITHMS, LAYERS)
    if not algorithm.startswith("winograd") or layer in LAYERS[:3]
]


def tensors(
    layer: tuple, size: tuple[int, int] = (9, 7), dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    kernel, groups = layer[0], layer[4]
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    generator = torch.Generator().manual_seed(0)
    shapes = (2, 4, *size), (8, 4 // groups, *sides), (8,)
    images, weight, bias = (torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes)
    return images, weight, bias


def plain(images: Tensor, weight: Tensor, stride: int, groups: int) -> Tensor:
    """Seven loops, one multiplication at a time."""
    count, _, height, width = images.shape
    kernels, channels, side, _ = weight.shape
    out = torch.zeros(count, kernels, (height - side) // stride + 1, (width - side) // stride + 1, dtype=images.dtype)
    for b, k, y, x in itertools.product(*map(range, out.shape)):
        first = k // (kernels // groups) * channels
        for c, i, j in itertools.product(range(channels), range(side), range(side)):
            out[b, k, y, x] += images[b, first + c, y * stride + i, x * stride + j] * weight[k, c, i, j]
    return out


@pytest.mark.parametrize(("algorithm", "layer"), CASES)
class TestEveryAlgorithm:
    def test_is_torchs(self, algorithm: Algorithm, layer: tuple) -> None:
        for size in ((9, 7), (8, 10), (16, 5), (3, 4) if layer[0] == 3 else (9, 9)):
            images, weight, bias = tensors(layer, size)
            expected = F.conv2d(images, weight, bias, *layer[1:])
            torch.testing.assert_close(conv2d(images, weight, bias, *layer[1:], algorithm=algorithm), expected)

    def test_gradient(self, algorithm: Algorithm, layer: tuple) -> None:
        images, weight, bias = inputs = tensors(layer, (6, 5))
        for tensor in inputs:
            tensor.requires_grad_()
        function = lambda x, w, b: conv2d(x, w, b, *layer[1:], algorithm=algorithm)  # noqa: E731
        assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
        ours = torch.autograd.grad(function(*inputs).square().sum(), inputs)
        theirs = torch.autograd.grad(F.conv2d(images, weight, bias, *layer[1:]).square().sum(), inputs)
        torch.testing.assert_close(ours, theirs)

    @pytest.mark.parametrize(
        ("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 0.1), (torch.float16, 0.02)]
    )
    def test_lower_precision(self, algorithm: Algorithm, layer: tuple, dtype: torch.dtype, tolerance: float) -> None:
        images, weight, bias = tensors(layer)
        expected = F.conv2d(images, weight, bias, *layer[1:])
        result = conv2d(images.to(dtype), weight.to(dtype), bias.to(dtype), *layer[1:], algorithm=algorithm)
        assert result.dtype is dtype
        assert (result.double() - expected).norm() < tolerance * expected.norm()


@pytest.mark.parametrize(
    ("algorithm", "step"),
    [("torch", "F.conv2d"), ("im2col", "_im2col"), ("fft", "_fft"), ("winograd2", "winograd_conv2d")],
)
def test_an_algorithm_is_the_one_asked_for(algorithm: Algorithm, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results are equal, whichever computes them; so each must fail where its own step does, and only there."""

    def fail(*_: Any) -> Tensor:
        raise ArithmeticError

    monkeypatch.setattr(f"opsin.ops.convolution.{step}", fail)
    images, weight = torch.ones(1, 2, 5, 5), torch.ones(3, 2, 3, 3)
    for other in ("torch", "im2col", "fft", "winograd2"):
        if other == algorithm:
            with pytest.raises(ArithmeticError):
                conv2d(images, weight, algorithm=other)
        else:
            assert conv2d(images, weight, algorithm=other).shape == (1, 3, 3, 3)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
class TestDefinition:
    def test_is_the_plain_loops(self, algorithm: Algorithm) -> None:
        images, weight = torch.randn(1, 4, 5, 6, dtype=torch.float64), torch.randn(2, 2, 3, 3, dtype=torch.float64)
        expected = plain(images, weight, 1, 2)
        torch.testing.assert_close(conv2d(images, weight, groups=2, algorithm=algorithm), expected)

    def test_an_empty_batch(self, algorithm: Algorithm) -> None:
        assert conv2d(torch.zeros(0, 2, 5, 5), torch.zeros(3, 2, 3, 3), algorithm=algorithm).shape == (0, 3, 3, 3)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_winograds_identity_in_fractions(name: str) -> None:
    """One dimension: A^T [(G g) * (B^T d)] is the correlation of d with g, exactly."""
    transform = TRANSFORMS[name]
    data, taps = range(3, 3 + transform.inputs), (2, -7, 5)

    def times(matrix: Any, vector: Any) -> list[Fraction]:
        # 1 / 6 and its like are the fractions with the smallest denominators near these floats
        return [sum(Fraction(m).limit_denominator(100) * v for m, v in zip(row, vector, strict=True)) for row in matrix]  # type: ignore[misc]

    squares = [x * x for x in data]
    products = [a * b for a, b in zip(times(transform.filter, taps), times(transform.data, squares), strict=True)]
    expected = [sum(squares[i + j] * taps[j] for j in range(3)) for i in range(transform.outputs)]
    assert times(transform.inverse, products) == expected


class TestCost:
    IMAGES, WEIGHT = (1, 64, 56, 56), (64, 64, 3, 3)

    def cost(self, algorithm: Algorithm) -> Any:
        return convolution_cost(self.IMAGES, self.WEIGHT, padding=1, algorithm=algorithm)

    def test_direct_by_hand(self) -> None:
        numbers = 64 * 56 * 56 * 2 + 64 * 64 * 9
        assert self.cost("torch") == (64 * 64 * 9 * 56 * 56, 0, 4 * numbers)

    def test_im2col_moves_nine_inputs_more_twice(self) -> None:
        direct, columns = self.cost("torch"), self.cost("im2col")
        assert columns.multiplications == direct.multiplications
        assert columns.bytes_moved - direct.bytes_moved == 4 * 2 * 9 * 64 * 56 * 56

    def test_winograd_saves_what_the_paper_says(self) -> None:
        """Section 4: 2.25 and 4 times fewer; 56 is a multiple of both tiles."""
        direct = self.cost("torch").multiplications
        assert direct / self.cost("winograd2").multiplications == 2.25
        assert direct / self.cost("winograd4").multiplications == 4
        small, large = self.cost("winograd2"), self.cost("winograd4")
        assert small.transform_operations == 32 * 64 * 784 + 28 * 64 * 64 + 24 * 64 * 784
        assert large.transform_operations == 156 * 64 * 196 + 72 * 64 * 64 + 100 * 64 * 196

    def test_fft_by_hand(self) -> None:
        cost = convolution_cost((1, 2, 8, 8), (3, 2, 3, 3), algorithm="fft")
        planes, frequencies = 2 + 6 + 3, 8 * 5
        assert cost.multiplications == 4 * 6 * frequencies
        assert cost.transform_operations == planes * 2.5 * 64 * 6
        assert cost.bytes_moved == 4 * (128 + 54 + 3 * 36 + 2 * planes * 2 * frequencies)

    def test_groups_and_batch(self) -> None:
        for algorithm in ALGORITHMS:
            whole = convolution_cost((2, 8, 12, 12), (8, 8, 3, 3), algorithm=algorithm)
            groups = convolution_cost((2, 8, 12, 12), (8, 4, 3, 3), groups=2, algorithm=algorithm)
            assert whole.multiplications == 2 * groups.multiplications
            single = convolution_cost((1, 8, 12, 12), (8, 8, 3, 3), algorithm=algorithm)
            assert whole.multiplications == 2 * single.multiplications


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"algorithm": "winograd"}, "unknown convolution algorithm 'winograd'; did you mean winograd"),
        (
            {"algorithm": "winograd2", "stride": 2},
            "winograd2 takes 3x3 kernels with stride 1 .* got 3x3 with stride 2x2",
        ),
        ({"algorithm": "winograd4", "dilation": 2}, "and dilation 2x2; use algorithm="),
        ({"algorithm": "winograd4", "weight": torch.zeros(4, 4, 5, 5)}, "got 5x5 with stride 1x1"),
        ({"groups": 3}, "weight 4x4x3x3 in 3 groups takes 12 channels"),
        ({"weight": torch.zeros(4, 5, 3, 3)}, "takes 5 channels .* images have 4 channels"),
        ({"weight": torch.zeros(4, 4, 9, 3)}, "a kernel that spans 9x3 does not fit into 8x8 pixels; pad more"),
        ({"dilation": 4}, "a kernel that spans 9x9 does not fit"),
        ({"weight": torch.zeros(4, 3, 3)}, r"images must be \(B, C, H, W\) and weight"),
        ({"bias": torch.zeros(3)}, r"bias of shape \(3,\) does not fit 4 kernels"),
        ({"stride": 0}, "stride must be one or two integers of at least 1, got 0"),
        ({"padding": (1, -1)}, r"padding must be one or two integers of at least 0, got \(1, -1\)"),
    ],
)
def test_wrong_calls_are_named(call: dict, message: str) -> None:
    arguments = {"images": torch.zeros(1, 4, 8, 8), "weight": torch.zeros(4, 4, 3, 3), **call}
    with pytest.raises(InputError, match=message):
        conv2d(**arguments)
