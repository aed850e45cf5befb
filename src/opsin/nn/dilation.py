"""Finer maps of a trained network: strides are taken out, and what follows is dilated by as much.

The hole algorithm, "a trous": Chen et al. 2014, arXiv:1412.7062, section 3.1; the stride at which a network is held is
called its output stride in Chen et al. 2017, arXiv:1706.05587, section 3.1. A layer that loses its stride of 2 has its
windows at every place instead of every second one, and what reads it takes every second of them: at the old places the
new map holds what the old one held, to the border, and between them is what it would hold for the image moved a bit.

The layer that loses its stride keeps its own dilation. Gates that look at a whole map (squeeze-excitation) take their
mean of the finer one, and so differ a little.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Protocol, TypeAlias, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from opsin.errors import InputError
from opsin.nn.conv import SameConv2d
from opsin.nn.padding import AtrousWindows, Pair, pair
from opsin.nn.pooling import AtrousAveragePool2d, AtrousMaxPool2d, SameAveragePool2d, SameMaxPool2d

Sides: TypeAlias = tuple[int, int]  # of height and width
Strides: TypeAlias = tuple[Fraction, Fraction] | None  # of a map, in pixels of the image; None if it does not grow


@runtime_checkable
class Dilatable(Protocol):
    """A layer of one's own that strides, or looks at neighbours, and can be changed as `dilate` needs it."""

    stride: int

    def dilate(self, rate: Sides, stride: Sides) -> None:
        """Look at every `rate`-th pixel of a map, and stride so far on it."""
        ...


_LAYERS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, SameMaxPool2d, Dilatable)


def dilate(
    network: nn.Module, limit: int, input_size: tuple[int, int, int], growth: int, *, tail: str, apart: str
) -> None:
    """Hold the maps of a network at a stride of at most `limit`, without a change to its weights or their names.

    input_size: (C, H, W) of an image that it takes; growth: pixels, a multiple of the stride of every map. tail: name
    of the part behind the maps, whose layers are dilated and keep their strides. apart: of one that is left as it is.
    The network is run on two small images without content, to see how much each map grows with them. Raises InputError
    for one whose strides do not divide, or that strides in a layer that cannot be dilated; it is of no use afterwards.
    """
    seen = _strides(network, input_size, growth)
    behind = seen[tail][0] if tail in seen else None
    for name, layer in list(network.named_modules()):
        taken, given = seen.get(name, (None, None))
        if taken is None or _in(name, apart):
            continue
        if not isinstance(layer, _LAYERS):
            if _works_on_its_own(layer, taken, given, limit):
                raise _refusal(network, limit, f"{name}, {layer}, strides or has kernels in a way of its own")
            continue
        own, free = pair(cast(Pair, layer.stride)), _in(name, tail)
        held = _hold(behind or taken, (1, 1), limit) if free else _hold(taken, own, limit)
        if held is None:
            raise _refusal(network, limit, f"{name} takes a map from stride {taken[0]} to {taken[0] * own[0]}")
        rate, stride = held[0], own if free else held[1]
        if rate != (1, 1) or stride != own:
            fresh = _dilated(layer, rate, stride)
            if fresh is None:
                raise _refusal(network, limit, f"{name}, {layer}, has no dilated form")
            network.set_submodule(name, fresh)
    for name, (_, given) in _strides(network, input_size, growth).items():
        if name and given is not None and max(given) > limit and not _in(name, tail) and not _in(name, apart):
            raise _refusal(network, limit, f"{name} strides outside of its layers")


def _works_on_its_own(layer: nn.Module, taken: tuple[Fraction, Fraction], given: Strides, limit: int) -> bool:
    """Whether a layer that is none of `_LAYERS` does what those do, where maps become finer."""
    strides = given not in (None, taken) and not any(layer.children())
    kernels = any(p.ndim > 2 and max(p.shape[2:]) > 1 for p in layer.parameters(recurse=False))
    return (kernels and max(taken) > limit) or (strides and max(*taken, *(given or taken)) > limit)


def _hold(taken: tuple[Fraction, Fraction], own: Sides, limit: int) -> tuple[Sides, Sides] | None:
    """How many times finer the map of a layer becomes, and the stride that it keeps; None if these are not whole."""
    held = [min(side, Fraction(limit)) for side in taken]
    rate = [side / at for side, at in zip(taken, held, strict=True)]
    stride = [min(side * step, limit) / at for side, step, at in zip(taken, own, held, strict=True)]
    if any(value.denominator != 1 for value in (*rate, *stride)):
        return None
    return (int(rate[0]), int(rate[1])), (int(stride[0]), int(stride[1]))


