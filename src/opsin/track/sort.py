"""SORT: a Kalman filter, the overlap of boxes and the Hungarian algorithm, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from opsin.track.affinity import iou
from opsin.track.association import hungarian_then_gate
from opsin.track.motion import AreaRatioFilter
from opsin.track.online import Detections, OnlineTracker, unmatched


class Sort(OnlineTracker):
    """Simple online and realtime tracking (Bewley et al. 2016, arXiv 1602.00763).

    max_age: frames that a track lives on without a detection. min_hits: detections in consecutive frames after its
    first that a track needs before it is given, except in a sequence's first frames. min_iou: of a match.
    """

    name = "sort"
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {
        "max_age": (1, 60),
        "min_hits": (0, 5),
        "min_iou": (0.1, 0.7),
    }

    def __init__(self, *, max_age: int = 1, min_hits: int = 3, min_iou: float = 0.3, frame_rate: float = 1.0) -> None:
        self.max_age, self.min_hits, self.min_iou = max_age, min_hits, min_iou
        self.filter = AreaRatioFilter()
        super().__init__(self.filter, frame_rate, streak=np.empty(0, np.int64))

    def step(self, seen: Detections, elapsed: float) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """As `OnlineTracker.step`."""
        self.filter.predict(self.tracks["state"], elapsed)
        overlap = iou(self.filter.boxes(self.tracks["state"]), seen.boxes)
        pairs = self.match("IoU", overlap, self.min_iou, seen, rule=hungarian_then_gate)
        self.observe(pairs, seen)
        streak = self.tracks["streak"]
        streak += 1
        streak[self.missed()] = 0
        self.begin(unmatched(pairs, len(seen)), seen)
        self.keep(self.alive(self.max_age))
        shown = self.tracks["detection"] >= 0
        if self.num_frames > self.min_hits:
            shown &= self.tracks["streak"] >= self.min_hits
        return shown, self.filter.boxes(self.tracks["state"])
