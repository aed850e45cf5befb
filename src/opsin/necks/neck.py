"""What every neck is: the maps of a backbone -> maps for a head, each with what the other scales see."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.checks import check_count
from opsin.errors import InputError, unknown
from opsin.nn.conv import Activation, ConvNormActivation, Norm
from opsin.nn.norm import SteadyBatchNorm2d

ExtraFrom: TypeAlias = Literal["c5", "p5", "pool"]


class Neck(nn.Module, ABC):
    """[(B, in_channels[i], H / in_strides[i], W / in_strides[i])] -> [(B, channels[i], ...)], the finest map first.

    Sizes need not divide: what comes from another level is brought to the size of the level that it joins.
    channels, strides: of the maps that come out. Raises InputError for channels and strides that do not pair, strides
    that do not grow, and maps other than those that it was built for.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def __init__(self, channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        if not channels or len(channels) != len(strides):
            raise InputError(
                f"a neck takes the channels and the stride of each map, got {list(channels)} and {list(strides)}"
            )
        for value in channels:
            check_count("channels", value)
        for value in strides:
            check_count("a stride", value)
        if any(finer >= coarser for finer, coarser in pairwise(strides)):
            raise InputError(f"the maps come finest first, so strides must grow; got {list(strides)}")
        self.in_channels, self.in_strides = tuple(channels), tuple(strides)

    @abstractmethod
    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """maps: of the backbone, finest first."""

    def _check(self, maps: Sequence[Tensor]) -> None:
        name = type(self).__name__
        if len(maps) != len(self.in_channels):
            raise InputError(f"{name} was built for {len(self.in_channels)} maps, got {len(maps)}")
        for place, (x, channels) in enumerate(zip(maps, self.in_channels, strict=True)):
            if x.ndim != 4 or x.shape[1] != channels:
                raise InputError(
                    f"map {place} of {name} has {channels} channels, (B, {channels}, H, W); got {tuple(x.shape)}"
                )


def one_each(name: str, value: int | Sequence[int] | None, default: Sequence[int]) -> tuple[int, ...]:
    """A number for each map: that given for all, those given, or the defaults. Raises InputError for another count."""
    if value is None:
        return tuple(default)
    values = (value,) * len(default) if isinstance(value, int) else tuple(value)
    if len(values) != len(default):
        raise InputError(f"{name} must be one number or {len(default)}, one for each map; got {value!r}")
    return values


class Laterals(Neck):
    """No neck: every map goes to the head alone, as SSD's do.

    out_channels: None gives the maps as they came; a number brings all to as many by 1x1 convolutions, for heads that
    are shared by all levels. extra_levels, extra_from, extra_relu: see `ExtraLevels`.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        out_channels: int | None = None,
        extra_levels: int = 0,
        extra_from: ExtraFrom = "c5",
        extra_relu: bool = True,
        norm: Norm = None,
        activation: Activation = None,
    ) -> None:
        super().__init__(channels, strides)
        self.laterals = nn.ModuleList(
            nn.Identity()
            if out_channels is None
            else ConvNormActivation(width, out_channels, 1, norm=steady(norm), activation=activation)
            for width in channels
        )
        widths = tuple(channels) if out_channels is None else (out_channels,) * len(channels)
        self.extra = ExtraLevels(channels[-1], widths[-1], extra_levels, extra_from, extra_relu)
        self.channels = widths + (widths[-1],) * extra_levels
        self.strides = extra_strides(strides, extra_levels)
        initialize(self)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        self._check(maps)
        levels = [lateral(x) for lateral, x in zip(self.laterals, maps, strict=True)]
        return levels + self.extra(maps[-1], levels[-1])


class ExtraLevels(nn.Module):
    """Coarser levels than the backbone has, each half the size of the one before: P6 and P7.

    source "c5": the first by a 3x3 convolution of stride 2 on the backbone's last map, the next on that one. Lin et al.
    2017, arXiv:1708.02002, section 4 (RetinaNet). "p5": the same on the neck's last map. "pool": every other place of
    the neck's last map, without weights. Lin et al. 2016, arXiv:1612.03144, section 4.1.
    relu: before every such convolution but the first, as the paper has it before P7.
    """

    def __init__(
        self, in_channels: int, out_channels: int, count: int, source: ExtraFrom = "c5", relu: bool = True
    ) -> None:
        super().__init__()
        check_count("extra_levels", count, least=0)
        if source not in ("c5", "p5", "pool"):
            raise unknown("extra_from", source, ("c5", "p5", "pool"))
        self.count, self.source, self.relu = count, source, relu
        width = in_channels if source == "c5" else out_channels
        self.convs = nn.ModuleList(
            nn.Conv2d(out_channels if place else width, out_channels, 3, stride=2, padding=1)
            for place in range(0 if source == "pool" else count)
        )

    def forward(self, given: Tensor, last: Tensor) -> list[Tensor]:
        """given: the backbone's last map. last: the neck's."""
        levels: list[Tensor] = []
        if self.source == "pool":
            for _ in range(self.count):
                last = F.max_pool2d(last, 1, 2)
                levels.append(last)
            return levels
        x = given if self.source == "c5" else last
        for place, conv in enumerate(self.convs):
            x = conv(F.relu(x) if place and self.relu else x)
            levels.append(x)
        return levels

    def extra_repr(self) -> str:
        return f"count={self.count}, source={self.source!r}, relu={self.relu}"


def steady(norm: Norm) -> Norm:
    """A norm as a neck builds it: "batch" as `SteadyBatchNorm2d`, any other as it is."""
    return SteadyBatchNorm2d if norm == "batch" else norm


def extra_strides(strides: Sequence[int], count: int) -> tuple[int, ...]:
    """Strides with `count` more, each twice the one before."""
    return (*strides, *(strides[-1] << place for place in range(1, count + 1)))


def resize(x: Tensor, like: Tensor) -> Tensor:
    """The map at the size of another, by the nearest place above and left. One row too many is cut off below."""
    size = like.shape[-2:]
    if not torch.compiler.is_compiling() and x.shape[-2:] == size:
        return x  # without a copy; in an exported program, whose sizes may be open, there is no such question
    return F.interpolate(x, size=size, mode="nearest")


def initialize(module: nn.Module) -> None:
    """Convolutions as the detectors of the FPN line start them: uniform of variance 1 / fan-in, biases of 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