def _strides(network: nn.Module, input_size: tuple[int, int, int], growth: int) -> dict[str, tuple[Strides, Strides]]:
    """For each module the strides of the map that it takes and of the one that it gives: by how little they grow."""
    sizes: dict[str, list[tuple[Sides | None, Sides | None]]] = {}

    def note(name: str, inputs: tuple[object, ...], output: object) -> None:
        sizes.setdefault(name, []).append((_size(inputs[0]) if inputs else None, _size(output)))

    def hook(name: str, module: nn.Module) -> RemovableHandle:
        return module.register_forward_hook(lambda _, inputs, output: note(name, inputs, output))

    channels, height, width = input_size
    like = next(network.parameters(), torch.empty(0))
    trained = [module for module in network.modules() if module.training]
    hooks = [hook(name, module) for name, module in network.named_modules()]
    with torch.no_grad():
        network.eval()
        network(like.new_zeros(1, channels, height, width))
        network(like.new_zeros(1, channels, height + growth, width + growth))
    for one in hooks:
        one.remove()
    for module in trained:
        module.training = True

    def stride(before: Sides | None, after: Sides | None) -> Strides:
        if before is None or after is None or not (after[0] > before[0] and after[1] > before[1]):
            return None
        return Fraction(growth, after[0] - before[0]), Fraction(growth, after[1] - before[1])

    # Of a module that runs several times the first: twice as many calls in all, in the same order.
    found = {name: (calls[0], calls[len(calls) // 2]) for name, calls in sizes.items()}
    return {name: (stride(a[0], b[0]), stride(a[1], b[1])) for name, (a, b) in found.items()}


def _size(x: object) -> Sides | None:
    return (x.shape[2], x.shape[3]) if isinstance(x, Tensor) and x.ndim == 4 else None


def _dilated(layer: nn.Module | Dilatable, rate: Sides, stride: Sides) -> nn.Module | None:
    """What stands in a layer's place on a map `rate` times finer, with this stride; None where nothing can.

    What has weights stays itself.
    """
    if isinstance(layer, Dilatable):
        layer.dilate(rate, stride)
        return cast(nn.Module, layer)
    if type(layer) in (nn.Conv2d, SameConv2d):
        return _dilate_conv(cast(nn.Conv2d, layer), rate, stride)
    if isinstance(layer, SameMaxPool2d):
        windows = AtrousWindows(layer.kernel_size, layer.stride, rate, padding="tf")
        average = isinstance(layer, SameAveragePool2d)
        return AtrousAveragePool2d(windows, stride) if average else AtrousMaxPool2d(windows, stride)
    return _dilate_pool(layer, rate, stride)


def _dilate_conv(conv: nn.Conv2d, rate: Sides, stride: Sides) -> nn.Conv2d | None:
    kernel_size, dilation = cast(Sides, conv.kernel_size), cast(Sides, conv.dilation)
    if conv.padding_mode != "zeros":
        return None
    if isinstance(conv, SameConv2d):
        if dilation != (1, 1):
            return None
        conv.windows = AtrousWindows(kernel_size, cast(Sides, conv.stride), rate, padding="tf")
    elif conv.padding == "same":
        if any(d * (k - 1) % 2 for k, d in zip(kernel_size, dilation, strict=True)):
            return None  # its odd pixel is on one side, and would be on both
    elif not isinstance(conv.padding, str):
        conv.padding = tuple(p * r for p, r in zip(conv.padding, rate, strict=True))
    # A side of one has no neighbours to dilate.
    conv.dilation = tuple(d * r if k > 1 else d for k, d, r in zip(kernel_size, dilation, rate, strict=True))
    conv.stride = stride
    return conv


def _dilate_pool(pool: object, rate: Sides, stride: Sides) -> nn.Module | None:
    if type(pool) is nn.MaxPool2d:
        plain = pair(pool.dilation) == (1, 1)
    elif type(pool) is nn.AvgPool2d:
        plain = pool.divisor_override is None
    else:
        return None
    kernel_size, own, border = pair(pool.kernel_size), pair(pool.stride), pair(pool.padding, least=0)
    if pool.ceil_mode and (any(border) or any(k < n for k, n in zip(kernel_size, own, strict=True))):
        plain = False  # a last window may be left out then, which depends on the size
    if not plain:
        return None
    windows = AtrousWindows(kernel_size, own, rate, border, "caffe" if pool.ceil_mode else "torch")
    if isinstance(pool, nn.MaxPool2d):
        return AtrousMaxPool2d(windows, stride)
    return AtrousAveragePool2d(windows, stride, counts_border=pool.count_include_pad)


def _in(name: str, part: str) -> bool:
    return bool(part) and (name == part or name.startswith(f"{part}."))


def _refusal(network: nn.Module, limit: int, reason: str) -> InputError:
    return InputError(
        f"{type(network).__name__} cannot have output_stride={limit}: {reason}; take another network or another "
        "output_stride, or leave it out"
    )
