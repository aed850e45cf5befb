"""Pose-based data balancing: shapes seen rarely, such as faces from the side, are trained on as often as others.

Feng et al. 2018 (Wing loss, arXiv:1711.06753), section 6: shapes are aligned with their mean (Procrustes), the first
principal component of what is left is how a face is turned, and each bin of it is filled up by repeating its images,
which are augmented anew each time.
"""

from __future__ import annotations

import numpy as np

from opsin.data.loading import derive_seed
from opsin.data.point_sets import known_points, mean_shape

_ROUNDS = 3  # of aligning with a new mean
_MOST = 4  # times as many examples an epoch as there are, at most
_BALANCING = 0xBA1A


def align(shape: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """A shape (P, 2) moved, scaled and turned so that it is as near to a mean shape, centred at 0, as can be."""
    centred = shape - shape.mean(axis=0)
    # As complex numbers, the best factor turns and scales at once: <centred, mean> / |centred|^2.
    one, other = centred @ (1, 1j), mean @ (1, 1j)
    length = float((np.abs(one) ** 2).sum())
    factor = np.vdot(one, other) / length if length > 0 else 1.0
    turned = one * factor
    return np.stack([turned.real, turned.imag], axis=1)


def poses_of(points: np.ndarray) -> np.ndarray:
    """How each of shapes (N, P, 2) is turned: its first principal coordinate, (N,). Points not known are the mean's."""
    mean = np.nan_to_num(mean_shape(points))
    known = known_points(points)
    shapes = []
    for own, there in zip(points.astype(np.float64), known, strict=True):
        if there.sum() < 2:
            shapes.append(mean)
            continue
        fitted = align(mean[there], own[there] - own[there].mean(axis=0))  # the mean where the shape is, for what lacks
        scale = np.linalg.norm(fitted) / max(np.linalg.norm(mean[there] - mean[there].mean(axis=0)), 1e-9)
        filled = (mean - mean[there].mean(axis=0)) * scale + own[there].mean(axis=0)
        shapes.append(np.where(there[:, None], own, filled))
    target = mean - mean.mean(axis=0)
    aligned = np.stack([align(shape, target) for shape in shapes])
    for _ in range(_ROUNDS):
        target = aligned.mean(axis=0)
        target -= target.mean(axis=0)
        aligned = np.stack([align(shape, target) for shape in shapes])
    flat = (aligned - aligned.mean(axis=0)).reshape(len(points), -1)
    _, _, axes = np.linalg.svd(flat, full_matrices=False)
    return flat @ axes[0]


def bins_of(poses: np.ndarray, count: int) -> np.ndarray:
    """Of each pose its bin, (N,) int64, of `count` of one width between the smallest and the largest."""
    low, high = float(poses.min()), float(poses.max())
    width = max((high - low) / count, 1e-12)
    return np.minimum(((poses - low) / width).astype(np.int64), count - 1)


class BalancedOrder:
    """The global batches of each epoch: every example, and those of smaller bins again until all bins are as full.

    bins: of each example. size: of a batch. An epoch has four times as many examples as there are, at most.
    """

    def __init__(self, bins: np.ndarray, size: int, seed: int) -> None:
        self.bins, self.size, self.seed = bins, size, seed
        counts = np.bincount(bins)
        there = counts[counts > 0]
        self.wanted = min(int(there.max()), max(1, _MOST * len(bins) // len(there)))

    def __call__(self, epoch: int) -> list[np.ndarray]:
        random = np.random.RandomState(derive_seed(self.seed, epoch, _BALANCING) % (1 << 32))
        chosen = []
        for number in np.unique(self.bins):
            own = random.permutation(np.flatnonzero(self.bins == number))
            more = max(0, self.wanted - len(own))
            chosen += [own, own[np.arange(more) % len(own)]]
        places = random.permutation(np.concatenate(chosen))
        count = max(1, len(places) // self.size)
        return [places[k * self.size : (k + 1) * self.size] for k in range(count)]
