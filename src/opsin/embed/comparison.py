"""Pairs of a split compared: all of them, or those that a list names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from opsin.embed.verification import PairCounts, Roc
from opsin.errors import InputError

Array = np.ndarray
Distances = Callable[[Tensor, Tensor], Tensor]  # (M, D), (N, D) -> (M, N), the less the more alike
MOST = 5000  # images of which all pairs are compared; of more, those of identities at random
BINS = 80  # of histograms of distances
SHOWN = 12  # pairs of each kind for the report
_ROWS = 256


@dataclass(frozen=True)
class Comparison:
    """What comparing pairs gave.

    roc: the curve of all pairs. counts: (K,) of each identity that has pairs of its own, how many; distances: (S,) of
    these pairs, one identity after the other. edges: (BINS + 1,) of the histograms `same` and `different`, (BINS,).
    alike: the nearest pairs of two identities, unlike: the farthest of the same, each (distance, place, place). images:
    how many were compared.
    """

    roc: Roc
    counts: Array
    distances: Array
    edges: Array
    same: Array
    different: Array
    alike: list[tuple[float, int, int]]
    unlike: list[tuple[float, int, int]]
    images: int

    def right(self, threshold: float) -> Array:
        """(K,) of each identity, how many of its pairs are accepted."""
        starts = np.concatenate([[0], np.cumsum(self.counts)[:-1]])
        return np.add.reduceat((self.distances <= threshold).astype(np.int64), starts)


def exact_distances(first: Tensor, second: Tensor) -> Tensor:
    """Euclidean distances (M, N) float64, of a product of float64, which keeps eight digits of them."""
    one, other = first.double(), second.double()
    squares = one.square().sum(dim=1)[:, None] + other.square().sum(dim=1) - 2 * one @ other.T
    return squares.clamp_(min=0).sqrt_()


def compare_all(
    embeddings: Tensor, labels: Array, distances: Distances = exact_distances, at: float | None = None
) -> Comparison:
    """Every pair of the images of known identities, of at most 5,000 images. embeddings: (N, D). labels: (N,) int64.

    at: a threshold at which the curve's rates are exact.
    Raises InputError where there is no pair of the same identity, or none of two.
    """
    places = limit_images(labels)
    found, known = embeddings[torch.from_numpy(places)], labels[places]
    inside, people, ends, unlike = list[Array](), list[Array](), list[float](), list[tuple[float, int, int]]()
    for start, block, same, upper in _blocks(found, known, distances):
        rows, columns = np.nonzero(same & upper)
        inside.append(block[rows, columns])
        people.append(known[rows + start])
        ends += [float(block.min()), float(block.max())]
        farthest = np.argsort(-inside[-1], kind="stable")[:SHOWN]
        unlike += [(float(inside[-1][k]), int(rows[k]) + start, int(columns[k])) for k in farthest]
    genuine, owner = np.concatenate(inside), np.concatenate(people)
    counts, edges = PairCounts(genuine, at), _edges(np.array(ends))
    different, alike = np.zeros(BINS, np.int64), list[tuple[float, int, int]]()
    for start, block, same, upper in _blocks(found, known, distances):
        rows, columns = np.nonzero(~same & upper)
        values = block[rows, columns]
        counts.add(values)
        different += np.histogram(values, edges)[0]
        nearest = np.argpartition(values, SHOWN)[:SHOWN] if len(values) > SHOWN else np.arange(len(values))
        alike += [(float(values[k]), int(rows[k]) + start, int(columns[k])) for k in nearest]
    order = np.argsort(owner, kind="stable")
    return Comparison(
        roc=counts.roc(),
        counts=np.unique(owner, return_counts=True)[1],
        distances=genuine[order],
        edges=edges,
        same=np.histogram(genuine, edges)[0],
        different=different,
        alike=[(d, int(places[i]), int(places[j])) for d, i, j in sorted(alike)[:SHOWN]],
        unlike=[(d, int(places[i]), int(places[j])) for d, i, j in sorted(unlike, reverse=True)[:SHOWN]],
        images=len(places),
    )


def compare_pairs(distances: Array, same: Array, pairs: Array, people: Array, at: float | None = None) -> Comparison:
    """The same of listed pairs. distances: (P,). same: (P,) bool. pairs: (P, 2) places. people: (P,), of the first.

    Where nobody's identity is known, each pair stands for a person of its own.
    """
    roc, edges = Roc.of(distances, same, at), _edges(distances)
    owner = people[same]
    owner = np.where(owner < 0, np.arange(len(owner)) + int(people.max(initial=0)) + 1, owner)
    order, listed = np.argsort(owner, kind="stable"), list(zip(distances.tolist(), *pairs.T.tolist(), strict=True))
    return Comparison(
        roc=roc,
        counts=np.unique(owner, return_counts=True)[1],
        distances=distances[same][order],
        edges=edges,
        same=np.histogram(distances[same], edges)[0],
        different=np.histogram(distances[~same], edges)[0],
        alike=sorted(one for one, is_same in zip(listed, same, strict=True) if not is_same)[:SHOWN],
        unlike=sorted((one for one, is_same in zip(listed, same, strict=True) if is_same), reverse=True)[:SHOWN],
        images=len(np.unique(pairs)),
    )


def _edges(distances: Array) -> Array:
    """Of histograms of distances: from 0 where none is below."""
    low, high = min(0.0, float(distances.min())), float(distances.max())
    return np.linspace(low, high if high > low else low + 1.0, BINS + 1)


def limit_images(labels: Array, most: int = MOST) -> Array:
    """The places of images of known identities, at most `most`, all of an identity or none where there are several."""
    known = np.flatnonzero(labels >= 0)
    if len(known) <= most:
        return known
    chosen = list[int]()
    for label in np.random.RandomState(0).permutation(np.unique(labels[known])):
        if len(chosen) >= most:
            break
        chosen += np.flatnonzero(labels == label)[: max(2, most // 10)].tolist()
    return np.sort(np.array(chosen[:most], np.int64))


def _blocks(embeddings: Tensor, labels: Array, distances: Distances) -> Iterator[tuple[int, Array, Array, Array]]:
    """Some rows of all distances at a time: the first, the distances, which are of the same, which are new."""
    columns = np.arange(len(labels))
    for start in range(0, len(labels), _ROWS):
        rows = slice(start, start + _ROWS)
        block = distances(embeddings[rows], embeddings).cpu().numpy()
        if not np.isfinite(block).all():
            raise InputError("a distance is not finite; the network that made the embeddings has diverged")
        yield start, block, labels[rows, None] == labels, columns > columns[rows, None]
