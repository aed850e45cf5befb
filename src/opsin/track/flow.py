"""The best tracks of a whole sequence as the cheapest flow through a network of its detections."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from opsin.track.tracks import NOBODY

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class FlowNetwork:
    """Detections, and what tracks through them cost; all costs are negative logarithms of odds or probabilities.

    detections: (N,), of taking each; negative for one that is likelier true than false. sources, targets, links:
    (E,) each; what it costs to go on from one detection to a later one. enter, leave: of beginning and ending a track.
    Detections are numbered in order of time.
    """

    detections: Floats
    sources: Integers
    targets: Integers
    links: Floats
    enter: float
    leave: float

    def cost(self, following: Integers, used: NDArray[np.bool_]) -> float:
        """What tracks cost altogether. following: (N,) the next of each, -1 of none. used: (N,) those in a track."""
        keys = self.sources * len(self.detections) + self.targets
        order = np.argsort(keys)
        rows = np.flatnonzero(following >= 0)
        places = np.searchsorted(keys[order], rows * len(self.detections) + following[rows])
        tracks = int(used.sum()) - len(rows)
        links = float(self.links[order][places].sum())
        return float(self.detections[used].sum()) + links + tracks * (self.enter + self.leave)


def solve(network: FlowNetwork) -> tuple[Integers, NDArray[np.bool_]]:
    """The cheapest tracks of all, exactly: the minimum-cost flow of Zhang, Li and Nevatia 2008, section 3.

    With capacities of 1 that flow is an assignment: each detection is given the next one, and itself if it is in no
    track. Beginnings and ends are rows and columns of their own, and may pair off where they are not needed; links that
    cost more than an end and a beginning are never in the best flow and left out. Solved by the shortest augmenting
    paths of Jonker and Volgenant for sparse costs.

    Returns the next detection of each (N,), -1 of none, and whether each is in a track, (N,).
    """
    count = len(network.detections)
    if not count:
        return np.empty(0, np.int64), np.empty(0, np.bool_)
    worth = network.links < network.enter + network.leave
    sources, targets, links = network.sources[worth], network.targets[worth], network.links[worth]
    every = np.arange(count)
    # Rows: what is behind each detection, then beginnings. Columns: what is before each, then ends.
    rows = np.concatenate([sources, every, every, every + count, every + count, targets + count])
    columns = np.concatenate([targets, every, every + count, every, every + count, sources + count])
    zeros = np.zeros(count)
    costs = np.concatenate(
        [
            links + network.detections[targets],
            zeros,  # in no track
            zeros + network.leave,
            network.enter + network.detections,
            zeros,  # neither a beginning nor an end
            np.zeros(len(links)),  # nor where a link stands in the place of both
        ]
    )
    costs += 1.0 - costs.min()  # a matching has as many pairs as rows, so that this changes nothing; 0 would be no edge
    matrix = coo_matrix((costs, (rows, columns)), shape=(2 * count, 2 * count)).tocsr()
    matched_rows, matched = min_weight_full_bipartite_matching(matrix)
    following = np.asarray(matched, np.int64)[np.argsort(matched_rows)][:count]
    used = following != every
    return np.where(used & (following < count), following, NOBODY), used


def solve_greedily(network: FlowNetwork) -> tuple[Integers, NDArray[np.bool_]]:
    """Good tracks, one after the other: the shortest path of what is left, until none has a negative cost.

    The dynamic programme of Pirsiavash, Ramanan and Fowlkes 2011, section 5: no track that was found is ever changed
    again, which is all that keeps it from the optimum. Returns as `solve`.
    """
    return _Paths(network).all()


class _Paths:
    """Shortest paths to each detection, kept up to date while detections are taken out."""

    def __init__(self, network: FlowNetwork) -> None:
        count = len(network.detections)
        order = np.lexsort((network.sources, network.targets))
        self.network = network
        bounds = np.searchsorted(network.targets[order], np.arange(count + 1)).tolist()
        sources, links = network.sources[order].tolist(), network.links[order].tolist()
        self.before = [list(zip(sources[start:end], links[start:end], strict=True)) for start, end in pairwise(bounds)]
        self.behind: list[list[int]] = [[] for _ in range(count)]
        for source, target in zip(network.sources.tolist(), network.targets.tolist(), strict=True):
            self.behind[source].append(target)
        self.own = network.detections.tolist()
        self.total = np.full(count, np.inf)  # of the cheapest track that ends here, without its end
        self.last = [NOBODY] * count
        for place in range(count):
            self._reach(place)

    def _reach(self, place: int) -> bool:
        """Find the cheapest way to a detection anew; whether it changed."""
        best, last = self.network.enter, NOBODY
        for source, link in self.before[place]:
            there = self.total[source] + link
            if there < best:
                best, last = there, source
        best += self.own[place]
        changed = best != self.total[place] or last != self.last[place]
        self.total[place], self.last[place] = best, last
        return bool(changed)

    def all(self) -> tuple[Integers, NDArray[np.bool_]]:
        """Take tracks until none is worth it."""
        count = len(self.own)
        following, used = np.full(count, NOBODY, np.int64), np.zeros(count, np.bool_)
        while count:
            end = int(np.argmin(self.total))
            if not self.total[end] + self.network.leave < 0:
                break
            path = [end]
            while self.last[path[-1]] != NOBODY:
                path.append(self.last[path[-1]])
            for source, target in zip(path[1:], path[:-1], strict=True):
                following[source] = target
            used[path] = True
            self._take_out(path)
        return following, used

    def _take_out(self, path: list[int]) -> None:
        """Detections are used: ways through them must be found anew, in order of time."""
        waiting: list[int] = []
        gone, known = set(path), set[int]()
        for place in path:
            self.total[place], self.last[place] = np.inf, NOBODY
            self.own[place] = np.inf
        stale = [(place, target) for place in path for target in self.behind[place]]
        while stale or waiting:
            for source, target in stale:
                if target not in known and target not in gone and self.last[target] == source:
                    known.add(target)
                    heappush(waiting, target)
            if not waiting:
                break
            place = heappop(waiting)
            known.discard(place)
            stale = [(place, target) for target in self.behind[place]] if self._reach(place) else []
