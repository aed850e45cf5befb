"""Context: blocks that see a place at several scales at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.checks import check_count
from opsin.errors import InputError
from opsin.nn.conv import ConvNormActivation, Norm, SeparableConv
from opsin.nn.naming import check_map
from opsin.nn.norm import SteadyBatchNorm2d


class SPPBlock(nn.Module):
    """(B, C, H, W) -> (B, C (k + 1), H, W): max poolings of stride 1 beside the map itself. YOLOv3-SPP and YOLOv4.

    Bochkovskiy et al. 2020, arXiv:2004.10934, section 3.4. The output is in Darknet's order: the largest window first,
    the map itself last. kernel_sizes: odd.
    """

    def __init__(self, kernel_sizes: Sequence[int] = (5, 9, 13)) -> None:
        super().__init__()
        if not kernel_sizes:
            raise InputError("kernel_sizes is empty; YOLO's are [5, 9, 13]")
        for size in kernel_sizes:
            check_count("a kernel size", size)
            if size % 2 == 0:
                raise InputError(f"kernel sizes must be odd to keep the size of the map, got {size}")
        self.kernel_sizes = tuple(sorted(kernel_sizes))

    def forward(self, x: Tensor) -> Tensor:
        check_map(self, x)
        maps, seen = [x], 1
        for size in self.kernel_sizes:
            # The maximum of maxima: a window of 9 is one of 5 over one of 5, at 50 instead of 81 comparisons.
            step = size - seen + 1
            maps.append(F.max_pool2d(maps[-1], step, stride=1, padding=step // 2))
            seen = size
        return torch.cat(maps[::-1], dim=1)

    def extra_repr(self) -> str:
        return f"kernel_sizes={self.kernel_sizes}"


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: 1x1, dilated 3x3s, and the mean of the whole map, joined by a 1x1.

    Chen et al. 2017, arXiv:1706.05587, section 3.3 (DeepLabv3). (B, C, H, W) -> (B, out_channels, H, W).
    rates: (6, 12, 18) at output stride 16, twice that at 8. dropout: behind the last 1x1; torchvision has 0.5 there.
    separable: the 3x3s of DeepLabv3+, arXiv:1802.02611, section 3.1, in Xception's order.
    The mean is one pixel of each image: trained on one alone, its batch norm, which has no variance then, goes by its
    running statistics.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        rates: Sequence[int] = (6, 12, 18),
        *,
        norm: Norm = "batch",
        dropout: float = 0.0,
        separable: bool = False,
    ) -> None:
        super().__init__()
        branches: list[nn.Module] = [ConvNormActivation(in_channels, out_channels, 1, norm=norm)]
        for rate in rates:
            if separable:
                conv = SeparableConv(in_channels, out_channels, 3, order="xception", dilation=rate, norm=norm)
            else:
                conv = ConvNormActivation(in_channels, out_channels, 3, dilation=rate, norm=norm)
            branches.append(conv)
        self.branches = nn.ModuleList(branches)
        alone = SteadyBatchNorm2d if norm == "batch" else norm
        self.image = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), ConvNormActivation(in_channels, out_channels, 1, norm=alone)
        )
        self.project = ConvNormActivation((len(branches) + 1) * out_channels, out_channels, 1, norm=norm)
        self.dropout = nn.Dropout(dropout)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        check_map(self, x)
        image = self.image(x).expand(-1, -1, *x.shape[2:])  # one pixel: bilinear upsampling is a copy
        maps = [*(branch(x) for branch in self.branches), image]
        return self.dropout(self.project(torch.cat(maps, dim=1)))


class SummedASPP(nn.Module):
    """DeepLabv2's ASPP: branches of a dilated 3x3, each of which scores the classes by itself, and their sum.

    Chen et al. 2016, arXiv:1606.00915, section 3.2. (B, C, H, W) -> (B, out_channels, H, W). rates: (6, 12, 18, 24) at
    output stride 8; one alone, 12, is the field of view of DeepLabv1's LargeFOV. hidden_features: each branch is fc6,
    a 3x3 of its rate, fc7 and fc8, 1x1, with ReLU and dropout between, as on VGG-16; None: one 3x3, as on ResNet-101.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        rates: Sequence[int] = (6, 12, 18, 24),
        *,
        hidden_features: int | None = None,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if not rates:
            raise InputError("rates is empty; DeepLabv2's are [6, 12, 18, 24]")
        branches: list[nn.Module] = []
        for rate in rates:
            width = out_channels if hidden_features is None else hidden_features
            conv = nn.Conv2d(in_channels, width, 3, padding=rate, dilation=rate)
            if hidden_features is None:
                branches.append(conv)
                continue
            branches.append(
                nn.Sequential(
                    *(conv, nn.ReLU(inplace=True), nn.Dropout(dropout)),
                    *(nn.Conv2d(width, width, 1), nn.ReLU(inplace=True), nn.Dropout(dropout)),
                    nn.Conv2d(width, out_channels, 1),
                )
            )
        self.branches = nn.ModuleList(branches)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        check_map(self, x)
        total = self.branches[0](x)
        for branch in list(self.branches)[1:]:
            total = total + branch(x)
        return total


