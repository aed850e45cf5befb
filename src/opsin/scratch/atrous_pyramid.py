"""Atrous spatial pyramid pooling, and the receptive field block: one map, seen at several widths at once.

ASPP (Chen et al. 2016, arXiv:1606.00915; with a 1x1 and the mean of the map since 2017, arXiv:1706.05587): the same map
through convolutions of 3x3 whose taps are 1, 6, 12 and 18 pixels apart, side by side. A rate r reaches 2 r + 1 pixels
with nine weights; at the border, or on a small map, its outer taps fall on zeros, and it becomes a 1x1.

The receptive field block (Liu et al. 2017, arXiv:1711.07767) does what it takes the eye to do: a branch that looks
further is also blurred more, by a larger kernel before its dilated one: 1x1 then rate 1, 3x3 then rate 3, 5x5 then rate
5. The branches are put behind each other, mixed by a 1x1, scaled, and added to the map.

Both are convolutions and sums, so that their way back is that of `convolution`; here is the way forward.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from opsin.scratch.convolution import convolve


def plain(x: np.ndarray, weight: np.ndarray, rate: int = 1) -> np.ndarray:
    """A convolution without bias that keeps the size: x (B, C, H, W), weight (O, C, k, k), k odd."""
    border = rate * (weight.shape[-1] // 2)
    return convolve(x, weight, np.zeros(len(weight)), padding=border, dilation=rate)


def atrous_pyramid(x: np.ndarray, weights: Sequence[np.ndarray], rates: Sequence[int], mean: np.ndarray) -> np.ndarray:
    """The branches of DeepLab v3 behind each other, before they are mixed.

    x (B, C, H, W); weights: of each rate (O, C, k, k); mean (O, C, 1, 1): of the mean of the map.
    -> (B, (len(rates) + 1) O, H, W)
    """
    branches = [plain(x, weight, rate) for weight, rate in zip(weights, rates, strict=True)]
    whole = plain(x.mean(axis=(2, 3), keepdims=True), mean)
    return np.concatenate([*branches, np.broadcast_to(whole, branches[0].shape)], axis=1)


def receptive_field_block(
    x: np.ndarray,
    blurs: Sequence[np.ndarray],
    looks: Sequence[np.ndarray],
    rates: Sequence[int],
    mix: np.ndarray,
    scale: float = 0.1,
) -> np.ndarray:
    """x (B, C, H, W), of each branch blurs (M, C, k, k) and looks (M, M, 3, 3), mix (C, sum of M, 1, 1) -> as x."""
    branches = [
        plain(np.maximum(plain(x, blur), 0), look, rate) for blur, look, rate in zip(blurs, looks, rates, strict=True)
    ]
    return np.maximum(x + scale * plain(np.concatenate(branches, axis=1), mix), 0)


def reach(blur: int, rate: int) -> int:
    """How many pixels across a branch sees: a kernel of `blur`, then one of 3x3 at a rate."""
    return blur + 2 * rate


if __name__ == "__main__":
    x = np.zeros((1, 1, 5, 37))
    x[0, 0, 2, 18] = 1.0
    kernel, one = np.ones((1, 1, 3, 3)), np.ones((1, 1, 1, 1))
    y = atrous_pyramid(x, [one, kernel, kernel], [1, 6, 12], one)
    for branch, name in zip(y[0], ("1x1", "rate 6", "rate 12", "mean"), strict=True):
        seen = np.flatnonzero(branch[2])
        print(f"{name:8} a dot is seen by the middle row at", seen.tolist() if len(seen) < 9 else "all its places")
    print("a receptive field block's branches see", [reach(blur, rate) for blur, rate in ((1, 1), (3, 3), (5, 5))])
