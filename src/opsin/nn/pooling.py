"""Pooling: padded as any framework does, over pyramids of bins, stochastic, and space to depth, which loses nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.checks import check_count
from opsin.errors import InputError, unknown
from opsin.nn.naming import build, check_map
from opsin.nn.padding import AtrousWindows, Framework, Pair, check_framework, pad_same, pair


class SameMaxPool2d(nn.Module):
    """Max pooling with TensorFlow's SAME padding, which is never the maximum."""

    def __init__(self, kernel_size: Pair, stride: Pair) -> None:
        super().__init__()
        self.kernel_size, self.stride = pair(kernel_size), pair(stride)

    def forward(self, x: Tensor) -> Tensor:
        x = pad_same(x, self.kernel_size, self.stride, value=-torch.inf)
        return F.max_pool2d(x, self.kernel_size, self.stride)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}"


class SameAveragePool2d(SameMaxPool2d):
    """Average pooling with TensorFlow's SAME padding, which is not counted."""

    def forward(self, x: Tensor) -> Tensor:
        inside = x.new_ones(1, 1, *x.shape[2:])
        total, share = (
            F.avg_pool2d(pad_same(y, self.kernel_size, self.stride), self.kernel_size, self.stride) for y in (x, inside)
        )
        return total / share


class AtrousMaxPool2d(nn.MaxPool2d):
    """Max pooling that lost its stride to `opsin.nn.dilation`; what it is padded with is never the maximum."""

    def __init__(self, windows: AtrousWindows, stride: Pair = 1) -> None:
        super().__init__(windows.kernel_size, pair(stride), windows.wide_border, dilation=windows.rate)
        self.windows = windows

    def forward(self, input: Tensor) -> Tensor:
        padded = F.pad(input, self.windows.pads(input), value=-torch.inf)
        return F.max_pool2d(padded, self.kernel_size, self.stride, dilation=self.dilation)


class AtrousAveragePool2d(nn.AvgPool2d):
    """Average pooling that lost its stride to `opsin.nn.dilation`, which torch's cannot be dilated for.

    counts_border: the border is counted as zeros, as in `nn.AvgPool2d`; what hangs over beyond it never is.
    """

    def __init__(self, windows: AtrousWindows, stride: Pair = 1, *, counts_border: bool = False) -> None:
        super().__init__(windows.kernel_size, pair(stride), windows.wide_border, count_include_pad=counts_border)
        self.windows, self.dilation = windows, windows.rate

    def forward(self, input: Tensor) -> Tensor:
        pads = self.windows.pads(input)
        # not new_ones: those who follow operators (`opsin.explain`) would take them for numbers of the map
        inside = torch.ones(1, 1, *input.shape[2:], dtype=input.dtype, device=input.device)
        border = float(self.count_include_pad and any(self.windows.border))
        return self._sum(F.pad(input, pads)) / self._sum(F.pad(inside, pads, value=border))

    def _sum(self, x: Tensor) -> Tensor:
        """Of every window: rows first, then columns."""
        for axis, (kernel, rate, stride) in enumerate(
            zip(self.windows.kernel_size, self.windows.rate, pair(self.stride), strict=True), start=2
        ):
            places = x.shape[axis] - rate * (kernel - 1)
            total = x.narrow(axis, 0, places)
            for tap in range(1, kernel):
                total = total + x.narrow(axis, rate * tap, places)
            x = total[:, :, ::stride] if axis == 2 else total[..., ::stride]
        return x

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, dilation={self.dilation}"


class SpatialPyramidPooling(nn.Module):
    """(B, C, H, W) of any size -> (B, C * sum of n^2): the map pooled in n x n bins for every level n.

    He et al. 2014, arXiv:1406.4729, section 2.2; bin i of n spans [floor(i H / n), ceil((i + 1) H / n)), appendix A.
    levels: (4, 2, 1) are figure 3's 21 bins, (6, 3, 2, 1) the experiments' 50. The output goes level by level, within
    one channel by channel, and within that row by row.
    """

    def __init__(self, levels: Sequence[int] = (4, 2, 1), mode: Literal["max", "average"] = "max") -> None:
        super().__init__()
        if not levels:
            raise InputError("levels is empty; give the bins of a side of every level, such as [4, 2, 1]")
        for level in levels:
            check_count("a level", level)
        if mode not in ("max", "average"):
            raise unknown("mode", mode, ("max", "average"))
        self.levels, self.mode = tuple(levels), mode

    def forward(self, x: Tensor) -> Tensor:
        check_map(self, x)
        pool = F.adaptive_max_pool2d if self.mode == "max" else F.adaptive_avg_pool2d
        return torch.cat([pool(x, level).flatten(1) for level in self.levels], dim=1)

    def extra_repr(self) -> str:
        return f"levels={self.levels}, mode={self.mode}"


