"""Padding as in torch, TensorFlow and Caffe: the table of the docs, plain loops, and independent implementations."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import pytest
import timm.layers
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.errors import InputError
from opsin.nn.conv import create_conv, create_transposed_conv
from opsin.nn.padding import FRAMEWORKS, Framework, output_size, pad_same, same_padding
from opsin.nn.pooling import create_pool

PAGE = Path(__file__).parents[2] / "docs" / "blocks" / "padding.md"
CASES = [
    (size, kernel, stride)
    for size, kernel, stride in itertools.product(range(1, 15), range(1, 6), range(1, 5))
    if size >= kernel
]


def windows(size: int, kernel: int, stride: int, padding: str, border: int, pooling: bool) -> list[int]:
    """Where each window begins, by walking along the axis as the framework's own description says."""
    if padding == "tf":  # as many windows as there are strides begun within the input
        count = len(range(0, size, stride))
        missing = max((count - 1) * stride + kernel - size, 0)
        return [stride * i - missing // 2 for i in range(count)]
    starts, start = [], -border
    while start + kernel <= size + border:
        starts.append(start)
        start += stride
    leftover = bool(starts) and starts[-1] + kernel < size + border
    if padding == "caffe" and pooling and leftover and start < size:
        starts.append(start)  # rounds up, unless that one would begin behind the image
    return starts


def pool_loop(x: Tensor, kind: str, kernel: int, stride: int, padding: str, border: int) -> Tensor:
    """Max or average pooling of a single map, one window at a time, from Caffe's and TensorFlow's definitions."""
    size = len(x)
    starts = windows(size, kernel, stride, padding, border, pooling=True)
    result = torch.zeros(len(starts), len(starts), dtype=x.dtype)
    for (i, top), (j, left) in itertools.product(enumerate(starts), enumerate(starts)):
        inside = x[max(top, 0) : min(top + kernel, size), max(left, 0) : min(left + kernel, size)]
        if kind == "max":
            result[i, j] = inside.max()
            continue
        # Caffe and torch divide by the window without what hangs over the border, TensorFlow by the pixels inside.
        edge = size + border
        counted = (min(top + kernel, edge) - top) * (min(left + kernel, edge) - left)
        result[i, j] = inside.sum() / (inside.numel() if padding == "tf" else counted)
    return result


@pytest.mark.parametrize("pooling", [False, True], ids=["conv", "pool"])
@pytest.mark.parametrize("padding", FRAMEWORKS)
def test_output_sizes_by_walking(padding: Framework, pooling: bool) -> None:
    for size, kernel, stride in CASES:
        for border in [0] if padding == "tf" else range(kernel // 2 + 1):
            got = output_size(size, kernel, stride, padding=padding, border=border, pooling=pooling)
            expected = len(windows(size, kernel, stride, padding, border, pooling))
            assert got == expected, (size, kernel, stride, border)


def test_dilation_widens_the_window() -> None:
    for size, kernel, stride, dilation in itertools.product((9, 10), (1, 2, 3), (1, 2, 3), (1, 2, 3)):
        wide = dilation * (kernel - 1) + 1
        assert output_size(size, kernel, stride, dilation=dilation) == output_size(size, wide, stride)
        assert same_padding(size, kernel, stride, dilation) == same_padding(size, wide, stride)


def test_the_table_of_the_docs() -> None:
    rows = re.findall(r"^\| (\w+) (\d)x\d / (\d), border (\d) \| (\d+) \|(.*)\|$", PAGE.read_text(), re.MULTILINE)
    assert len(rows) >= 16
    for kind, kernel_size, stride, border, size, cells in rows:
        outputs = re.findall(r"(\d+)", cells)
        assert len(outputs) == len(FRAMEWORKS)
        for padding, output in zip(FRAMEWORKS, outputs, strict=True):
            own = None if padding == "tf" else int(border)
            arguments = int(kernel_size), int(stride)
            if kind == "conv":
                layer = create_conv(1, 1, *arguments, padding=padding, border=own)
            else:
                layer = create_pool("max", kernel_size=arguments[0], stride=arguments[1], padding=padding, border=own)
            assert layer(torch.zeros(1, 1, int(size), int(size))).shape[2:] == (int(output),) * 2, (kind, size, padding)
            counted = output_size(int(size), *arguments, padding=padding, border=own or 0, pooling=kind == "pool")
            assert counted == int(output)


@pytest.mark.parametrize("kind", ["max", "average"])
@pytest.mark.parametrize("padding", FRAMEWORKS)
def test_pooling_equals_the_loop(padding: Framework, kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    for size, kernel, stride in [*itertools.product((5, 6, 7, 8), (2, 3), (1, 2, 3)), (9, 4, 3), (5, 1, 2), (6, 1, 2)]:
        for border in [0] if padding == "tf" else range(kernel // 2 + 1):
            # below zero, so that a zero from outside would be the maximum
            x = -1 - torch.rand(size, size, generator=generator, dtype=torch.float64)
            own = None if padding == "tf" else border
            pool = create_pool(kind, kernel_size=kernel, stride=stride, padding=padding, border=own)
            expected = pool_loop(x, kind, kernel, stride, padding, border)
            torch.testing.assert_close(pool(x[None, None])[0, 0], expected, msg=f"{size} {kernel} {stride} {border}")


def test_what_tensorflow_printed() -> None:
    # tf.nn.avg_pool(rows of 0, 1, 2, 3; ksize 4, strides 1, SAME): one row above, two below, none of them counted.
    x = torch.arange(4.0)[:, None].expand(4, 4)[None, None]
    got = create_pool("average", kernel_size=4, stride=1, padding="tf")(x)
    assert got[0, 0].tolist() == [[1.0] * 4, [1.5] * 4, [2.0] * 4, [2.5] * 4]


@pytest.mark.parametrize("size", [(7, 8), (8, 7), (9, 13)])
@pytest.mark.parametrize("options", [(3, 1, 1), (3, 2, 1), (2, 2, 1), (5, 2, 1), (4, 3, 1), (1, 2, 1), (3, 2, 2)])
def test_same_convolution_is_timms(size: tuple[int, int], options: tuple[int, int, int]) -> None:
    kernel, stride, dilation = options
    x = torch.randn(2, 4, *size)
    theirs = timm.layers.Conv2dSame(4, 6, kernel, stride, dilation=dilation)  # type: ignore[attr-defined]
    ours = create_conv(4, 6, kernel, stride, padding="tf", dilation=dilation)
    ours.load_state_dict(theirs.state_dict())
    assert ours(x).shape[2:] == tuple(-(-n // stride) for n in size)
    torch.testing.assert_close(ours(x), theirs(x))


def test_same_pooling_is_timms() -> None:
    x = -torch.rand(1, 2, 9, 14)
    theirs = timm.layers.pool2d_same.MaxPool2dSame(3, 2)  # type: ignore[attr-defined]
    torch.testing.assert_close(create_pool("overlapping", padding="tf")(x), theirs(x))


def test_where_the_odd_row_goes() -> None:
    # One output pixel that sees the sum of its window: 3x3, stride 2, on 4 pixels.
    x = torch.tensor([1.0, 2.0, 4.0, 8.0]).expand(1, 1, 1, 4)
    for padding, expected in zip(FRAMEWORKS, ([3.0, 14.0], [7.0, 12.0], [3.0, 14.0]), strict=True):
        conv = create_conv(1, 1, (1, 3), (1, 2), padding=padding, bias=False)
        nn.init.ones_(conv.weight)
        assert conv(x).flatten().tolist() == expected, padding
    assert same_padding(4, 3, 2) == (0, 1) and same_padding(5, 3, 2) == (1, 1) and same_padding(6, 1, 4) == (0, 0)


def test_known_networks() -> None:
    # AlexNet and GoogLeNet in Caffe: pooling 3 / 2 without border gives 27, 13, 6 from 55, 27, 13; 56 from 112.
    sizes = {55: 27, 27: 13, 13: 6, 112: 56}
    assert {n: output_size(n, 3, 2, padding="caffe", pooling=True) for n in sizes} == sizes
    assert output_size(112, 3, 2, pooling=True) == 55  # where torch needs a border of 1, or ceil_mode
    assert (
        output_size(299, 3, 2) == 149 and output_size(299, 3, 2, padding="tf") == 150
    )  # Inception v3's first is VALID
    assert output_size(224, 7, 2, border=3) == output_size(224, 7, 2, padding="tf") == 112


@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (3, 2), (2, 2), (3, 3), (2, 3), (5, 2), (3, 1), (1, 2)])
def test_transposed_is_the_gradient_of_the_convolution(kernel: int, stride: int) -> None:
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    large = torch.zeros(2, 6, 5 * stride, 4 * stride, dtype=torch.float64, requires_grad=True)
    transposed = create_transposed_conv(3, 6, kernel, stride, padding="tf", bias=False).double()
    conv = create_conv(6, 3, kernel, stride, padding="tf", bias=False).double()
    conv.weight = transposed.weight
    (expected,) = torch.autograd.grad(conv(large), large, x)
    torch.testing.assert_close(transposed(x), expected)


@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (3, 2), (2, 2), (3, 3), (2, 3), (16, 8), (3, 1), (1, 2)])
def test_transposed_sizes(kernel: int, stride: int) -> None:
    x = torch.randn(1, 1, 5, 4)
    for padding in ("torch", "tf"):
        assert create_transposed_conv(1, 1, kernel, stride, padding=padding)(x).shape[2:] == (5 * stride, 4 * stride)
    less = (kernel - stride) % 2 if kernel > stride else stride - kernel
    caffe = create_transposed_conv(1, 1, kernel, stride, padding="caffe")(x)
    assert caffe.shape[2:] == (5 * stride - less, 4 * stride - less)
    full = create_transposed_conv(1, 1, kernel, stride, border=0)(x)
    assert full.shape[2:] == (4 * stride + kernel, 3 * stride + kernel)


def test_border_none_keeps_the_size() -> None:
    x = torch.randn(1, 2, 9, 10)
    for kernel, dilation in itertools.product((1, 3, 5, (3, 1), (1, 7)), (1, 2)):
        assert create_conv(2, 2, kernel, dilation=dilation)(x).shape[2:] == (9, 10)


def test_caffes_convolution_is_torchs() -> None:
    x = torch.randn(1, 2, 10, 11)
    ours = create_conv(2, 4, 3, 2, padding="caffe", border=1)
    torch.testing.assert_close(ours(x), F.conv2d(x, ours.weight, ours.bias, 2, 1))


def test_it_can_be_exported_for_any_size() -> None:
    model = nn.Sequential(create_conv(1, 2, 3, 2, padding="tf"), create_pool("average", padding="tf")).eval()
    size = torch.export.Dim("height", min=8, max=64), torch.export.Dim("width", min=8, max=64)
    x = torch.randn(2, 1, 16, 17)
    program = torch.export.export(model, (x,), dynamic_shapes=(dict(enumerate(size, 2)),))
    for size in ((16, 17), (21, 30)):
        x = torch.randn(2, 1, *size)
        torch.testing.assert_close(program.module()(x), model(x))


def test_errors() -> None:
    with pytest.raises(InputError, match="unknown padding 'tensorflow'"):
        output_size(5, 3, padding="tensorflow")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a window of 7 does not fit into 4 pixels with a border of 1; enlarge"):
        output_size(4, 4, border=1, dilation=2)
    with pytest.raises(InputError, match="leave the border out"):
        create_conv(1, 1, 3, padding="tf", border=1)
    with pytest.raises(InputError, match="keeps the size for kernel_size=4; pass border"):
        create_conv(1, 1, 4)
    with pytest.raises(InputError, match="groups=3 must divide in_channels=4"):
        create_conv(4, 6, 3, groups=3)
    with pytest.raises(InputError, match="more than half of kernel_size=3"):
        create_pool("max", kernel_size=3, border=2, padding="caffe")
    with pytest.raises(InputError, match="stride must be a whole number"):
        create_pool("max", kernel_size=3, stride=0)
    with pytest.raises(InputError, match=r"kernel_size must be a whole number of at least 1, got \[3, 3, 3\]"):
        create_conv(1, 1, [3, 3, 3])  # type: ignore[arg-type]
    assert create_conv(1, 1, [3, 1]).kernel_size == (3, 1)  # type: ignore[arg-type]


def test_pad_same_takes_its_value() -> None:
    x = torch.ones(1, 1, 3, 3)
    assert pad_same(x, 2, value=7.0)[0, 0].tolist() == [[1, 1, 1, 7]] * 3 + [[7] * 4]
    assert math.prod(pad_same(x, 3, 3).shape) == 9
