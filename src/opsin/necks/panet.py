"""PANet: Path Aggregation Network for Instance Segmentation.

Liu et al. 2018, arXiv:1803.01534, section 3.1. The idea: from a fine map to the top of an FPN lead the hundred layers
of the backbone; a second path, bottom-up and a few layers short, brings exact places to the coarse levels.
`PANet` is the paper's, which adds maps. `ConcatPANet` is YOLOv4's (arXiv:2004.10934, section 3.3, figure 6), which puts
them side by side and lets five convolutions sort them out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from opsin.necks.fpn import FPN
from opsin.necks.neck import ExtraFrom, ExtraLevels, Neck, extra_strides, initialize, one_each, resize, steady
from opsin.nn.context import SPPBlock
from opsin.nn.conv import Activation, ConvNormActivation, Norm


class PANet(Neck):
    """N_1 = P_1, N_{i+1} = fuse_i(P_{i+1} + down_i(N_i)): down is 3x3 with stride 2, fuse 3x3, each with its ReLU.

    P is an FPN's, without norm or activation as in its paper unless given. bottom_up=False leaves the second path out:
    an FPN. extra_levels, extra_from, extra_relu: coarser levels, on N where they are not on C5; see `ExtraLevels`.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        out_channels: int = 256,
        extra_levels: int = 0,
        extra_from: ExtraFrom = "c5",
        extra_relu: bool = True,
        bottom_up: bool = True,
        norm: Norm = None,
        activation: Activation = None,
    ) -> None:
        super().__init__(channels, strides)
        self.fpn = FPN(channels, strides, out_channels=out_channels, norm=norm, activation=activation)
        norm = steady(norm)
        steps = len(channels) - 1 if bottom_up else 0
        self.down = nn.ModuleList(
            ConvNormActivation(out_channels, out_channels, 3, stride=2, norm=norm) for _ in range(steps)
        )
        self.fuse = nn.ModuleList(ConvNormActivation(out_channels, out_channels, 3, norm=norm) for _ in range(steps))
        self.extra = ExtraLevels(channels[-1], out_channels, extra_levels, extra_from, extra_relu)
        self.channels = (out_channels,) * (len(channels) + extra_levels)
        self.strides = extra_strides(strides, extra_levels)
        initialize(self)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        self._check(maps)
        levels = self.fpn(maps)
        for place, (down, fuse) in enumerate(zip(self.down, self.fuse, strict=True)):
            coarser = levels[place + 1]
            levels[place + 1] = fuse(coarser + resize(down(levels[place]), coarser))
        return levels + self.extra(maps[-1], levels[-1])


class ConcatPANet(Neck):
    """Top-down, then bottom-up, with maps side by side: T_i = five([lateral_i(C_i), up(reduce_i(T_{i+1}))]), then
    N_{i+1} = five([down_i(N_i), T_{i+1}]).

    five: 1x1, 3x3, 1x1, 3x3, 1x1, where the 3x3s double the channels. The top begins as five(C_top), with pooling at
    three more sizes in its middle if `spp`. out_channels: of each map, one number for all; None is half of what came
    in, YOLOv4's 128, 256, 512 of CSPDarknet-53. Convolutions have no bias but a norm, and activation "leaky_relu" is
    Darknet's, of slope 0.1.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        out_channels: int | Sequence[int] | None = None,
        extra_levels: int = 0,
        extra_from: ExtraFrom = "c5",
        extra_relu: bool = True,
        spp: bool = True,
        norm: Norm = "batch",
        activation: Activation = "leaky_relu",
    ) -> None:
        super().__init__(channels, strides)
        widths, norm = one_each("out_channels", out_channels, [max(1, width // 2) for width in channels]), steady(norm)
        activation = (lambda: nn.LeakyReLU(0.1, inplace=True)) if activation == "leaky_relu" else activation

        def conv(entering: int, leaving: int, kernel_size: int = 1, stride: int = 1) -> ConvNormActivation:
            return ConvNormActivation(entering, leaving, kernel_size, stride, norm=norm, activation=activation)

        def five(entering: int, width: int) -> nn.Sequential:
            wide = 2 * width
            return nn.Sequential(
                conv(entering, width), conv(width, wide, 3), conv(wide, width), conv(width, wide, 3), conv(wide, width)
            )

        self.top = five(channels[-1], widths[-1])
        if spp:  # three, pooling, three: what is pooled has four times the channels
            narrow, wide = widths[-1], 2 * widths[-1]
            pooled = [SPPBlock(), conv(4 * narrow, narrow), conv(narrow, wide, 3), conv(wide, narrow)]
            self.top = nn.Sequential(*self.top[:3], *pooled)
        pairs = list(zip(channels, widths, widths[1:], strict=False))
        self.reduce = nn.ModuleList(conv(coarser, width) for _, width, coarser in pairs)
        self.laterals = nn.ModuleList(conv(given, width) for given, width, _ in pairs)
        self.top_down = nn.ModuleList(five(2 * width, width) for _, width, _ in pairs)
        self.down = nn.ModuleList(conv(width, coarser, 3, 2) for _, width, coarser in pairs)
        self.bottom_up = nn.ModuleList(five(2 * coarser, coarser) for _, _, coarser in pairs)
        self.extra = ExtraLevels(channels[-1], widths[-1], extra_levels, extra_from, extra_relu)
        self.channels = widths + (widths[-1],) * extra_levels
        self.strides = extra_strides(strides, extra_levels)
        initialize(self)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        self._check(maps)
        levels = [*maps[:-1], self.top(maps[-1])]
        for place in range(len(maps) - 2, -1, -1):
            lateral = self.laterals[place](maps[place])
            above = resize(self.reduce[place](levels[place + 1]), lateral)
            levels[place] = self.top_down[place](torch.cat([lateral, above], dim=1))
        for place, (down, fuse) in enumerate(zip(self.down, self.bottom_up, strict=True)):
            coarser = levels[place + 1]
            levels[place + 1] = fuse(torch.cat([resize(down(levels[place]), coarser), coarser], dim=1))
        return levels + self.extra(maps[-1], levels[-1])
