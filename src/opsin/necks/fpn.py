"""FPN: Feature Pyramid Networks for Object Detection.

Lin et al. 2016, arXiv:1612.03144. The idea: coarse maps know what is there, fine ones where; a top-down path adds what
the coarse ones know to the fine ones, and a head may then look at every scale with the same weights.
The paper has no norm and no activation in the pyramid (section 3: non-linearities had minor impacts), and upsamples by
the nearest place. RetinaNet adds P6 and P7 (arXiv:1708.02002): torchvision's first version of it, and so its published
weights, builds P6 on P5 where the paper takes C5.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from opsin.necks.neck import ExtraFrom, ExtraLevels, Neck, extra_strides, initialize, resize, steady
from opsin.nn.conv import Activation, ConvNormActivation, Norm


class FPN(Neck):
    """P_i = smooth_i(M_i), M_i = lateral_i(C_i) + up(M_{i+1}); lateral is 1x1, smooth 3x3.

    out_channels: d of the paper, of every map that comes out. top_down=False leaves the path out, and smoothing and
    laterals in: the paper's table 1 (d), "bottom-up pyramid". smooth=False leaves the 3x3 convolutions out.
    extra_levels, extra_from, extra_relu: coarser levels, see `ExtraLevels`. norm, activation: of every convolution but
    those of the extra levels; None is the paper.
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
        top_down: bool = True,
        smooth: bool = True,
        norm: Norm = None,
        activation: Activation = None,
    ) -> None:
        super().__init__(channels, strides)
        norm = steady(norm)
        self.laterals = nn.ModuleList(
            ConvNormActivation(width, out_channels, 1, norm=norm, activation=activation) for width in channels
        )
        self.smoothing = nn.ModuleList(
            ConvNormActivation(out_channels, out_channels, 3, norm=norm, activation=activation)
            if smooth
            else nn.Identity()
            for _ in channels
        )
        self.extra = ExtraLevels(channels[-1], out_channels, extra_levels, extra_from, extra_relu)
        self.top_down = top_down
        self.channels = (out_channels,) * (len(channels) + extra_levels)
        self.strides = extra_strides(strides, extra_levels)
        initialize(self)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        self._check(maps)
        merged = [lateral(x) for lateral, x in zip(self.laterals, maps, strict=True)]
        if self.top_down:
            for place in range(len(merged) - 2, -1, -1):
                merged[place] = merged[place] + resize(merged[place + 1], merged[place])
        levels = [smooth(x) for smooth, x in zip(self.smoothing, merged, strict=True)]
        return levels + self.extra(maps[-1], levels[-1])
