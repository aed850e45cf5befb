"""MLFPN: M2Det, A Single-Shot Object Detector based on Multi-Level Feature Pyramid Network.

Zhao et al. 2018, arXiv:1811.04533, section 3.1. The idea: every level of an FPN comes from mostly one depth of the
backbone, so two objects of one size, one simple and one intricate, are evaluated by the same features; here pyramid
follows on pyramid, and each scale of the result holds maps of eight depths.

base = FFMv1(maps of the backbone); pyramid_l = TUM(FFMv2(base, finest map of pyramid_{l-1})), the first without one
before it; SFAM puts the maps of one scale side by side and weighs their channels. The authors' release shares FFMv2's
convolution among all levels and SFAM's two among all scales, by repeating one module in a list, and normalises the
finest scale; the published counts are with that sharing, `shared=True`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from opsin.checks import check_count
from opsin.errors import InputError
from opsin.necks.neck import Neck, SteadyBatchNorm2d, extra_strides, resize
from opsin.nn.attention import squeeze_excitation
from opsin.nn.conv import ConvNormActivation

_norm = partial(SteadyBatchNorm2d, momentum=0.01)  # the release's
_conv = partial(ConvNormActivation, norm=_norm)


class FFMv1(nn.Module):
    """Feature fusion of the backbone's maps: the finest by 3x3, the coarser by 1x1 and upsampling, side by side.

    Figure 4 (a). The paper has two maps, stride 8 and 16 of VGG-16. base_channels: of the finest, and of all the
    coarser ones together.
    """

    def __init__(self, channels: Sequence[int], base_channels: tuple[int, int] = (256, 512)) -> None:
        super().__init__()
        fine, coarse = base_channels
        others = len(channels) - 1
        if others and coarse % others:
            raise InputError(f"base_channels[1]={coarse} cannot be dealt out to {others} coarser maps alike")
        self.reduce = _conv(channels[0], fine, 3)
        self.up_reduce = nn.ModuleList(_conv(width, coarse // others, 1) for width in channels[1:])
        self.out_channels = fine + (coarse if others else 0)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        fine = self.reduce(maps[0])
        coarse = [resize(reduce(x), fine) for reduce, x in zip(self.up_reduce, maps[1:], strict=True)]
        return torch.cat([fine, *coarse], dim=1)


class FFMv2(nn.Module):
    """The base, thinned by 1x1, beside the finest map of the pyramid before. Figure 4 (b)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.leach = _conv(in_channels, out_channels, 1)

    def forward(self, base: Tensor, finest: Tensor | None = None) -> Tensor:
        thinned = self.leach(base)
        return thinned if finest is None else torch.cat([thinned, finest], dim=1)


class TUM(nn.Module):
    """Thinned U-shaped module: 3x3s of stride 2 down, 3x3 laterals and nearest upsampling up, 1x1s behind. Fig. 4 (c).

    (B, in_channels, H, W) -> `scales` maps of `planes` channels, the finest first. shrink_last: the last step down is a
    3x3 without padding, for maps of which no half is left: 40, 20, 10, 5, 3, 1.
    """

    def __init__(self, in_channels: int, planes: int = 256, scales: int = 6, *, shrink_last: bool = False) -> None:
        super().__init__()
        check_count("scales", scales, least=2)
        widths = [in_channels, *[planes] * (scales - 1)]
        self.down = nn.ModuleList(_conv(width, planes, 3, 2) for width in widths[:-1])
        if shrink_last:
            self.down[-1] = _conv(widths[-2], planes, 3, border=0)
        self.top = _conv(planes, planes, 1)
        self.laterals = nn.ModuleList(_conv(width, planes, 3) for width in widths[:-1])
        self.smooth = nn.ModuleList(_conv(planes, planes, 1) for _ in widths[:-1])

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [x]
        for down in self.down:
            maps.append(down(maps[-1]))
        x = self.top(maps[-1])
        levels = [x]
        for place in range(len(maps) - 2, -1, -1):
            lateral = self.laterals[place](maps[place])
            x = resize(x, lateral) + lateral
            levels.append(self.smooth[place](x))  # what goes on upwards is not smoothed
        return levels[::-1]


class SFAM(nn.Module):
    """Scale-wise feature aggregation: the maps of one scale side by side, their channels weighed.

    pyramids, each of `scales` maps -> `scales` maps. The weighing is squeeze and excitation (arXiv:1709.01507), ratio
    16; shared: one for all scales. weigh=False leaves it out, as the released configurations do.
    """

    def __init__(self, channels: int, scales: int, *, shared: bool = False, weigh: bool = True) -> None:
        super().__init__()
        self.scales = scales
        made = (1 if shared else scales) if weigh else 0
        self.excite = nn.ModuleList(squeeze_excitation(channels, ratio=16) for _ in range(made))

    def forward(self, pyramids: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        scales = [torch.cat(maps, dim=1) for maps in zip(*pyramids, strict=True)]
        if not self.excite:
            return scales
        return [self.excite[place % len(self.excite)](x) for place, x in enumerate(scales)]


class MLFPN(Neck):
    """`levels` TUMs on the fused maps of a backbone, and SFAM: every map has out_channels.

    out_channels: levels times the channels of each TUM. extra_levels: scales beyond the maps that came in; M2Det has
    two maps and six scales. base_channels: see FFMv1. shared, sfam: see the module and `SFAM`. shrink_last: see `TUM`;
    the stride that the neck then tells of its last map is nominal.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        out_channels: int = 2048,
        extra_levels: int = 0,
        levels: int = 8,
        base_channels: tuple[int, int] = (256, 512),
        shared: bool = False,
        sfam: bool = True,
        shrink_last: bool = False,
    ) -> None:
        super().__init__(channels, strides)
        check_count("levels", levels)
        check_count("extra_levels", extra_levels, least=0)
        if out_channels % (2 * levels):
            raise InputError(
                f"out_channels={out_channels} cannot be dealt out to levels={levels} in pairs; "
                f"take a multiple of {2 * levels}"
            )
        scales, planes = len(channels) + extra_levels, out_channels // levels
        thin = planes // 2
        self.ffm_v1 = FFMv1(channels, base_channels)
        self.ffm_v2 = nn.ModuleList(FFMv2(self.ffm_v1.out_channels, thin) for _ in range(1 if shared else levels))
        self.tums = nn.ModuleList(
            TUM(thin + planes if place else thin, planes, scales, shrink_last=shrink_last) for place in range(levels)
        )
        self.sfam = SFAM(out_channels, scales, shared=shared, weigh=sfam)
        self.norm = SteadyBatchNorm2d(out_channels)
        self.channels = (out_channels,) * scales
        self.strides = extra_strides(strides, extra_levels)
        self._initialize()

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        self._check(maps)
        base = self.ffm_v1(maps)
        pyramids: list[list[Tensor]] = []
        for place, tum in enumerate(self.tums):
            fuse = self.ffm_v2[place % len(self.ffm_v2)]
            pyramids.append(tum(fuse(base, pyramids[-1][0] if pyramids else None)))
        finest, *coarser = self.sfam(pyramids)
        return [self.norm(finest), *coarser]

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
