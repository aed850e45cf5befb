"""The IoU tracker: with detections good enough, tracking needs neither motion nor appearance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from opsin.track.affinity import iou
from opsin.track.association import in_turn
from opsin.track.online import Detections, OnlineTracker, unmatched


class IouTracker(OnlineTracker):
    """High-speed tracking-by-detection without using image information (Bochinski et al. 2017), algorithm 1.

    low: the least score of a detection that is used. high: the least that the best detection of a track must have.
    min_iou: with the track's last detection. min_length: detections of a track. A track ends in the first frame without
    a detection. The paper looks back from the end of a track; here it is given from where both are fulfilled on.
    """

    name = "iou"
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {
        "low": (0.0, 0.6),
        "high": (0.3, 0.95),
        "min_iou": (0.2, 0.7),
        "min_length": (1, 8),
    }

    def __init__(
        self,
        *,
        low: float = 0.0,
        high: float = 0.5,
        min_iou: float = 0.5,
        min_length: int = 2,
        frame_rate: float = 1.0,
    ) -> None:
        self.low, self.high, self.min_iou, self.min_length = low, high, min_iou, min_length
        columns = {"boxes": np.empty((4, 0)), "best": np.empty(0), "hits": np.empty(0, np.int64)}
        super().__init__(None, frame_rate, **columns)

    def step(self, seen: Detections, elapsed: float) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """As `OnlineTracker.step`."""
        tracks = self.tracks
        used = np.flatnonzero(seen.scores >= self.low)
        overlap = iou(tracks["boxes"], seen.boxes[:, used])
        pairs = self.match("IoU", overlap, self.min_iou, seen, columns=used, rule=in_turn)
        self.observe(pairs, seen)
        tracks["boxes"][:, pairs.rows] = seen.boxes[:, pairs.columns]
        tracks["best"][pairs.rows] = np.maximum(tracks["best"][pairs.rows], seen.scores[pairs.columns])
        tracks["hits"][pairs.rows] += 1
        self.keep(~self.missed())
        left = unmatched(pairs, len(seen), used)
        ones = np.ones(len(left), np.int64)
        self.begin(left, seen, boxes=seen.boxes[:, left], best=seen.scores[left], hits=ones)
        tracks = self.tracks
        return (tracks["hits"] >= self.min_length) & (tracks["best"] >= self.high), tracks["boxes"]
