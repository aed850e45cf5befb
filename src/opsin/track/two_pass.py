"""The same sequence forward and backward: what one direction loses behind an occlusion the other one may keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from opsin.track.batch import BatchTracker
from opsin.track.bot_sort import BotSort
from opsin.track.online import OnlineTracker
from opsin.track.tracks import NOBODY, Tracks

Integers = NDArray[np.int64]


class TwoPass(BatchTracker):
    """BoT-SORT over the frames and over them in reverse: links of both are made first, then those that only one has.

    min_score, min_length, fill, max_fill, smooth: see `opsin.track.batch.BatchTracker`. high, low, new, max_age,
    min_affinity: of each pass, see `opsin.track.byte_track.ByteTrack`. Of links that contradict each other those of
    both directions come before the forward ones, and these before the backward ones.
    """

    name = "two_pass"
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {
        "min_score": (0.0, 0.7),
        "min_length": (1, 15),
        **{name: BotSort.ranges[name] for name in ("high", "new", "max_age", "min_affinity")},
    }

    def __init__(
        self,
        *,
        min_score: float = 0.0,
        min_length: int = 5,
        high: float = 0.6,
        low: float = 0.1,
        new: float = 0.7,
        max_age: int = 30,
        min_affinity: float = 0.2,
        fill: str = "linear",
        max_fill: int = 40,
        smooth: bool = True,
    ) -> None:
        super().__init__(min_score, min_length, fill, max_fill, smooth)
        self.tracker = BotSort(high=high, low=low, new=new, max_age=max_age, min_affinity=min_affinity, camera=False)

    def link(self, detections: Tracks) -> Integers:
        """As `BatchTracker.link`."""
        forward = links(self.tracker, detections)
        backward = links(self.tracker, detections, backward=True)
        found = np.where(forward == backward, forward, NOBODY)
        for one in (forward, backward):
            taken = np.zeros(len(found), np.bool_)
            taken[found[found >= 0]] = True
            free = (found < 0) & (one >= 0)
            free[free] = ~taken[one[free]]
            found = np.where(free, one, found)
        return found


def links(tracker: OnlineTracker, detections: Tracks, *, backward: bool = False) -> Integers:
    """Which detection follows each in a track of an online tracker, (N,) rows, -1 behind the last of a track.

    Tracks that were never given count too. backward: the tracker is shown the frames from the last to the first; the
    links are in order of time all the same.
    """
    tracker.reset()
    found = np.full(len(detections), NOBODY, np.int64)
    newest: dict[int, int] = {}
    frames = np.unique(detections.frames)
    for frame in (frames[::-1] if backward else frames).tolist():
        rows = detections.rows(frame)
        time = (-frame if backward else frame) / tracker.frame_rate
        tracker.follow(detections.boxes[rows], detections.scores[rows], None, time)
        alive: dict[int, int] = {}
        ids, places = tracker.tracks["ids"].tolist(), tracker.tracks["detection"].tolist()
        for who, place in zip(ids, places, strict=True):
            before, row = newest.get(who, NOBODY), rows.start + place
            if place >= 0 and before != NOBODY:
                source, target = (row, before) if backward else (before, row)
                found[source] = target
            alive[who] = row if place >= 0 else before
        newest = alive
    return found
