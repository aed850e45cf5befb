"""Maps between subspaces: of one feature space on another of the same kind, or of one on another of any kind.

Subspace alignment: Fernando et al. 2013, "Unsupervised visual domain adaptation using subspace alignment", ICCV.
Procrustes: Schonemann 1966; between feature spaces, Wang and Mahadevan 2008, "Manifold alignment using Procrustes
analysis", ICML.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from opsin.errors import InputError


def principal_axes(features: np.ndarray, dims: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean, (D,), and the `dims` directions of largest variance, (D, dims), orthonormal. features: (n, D).

    Raises InputError where there are fewer directions than that.
    """
    if not 1 <= dims <= min(len(features) - 1, features.shape[1]):
        raise InputError(
            f"{len(features)} examples of {features.shape[1]} numbers span no subspace of {dims}; take fewer dimensions"
        )
    mean = features.mean(axis=0)
    centred = features - mean
    if len(features) < features.shape[1]:
        return mean, np.linalg.svd(centred, full_matrices=False)[2][:dims].T
    return mean, np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :dims]  # ascending; of many examples much cheaper


def align_subspaces(source: np.ndarray, target: np.ndarray, dims: int) -> tuple[np.ndarray, np.ndarray]:
    """Both domains in the target's subspace: X_S P_S P_S^T P_T and X_T P_T. Fernando et al. 2013, eq. 3 and 4.

    source: (n, D), target: (m, D), of one feature space; returns (n, dims) and (m, dims). No labels are needed.
    """
    mean_s, axes_s = principal_axes(source, dims)
    mean_t, axes_t = principal_axes(target, dims)
    return (source - mean_s) @ axes_s @ (axes_s.T @ axes_t), (target - mean_t) @ axes_t


@dataclass(frozen=True)
class SpaceMap:
    """How features of two spaces become comparable: each by its mean, axes and scale, and the first turned by Q too."""

    mean_s: np.ndarray
    axes_s: np.ndarray
    mean_t: np.ndarray
    axes_t: np.ndarray
    turn: np.ndarray

    def of_source(self, features: np.ndarray) -> np.ndarray:
        """(n, D_S) -> (n, dims), in the target's subspace."""
        return (features - self.mean_s) @ self.axes_s @ self.turn

    def of_target(self, features: np.ndarray) -> np.ndarray:
        """(m, D_T) -> (m, dims)."""
        return (features - self.mean_t) @ self.axes_t


def map_spaces(
    source: np.ndarray, labels: np.ndarray, target: np.ndarray, target_labels: np.ndarray, dims: int
) -> SpaceMap:
    """A map between different feature spaces, by the class means of a few labelled target examples.

    Each space is brought to its principal axes, of variance 1 there. Q is the rotation that minimises
    sum_k |mean_k(S) Q - mean_k(T)|^2 over the classes that both know: Q = U V^T of the singular value decomposition of
    sum_k mean_k(S)^T mean_k(T). source: (n, D_S), labels: (n,). target: (m, D_T), all of it, target_labels: (m,), -1
    where not known. Raises InputError without a class that both have labels of.
    """
    mean_s, axes_s = principal_axes(source, dims)
    mean_t, axes_t = principal_axes(target, dims)
    axes_s = axes_s / (((source - mean_s) @ axes_s).std(axis=0) + 1e-12)
    axes_t = axes_t / (((target - mean_t) @ axes_t).std(axis=0) + 1e-12)
    shared = np.intersect1d(labels[labels >= 0], target_labels[target_labels >= 0])
    if not len(shared):
        raise InputError("a map between feature spaces takes labels of some target examples, of the source's classes")
    one, other = (source - mean_s) @ axes_s, (target - mean_t) @ axes_t
    means_s = np.stack([one[labels == k].mean(axis=0) for k in shared])
    means_t = np.stack([other[target_labels == k].mean(axis=0) for k in shared])
    u, _, v = np.linalg.svd(means_s.T @ means_t)
    return SpaceMap(mean_s, axes_s, mean_t, axes_t, u @ v)


def oriented_gradients(images: np.ndarray, cell: int = 4, bins: int = 9) -> np.ndarray:
    """Histograms of gradients: of each cell of cell x cell pixels the gradient by orientation, each image of length 1.

    Dalal and Triggs 2005, "Histograms of oriented gradients for human detection", without blocks that overlap: central
    differences, orientations in [0, 180) degrees, each pixel shared by the two nearest bins. images: (N, H, W), H and W
    multiples of cell -> (N, H / cell * W / cell * bins).
    """
    count, height, width = images.shape
    if height % cell or width % cell:
        raise InputError(f"images of {height}x{width} are not of whole cells of {cell}; resize them")
    padded = np.pad(images.astype(np.float64), ((0, 0), (1, 1), (1, 1)), mode="edge")
    across, down = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2], padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    place = (np.arctan2(down, across) % np.pi) / np.pi * bins - 0.5
    low, share = np.floor(place).astype(int), place - np.floor(place)
    length = np.hypot(across, down)
    found = np.zeros((count, height // cell, width // cell, bins))
    for bin_, part in ((low % bins, 1 - share), ((low + 1) % bins, share)):
        for k in range(bins):
            votes = np.where(bin_ == k, length * part, 0.0)
            found[..., k] += votes.reshape(count, height // cell, cell, width // cell, cell).sum(axis=(2, 4))
    flat = found.reshape(count, -1)
    return flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-12)
