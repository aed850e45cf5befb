"""Batch trackers that see a sequence as a network of detections: the cheapest flow, and a greedy form of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from opsin.track.batch import BatchTracker
from opsin.track.flow import FlowNetwork, solve, solve_greedily
from opsin.track.tracks import Tracks

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_SIZE = 0.2  # standard deviation of the logarithm of a side, from one detection to the next


class MinCostFlow(BatchTracker):
    """Global data association using network flows (Zhang, Li and Nevatia 2008), solved exactly.

    min_score, min_length, fill, max_fill, smooth: see `opsin.track.batch.BatchTracker`. max_gap: missing frames that a
    link may leap over. position: standard deviation of a centre from one frame to the next as a share of the sides; its
    square grows with the frames between. missed: what each missing frame costs. border: what the beginning and the end
    of a track cost, each. false: the share of detections of score 0.5 that are taken to be false; a detection costs the
    logarithm of its odds of being so. Costs are negative logarithms of probabilities, the paper's equations 10 to 13
    with position and size in the place of colour.
    """

    name = "min_cost_flow"
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {
        "min_score": (0.0, 0.7),
        "min_length": (1, 10),
        "max_gap": (0, 30),
        "position": (0.03, 0.5),
        "missed": (0.1, 3.0),
        "border": (1.0, 15.0),
        "false": (0.1, 0.9),
    }

    def __init__(
        self,
        *,
        min_score: float = 0.0,
        min_length: int = 3,
        max_gap: int = 5,
        position: float = 0.2,
        missed: float = 1.0,
        border: float = 4.0,
        false: float = 0.5,
        fill: str = "linear",
        max_fill: int = 5,
        smooth: bool = True,
    ) -> None:
        super().__init__(min_score, min_length, fill, max_fill, smooth)
        self.max_gap, self.position, self.missed = max_gap, position, missed
        self.border, self.false = border, false

    def network(self, detections: Tracks) -> FlowNetwork:
        """The network of the detections of one class."""
        scores = np.clip(detections.scores, 1e-3, 1.0 - 1e-3)
        prior = np.clip(self.false, 1e-3, 1.0 - 1e-3)
        sources, targets, links = self._links(detections)
        odds = np.log((1.0 - scores) / scores) + np.log(prior / (1.0 - prior))
        return FlowNetwork(odds, sources, targets, links, self.border, self.border)

    def link(self, detections: Tracks) -> Integers:
        """As `BatchTracker.link`."""
        return solve(self.network(detections))[0]

    def _links(self, detections: Tracks) -> tuple[Integers, Integers, Floats]:
        """Pairs of detections, and what a link costs; those that no track would take are left out."""
        frames, boxes = detections.frames, detections.boxes
        centres, sides = 0.5 * (boxes[:, :2] + boxes[:, 2:]), boxes[:, 2:] - boxes[:, :2]
        logs = np.log(sides)
        parts: list[tuple[Integers, Integers, Floats]] = []
        for gap in range(1, self.max_gap + 2):
            one, other = pairs_apart(frames, gap)
            spread = 0.5 * (sides[one] + sides[other]) * self.position
            away = np.square((centres[other] - centres[one]) / spread).sum(1) / gap
            away += np.square((logs[other] - logs[one]) / _SIZE).sum(1) / gap
            cost = 0.5 * away + (gap - 1) * self.missed
            worth = cost < 2.0 * self.border
            parts.append((one[worth], other[worth], cost[worth]))
        sources = np.concatenate([part[0] for part in parts])
        targets = np.concatenate([part[1] for part in parts])
        return sources, targets, np.concatenate([part[2] for part in parts])


class ShortestPaths(MinCostFlow):
    """Globally-optimal greedy algorithms (Pirsiavash et al. 2011): the same network, one shortest path after another.

    The settings are those of `MinCostFlow`.
    """

    name = "shortest_paths"

    def link(self, detections: Tracks) -> Integers:
        """As `BatchTracker.link`."""
        return solve_greedily(self.network(detections))[0]


def pairs_apart(frames: Integers, gap: int) -> tuple[Integers, Integers]:
    """The rows of every two detections that lie `gap` frames apart. frames: (N,), ascending."""
    low, high = np.searchsorted(frames, frames + gap, "left"), np.searchsorted(frames, frames + gap, "right")
    counts = high - low
    one = np.repeat(np.arange(len(frames)), counts)
    other = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(low, counts)
    return one, other
