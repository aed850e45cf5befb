"""Padding as each framework does it, so that weights trained elsewhere give the same output here.

Along one axis, with n pixels, a window of k (dilated: d (k - 1) + 1), stride s, and a border of p on each side:

torch: floor((n + 2p - k) / s) + 1. Pixels below and right that the last window does not reach are dropped.
caffe: the same for convolution. Pooling rounds up, so that they are not dropped, and leaves out a last window that
    would begin at or beyond n + p (pooling_layer.cpp). Both sides alike: but on an even image a 3x3 of stride 2 never
    reads the row below, and so in effect pads above and left.
tf: SAME. ceil(n / s), whatever the window; as many zeros in all as that takes, and the odd one below and right.
    TensorFlow's VALID is torch's with p = 0.

What pools is never the padding: a maximum ignores it in all three. An average counts it in torch and Caffe (not what
hangs over beyond it, in Caffe's last window), and does not in TensorFlow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from opsin.checks import check_count
from opsin.errors import InputError, unknown

Framework: TypeAlias = Literal["torch", "tf", "caffe"]
Pair: TypeAlias = int | tuple[int, int]  # for height and width alike, or for each

FRAMEWORKS: tuple[Framework, ...] = ("torch", "tf", "caffe")


def output_size(
    size: int,
    kernel_size: int,
    stride: int = 1,
    *,
    padding: Framework = "torch",
    border: int = 0,
    dilation: int = 1,
    pooling: bool = False,
) -> int:
    """How many windows there are along one axis of a convolution, or of a pooling.

    size: pixels of the axis. border: pixels added on each side; "tf" adds what it needs, and takes none.
    Raises InputError where not one window fits.
    """
    check_framework(padding, border or None)
    for name, value in (("size", size), ("kernel_size", kernel_size), ("stride", stride), ("dilation", dilation)):
        check_count(name, value)
    check_count("border", border, least=0)
    if padding == "tf":
        return -(-size // stride)
    room = size + 2 * border - (dilation * (kernel_size - 1) + 1)
    if room < 0:
        raise InputError(
            f"a window of {size + 2 * border - room} does not fit into {size} pixels with a border of {border}; "
            "enlarge the input or the border"
        )
    if padding == "torch" or not pooling:
        return room // stride + 1
    windows = -(-room // stride) + 1
    # Caffe clips only where there is a border. Without one a window begins outside only if the stride is larger than
    # it; Caffe then fills in -FLT_MAX, which is of no use to anyone: clipped here as well.
    return windows - 1 if (windows - 1) * stride >= size + border else windows


def same_padding(size: int, kernel_size: int, stride: int = 1, dilation: int = 1) -> tuple[int, int]:
    """The zeros that TensorFlow's SAME puts before and behind an axis."""
    reach = dilation * (kernel_size - 1)
    total = reach - (size - 1) % stride  # (ceil(n / s) - 1) s + k - n
    if reach < stride - 1:  # else it is never negative; torch.export must not see a branch on the size
        total = cast(int, torch.sym_max(total, 0))
    return total // 2, total - total // 2


def pad_same(x: Tensor, kernel_size: Pair, stride: Pair = 1, dilation: Pair = 1, value: float = 0.0) -> Tensor:
    """(..., H, W) with TensorFlow's SAME padding around it."""
    kernels, strides, dilations = pair(kernel_size), pair(stride), pair(dilation)
    above, below = same_padding(x.shape[-2], kernels[0], strides[0], dilations[0])
    left, right = same_padding(x.shape[-1], kernels[1], strides[1], dilations[1])
    return F.pad(x, (left, right, above, below), value=value)


@dataclass(frozen=True)
class AtrousWindows:
    """Where a layer's windows stand on a map finer than the one that it was made for: the coarse one's, with holes.

    The coarse map is every `rate`-th row and column of the fine one, and there the windows see what they saw in it: a
    window takes every `rate`-th pixel, and its border is as many times wider. kernel_size, stride, border: of the layer
    as it was, for height and width. padding: whose rule they are placed by; "caffe" stands for pooling that rounds up.
    Windows that lie side by side (kernel_size = stride, no border), and those of layers that round up, may hang over
    below and right: so a map that is halved without a remainder stays as large as it was when it is not halved.
    """

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    rate: tuple[int, int]
    border: tuple[int, int] = (0, 0)
    padding: Framework = "torch"

    @property
    def wide_border(self) -> tuple[int, int]:
        """Pixels on each side of the fine map."""
        return self.rate[0] * self.border[0], self.rate[1] * self.border[1]

    def pads(self, x: Tensor) -> tuple[int, int, int, int]:
        """What to put around (B, C, H, W), for `F.pad`: left, right, above, below."""
        (above, below), (left, right) = (self._axis(axis, x.shape[2 + axis]) for axis in (0, 1))
        return left, right, above, below

    def _axis(self, axis: int, size: int) -> tuple[int, int]:
        kernel, stride, rate = self.kernel_size[axis], self.stride[axis], self.rate[axis]
        reach, coarse = rate * (kernel - 1), -(-size // rate)
        if self.padding == "tf":  # the size stays
            before = rate * same_padding(coarse, kernel, stride)[0]
            return before, reach - before
        border = self.border[axis]
        if border or (self.padding == "torch" and kernel != stride):
            return self.wide_border[axis], self.wide_border[axis]
        room = coarse - kernel
        windows = (-(-room // stride) if self.padding == "caffe" else room // stride) + 1
        # Not one more than the coarse map's windows account for: what follows must find its border where it was.
        places = cast(int, torch.sym_min(size, rate * stride * windows))
        return 0, places + reach - size


def check_framework(padding: str, border: object) -> None:
    """Raise InputError for an unknown framework, and for a border where TensorFlow finds its own."""
    if padding not in FRAMEWORKS:
        raise unknown("padding", padding, FRAMEWORKS)
    if padding == "tf" and border is not None:
        raise InputError(f"padding='tf' adds what it needs, got border={border}; leave the border out")


def pair(value: Pair, name: str = "value", least: int = 1) -> tuple[int, int]:
    """The number for height and the one for width; a list will do. Raises InputError for one below `least`."""
    height, width = value if isinstance(value, tuple | list) and len(value) == 2 else (value, value)
    check_count(name, height, least)
    check_count(name, width, least)
    return cast(tuple[int, int], (height, width))
