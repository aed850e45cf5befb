"""Factorised convolutions: one large kernel as a product of small ones.

In space: a kernel that is an outer product, K = column row^T, is a column and then a row, k + k weights for k^2
(Inception v3, Szegedy et al. 2015, arXiv:1512.00567, section 3.2); what a network learns so is of that kind.

In depth: each channel gets its own k x k kernel, and a 1x1 convolution mixes channels (Sifre 2014; MobileNet, Howard
et al. 2017, arXiv:1704.04861). For C channels in and O out that is C k^2 + C O weights instead of C O k^2, a share

    1 / O + 1 / k^2

of about a ninth for 3x3. Both are convolutions whose large kernel could be written out: `spatial_kernel` and
`separable_kernel` do it.
"""

from __future__ import annotations

import numpy as np

from opsin.scratch.convolution import convolve


def spatial(x: np.ndarray, column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """x (B, C, H, W), column (M, C, k, 1), row (O, M, 1, k) -> (B, O, H - k + 1, W - k + 1)."""
    return convolve(convolve(x, column, np.zeros(len(column))), row, np.zeros(len(row)))


def spatial_kernel(column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """The kernel (O, C, k, k) that does the same at once."""
    return np.einsum("mcu,omv->ocuv", column[..., 0], row[:, :, 0])


def separable(x: np.ndarray, depthwise: np.ndarray, pointwise: np.ndarray) -> np.ndarray:
    """x (B, C, H, W), depthwise (C, 1, k, k), pointwise (O, C, 1, 1) -> (B, O, H - k + 1, W - k + 1)."""
    each = convolve(x, depthwise, np.zeros(len(depthwise)), groups=len(depthwise))
    return convolve(each, pointwise, np.zeros(len(pointwise)))


def separable_kernel(depthwise: np.ndarray, pointwise: np.ndarray) -> np.ndarray:
    """The kernel (O, C, k, k) that does the same at once: for each pair of channels the same kernel, scaled."""
    return pointwise * depthwise[:, 0]


def weights(inputs: int, outputs: int, kernel: int) -> dict[str, int]:
    """How many weights each form has, with as many channels between a column and a row as come out."""
    return {
        "full": inputs * outputs * kernel**2,
        "column and row": inputs * outputs * kernel + outputs * outputs * kernel,
        "separable": inputs * kernel**2 + inputs * outputs,
    }


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 2, 5, 5))
    depthwise, pointwise = rng.normal(size=(2, 1, 3, 3)), rng.normal(size=(4, 2, 1, 1))
    whole = convolve(x, separable_kernel(depthwise, pointwise), np.zeros(4))
    print("largest difference to one large kernel:", np.abs(separable(x, depthwise, pointwise) - whole).max().round(12))
    for kernel in (3, 7):
        print(f"{kernel}x{kernel}, 256 channels to 256:", weights(256, 256, kernel))
