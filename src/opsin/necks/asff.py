"""ASFF: Learning Spatial Fusion for Single-Shot Object Detection.

Liu et al. 2019, arXiv:1911.09516, section 3.2. The idea: where a place is an object for one level it is background for
the others, and a sum passes on their contradiction; so each place of each level learns how much of each level it takes,
weights that sum to 1.
Every level sees all others, brought to its channels and size: a coarser one by 1x1 and nearest upsampling, the next
finer one by 3x3 of stride 2, one that is k finer by k - 1 max-poolings before. The authors' release squeezes a map to
16 channels before its weight is read off it, where the paper's equation has one 1x1, and ends in a 3x3; both are here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.checks import check_count
from opsin.errors import InputError
from opsin.necks.neck import ExtraFrom, ExtraLevels, Neck, extra_strides, one_each, resize, steady
from opsin.nn.conv import ConvNormActivation, Norm


class ASFF(Neck):
    """y_l = expand_l(sum_n a_nl x_nl), a_l = softmax over n: any number of levels, the paper has three.

    inner_channels: at which each level is fused, one number for all; None is out_channels where that is one number,
    else the channels that came in. out_channels: of each map that comes out; None is inner_channels. In YOLOv3 the maps
    have 256, 256 and 512 channels, and 256, 512 and 1024 come out.
    weight_channels: 16, and 8 where RFB blocks take memory, in the release; None reads each weight off the map itself,
    as the paper writes it. expand=False leaves out the last 3x3. extra_levels, extra_from, extra_relu: coarser levels
    without fusion, see `ExtraLevels`.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        out_channels: int | Sequence[int] | None = None,
        inner_channels: int | Sequence[int] | None = None,
        weight_channels: int | None = 16,
        expand: bool = True,
        extra_levels: int = 0,
        extra_from: ExtraFrom = "c5",
        extra_relu: bool = True,
        norm: Norm = "batch",
    ) -> None:
        super().__init__(channels, strides)
        if inner_channels is None and isinstance(out_channels, int):
            inner_channels = out_channels
        inner = one_each("inner_channels", inner_channels, channels)
        widths = one_each("out_channels", out_channels, inner)
        if not expand and widths != inner:
            raise InputError(f"expand=False gives the inner channels {list(inner)}, not out_channels={list(widths)}")
        self.levels = nn.ModuleList(
            _Level(channels, place, width, leaving, weight_channels, expand, norm)
            for place, (width, leaving) in enumerate(zip(inner, widths, strict=True))
        )
        self.extra = ExtraLevels(channels[-1], widths[-1], extra_levels, extra_from, extra_relu)
        self.channels = widths + (widths[-1],) * extra_levels
        self.strides = extra_strides(strides, extra_levels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        self._check(maps)
        levels = [level(maps) for level in self.levels]
        return levels + self.extra(maps[-1], levels[-1])

    def weights(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """What each place of each level takes of each level: (B, levels, H, W), which sums to 1 over the levels."""
        self._check(maps)
        return [level.weigh(level.gather(maps)) for level in cast("Iterable[_Level]", self.levels)]


class _Level(nn.Module):
    """The fusion at one level."""

    def __init__(
        self,
        channels: Sequence[int],
        place: int,
        inner: int,
        leaving: int,
        weight_channels: int | None,
        expand: bool,
        norm: Norm,
    ) -> None:
        super().__init__()
        self.place = place
        self.match = nn.ModuleList(_match(width, inner, place - n, norm) for n, width in enumerate(channels))
        if weight_channels is not None:
            check_count("weight_channels", weight_channels)
        squeezed = inner if weight_channels is None else weight_channels
        self.squeeze = nn.ModuleList(
            nn.Identity() if weight_channels is None else _conv(inner, weight_channels, 1, 1, norm) for _ in channels
        )
        self.score = nn.Conv2d(squeezed * len(channels), len(channels), 1)
        self.expand = _conv(inner, leaving, 3, 1, norm) if expand else nn.Identity()

    def gather(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Every map with the channels and the size of this level's."""
        return [resize(match(x), maps[self.place]) for match, x in zip(self.match, maps, strict=True)]

    def weigh(self, gathered: Sequence[Tensor]) -> Tensor:
        squeezed = [squeeze(x) for squeeze, x in zip(self.squeeze, gathered, strict=True)]
        return F.softmax(self.score(torch.cat(squeezed, dim=1)), dim=1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        gathered = self.gather(maps)
        shares = self.weigh(gathered).split(1, dim=1)
        fused = gathered[0] * shares[0]
        for x, share in zip(gathered[1:], shares[1:], strict=True):
            fused = fused + x * share
        return self.expand(fused)


def _match(in_channels: int, out_channels: int, steps: int, norm: Norm) -> nn.Module:
    """A map of another level with the channels of this one. steps: levels up to it, negative for down."""
    if steps <= 0:
        return nn.Identity() if in_channels == out_channels else _conv(in_channels, out_channels, 1, 1, norm)
    pools = [nn.MaxPool2d(3, 2, 1) for _ in range(steps - 1)]
    return nn.Sequential(*pools, _conv(in_channels, out_channels, 3, 2, norm))


def _conv(in_channels: int, out_channels: int, kernel_size: int, stride: int, norm: Norm) -> ConvNormActivation:
    return ConvNormActivation(
        in_channels,
        out_channels,
        kernel_size,
        stride,
        norm=steady(norm),
        activation=lambda: nn.LeakyReLU(0.1, inplace=True),  # 0.1: YOLOv3's, on which the paper builds
    )