class ReceptiveField(nn.Module):
    """relu(shortcut(x) + scale * join(branches(x))): branches whose kernels grow, each dilated to match.

    Liu et al. 2018, arXiv:1711.07767, section 3.2. The eccentricity of a human receptive field grows with its size;
    so a small kernel looks at the middle and a large one, dilated, further out. `rfb` and `rfb_s` build the two kinds.
    """

    def __init__(self, branches: Sequence[nn.Module], join: nn.Module, shortcut: nn.Module, scale: float) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.join, self.shortcut, self.scale = join, shortcut, scale

    def forward(self, x: Tensor) -> Tensor:
        check_map(self, x)
        y = self.join(torch.cat([branch(x) for branch in self.branches], dim=1))
        return F.relu(self.shortcut(x) + self.scale * y)


def rfb(
    in_channels: int,
    out_channels: int,
    stride: int = 1,
    *,
    rates: Sequence[int] = (1, 3, 5),
    scale: float = 0.1,
    norm: Norm = "batch",
) -> ReceptiveField:
    """RFB: 1x1, 3x3 and 5x5 (as two 3x3), each followed by a 3x3 of its rate. Figure 4(a).

    Widths are those of the authors' code, rates the figure's; the code has (v, v + 1, 2v + 1), v being 1 or 2.
    in_channels: at least 16, for the branches are an eighth as wide.
    """
    narrow = _narrow(in_channels, 8)
    wide, middle = 2 * narrow, narrow // 2 * 3
    kernels = [
        [(wide, 1, stride)],
        [(narrow, 1, 1), (wide, 3, stride)],
        [(narrow, 1, 1), (middle, 3, 1), (wide, 3, stride)],
    ]
    return _receptive_field(in_channels, out_channels, kernels, rates, stride, scale, norm)


def rfb_s(
    in_channels: int,
    out_channels: int,
    stride: int = 1,
    *,
    rates: Sequence[int] = (1, 3, 3, 5),
    scale: float = 0.1,
    norm: Norm = "batch",
) -> ReceptiveField:
    """RFB-s, for maps of small objects: smaller kernels and more branches, 1x3 and 3x1 for 3x3. Figure 4(b).

    Widths are the authors' code's; there a stride above 1 fails, as two branches keep theirs at 1: here all have it.
    in_channels: at least 16, for the narrowest branch is an eighth as wide.
    """
    width = _narrow(in_channels, 4)
    half, middle = width // 2, width // 4 * 3
    kernels = [
        [(width, 1, stride)],
        [(width, 1, 1), (width, (3, 1), stride)],
        [(width, 1, 1), (width, (1, 3), stride)],
        [(half, 1, 1), (middle, (1, 3), 1), (width, (3, 1), stride)],
    ]
    return _receptive_field(in_channels, out_channels, kernels, rates, stride, scale, norm)


def _narrow(in_channels: int, share: int) -> int:
    check_count("in_channels", in_channels, least=16)
    return in_channels // share


def _receptive_field(
    in_channels: int,
    out_channels: int,
    kernels: Sequence[Sequence[tuple[int, int | tuple[int, int], int]]],
    rates: Sequence[int],
    stride: int,
    scale: float,
    norm: Norm,
) -> ReceptiveField:
    """Branches of (width, kernel size, stride), each closed by a 3x3 of its rate without activation."""
    if len(rates) != len(kernels):
        raise InputError(f"rates must be {len(kernels)}, one for each branch, got {list(rates)}")
    branches = []
    for layers, rate in zip(kernels, rates, strict=True):
        modules: list[nn.Module] = []
        width = in_channels
        for out, kernel_size, step in layers:
            modules.append(ConvNormActivation(width, out, kernel_size, step, norm=norm))
            width = out
        modules.append(ConvNormActivation(width, width, 3, dilation=rate, norm=norm, activation=None))
        branches.append(nn.Sequential(*modules))
    joined = sum(layers[-1][0] for layers in kernels)
    join = ConvNormActivation(joined, out_channels, 1, norm=norm, activation=None)
    shortcut = ConvNormActivation(in_channels, out_channels, 1, stride, norm=norm, activation=None)
    return ReceptiveField(branches, join, shortcut, scale)
