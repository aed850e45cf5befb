"""Convolutions: padded as any framework does, with norm and activation, separable, factorised, and channel moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import torch.nn.functional as F
from torch import Tensor, nn

from opsin.checks import check_count
from opsin.errors import InputError, unknown
from opsin.nn.activation import create_activation, works_inplace
from opsin.nn.norm import create_norm
from opsin.nn.padding import AtrousWindows, Framework, Pair, check_framework, pad_same, pair

Norm: TypeAlias = str | Callable[[int], nn.Module] | None
Activation: TypeAlias = str | Callable[[], nn.Module] | None


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding, which depends on the size of the input.

    windows: where they stand if the layer lost its stride to `opsin.nn.dilation`, whose SAME would shift them.
    """

    windows: AtrousWindows | None = None

    def forward(self, input: Tensor) -> Tensor:
        if self.windows is None:
            padded = pad_same(input, self.kernel_size, self.stride, self.dilation)  # type: ignore[arg-type]
        else:
            padded = F.pad(input, self.windows.pads(input))
        return self._conv_forward(padded, self.weight, self.bias)


class SameConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution that is TensorFlow's SAME: its stride times the input, the odd row cut off below."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        height, width = (n * s for n, s in zip(input.shape[-2:], self.stride, strict=True))
        return super().forward(input, output_size)[..., :height, :width]


def create_conv(
    in_channels: int,
    out_channels: int,
    kernel_size: Pair,
    stride: Pair = 1,
    *,
    padding: Framework = "torch",
    border: Pair | None = None,
    dilation: Pair = 1,
    groups: int = 1,
    bias: bool = True,
) -> nn.Conv2d:
    """A convolution padded as a framework pads (see `opsin.nn.padding`).

    border: zeros on each side, of height and width; None keeps the size at stride 1, 0 is TensorFlow's VALID. "tf" is
    SAME and takes none. groups = in_channels makes it depthwise. Caffe's convolution is torch's.
    Raises InputError for channels that the groups do not divide, and for a kernel that no border can keep the size of.
    """
    check_framework(padding, border)
    _check_channels(in_channels, out_channels, groups)
    kernels, strides = pair(kernel_size, "kernel_size"), pair(stride, "stride")
    dilations = pair(dilation, "dilation")
    options = {"dilation": dilations, "groups": groups, "bias": bias}
    if padding == "tf" and kernels != (1, 1):
        if strides == (1, 1):  # the padding no longer depends on the size, and torch has it
            return nn.Conv2d(in_channels, out_channels, kernels, padding="same", **options)
        return SameConv2d(in_channels, out_channels, kernels, strides, **options)
    if border is None:
        spans = [d * (k - 1) for k, d in zip(kernels, dilations, strict=True)]
        if any(span % 2 for span in spans):
            raise InputError(f"no border on both sides keeps the size for kernel_size={kernel_size}; pass border")
        border = spans[0] // 2, spans[1] // 2
    return nn.Conv2d(in_channels, out_channels, kernels, strides, pair(border, "border", least=0), **options)


