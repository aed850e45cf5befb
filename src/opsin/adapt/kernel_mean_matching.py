"""Kernel mean matching: weights of the sources' examples by which their mean in feature space is the target's.

Huang et al. 2006, "Correcting sample selection bias by unlabeled data", NIPS; Gretton et al. 2009.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from opsin.adapt.mean_discrepancy import gaussian_kernels, kernel_widths
from opsin.adapt.weighting import InstanceMethod
from opsin.errors import InputError

_MOST = 5000  # examples of a side: their kernel has as many numbers squared
_STEPS = 2000


def match_kernel_means(
    kernel: np.ndarray, kappa: np.ndarray, limit: float = 1000.0, tolerance: float | None = None
) -> np.ndarray:
    """The w, (n,), that minimise w^T K w / 2 - kappa^T w, 0 <= w_i <= B, |sum w - n| <= n eps. Huang et al., eq. 12.

    kernel: K, (n, n), k(x_i, x_j) of the sources. kappa: (n,), n / m times the sum over the target of k(x_i, t_j).
    limit: B. tolerance: eps, B / sqrt(n) if None, as the paper has it, at most 1.
    Solved by accelerated projected gradient; the set is convex, and so is the problem.
    """
    n = len(kernel)
    eps = min(1.0, limit / math.sqrt(n)) if tolerance is None else tolerance
    step = 1 / max(np.linalg.norm(kernel, 2), 1e-12)
    weights = moved = np.ones(n)
    t = 1.0
    for _ in range(_STEPS):
        new = _project(moved - step * (kernel @ moved - kappa), limit, n * (1 - eps), n * (1 + eps))
        t_new = (1 + math.sqrt(1 + 4 * t * t)) / 2
        moved = new + (t - 1) / t_new * (new - weights)
        change = np.abs(new - weights).max()
        weights, t = new, t_new
        if change < 1e-9:
            break
    return weights


def _project(values: np.ndarray, limit: float, least: float, most: float) -> np.ndarray:
    """The nearest point of the box [0, limit] whose sum is between two numbers: by a shift that all share."""
    inside = values.clip(0, limit)
    if least <= inside.sum() <= most:
        return inside
    wanted = least if inside.sum() < least else most
    low, high = -values.max() - limit, limit - values.min()
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if (values + middle).clip(0, limit).sum() < wanted else (low, middle)
    return (values + high).clip(0, limit)


class KernelMeanMatching(InstanceMethod):
    """The sources' examples are weighed so that their mean in feature space is the target's. Huang et al. 2006.

    limit: the largest weight.
    """

    def __init__(self, features: int, num_classes: int, num_sources: int, *, limit: float = 10.0) -> None:
        super().__init__(features, num_classes, num_sources)
        self.limit = limit

    def weigh(
        self, source: np.ndarray, target: np.ndarray, labels: np.ndarray, target_labels: np.ndarray
    ) -> np.ndarray:
        if max(len(source), len(target)) > _MOST:
            raise InputError(
                f"kernel_mean_matching compares all pairs, and there are {len(source)} and {len(target)} images; take "
                f"density_ratio, or at most {_MOST} of each (data.limit)"
            )
        one, other = torch.from_numpy(source).double(), torch.from_numpy(target).double()
        widths = kernel_widths(one, other, (1.0,))
        kernel = gaussian_kernels(one, one, widths).numpy()
        kappa = len(one) * gaussian_kernels(one, other, widths).mean(dim=1).numpy()
        return match_kernel_means(kernel, kappa, self.limit)
