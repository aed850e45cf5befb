"""Exact nearest neighbours of vectors: every one is compared with every other, in a memory that does not grow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from opsin.checks import check_count
from opsin.errors import InputError, unknown

Measure: TypeAlias = Literal["euclidean", "cosine"]
_BLOCK = 1024  # queries, and vectors of the gallery, that are compared at once: their distances stay in the cache
_GROUP = 8  # consecutive vectors of the gallery of which the smallest distance is kept
_WIDE = 16  # groups of which the smallest is looked for first
_SPARE = 8  # neighbours beyond those asked for, in case that rounding has exchanged some
_CELLS = 1 << 23  # numbers of the vectors that are compared exactly at once: 32 MiB


@dataclass(frozen=True)
class Neighbours:
    """Of each query the nearest of a gallery, the nearest first.

    distances: (Q, k) float, of differences, not of a matrix product. places: (Q, k) int64, in the gallery.
    """

    distances: Tensor
    places: Tensor


def nearest_neighbours(
    queries: Tensor, gallery: Tensor, k: int, *, measure: Measure = "euclidean", leave_out: Tensor | None = None
) -> Neighbours:
    """The k nearest vectors of a gallery for each query: all are looked at, some tens of MiB of distances at a time.

    queries: (Q, D) float. gallery: (N, D) float. measure: "euclidean" distance, or "cosine", 1 - the cosine of the
    angle. leave_out: (Q,) int64, of each query the place that is no neighbour, its own where it lies in the gallery;
    -1 for none. Where there are fewer than k, the rest are at a distance of infinity. Of equal distances the one of the
    lower place comes first, as far as they are among those compared exactly. Raises InputError for
    vectors that are not finite.
    """
    parts = list(stream_neighbours(queries, gallery, k, measure=measure, leave_out=leave_out))
    if not parts:
        empty = queries.new_zeros((0, k))
        return Neighbours(empty, empty.long())
    return Neighbours(torch.cat([one.distances for one in parts]), torch.cat([one.places for one in parts]))


def stream_neighbours(
    queries: Tensor, gallery: Tensor, k: int, *, measure: Measure = "euclidean", leave_out: Tensor | None = None
) -> Iterator[Neighbours]:
    """`nearest_neighbours` of the queries in order, a few at a time."""
    queries, gallery = check_vectors(queries, "queries"), check_vectors(gallery, "the gallery")
    check_count("k", k)
    if measure not in ("euclidean", "cosine"):
        raise unknown("measure", measure, ("euclidean", "cosine"))
    if queries.shape[1] != gallery.shape[1]:
        raise InputError(
            f"queries have {queries.shape[1]} numbers and the gallery {gallery.shape[1]}; both have as many"
        )
    if measure == "cosine":
        queries, gallery = F.normalize(queries), F.normalize(gallery)
    search = _Search(gallery, k, measure)
    for start in range(0, len(queries), _BLOCK):
        own = None if leave_out is None else leave_out[start : start + _BLOCK]
        yield search.find(queries[start : start + _BLOCK], own)


def check_vectors(vectors: Tensor, name: str) -> Tensor:
    """Vectors (N, D) as float32, float64 as it is. Raises InputError for others, and where one is not finite."""
    if vectors.ndim != 2:
        raise InputError(f"{name} are vectors (N, D), got {tuple(vectors.shape)}")
    vectors = vectors.detach()
    vectors = vectors if vectors.dtype == torch.float64 else vectors.float()
    finite = torch.isfinite(vectors).all(dim=1)
    if not bool(finite.all()):
        count, first = int((~finite).sum()), int((~finite).nonzero()[0])
        raise InputError(
            f"{count:,} of {len(vectors):,} vectors of {name} are not finite, the first is number {first}; "
            "the network that made them has diverged, or its input holds NaN"
        )
    return vectors


class _Search:
    """A gallery, and room for the distances of 1,024 queries to a part of it."""

    def __init__(self, gallery: Tensor, k: int, measure: Measure) -> None:
        self.k, self.measure, self.count = k, measure, len(gallery)
        self.blocks = max(1, -(-len(gallery) // _BLOCK))
        lacking = self.blocks * _BLOCK - len(gallery)
        self.gallery = F.pad(gallery, (0, 0, 0, lacking)) if lacking else gallery
        self.taken = min(self.blocks * _BLOCK // _GROUP, k + 1 + _SPARE)
        self.centre = gallery.mean(dim=0) if len(gallery) else gallery.new_zeros(gallery.shape[1])
        # Less the gallery's mean a product of float32 loses fewest digits. A group's vectors lie a row apart, so that
        # the smallest of each is found along the rows.
        moved = (self.gallery - self.centre).view(self.blocks, _BLOCK // _GROUP, _GROUP, -1)
        self.moved = moved.transpose(1, 2).reshape(self.blocks, _BLOCK, -1)
        self.squares = self.moved.square().sum(dim=2)
        if lacking:
            number = torch.arange(self.blocks * _BLOCK, device=gallery.device).view(self.blocks, -1, _GROUP)
            self.squares[number.transpose(1, 2).flatten(1) >= len(gallery)] = torch.inf
        self.scratch = gallery.new_empty(0)

    def find(self, queries: Tensor, leave_out: Tensor | None) -> Neighbours:
        """The neighbours of a few queries. leave_out: (Q,), or None."""
        groups = self._nearest_groups(queries - self.centre).sort(dim=1).values
        at_once = max(1, _CELLS // (groups.shape[1] * _GROUP * queries.shape[1]))
        own = [None] * len(queries) if leave_out is None else leave_out[:, None].split(at_once)
        parts = [self._rank(*one) for one in zip(queries.split(at_once), groups.split(at_once), own, strict=False)]
        distances, places = (torch.cat(column) for column in zip(*parts, strict=True))
        if (lacking := self.k - places.shape[1]) > 0:
            distances, places = F.pad(distances, (0, lacking), value=torch.inf), F.pad(places, (0, lacking))
        return Neighbours(distances, places)

    def _rank(self, queries: Tensor, groups: Tensor, leave_out: Tensor | None) -> tuple[Tensor, Tensor]:
        """The k nearest of the vectors in (Q, taken) groups, by exact distances, of equal ones the first."""
        inside = self.gallery.view(-1, _GROUP, queries.shape[1])[groups].flatten(1, 2)
        places = (groups[:, :, None] * _GROUP + torch.arange(_GROUP, device=groups.device)).flatten(1)
        exact = torch.linalg.vector_norm(inside.sub_(queries[:, None]), dim=2)
        exact = exact.square() / 2 if self.measure == "cosine" else exact
        exact = exact.masked_fill(places >= self.count, torch.inf)
        if leave_out is not None:
            exact = exact.masked_fill(places == leave_out, torch.inf)
        order = exact.argsort(dim=1, stable=True)[:, : min(self.k, self.count)]
        return exact.gather(1, order), places.gather(1, order)

    def _nearest_groups(self, queries: Tensor) -> Tensor:
        """The groups of the smallest minima, (Q, taken): as many nearest vectors lie in these, and in no others."""
        if self.scratch.shape[:1] != queries.shape[:1]:
            self.scratch = queries.new_empty(len(queries), _BLOCK)
            self.least = queries.new_empty(len(queries), self.blocks, _BLOCK // _GROUP)
        for number, (vectors, squares) in enumerate(zip(self.moved, self.squares, strict=True)):
            torch.addmm(squares, queries, vectors.T, alpha=-2, out=self.scratch)  # |a - b|^2 - |a|^2, sorted alike
            torch.amin(self.scratch.view(len(queries), _GROUP, -1), dim=1, out=self.least[:, number])
        least = self.least.flatten(1)
        width = least.shape[1] // _WIDE
        if width <= self.taken:
            return least.topk(self.taken, largest=False, sorted=False).indices
        wide = least.view(len(queries), _WIDE, width).amin(dim=1).topk(self.taken, largest=False, sorted=False).indices
        columns = (wide[:, :, None] + width * torch.arange(_WIDE, device=wide.device)).flatten(1)
        chosen = least.gather(1, columns).topk(self.taken, largest=False, sorted=False).indices
        return columns.gather(1, chosen)
