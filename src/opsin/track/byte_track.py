"""ByteTrack: detections of low scores are not thrown away; they are matched last, with tracks that would be lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from opsin.track.affinity import fused, iou
from opsin.track.motion import ConstantVelocity, RatioHeightFilter
from opsin.track.online import Detections, Integers, OnlineTracker, unmatched

Floats = NDArray[np.float64]

_SECOND_IOU = 0.5  # of a match with a detection of low score: the authors' code, 1 - 0.5


class ByteTrack(OnlineTracker):
    """Multi-object tracking by associating every detection box (Zhang et al. 2022, arXiv 2110.06864).

    Algorithm 1 as it is printed: all tracks meet the detections of high score first, whatever is left of them those of
    low score. high: the least score of the first round. low: of the second. new: of a detection that may begin a track.
    max_age: frames that a track lives on without a detection. min_affinity: IoU times score of a match in the first
    round. A track is given from its second detection on, which must have a high score and come in the next frame; in a
    sequence's first frame at once. That product and that rule are of the authors' code.
    """

    name = "byte_track"
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {
        "high": (0.3, 0.8),
        "new": (0.4, 0.9),
        "max_age": (5, 60),
        "min_affinity": (0.05, 0.5),
    }

    def __init__(
        self,
        *,
        high: float = 0.6,
        low: float = 0.1,
        new: float = 0.7,
        max_age: int = 30,
        min_affinity: float = 0.2,
        frame_rate: float = 1.0,
    ) -> None:
        self.high, self.low, self.new = high, low, new
        self.max_age, self.min_affinity = max_age, min_affinity
        self.filter = self.create_filter()
        super().__init__(
            self.filter,
            frame_rate,
            confirmed=np.empty(0, np.bool_),
            lost=np.empty(0, np.bool_),
        )

    def create_filter(self) -> ConstantVelocity:
        """The filter of this tracker."""
        return RatioHeightFilter()

    def rest(self, state: Floats, lost: NDArray[np.bool_]) -> None:
        """Stop what should not go on while a track is lost, as the authors' code does: the height."""
        state[1, 3, lost] = 0.0

    def affinity(self, overlap: Floats, seen: Detections, columns: Integers) -> Floats:
        """Of all tracks and the detections of high score, `columns`. overlap: their IoU (N, C)."""
        return fused(overlap, seen.scores[columns])

    def step(self, seen: Detections, elapsed: float) -> tuple[NDArray[Any], Floats]:
        """As `OnlineTracker.step`."""
        tracks = self.tracks
        if tracks["lost"].any():
            self.rest(tracks["state"], tracks["lost"])
        self.filter.predict(tracks["state"], elapsed)
        overlap = iou(self.filter.boxes(tracks["state"]), seen.boxes)
        high = np.flatnonzero(seen.scores >= self.high)
        of_high = overlap if len(high) == len(seen) else overlap[:, high]
        first = self.match("high scores", self.affinity(of_high, seen, high), self.min_affinity, seen, columns=high)
        self.observe(first, seen)
        low = np.flatnonzero((seen.scores >= self.low) & (seen.scores < self.high))
        if len(low):
            behind = np.flatnonzero(tracks["confirmed"] & self.missed())
            second = self.match("low scores", overlap[np.ix_(behind, low)], _SECOND_IOU, seen, behind, low)
            self.observe(second, seen)
        tracks["confirmed"][first.rows] = True
        tracks["lost"] = missed = self.missed()
        self.keep((tracks["confirmed"] | ~missed) & self.alive(self.max_age))
        left = unmatched(first, len(seen), high)
        fresh = left[seen.scores[left] >= self.new]
        self.begin(fresh, seen, confirmed=np.full(len(fresh), self.num_frames == 1))
        tracks = self.tracks
        return tracks["confirmed"] & ~self.missed(), self.filter.boxes(tracks["state"])
