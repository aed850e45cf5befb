"""Embeddings as points of a plane, to be looked at."""

from __future__ import annotations

import numpy as np

Array = np.ndarray
_ITERATIONS, _EARLY = 300, 100  # of descent, and how many of them with exaggerated attraction


def principal_components(points: Array, count: int = 2) -> tuple[Array, Array]:
    """The projection onto the directions of most variance, (N, count), and the share of it that each has, (count,).

    points: (N, D). The sign of each direction is that of its largest entry, so that a drawing does not flip.
    """
    centred = points - points.mean(axis=0)
    _, values, directions = np.linalg.svd(centred, full_matrices=False)
    directions = (
        directions[:count]
        * np.sign(directions[:count][range(len(directions[:count])), _largest(directions[:count])])[:, None]
    )
    found = np.zeros((len(points), count))
    found[:, : len(directions)] = centred @ directions.T
    share = np.zeros(count)
    share[: len(directions)] = values[:count] ** 2 / max(1e-30, float((values**2).sum()))
    return found, share


def _largest(directions: Array) -> Array:
    return np.abs(directions).argmax(axis=1)


def neighbour_embedding(points: Array, perplexity: float = 20.0, *, iterations: int = _ITERATIONS) -> Array:
    """t-SNE, exact: points that are near stay near, how far the others are says little. (N, D) -> (N, 2).

    Van der Maaten and Hinton 2008, JMLR 9. Starts at the principal components, so that the same points give the same
    drawing. perplexity: about how many neighbours each point has, at most a third of the points. For some hundreds.
    """
    count = len(points)
    if count < 4:
        return principal_components(points)[0]
    wanted = _affinities(points, min(perplexity, (count - 1) / 3))
    found = principal_components(points)[0]
    found = found / max(1e-12, float(found.std())) * 1e-2
    moved, gains = np.zeros_like(found), np.ones_like(found)
    rate = max(50.0, count / 12.0 / 4.0)
    for step in range(iterations):
        kernel = 1 / (1 + _squares(found))
        np.fill_diagonal(kernel, 0)
        gap = (wanted * (12.0 if step < _EARLY else 1.0) - kernel / kernel.sum()) * kernel
        slope = 4 * (gap.sum(axis=1)[:, None] * found - gap @ found)
        gains = np.where(slope * moved < 0, gains + 0.2, gains * 0.8).clip(0.01)
        moved = (0.5 if step < _EARLY else 0.8) * moved - rate * gains * slope
        found = found + moved
        found -= found.mean(axis=0)
    return found


def _squares(points: Array) -> Array:
    lengths = (points**2).sum(axis=1)
    return np.maximum(lengths[:, None] + lengths - 2 * points @ points.T, 0)


def _affinities(points: Array, perplexity: float) -> Array:
    """(N, N) symmetric, of sum 1: Gaussians around each point whose width gives them the perplexity."""
    squares = _squares(points.astype(np.float64))
    squares = squares / max(1e-30, float(np.median(squares[squares > 0])) if (squares > 0).any() else 1.0)
    found = np.zeros_like(squares)
    for i, row in enumerate(squares):
        others = np.delete(row, i)
        low, high = 0.0, np.inf
        precision, weights = 1.0, np.ones_like(others)
        for _ in range(50):
            weights = np.exp(-(others - others.min()) * precision)
            weights /= weights.sum()
            entropy = -(weights * np.log(np.maximum(weights, 1e-300))).sum()
            if abs(entropy - np.log(perplexity)) < 1e-5:
                break
            low, high = (precision, high) if entropy > np.log(perplexity) else (low, precision)
            precision = precision * 2 if np.isinf(high) else (low + high) / 2
        found[i, np.arange(len(row)) != i] = weights
    found = found + found.T
    return np.maximum(found / found.sum(), 1e-12)
