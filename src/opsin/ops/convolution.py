"""Convolution by five algorithms that give the same numbers, and what each of them costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from opsin.errors import InputError, unknown
from opsin.ops.winograd import TRANSFORMS, winograd_conv2d

Algorithm: TypeAlias = Literal["torch", "im2col", "winograd2", "winograd4", "fft"]
Pair: TypeAlias = int | tuple[int, int]


class ConvolutionCost(NamedTuple):
    """What a convolution takes.

    multiplications: real ones, of data with weights. transform_operations: additions and multiplications on the way
    into another form and back. bytes_moved: every stage reads its inputs and writes its outputs once, caches aside.
    """

    multiplications: int
    transform_operations: int
    bytes_moved: int


class _Layer(NamedTuple):
    """A convolution's sizes, checked. Pairs are (height, width)."""

    images: tuple[int, int, int, int]
    weight: tuple[int, int, int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    @property
    def reach(self) -> tuple[int, int]:
        """Pixels from a kernel's first to its last, both included."""
        return _map(lambda axis: (self.weight[2 + axis] - 1) * self.dilation[axis] + 1)

    @property
    def padded(self) -> tuple[int, int]:
        return _map(lambda axis: self.images[2 + axis] + 2 * self.padding[axis])

    @property
    def output(self) -> tuple[int, int]:
        return _map(lambda axis: (self.padded[axis] - self.reach[axis]) // self.stride[axis] + 1)


def conv2d(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    algorithm: Algorithm = "torch",
) -> Tensor:
    """Convolution, as networks call correlation: torch's, or another algorithm's with the same result and gradients.

    images: (B, C, H, W). weight: (K, C / groups, kh, kw). bias: (K,). Gives (B, K, H', W').
    torch: whatever kernel torch's library chooses; the one to use. The others show how it can be done:
    im2col: every patch a column of one matrix product. Takes everything.
    winograd2, winograd4: fewer products by tiles of 2x2 or 4x4 outputs; 3x3 kernels of stride and dilation 1.
    fft: a product of spectra. Takes everything, but computes all outputs of a stride and all zeros of a dilation; half
    precision is computed in float32.
    Raises InputError for shapes that do not fit and for what an algorithm cannot do.
    """
    if algorithm not in get_args(Algorithm):
        raise unknown("convolution algorithm", algorithm, get_args(Algorithm))
    layer = _layer(images.shape, weight.shape, stride, padding, dilation, groups, algorithm)
    if bias is not None and bias.shape != weight.shape[:1]:
        raise InputError(f"bias of shape {tuple(bias.shape)} does not fit {len(weight)} kernels; give one number each")
    if algorithm == "torch":
        return F.conv2d(images, weight, bias, layer.stride, layer.padding, layer.dilation, groups)
    if algorithm == "im2col":
        result = _im2col(images, weight, layer)
    elif algorithm == "fft":
        result = _fft(images, weight, layer)
    else:
        result = winograd_conv2d(_pad(images, layer), weight, groups, TRANSFORMS[algorithm])
    return result if bias is None else result + bias[:, None, None]


def convolution_cost(
    images: Sequence[int],
    weight: Sequence[int],
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    algorithm: Algorithm = "torch",
    *,
    bytes_per_number: int = 4,
) -> ConvolutionCost:
    """What `conv2d` takes with these sizes. images: (B, C, H, W); weight: (K, C / groups, kh, kw).

    torch: a direct convolution that reads and writes everything once, the least that any can move.
    fft: 4 multiplications for a complex one; 5/2 N log2 N operations for the transform of N real numbers.
    """
    if algorithm not in get_args(Algorithm):
        raise unknown("convolution algorithm", algorithm, get_args(Algorithm))
    layer = _layer(images, weight, stride, padding, dilation, groups, algorithm)
    batch, channels = layer.images[:2]
    kernels, group_channels = layer.weight[:2]
    numbers_in, numbers_out = math.prod(images) + math.prod(weight), batch * kernels * math.prod(layer.output)
    multiplications = batch * math.prod(layer.output) * math.prod(weight)
    operations, between = 0, 0  # between: numbers of the forms in between, each written once and read once
    if algorithm == "im2col":
        between = batch * channels * math.prod(weight[2:]) * math.prod(layer.output)
    elif algorithm == "fft":
        size = _fft_size(layer)
        frequencies = size[0] * (size[1] // 2 + 1)
        planes = batch * channels + kernels * group_channels + batch * kernels
        multiplications = 4 * batch * kernels * group_channels * frequencies
        operations = round(planes * 2.5 * math.prod(size) * math.log2(math.prod(size)))
        between = 2 * planes * frequencies
    elif algorithm != "torch":
        transform = TRANSFORMS[algorithm]
        tiles = batch * math.prod(-(-side // transform.outputs) for side in layer.output)
        counts = (channels * tiles, kernels * group_channels, kernels * tiles)
        multiplications = transform.inputs**2 * kernels * group_channels * tiles
        operations = sum(each * count for each, count in zip(transform.operations, counts, strict=True))
        between = transform.inputs**2 * sum(counts)
    return ConvolutionCost(multiplications, operations, bytes_per_number * (numbers_in + numbers_out + 2 * between))


def _im2col(images: Tensor, weight: Tensor, layer: _Layer) -> Tensor:
    patches = F.unfold(images, layer.weight[2:], layer.dilation, layer.padding, layer.stride)
    patches = patches.unflatten(1, (layer.groups, -1))  # (B, groups, C / groups * kh * kw, outputs)
    kernels = weight.reshape(layer.groups, len(weight) // layer.groups, -1)
    return (kernels @ patches).reshape(len(images), len(weight), *layer.output)


def _fft(images: Tensor, weight: Tensor, layer: _Layer) -> Tensor:
    precision = torch.promote_types(images.dtype, torch.float32)
    size = _fft_size(layer)
    (height, width), groups = layer.reach, layer.groups
    dilated = weight.new_zeros(*weight.shape[:2], height, width, dtype=precision)
    dilated[..., :: layer.dilation[0], :: layer.dilation[1]] = weight.to(precision)
    # Frequencies in front: for each, a matrix product over the channels.
    spectra = torch.fft.rfft2(_pad(images, layer).to(precision), size).permute(2, 3, 1, 0)
    filters = torch.fft.rfft2(dilated, size).conj().permute(2, 3, 0, 1)  # conj: correlation, not convolution
    products = filters.unflatten(2, (groups, -1)) @ spectra.unflatten(2, (groups, -1))
    result = torch.fft.irfft2(products.flatten(2, 3).permute(3, 2, 0, 1), size)
    # A spectrum is of an image that repeats itself: outputs whose kernel reaches over the edge are left out.
    ends = (layer.padded[0] - height + 1, layer.padded[1] - width + 1)
    return result[..., : ends[0] : layer.stride[0], : ends[1] : layer.stride[1]].to(images.dtype)


def _fft_size(layer: _Layer) -> tuple[int, int]:
    """At least the padded image, with small factors, for which transforms are fast."""
    from scipy.fft import next_fast_len  # here: nothing else of these operations needs scipy

    return _map(lambda axis: next_fast_len(layer.padded[axis], real=True))  # type: ignore


def _pad(images: Tensor, layer: _Layer) -> Tensor:
    down, across = layer.padding
    return F.pad(images, (across, across, down, down))


def _layer(
    images: Sequence[int],
    weight: Sequence[int],
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    algorithm: Algorithm,
) -> _Layer:
    """The sizes, checked."""
    if len(images) != 4 or len(weight) != 4:
        raise InputError(f"images must be (B, C, H, W) and weight (K, C, kh, kw), got {_size(images)}, {_size(weight)}")
    pairs = [_pair("stride", stride, 1), _pair("padding", padding, 0), _pair("dilation", dilation, 1)]
    layer = _Layer(tuple(images), tuple(weight), *pairs, groups)  # type: ignore[arg-type]
    if groups < 1 or weight[0] % groups or images[1] != weight[1] * groups:
        raise InputError(
            f"weight {_size(weight)} in {groups} groups takes {weight[1] * groups} channels and needs a multiple of "
            f"{groups} kernels; images have {images[1]} channels"
        )
    if min(layer.output) < 1:
        raise InputError(
            f"a kernel that spans {_size(layer.reach)} does not fit into {_size(layer.padded)} pixels; pad more"
        )
    if algorithm in TRANSFORMS and (*weight[2:], *layer.stride, *layer.dilation) != (3, 3, 1, 1, 1, 1):
        raise InputError(
            f"{algorithm} takes 3x3 kernels with stride 1 and dilation 1, got {_size(weight[2:])} with stride "
            f'{_size(layer.stride)} and dilation {_size(layer.dilation)}; use algorithm="torch"'
        )
    return layer


def _pair(name: str, value: Pair, least: int) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or min(pair) < least:
        raise InputError(f"{name} must be one or two integers of at least {least}, got {value}")
    return pair


def _size(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def _map(function: Callable[[int], int]) -> tuple[int, int]:
    """A function of the axes: of the height, and of the width."""
    return function(0), function(1)
