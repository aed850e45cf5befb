"""Retrieval: whether the images nearest to an image show the same identity.

Every image that has another of its identity in the gallery is a query; its own place is no answer to itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from opsin.errors import InputError
from opsin.ops.nearest_neighbours import Neighbours, check_vectors, stream_neighbours

Array = np.ndarray
# (queries, gallery, k, leave_out) -> the neighbours of the queries, some at a time
Search: TypeAlias = Callable[[Tensor, Tensor, int, Tensor | None], Iterator[Neighbours]]
RECALLS = (1, 2, 4, 8)  # the K of Recall@K
LONGEST = 20  # ranks of the curve of cumulative matches
_CELLS = 1 << 24  # numbers that distances of another kind may be made of at once


@dataclass(frozen=True)
class Retrieval:
    """What `retrieve` found, of the Q queries in the order of their places.

    queries: (Q,) places. nearest, distances: (Q,) the place of the first answer in the gallery, and how far it is.
    right: (Q,) whether it is of the query's identity. matches: (LONGEST,) the share of queries with a right one among
    the first k. r_precision, average_precision: (Q,), see `retrieve`. lone: images that are no query, the only ones of
    their identity.
    """

    queries: Array
    nearest: Array
    distances: Array
    right: Array
    matches: Array
    r_precision: Array
    average_precision: Array
    lone: int

    def metrics(self, recalls: Sequence[int] = RECALLS) -> dict[str, float]:
        """The means over queries, by the metrics' names: recall@1, ..., r_precision, map@r."""
        found = {f"recall@{k}": float(self.matches[k - 1]) for k in recalls}
        return {**found, "r_precision": float(self.r_precision.mean()), "map@r": float(self.average_precision.mean())}


def retrieve(
    embeddings: Tensor,
    labels: Array,
    gallery: Tensor | None = None,
    gallery_labels: Array | None = None,
    *,
    search: Search | None = None,
) -> Retrieval:
    """Recall@K, R-precision and MAP@R of embeddings, in a memory that does not grow with their number squared.

    With R images of a query's identity in the gallery, R-precision is the share of them among the R nearest, and its
    average precision at R the mean over these R ranks of the precision so far where the rank is right and 0 where not:
    Musgrave et al. 2020, arXiv:2003.08505, section 2.2. Recall@K, which for queries of one gallery is the cumulative
    match curve, is whether any of the K nearest is right.

    embeddings: (N, D). labels: (N,) int64, -1 for no identity, which is in the gallery as one that nobody has. gallery,
    gallery_labels: of others; the embeddings themselves, each without its own, if None. search: how neighbours are
    found, by exact Euclidean distances if None. Raises InputError where no image is a query.
    """
    own = gallery is None or gallery_labels is None
    others, known = (embeddings, labels) if gallery is None or gallery_labels is None else (gallery, gallery_labels)
    counts = _counts(labels, known) - (own & (labels >= 0))
    queries = np.flatnonzero((counts > 0) & (labels >= 0))
    if not len(queries):
        raise InputError("no image has another of its identity to be found; retrieval needs two images of a person")
    most = min(len(others), max(LONGEST, int(counts[queries].max())))
    places = torch.from_numpy(queries)
    asked = check_vectors(embeddings, "the embeddings")[places.to(embeddings.device)]
    leave_out = places.to(embeddings.device) if own else None
    tally = _Tally(labels[queries], counts[queries], known)
    for part in (search or search_euclidean)(asked, others, most, leave_out):
        tally.add(part)
    return tally.result(queries, int((labels >= 0).sum() - len(queries)))


def _counts(labels: Array, known: Array) -> Array:
    """Of each label how many of the known have it: (N,)."""
    values, counts = np.unique(known[known >= 0], return_counts=True)
    if not len(values):
        return np.zeros(len(labels), np.int64)
    at = np.minimum(np.searchsorted(values, labels), len(values) - 1)
    return np.where(values[at] == labels, counts[at], 0)


class _Tally:
    """Counts right answers of queries, part by part. labels, counts: (Q,). known: (N,) of the gallery."""

    def __init__(self, labels: Array, counts: Array, known: Array) -> None:
        self.labels, self.counts, self.known, self.done = labels, counts, known, 0
        self.parts: list[tuple[Array, ...]] = []

    def add(self, part: Neighbours) -> None:
        """Take the neighbours of the next queries."""
        places, distances = part.places.cpu().numpy(), part.distances.cpu().numpy()
        rows = slice(self.done, self.done + len(places))
        self.done += len(places)
        right = (self.known[places] == self.labels[rows, None]) & np.isfinite(distances)
        counts, rank = self.counts[rows], np.arange(1, places.shape[1] + 1)
        within = right & (rank <= counts[:, None])
        precision = np.where(within, right.cumsum(axis=1) / rank, 0.0).sum(axis=1) / counts
        first = np.where(right.any(axis=1), right.argmax(axis=1), places.shape[1])
        self.parts.append((places[:, 0], distances[:, 0], first, within.sum(axis=1) / counts, precision))

    def result(self, queries: Array, lone: int) -> Retrieval:
        nearest, distances, first, r_precision, precision = (
            np.concatenate(column) for column in zip(*self.parts, strict=True)
        )
        matches = np.array([(first < k).mean() for k in range(1, LONGEST + 1)])
        return Retrieval(queries, nearest, distances, first == 0, matches, r_precision, precision, lone)


def search_euclidean(queries: Tensor, gallery: Tensor, k: int, leave_out: Tensor | None = None) -> Iterator[Neighbours]:
    """By exact Euclidean distances; see `opsin.ops.nearest_neighbours`."""
    return stream_neighbours(queries, gallery, k, leave_out=leave_out)


def search_by(distances: Callable[[Tensor, Tensor], Tensor]) -> Search:
    """By distances of whatever kind. distances: (Q, D) and (N, D) -> (Q, N)."""

    def search(queries: Tensor, gallery: Tensor, k: int, leave_out: Tensor | None = None) -> Iterator[Neighbours]:
        check_vectors(gallery, "the gallery")
        at_once = max(1, _CELLS // max(1, gallery.numel()))
        for start in range(0, len(queries), at_once):
            found = distances(queries[start : start + at_once], gallery)
            if leave_out is not None:
                found = found.scatter(1, leave_out[start : start + at_once, None], torch.inf)
            values, places = found.sort(dim=1, stable=True)
            yield Neighbours(values[:, :k], places[:, :k])

    return search


def search_faiss(queries: Tensor, gallery: Tensor, k: int, leave_out: Tensor | None = None) -> Iterator[Neighbours]:
    """By FAISS, exact too. Johnson et al. 2017, arXiv:1702.08734. Raises InputError where it is not installed."""
    try:
        import faiss
    except ImportError:
        raise InputError("FAISS is not installed: pip install 'opsin[embed]', or leave --faiss out") from None
    library, gallery = faiss, check_vectors(gallery, "the gallery")
    index = library.IndexFlatL2(gallery.shape[1])
    index.add(gallery.float().cpu().numpy())
    wanted = k if leave_out is None else min(k + 1, len(gallery))
    for start in range(0, len(queries), 1024):
        part = queries[start : start + 1024]
        squares, places = (torch.from_numpy(one) for one in index.search(part.float().cpu().numpy(), wanted))
        distances = squares.clamp(min=0).sqrt()
        if leave_out is not None:
            distances = distances.masked_fill(places == leave_out[start : start + 1024, None].cpu(), torch.inf)
            distances, order = distances.sort(dim=1, stable=True)
            places = places.gather(1, order)
        yield Neighbours(distances[:, :k], places[:, :k])
