"""Upsampling by a transposed convolution whose kernel interpolates, fixed or as where learning starts from."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.checks import check_count
from opsin.nn.naming import check_map


def bilinear_kernel(factor: int) -> Tensor:
    """The kernel (k, k), k = 2f - f % 2, by which a transposed convolution of stride f interpolates bilinearly.

    Along a side it falls from the middle to both ends in steps of 1 / f, so that what two neighbouring places add to a
    pixel between them sums to 1.
    """
    size = 2 * check_count("factor", factor) - factor % 2
    side = 1 - (torch.arange(size) - (size - 1) / 2).abs() / factor
    return side[:, None] * side[None, :]


class BilinearDeconvolution(nn.Module):
    """(B, C, H, W) -> (B, C, (H - 1) f + k, (W - 1) f + k), k = 2f - f % 2: nothing is cut off.

    Long et al. 2014, arXiv:1411.4038, section 3.3. The outermost f // 2 pixels or so on each side have only one
    neighbour, and fade to zero: they are to be cut. learned: a kernel for each pair of channels, which starts as the
    bilinear one from a channel to itself, (C, C, k, k) parameters; else one fixed kernel, a buffer.
    """

    kernel: Tensor

    def __init__(self, channels: int, factor: int, *, learned: bool = False) -> None:
        super().__init__()
        self.channels, self.factor, self.learned = check_count("channels", channels), factor, learned
        kernel = bilinear_kernel(factor)
        if learned:
            self.weight = nn.Parameter(torch.eye(channels)[:, :, None, None] * kernel)
        else:
            self.register_buffer("kernel", kernel[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        check_map(self, x)
        if self.learned:
            return F.conv_transpose2d(x, self.weight, stride=self.factor)
        kernels = self.kernel.to(x.dtype).expand(self.channels, -1, -1, -1)
        return F.conv_transpose2d(x, kernels, stride=self.factor, groups=self.channels)

    def extra_repr(self) -> str:
        return f"{self.channels}, factor={self.factor}, learned={self.learned}"


class BilinearUpsample(BilinearDeconvolution):
    """(B, C, H, W) -> (B, C, f H, f W): the border is repeated before, and the excess cut off behind.

    While the kernel is fixed, the same as `torch.nn.functional.interpolate` in its bilinear mode.
    """

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        y = super().forward(F.pad(x, (1, 1, 1, 1), mode="replicate"))
        cut = self.factor + self.factor // 2  # of the repeated border, and of the half cell that fades
        return y[..., cut : cut + height * self.factor, cut : cut + width * self.factor]
