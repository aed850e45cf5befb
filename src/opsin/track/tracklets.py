"""Hierarchical linking: detections to short tracks that are sure, these to longer ones, over wider and wider gaps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from opsin.track.batch import BatchTracker, identities
from opsin.track.flow import FlowNetwork, solve
from opsin.track.network_flow import pairs_apart
from opsin.track.tracks import NOBODY, Tracks

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_ENDS = 12  # detections at either end of a tracklet by which it is known how it moves
_NOISE = 0.1  # standard deviation of a detection's centre as a share of its sides
_SPEED = 0.1  # of a velocity, a frame, before anything is known of it, likewise
_SIZE = 0.15  # standard deviation of the logarithm of a side across a gap
_NEVER_OUT = -1e4  # what a tracklet costs: none is left out


@dataclass(frozen=True)
class Ends:
    """The two ends of each of T tracklets: frames (T,); centres, velocities a frame and logarithms of sides, (T, 2).

    doubt: (T,) variance of a velocity, as a share of the squared side.
    """

    frames: Integers
    centres: Floats
    velocities: Floats
    logs: Floats
    doubt: Floats


class Tracklets(BatchTracker):
    """Robust tracking by hierarchical association of detection responses (Huang, Wu and Nevatia 2008), levels 1 and 2.

    min_score, min_length, fill, max_fill, smooth: see `opsin.track.batch.BatchTracker`. sure: the least IoU of two
    detections of neighbouring frames that begin a tracklet. ahead: by how much it must exceed that of every other pair
    that either of them is in. max_gap: missing frames that the last level leaps over; each level leaps four times as
    far as the one before. position: standard deviation of where a tracklet goes on, as a share of its sides. drift:
    what each frame of a gap adds to it. missed: what a missing frame costs. border: what the beginning and the end of
    a track cost, each. A level links tracklets as the cheapest flow through them; motion is compared in both
    directions, as in the paper's equation 7. There is no level of scene knowledge.
    """

    name = "tracklets"
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {
        "min_score": (0.0, 0.7),
        "min_length": (1, 15),
        "sure": (0.2, 0.8),
        "ahead": (0.0, 0.5),
        "max_gap": (4, 100),
        "position": (0.05, 0.6),
        "drift": (0.0, 0.2),
        "missed": (0.0, 0.5),
        "border": (1.0, 10.0),
    }

    def __init__(
        self,
        *,
        min_score: float = 0.0,
        min_length: int = 5,
        sure: float = 0.5,
        ahead: float = 0.2,
        max_gap: int = 40,
        position: float = 0.2,
        drift: float = 0.04,
        missed: float = 0.05,
        border: float = 3.0,
        fill: str = "linear",
        max_fill: int = 40,
        smooth: bool = True,
    ) -> None:
        super().__init__(min_score, min_length, fill, max_fill, smooth)
        self.sure, self.ahead, self.max_gap = sure, ahead, max_gap
        self.position, self.drift, self.missed, self.border = position, drift, missed, border

    def link(self, detections: Tracks) -> Integers:
        """As `BatchTracker.link`."""
        following = self._begin(detections)
        for reach in self._reaches():
            following = self._join(detections, following, reach)
        return following

    def _reaches(self) -> list[int]:
        """Missing frames that each level leaps over at most."""
        found = [0]
        while found[-1] < self.max_gap:
            found.append(min(max(2, 4 * found[-1]), self.max_gap))
        return found

    def _begin(self, detections: Tracks) -> Integers:
        """Level 1: pairs of neighbouring frames that overlap, and that nothing else comes near."""
        one, other = pairs_apart(detections.frames, 1)
        value = _paired_iou(detections.boxes[one], detections.boxes[other])
        worth = value >= min(self.sure, self.ahead)  # what is below can stand in nobody's way
        one, other, value = one[worth], other[worth], value[worth]
        rivals = np.maximum(_best_other(one, value, len(detections)), _best_other(other, value, len(detections)))
        made = (value >= self.sure) & (value >= rivals + self.ahead)
        following = np.full(len(detections), NOBODY, np.int64)
        following[one[made]] = other[made]
        return following

    def _join(self, detections: Tracks, following: Integers, reach: int) -> Integers:
        """Level 2: tracklets that end to those that begin at most `reach` missing frames later."""
        ids = identities(following) - 1
        count = int(ids.max(initial=-1)) + 1
        heads, tails, first, last = _ends_of(detections, ids, count)
        order = np.argsort(heads.frames, kind="stable")
        begins = heads.frames[order]
        low = np.searchsorted(begins, tails.frames + 1, "left")
        high = np.searchsorted(begins, tails.frames + reach + 1, "right")
        counts = np.maximum(high - low, 0)
        one = np.repeat(np.arange(count), counts)
        places = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(low, counts)
        other = order[places]
        cost = self._cost(tails, heads, one, other)
        worth = cost < 2.0 * self.border
        number = np.argsort(order)  # tracklets in order of time, as a network wants them
        network = FlowNetwork(
            np.full(count, _NEVER_OUT), number[one[worth]], number[other[worth]], cost[worth], self.border, self.border
        )
        behind, _ = solve(network)
        joined = following.copy()
        linked = np.flatnonzero(behind >= 0)
        joined[last[order[linked]]] = first[order[behind[linked]]]
        return joined

    def _cost(self, tails: Ends, heads: Ends, one: Integers, other: Integers) -> Floats:
        """What it costs to go on from the tail of one tracklet at the head of another, (E,)."""
        gap = (heads.frames[other] - tails.frames[one]).astype(np.float64)
        sides = np.exp(0.5 * (tails.logs[one] + heads.logs[other]))
        way = heads.centres[other] - tails.centres[one]
        away = np.zeros(len(one))
        for velocity, doubt in (
            (tails.velocities[one], tails.doubt[one]),
            (heads.velocities[other], heads.doubt[other]),
        ):
            variance = (self.position + self.drift * gap) ** 2 + doubt * gap**2
            miss = np.square((way - velocity * gap[:, None]) / sides).sum(1)
            away += 0.25 * miss / variance + 0.5 * np.log(variance / self.position**2)
        away += 0.5 * np.square((heads.logs[other] - tails.logs[one]) / _SIZE).sum(1)
        return away + (gap - 1.0) * self.missed


def _paired_iou(one: Floats, other: Floats) -> Floats:
    """IoU of each row of one with the same row of the other, (E,)."""
    sides = np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
    shared = np.prod(np.maximum(sides, 0.0), axis=1)
    areas = np.prod(one[:, 2:] - one[:, :2], axis=1) + np.prod(other[:, 2:] - other[:, :2], axis=1)
    return shared / (areas - shared)


def _best_other(who: Integers, value: Floats, count: int) -> Floats:
    """Of each pair the highest value of another pair with the same `who`, 0 where there is none."""
    best, second = np.zeros(count), np.zeros(count)
    order = np.argsort(value)
    for place in order.tolist():
        second[who[place]], best[who[place]] = best[who[place]], value[place]
    return np.where(value >= best[who], second[who], best[who])


def _ends_of(detections: Tracks, ids: Integers, count: int) -> tuple[Ends, Ends, Integers, Integers]:
    """Heads and tails of tracklets, and the rows of their first and last detections, (T,)."""
    order = np.lexsort((detections.frames, ids))
    bounds = np.searchsorted(ids[order], np.arange(count + 1))
    centres = 0.5 * (detections.boxes[:, :2] + detections.boxes[:, 2:])
    logs = np.log(detections.boxes[:, 2:] - detections.boxes[:, :2])
    ends = []
    for at_end in (False, True):
        rows = []
        for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            rows.append(order[max(start, end - _ENDS) : end] if at_end else order[start : min(end, start + _ENDS)])
        ends.append(_fit(detections.frames, centres, logs, rows, at_end))
    return ends[0], ends[1], order[bounds[:-1]], order[bounds[1:] - 1]


def _fit(frames: Integers, centres: Floats, logs: Floats, rows: list[Integers], at_end: bool) -> Ends:
    """Straight lines through the detections at one end of each tracklet."""
    lengths = np.array([len(one) for one in rows])
    flat = np.concatenate([*rows, np.empty(0, np.int64)]).astype(np.int64)
    starts = np.cumsum(lengths) - lengths
    edge = np.array([one[-1] if at_end else one[0] for one in rows], np.int64)
    time = (frames[flat] - np.repeat(frames[edge], lengths)).astype(np.float64)

    def mean(values: Floats) -> Floats:
        return np.add.reduceat(values, starts, axis=0) / (lengths if values.ndim == 1 else lengths[:, None])

    if not len(rows):
        none = np.empty((0, 2))
        return Ends(edge, none, none, none, np.empty(0))
    middle = mean(time)
    away = time - np.repeat(middle, lengths)
    spread = mean(away * away)
    safe = np.maximum(spread, 1e-9)
    velocity = mean(away[:, None] * centres[flat]) / safe[:, None]
    noise = _NOISE**2 / (safe * lengths)  # of a line's slope; what is known beforehand of velocities keeps it in bounds
    trust = _SPEED**2 / (_SPEED**2 + noise)
    velocity = velocity * trust[:, None]
    centre = mean(centres[flat]) - velocity * middle[:, None]
    return Ends(frames[edge], centre, velocity, mean(logs[flat]), _SPEED**2 * (1.0 - trust))
