"""Upsampling by a transposed convolution whose kernel interpolates, fixed or as where learning starts from."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.checks import check_count
from opsin.nn.naming import check_map


def bilinear_side(factor: int) -> Tensor:
    """The kernel (k,), k = 2f - f % 2, by which a transposed convolution of stride f interpolates along a side.

    It falls from the middle to both ends in steps of 1 / f, so that what two neighbouring places add to a pixel between
    them sums to 1.
    """
    size = 2 * check_count("factor", factor) - factor % 2
    return 1 - (torch.arange(size) - (size - 1) / 2).abs() / factor


def bilinear_kernel(factor: int) -> Tensor:
    """The kernel (k, k) of both sides: the product of `bilinear_side` with itself."""
    side = bilinear_side(factor)
    return side[:, None] * side[None, :]


class BilinearDeconvolution(nn.Module):
    """(B, C, H, W) -> (B, C, (H - 1) f + k, (W - 1) f + k), k = 2f - f % 2: nothing is cut off.

    Long et al. 2014, arXiv:1411.4038, section 3.3. The outermost f // 2 pixels or so on each side have only one
    neighbour, and fade to zero: they are to be cut. learned: a kernel for each pair of channels, which starts as the
    bilinear one from a channel to itself, (C, C, k, k) parameters; else one fixed kernel, a buffer.
    """

    side: Tensor

    def __init__(self, channels: int, factor: int, *, learned: bool = False) -> None:
        super().__init__()
        self.channels, self.factor, self.learned = check_count("channels", channels), factor, learned
        if learned:
            self.weight = nn.Parameter(torch.eye(channels)[:, :, None, None] * bilinear_kernel(factor))
        else:
            self.register_buffer("side", bilinear_side(factor), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        check_map(self, x)
        if self.learned:
            return F.conv_transpose2d(x, self.weight, stride=self.factor)
        # The kernel is a product of two, along the sides: k + k multiplications a place instead of k * k.
        side, stride = self.side.to(x.dtype).expand(self.channels, 1, -1), self.factor
        y = F.conv_transpose2d(x, side[..., None], stride=(stride, 1), groups=self.channels)
        return F.conv_transpose2d(y, side[..., None, :], stride=(1, stride), groups=self.channels)

    def extra_repr(self) -> str:
        return f"{self.channels}, factor={self.factor}, learned={self.learned}"


class BilinearUpsample(BilinearDeconvolution):
    """(B, C, H, W) -> (B, C, f H, f W): the border is repeated before, and the excess cut off behind.

    While the kernel is fixed, that is `torch.nn.functional.interpolate` in its bilinear mode, which is several times as
    fast.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.learned:
            check_map(self, x)
            return F.interpolate(x, scale_factor=float(self.factor), mode="bilinear", align_corners=False)
        height, width = x.shape[-2:]
        y = super().forward(F.pad(x, (1, 1, 1, 1), mode="replicate"))
        cut = self.factor + self.factor // 2  # of the repeated border, and of the half cell that fades
        return y[..., cut : cut + height * self.factor, cut : cut + width * self.factor]