def create_transposed_conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    *,
    padding: Framework = "torch",
    border: int | None = None,
    groups: int = 1,
    bias: bool = True,
) -> nn.ConvTranspose2d:
    """A transposed convolution, cut as a framework cuts: the gradient of that framework's convolution.

    border: pixels cut off on each side. None gives stride times the input in "torch" and "tf", which differ in where
    an odd pixel is cut (torch above and left, TensorFlow below and right), and in "caffe", which cuts both sides alike,
    one pixel less than that for an odd kernel_size - stride.
    """
    check_framework(padding, border)
    _check_channels(in_channels, out_channels, groups)
    check_count("kernel_size", kernel_size)
    check_count("stride", stride)
    options = {"groups": groups, "bias": bias}
    excess = kernel_size - stride  # the full output is that much larger than stride times the input
    if border is not None or (padding == "caffe" and excess >= 0):
        cut = -(-excess // 2) if border is None else border
        return nn.ConvTranspose2d(in_channels, out_channels, kernel_size, stride, cut, **options)
    if excess < 0:  # pixels that no window reaches, below and right; Caffe leaves them out
        missing = 0 if padding == "caffe" else -excess
        return nn.ConvTranspose2d(in_channels, out_channels, kernel_size, stride, 0, missing, **options)
    if padding == "tf":
        return SameConvTranspose2d(in_channels, out_channels, kernel_size, stride, excess // 2, **options)
    return nn.ConvTranspose2d(in_channels, out_channels, kernel_size, stride, -(-excess // 2), excess % 2, **options)


class ConvNormActivation(nn.Sequential):
    """A convolution, its norm, its activation, each of the latter two by name, as a function that builds it, or None.

    bias: None leaves it out before a norm, whose own shift makes it redundant. The rest is `create_conv`'s.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair = 3,
        stride: Pair = 1,
        *,
        padding: Framework = "torch",
        border: Pair | None = None,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool | None = None,
        norm: Norm = "batch",
        activation: Activation = "relu",
    ) -> None:
        conv = create_conv(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding=padding,
            border=border,
            dilation=dilation,
            groups=groups,
            bias=norm is None if bias is None else bias,
        )
        super().__init__(conv, *_norm(norm, out_channels), *_activation(activation))
        self.out_channels = out_channels


class SeparableConv(nn.Sequential):
    """A depthwise convolution, which looks at places, and a pointwise one, which mixes channels.

    order "mobilenet": depthwise, norm, activation, pointwise, norm, activation. Howard et al. 2017, arXiv:1704.04861,
    figure 3. order "xception": depthwise, pointwise, norm, activation; nothing in between, which its figure 10 finds
    better. Chollet 2017, arXiv:1610.02357, section 3, puts the pointwise one first but says, and his code does, this.
    Cost: k^2 M + M N instead of k^2 M N weights.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair = 3,
        stride: Pair = 1,
        *,
        order: Literal["mobilenet", "xception"] = "mobilenet",
        padding: Framework = "torch",
        dilation: Pair = 1,
        norm: Norm = "batch",
        activation: Activation = "relu",
    ) -> None:
        if order not in ("mobilenet", "xception"):
            raise unknown("order", order, ("mobilenet", "xception"))
        between = order == "mobilenet"
        depthwise = ConvNormActivation(
            in_channels,
            in_channels,
            kernel_size,
            stride,
            padding=padding,
            dilation=dilation,
            groups=in_channels,
            bias=norm is None and between,  # else the pointwise convolution or the norm brings one
            norm=norm if between else None,
            activation=activation if between else None,
        )
        pointwise = ConvNormActivation(in_channels, out_channels, 1, norm=norm, activation=activation)
        super().__init__(depthwise, pointwise)
        self.out_channels = out_channels


class FactorizedConv(nn.Sequential):
    """1xn, then nx1, in place of nxn: 2/n of the weights. Szegedy et al. 2015, arXiv:1512.00567, section 3.2.

    Each with its norm and activation. stride: n x 1 strides in height, 1 x n in width. middle_channels: between the
    two, as many as come out unless given.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 7,
        stride: int = 1,
        *,
        middle_channels: int | None = None,
        padding: Framework = "torch",
        norm: Norm = "batch",
        activation: Activation = "relu",
    ) -> None:
        middle = out_channels if middle_channels is None else middle_channels
        row, column = (1, kernel_size), (kernel_size, 1)
        super().__init__(
            ConvNormActivation(
                in_channels, middle, row, (1, stride), padding=padding, norm=norm, activation=activation
            ),
            ConvNormActivation(
                middle, out_channels, column, (stride, 1), padding=padding, norm=norm, activation=activation
            ),
        )
        self.out_channels = out_channels


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Deal out the channels of every group in turn, so that the next grouped convolution sees all groups.

    Zhang et al. 2017, arXiv:1707.01083, section 3.1. A fixed permutation: channel i of group g goes to i * groups + g.
    x: (B, C, ...). Raises InputError unless the groups divide C.
    """
    check_count("groups", groups)
    if x.shape[1] % groups:
        raise InputError(f"{x.shape[1]} channels cannot be shuffled in {groups} groups; take a divisor")
    return F.channel_shuffle(x, groups)


def channel_split(x: Tensor, parts: int | Sequence[int] = 2) -> tuple[Tensor, ...]:
    """Cut (B, C, ...) along its channels, without a copy. Ma et al. 2018, arXiv:1807.11164, section 3.

    parts: how many equal ones, or the channels of each. Raises InputError unless they make up C.
    """
    channels = x.shape[1]
    if isinstance(parts, int):
        check_count("parts", parts)
        if channels % parts:
            raise InputError(f"{channels} channels cannot be cut into {parts} equal parts; give the channels of each")
        parts = [channels // parts] * parts
    if sum(parts) != channels:
        raise InputError(f"parts {list(parts)} make {sum(parts)} channels, the map has {channels}")
    return x.split(list(parts), dim=1)


def _check_channels(in_channels: int, out_channels: int, groups: int) -> None:
    for name, value in (("in_channels", in_channels), ("out_channels", out_channels), ("groups", groups)):
        check_count(name, value)
    if in_channels % groups or out_channels % groups:
        raise InputError(f"groups={groups} must divide in_channels={in_channels} and out_channels={out_channels}")


def _norm(norm: Norm, channels: int) -> list[nn.Module]:
    if norm is None:
        return []
    return [create_norm(norm, channels) if isinstance(norm, str) else norm(channels)]


def _activation(activation: Activation) -> list[nn.Module]:
    if activation is None:
        return []
    if not isinstance(activation, str):
        return [activation()]
    # In place: one map less to hold for the backward pass.
    return [create_activation(activation, **({"inplace": True} if works_inplace(activation) else {}))]