class StochasticPool2d(nn.Module):
    """Draw one number of each window with a probability that is its share of the sum. Zeiler and Fergus 2013.

    arXiv:1301.3557. Evaluation weights the numbers with these probabilities (section 3.2). Windows are not padded. It
    pools the output of a ReLU: what is negative counts as 0, and a window of zeros gives 0. The gradient goes to the
    number that was drawn.
    """

    def __init__(self, kernel_size: int = 3, stride: int | None = None) -> None:
        super().__init__()
        check_count("kernel_size", kernel_size)
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        check_count("stride", self.stride)

    def forward(self, x: Tensor) -> Tensor:
        check_map(self, x)
        if min(x.shape[2:]) < self.kernel_size:
            raise InputError(f"a window of {self.kernel_size} does not fit into a map of {tuple(x.shape[2:])}")
        windows = x.relu().unfold(2, self.kernel_size, self.stride).unfold(3, self.kernel_size, self.stride).flatten(4)
        weights = windows.to(torch.promote_types(x.dtype, torch.float32))  # their squares overflow in half precision
        if self.training:
            # The smallest of exponential waiting times with these rates: it is each one's with the right probability.
            race = weights.detach() / torch.empty_like(weights).exponential_()
            return windows.gather(4, race.argmax(dim=4, keepdim=True)).squeeze(4)
        total = weights.sum(dim=4)
        total = torch.where(total == 0, torch.ones_like(total), total)
        return (weights.square().sum(dim=4) / total).to(x.dtype)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}"


class SpaceToDepth(nn.Module):
    """(B, C, H, W) -> (B, C s^2, H / s, W / s): squares of s x s places become channels. YOLOv2's passthrough layer.

    Redmon and Farhadi 2016, arXiv:1612.08242, section 2. order of the output's channels, (r, q) being row and column
    within a square:

    "torch": c s^2 + r s + q, pixel_unshuffle. "tf": (r s + q) C + c, TensorFlow's space_to_depth.
    "darknet": what Darknet's reorg layer does and YOLOv2's published weights expect. It takes the memory of the map for
    one of (C / s^2, H s, W s), orders that as "tf" does, and reads the result as (C s^2, H / s, W / s): output channels
    are no longer places of one input channel.
    """

    def __init__(self, stride: int = 2, order: Literal["torch", "tf", "darknet"] = "torch") -> None:
        super().__init__()
        check_count("stride", stride)
        if order not in ("torch", "tf", "darknet"):
            raise unknown("order", order, ("torch", "tf", "darknet"))
        self.stride, self.order = stride, order

    def forward(self, x: Tensor) -> Tensor:
        check_map(self, x)
        count, channels, height, width = x.shape
        s = self.stride
        if height % s or width % s:
            raise InputError(f"a map of {height}x{width} has no whole squares of {s}x{s}; pad it to multiples of {s}")
        if self.order == "torch":
            return F.pixel_unshuffle(x, s)
        if self.order == "tf":
            return _square_major(x, s)
        if channels % s**2:
            raise InputError(f"Darknet's order needs a multiple of {s**2} channels, got {channels}; use order='torch'")
        mistaken = x.reshape(count, channels // s**2, height * s, width * s)
        return _square_major(mistaken, s).reshape(count, channels * s**2, height // s, width // s)

    def extra_repr(self) -> str:
        return f"stride={self.stride}, order={self.order}"


def _square_major(x: Tensor, stride: int) -> Tensor:
    return F.pixel_unshuffle(x, stride).unflatten(1, (-1, stride**2)).transpose(1, 2).flatten(1, 2)


def _max(
    kernel_size: Pair = 2, stride: Pair | None = None, padding: Framework = "torch", border: int | None = None
) -> nn.Module:
    return _windowed(SameMaxPool2d, nn.MaxPool2d, kernel_size, stride, padding, border)


def _average(
    kernel_size: Pair = 2, stride: Pair | None = None, padding: Framework = "torch", border: int | None = None
) -> nn.Module:
    return _windowed(SameAveragePool2d, nn.AvgPool2d, kernel_size, stride, padding, border)


def _overlapping(
    kernel_size: Pair = 3, stride: Pair = 2, padding: Framework = "torch", border: int | None = None
) -> nn.Module:
    return _max(kernel_size, stride, padding, border)


def _global_average() -> nn.Module:
    return nn.AdaptiveAvgPool2d(1)


def _windowed(
    same: type[SameMaxPool2d],
    plain: type[nn.MaxPool2d | nn.AvgPool2d],
    kernel_size: Pair,
    stride: Pair | None,
    padding: Framework,
    border: int | None,
) -> nn.Module:
    check_framework(padding, border)
    kernels = pair(kernel_size, "kernel_size")
    strides = kernels if stride is None else pair(stride, "stride")
    if padding == "tf":
        return same(kernels, strides)
    check_count("border", border or 0, least=0)
    if 2 * (border or 0) > min(kernels):
        raise InputError(
            f"border={border} is more than half of kernel_size={kernel_size}; pad the input before instead"
        )
    return plain(kernels, strides, border or 0, ceil_mode=padding == "caffe")


_POOLS: Mapping[str, Any] = MappingProxyType(
    {
        "max": _max,
        "average": _average,
        "overlapping": _overlapping,
        "global_average": _global_average,
        "stochastic": StochasticPool2d,
        "spatial_pyramid": SpatialPyramidPooling,
    }
)


def list_pools() -> list[str]:
    """Names that `create_pool` knows."""
    return sorted(_POOLS)


def create_pool(name: str, **options: Any) -> nn.Module:
    """A pooling of maps (B, C, H, W) by name: max, average, overlapping, global_average, stochastic, spatial_pyramid.

    max and average: kernel_size (2), stride (the kernel's), padding "torch", "tf" or "caffe" as in `opsin.nn.padding`,
    border (0, pixels on each side; "tf" finds its own). overlapping is AlexNet's max of 3 with stride 2 (Krizhevsky
    et al. 2012, section 3.4). global_average leaves (B, C, 1, 1): Lin et al. 2013, arXiv:1312.4400, section 3.2.
    Raises InputError for an unknown name or option, with the nearest known ones, and for values that cannot be.
    """
    return build("pool", _POOLS, name, **options)
