"""How near a rendered image is to the true one: PSNR and SSIM."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def psnr(image: Tensor, truth: Tensor) -> float:
    """-10 log10 of the mean squared error, in dB, of values in [0, 1]; infinite for equal ones."""
    error = float((image.double() - truth.double()).square().mean())
    return math.inf if error == 0 else -10 * math.log10(error)


def ssim(image: Tensor, truth: Tensor) -> float | None:
    """The mean structural similarity of two images (C, H, W) in [0, 1]. Wang et al. 2004.

    A Gaussian window of 11 with sigma 1.5, K1 = 0.01, K2 = 0.03, each channel by itself, at the places whose window
    lies within the image. None for images smaller than the window.
    """
    if min(image.shape[-2:]) < _WINDOW:
        return None
    x = torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2
    line = torch.exp(-x.square() / (2 * _SIGMA**2))
    line = line / line.sum()

    def blur(values: Tensor) -> Tensor:
        values = values.double()[:, None]
        return F.conv2d(F.conv2d(values, line.view(1, 1, 1, -1)), line.view(1, 1, -1, 1))

    mean, true_mean = blur(image), blur(truth)
    variance, true_variance = blur(image.double() ** 2) - mean**2, blur(truth.double() ** 2) - true_mean**2
    both = blur(image.double() * truth.double()) - mean * true_mean
    above = (2 * mean * true_mean + _C1) * (2 * both + _C2)
    below = (mean**2 + true_mean**2 + _C1) * (variance + true_variance + _C2)
    return float((above / below).mean())
